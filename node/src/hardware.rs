//! Shows the hardware of this machine to the coordinator and keeps the certificates that it gives, as
//! [`HardwarePlan`] says. Jobs come first: see [`Slots::lend`](crate::slots::Slots::lend).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gristmill_benchmark::upkeep::{AttemptEnd, DeviceKey, Duty, HardwarePlan, HardwareStep, Standing, duty};
use gristmill_protocol::hardware::{HardwareCertificate, HardwareStatus, RenewalAnswer};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::jws::TokenError;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_transport::Clock;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::known_coordinator::KnownCoordinator;
use crate::slots::{Lent, Slots};

mod machine;
mod view;

pub(crate) use machine::{Machine, budget, shown};
pub(crate) use view::{Activity, HardwareState, Phase};

/// The longest sleep: clocks can be set.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Why the hardware could not be shown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum HardwareError {
    /// A job came.
    #[error("a job came first; it is tried again when none runs")]
    Interrupted,
    /// Jobs run.
    #[error("jobs run; the devices are shown when none does")]
    Busy,
    /// The coordinator knows no such calls, or issues no certificates.
    #[error("the coordinator issues no certificates of hardware, so consumers see this node's as unverified")]
    NoSuchCall,
    /// The coordinator said no, or could not be reached.
    #[error("the coordinator: {0}")]
    Coordinator(String),
    /// A device did not do it.
    #[error("{device}: {reason}")]
    Device {
        /// Which device.
        device: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate that is none of this account.
    #[error("the coordinator gave a certificate that does not hold: {0}")]
    Certificate(String),
}

/// What the runner needs of the machine and of the coordinator.
#[async_trait]
pub(crate) trait Showing: Send + Sync {
    /// The devices that can be shown.
    async fn devices(&self) -> BTreeSet<DeviceKey>;

    /// How they stand with the coordinator.
    async fn status(&self) -> Result<HardwareStatus, HardwareError>;

    /// Asks for a later expiry.
    async fn renew(&self, certificate: &str) -> Result<RenewalAnswer, HardwareError>;

    /// Shows all devices at once, and gives a certificate or what went wrong for each. Breaks off soon after `lent` is
    /// wanted back or `stop` fires, and returns only when no device computes any more.
    async fn show(
        &self,
        lent: &Lent,
        stop: &CancellationToken,
        state: &watch::Sender<HardwareState>,
    ) -> Vec<Result<String, HardwareError>>;
}

/// Runs the plan.
pub(crate) struct HardwareRunner {
    pub(crate) account: AccountId,
    pub(crate) clock: Clock,
    pub(crate) slots: Arc<Slots>,
    pub(crate) coordinator: KnownCoordinator,
    pub(crate) showing: Arc<dyn Showing>,
    pub(crate) state: watch::Sender<HardwareState>,
    pub(crate) random: ChaCha8Rng,
}

impl HardwareRunner {
    /// Keeps the certificates up to date until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut plan = HardwarePlan::default();
        let mut jobs = self.slots.changes();
        let mut told = None;
        while !stop.is_cancelled() {
            let has_coordinator = self.coordinator.borrow().is_some();
            let now_ms = (self.clock)();
            let wait = match plan.step(self.slots.jobs(), has_coordinator, now_ms) {
                HardwareStep::Begin => {
                    let ended = self.attempt(&stop).await;
                    if stop.is_cancelled() {
                        return;
                    }
                    let end = self.note(&ended, &mut told);
                    plan.holds(self.state.borrow().certificates.iter().map(|(_, held)| held));
                    plan.ended(end, (self.clock)(), &mut self.random);
                    continue;
                }
                HardwareStep::WaitUntil(at_ms) => Duration::from_millis(at_ms.saturating_sub(now_ms)),
                HardwareStep::WaitForChange => LOOK_AGAIN,
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait.min(LOOK_AGAIN)) => {}
                Ok(()) = jobs.changed() => {}
                Ok(()) = self.coordinator.changed() => {}
            }
        }
    }

    /// Takes note of how an attempt ended. What is in the way is said once, until it is something else.
    fn note(&self, ended: &Result<(), HardwareError>, told: &mut Option<HardwareError>) -> AttemptEnd {
        let failure = ended.as_ref().err().cloned();
        self.state.send_modify(|state| {
            state.activity = Activity::Waiting;
            state.failure = failure.as_ref().map(ToString::to_string);
        });
        let end = match &failure {
            None => AttemptEnd::Done,
            Some(HardwareError::Interrupted) => return AttemptEnd::Interrupted,
            Some(HardwareError::Busy) => return AttemptEnd::Busy,
            Some(HardwareError::NoSuchCall) => AttemptEnd::NoSuchCall,
            Some(_) => AttemptEnd::Failed,
        };
        if failure != *told {
            match &failure {
                None => tracing::info!("the hardware is verified again"),
                Some(error @ HardwareError::NoSuchCall) => tracing::info!(%error, "hardware not verified"),
                Some(error) => tracing::warn!(%error, "hardware not verified; trying again later"),
            }
            *told = failure;
        }
        end
    }

    /// Looks at how the devices stand, and does what is due.
    async fn attempt(&self, stop: &CancellationToken) -> Result<(), HardwareError> {
        let looked = async {
            let devices = self.showing.devices().await;
            let standings = self.standings(self.showing.status().await?);
            Ok::<_, HardwareError>((devices, standings))
        };
        let (devices, mut standings) = tokio::select! {
            () = stop.cancelled() => return Err(HardwareError::Interrupted),
            looked = looked => looked?,
        };
        self.hold(&standings);
        match duty(&devices, &standings, (self.clock)()) {
            Duty::Nothing => Ok(()),
            Duty::Show => self.show(stop).await,
            Duty::Renew(places) => {
                for place in places {
                    match self.showing.renew(&standings[place].token).await? {
                        RenewalAnswer::Renewed { certificate } => {
                            standings[place] = self.standing(certificate, false)?;
                            self.hold(&standings);
                        }
                        RenewalAnswer::ChallengeRequired => return self.show(stop).await,
                    }
                }
                Ok(())
            }
        }
    }

    /// Shows all devices, unless a job is there.
    async fn show(&self, stop: &CancellationToken) -> Result<(), HardwareError> {
        let lent = self.slots.lend().ok_or(HardwareError::Busy)?;
        self.state
            .send_modify(|state| state.activity = Activity::Showing(vec![]));
        let shown = self.showing.show(&lent, stop, &self.state).await;
        drop(lent);
        let mut standings = Vec::new();
        let mut failure = None;
        for device in shown {
            match device.and_then(|certificate| self.standing(certificate, false)) {
                Ok(standing) => {
                    let (certificate, device) = (&standing.certificate, &standing.certificate.device);
                    tracing::info!(
                        device = device.name,
                        memory_bytes = certificate.memory_bytes,
                        score = certificate.score,
                        fingerprint_changed = certificate.fingerprint_changed,
                        "hardware verified"
                    );
                    standings.push(standing);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if !standings.is_empty() {
            self.hold(&standings);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Those certificates that hold, as the coordinator remembers them.
    fn standings(&self, status: HardwareStatus) -> Vec<Standing> {
        let standing = |certificate, challenge_wanted| match self.standing(certificate, challenge_wanted) {
            Ok(standing) => Some(standing),
            Err(error) => {
                tracing::debug!(%error, "a certificate of the coordinator's list is left out");
                None
            }
        };
        status
            .devices
            .into_iter()
            .filter_map(|device| standing(device.certificate, device.challenge_wanted))
            .collect()
    }

    /// Checks a certificate as consumers will.
    fn standing(&self, token: String, challenge_wanted: bool) -> Result<Standing, HardwareError> {
        let wrong = |reason: String| HardwareError::Certificate(reason);
        let keys: Option<Arc<LogKeys>> = self.coordinator.borrow().clone();
        let opened = keys.map_or(Err(TokenError::Signature), |keys| {
            HardwareCertificate::open(&token, &keys, (self.clock)())
        });
        let certificate = opened.map_err(|error| wrong(error.to_string()))?;
        if certificate.sub != self.account {
            return Err(wrong(format!("it is about {}", certificate.sub)));
        }
        Ok(Standing {
            token,
            certificate,
            challenge_wanted,
        })
    }

    /// Puts certificates into the next listing.
    fn hold(&self, standings: &[Standing]) {
        let held = view::held(standings);
        self.state.send_if_modified(|state| {
            let is_news = state.certificates != held;
            state.certificates = held;
            is_news
        });
    }
}

#[cfg(test)]
mod tests;
