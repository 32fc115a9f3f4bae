//! What is known of the hardware, for listings and for the owner.

use gristmill_benchmark::upkeep::Standing;
use gristmill_protocol::hardware::HardwareCertificate;
use gristmill_protocol::listing::CERTIFICATES_MAX;
use serde::Serialize;
use serde_json::json;

use crate::settings::HardwareSettings;

/// How the hardware of a node stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HardwareState {
    /// What is being done.
    pub(crate) activity: Activity,
    /// The certificates that the coordinator has given, the one with the most memory first, and their tokens.
    pub(crate) certificates: Vec<(String, HardwareCertificate)>,
    /// What was in the way the last time, where anything was.
    pub(crate) failure: Option<String>,
}

/// What is being done about the hardware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Activity {
    /// The owner wants none of it.
    #[default]
    Off,
    /// Nothing at the moment.
    Waiting,
    /// The devices are being shown to the coordinator.
    Showing(Vec<Phase>),
}

/// How far one device is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Phase {
    /// Which device.
    pub(crate) device: String,
    /// What it does.
    pub(crate) doing: String,
    /// How much of that is done, in percent.
    pub(crate) percent: u64,
}

fn holds(certificate: &HardwareCertificate, now_ms: u64) -> bool {
    now_ms < certificate.exp.saturating_mul(1_000)
}

/// Certificates as listings carry them: those with the most memory first, as many as fit.
pub(super) fn held(standings: &[Standing]) -> Vec<(String, HardwareCertificate)> {
    let mut held: Vec<_> = standings
        .iter()
        .map(|standing| (standing.token.clone(), standing.certificate.clone()))
        .collect();
    held.sort_by_key(|(_, certificate)| {
        (
            std::cmp::Reverse(certificate.memory_bytes),
            certificate.device.index,
        )
    });
    held.truncate(CERTIFICATES_MAX);
    held
}

impl HardwareState {
    /// Before anything was done.
    pub(crate) fn of(settings: &HardwareSettings) -> Self {
        let activity = match settings.enabled {
            true => Activity::Waiting,
            false => Activity::Off,
        };
        Self {
            activity,
            ..Self::default()
        }
    }

    /// What the owner is shown.
    pub(crate) fn shown(&self, now_ms: u64) -> serde_json::Value {
        let certificates: Vec<_> = self
            .certificates
            .iter()
            .filter(|(_, certificate)| holds(certificate, now_ms))
            .map(|(_, certificate)| {
                json!({
                    "device": certificate.device.name,
                    "vendor": certificate.device.vendor,
                    "kind": certificate.device.kind,
                    "index": certificate.device.index,
                    "memory_bytes": certificate.memory_bytes,
                    "throughput": certificate.throughput,
                    "score": certificate.score,
                    "method": certificate.method,
                    "shown_at": certificate.shown_at,
                    "expires_at": certificate.exp,
                    "fingerprint_changed": certificate.fingerprint_changed,
                })
            })
            .collect();
        let (activity, devices) = match &self.activity {
            Activity::Off => ("off", &[][..]),
            Activity::Waiting => ("waiting", &[][..]),
            Activity::Showing(devices) => ("showing", &devices[..]),
        };
        json!({
            "verified": !certificates.is_empty(),
            "activity": activity,
            "devices": devices,
            "certificates": certificates,
            "failure": self.failure,
        })
    }

    /// The tokens of the certificates that hold now.
    pub(crate) fn tokens(&self, now_ms: u64) -> Vec<String> {
        let living = self
            .certificates
            .iter()
            .filter(|(_, certificate)| holds(certificate, now_ms));
        living.map(|(token, _)| token.clone()).collect()
    }
}
