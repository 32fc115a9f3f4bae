//! Proofs of hardware in the market: the coordinator's shipped state machine of challenges, and provers whose devices are
//! numbers.
//!
//! [`Desk`] runs `gristmill_benchmark::session::Challenges`, that is: parameters, deadlines, groups, openings, certificates
//! and the time of the next challenge are the shipped code's. Only the products of matrices are spared. What the verifier
//! would have found is known without them: the machine draws which units are opened, and the [`Prover`] which of them it
//! left out, so a proof fails where an opened unit was left out. `docs/PROOF.md` shows that a unit that was left out is not
//! guessed.

mod desk;
mod prover;

use gristmill_protocol::hardware::{
    HardwareCertificate, HardwareClaim, HardwareDigest, HardwareKind, HardwareStatus, Precision, Throughput,
};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::listing::Listing;
use gristmill_protocol::log::checkpoint::LogKeys;
use serde::{Deserialize, Serialize};

pub use desk::{Call, Desk, DeskConfig, Outcome, Told};
pub use prover::{Prover, Work};

use super::devices::{DeviceClass, DeviceFigures};
use super::popularity::ModelSize;

/// Which share of the data sheet's rate a multiplication reaches, in percent. An assumption: honest claims are what is
/// reached, so it scales all alike.
const REACHED_PERCENT: u64 = 70;
/// How many bytes a call or an answer takes on the wire, beside what is listed in it: JSON, token and HTTP.
const CALL_BYTES: u32 = 900;
/// Bytes of a root or of a unit's position, as JSON.
const LISTED_BYTES: u32 = 67;

/// What a provider says to the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProverCall {
    /// Asks how the devices of its account stand.
    Status(AccountId),
    /// Asks for a challenge.
    Open {
        /// Who asks.
        account: AccountId,
        /// From which IPv4 address, as a number.
        address: u32,
        /// What it claims to have.
        claimed: DeviceClass,
    },
    /// Heard the nonce.
    Echo,
    /// The matrices are ready.
    Ready,
    /// Asks what is next.
    Wait,
    /// The rounds of a stage are done.
    Stage(u32),
    /// What stayed in memory is folded.
    Residency,
    /// The proof, and what the world knows of it.
    Proof(Truth),
    /// Asks for a later expiry of its certificate.
    Renew,
}

/// What was truly done for a proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Truth {
    /// Percent of all units for which something else than the product was committed.
    pub skipped_percent: u32,
    /// Resident results that were folded from what was kept or computed anew; the others are made up.
    pub resident_results: u32,
}

/// What the coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeskAnswer {
    /// Send [`ProverCall::Echo`] at once.
    Echo,
    /// Make the matrices, then send [`ProverCall::Ready`].
    Prepare,
    /// Ask again with [`ProverCall::Wait`].
    Wait,
    /// Do the rounds of a stage, then send [`ProverCall::Stage`].
    Stage {
        /// Which.
        stage: u32,
        /// How many rounds it has, each of which is committed to.
        rounds: u32,
        /// In which precision.
        precision: Precision,
        /// How much it is to compute.
        multiply_adds: u64,
        /// By when, in milliseconds from now.
        within_ms: u64,
    },
    /// Fold what stayed, then send [`ProverCall::Residency`].
    Residency {
        /// How many results.
        results: u32,
        /// In which precision they were computed.
        precision: Precision,
        /// Bytes of each.
        result_bytes: u64,
        /// What it took to compute each.
        result_multiply_adds: u64,
        /// By when, in milliseconds from now.
        within_ms: u64,
    },
    /// Send [`ProverCall::Proof`].
    Open,
    /// How the devices stand.
    Standing(HardwareStatus),
    /// Here is the certificate, as a token.
    Certified(String),
    /// There is none, and why: the shipped machine's own code for programs, or why nothing was begun.
    Refused(String),
    /// The hardware has to be shown again.
    ChallengeRequired,
}

impl ProverCall {
    /// How many bytes it is on the wire, where a stage has so many rounds.
    #[must_use]
    pub const fn bytes(&self, rounds: u32) -> u32 {
        match self {
            Self::Stage(_) | Self::Residency => CALL_BYTES + rounds * LISTED_BYTES,
            // About what PROOF.md measures for 542 openings.
            Self::Proof(_) => 1_500_000,
            _ => CALL_BYTES,
        }
    }
}

impl DeskAnswer {
    /// How many bytes it is on the wire.
    #[must_use]
    pub const fn bytes(&self) -> u32 {
        match self {
            Self::Open => CALL_BYTES + 542 * LISTED_BYTES,
            // The token of a certificate.
            Self::Standing(_) | Self::Certified(_) => CALL_BYTES + 900,
            _ => CALL_BYTES,
        }
    }
}

/// Whether a listing holds a certificate of its provider's hardware, by this coordinator, that has not expired: found anew from
/// the tokens, to hold against what a board found.
#[must_use]
pub fn is_certified(listing: &Listing, coordinator: AccountId, now_ms: u64) -> bool {
    let keys = LogKeys::new(coordinator);
    listing.certificates.iter().any(|token| {
        HardwareCertificate::open(token, &keys, now_ms).is_ok_and(|certificate| {
            certificate.sub == listing.provider && now_ms < certificate.exp.saturating_mul(1_000)
        })
    })
}

/// The multiply-adds per second that a device reaches in a precision.
#[must_use]
pub fn reached(figures: &DeviceFigures, precision: Precision) -> u64 {
    let times = match precision {
        Precision::F32 => 1,
        Precision::Tf32 => (figures.bf16_times / 2).max(1),
        Precision::Bf16 => figures.bf16_times,
    };
    figures.giga_multiply_adds_per_s * times * 1_000_000_000 / 100 * REACHED_PERCENT
}

/// The bytes per second that a device reads of its memory: answering with a model reads all of its weights for each token.
#[must_use]
pub const fn read_per_s(figures: &DeviceFigures) -> u64 {
    figures.output_tokens_per_s * ModelSize::Small.weights_bytes()
}

/// What a provider claims that lists this device.
#[must_use]
pub fn claim_of(class: DeviceClass) -> HardwareClaim {
    let figures = class.figures();
    let (kind, vendor) = match class {
        DeviceClass::Processor => (HardwareKind::Cpu, "any"),
        DeviceClass::M1 | DeviceClass::M3Max | DeviceClass::M2Ultra => (HardwareKind::Metal, "Apple"),
        _ => (HardwareKind::Cuda, "NVIDIA"),
    };
    // Who shows less than its fastest units is credited with less memory.
    let precisions: &[Precision] = match kind {
        HardwareKind::Cuda => &[Precision::F32, Precision::Tf32, Precision::Bf16],
        _ => &[Precision::F32],
    };
    HardwareClaim {
        kind,
        index: 0,
        name: figures.name.to_owned(),
        vendor: vendor.to_owned(),
        uuid: None,
        driver: None,
        memory_bytes: figures.memory_bytes,
        throughput: precisions
            .iter()
            .map(|&precision| Throughput {
                precision,
                multiply_adds_per_second: reached(&figures, precision),
            })
            .collect(),
        fingerprint: HardwareDigest::from_bytes([0; 32]),
    }
}

#[cfg(test)]
mod tests;
