//! Why a challenge ends without a certificate.

use gristmill_protocol::hardware::NextStep;
use thiserror::Error;

/// Why a challenge ended without a certificate. The messages go to the provider.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The echoes took too long.
    #[error("the echoes did not come back in time; check the connection to the coordinator and try again")]
    Echo,
    /// The matrices took too long.
    #[error("the matrices were not ready in time; try again while the machine has nothing else to do")]
    Prepare,
    /// A stage took too long.
    #[error(
        "stage {stage} took more than {allowed_ms} ms, a quarter more than at the claimed throughput; claim what the \
         device reaches now"
    )]
    SlowerThanClaimed {
        /// Which stage, from 0.
        stage: usize,
        /// What was allowed, in milliseconds.
        allowed_ms: u64,
    },
    /// The fold of what stayed in memory took too long.
    #[error("the results were not folded within {allowed_ms} ms; claim less memory, so that they stay in it")]
    ResidencyLate {
        /// What was allowed, in milliseconds.
        allowed_ms: u64,
    },
    /// Less memory was shown than was to be.
    #[error(
        "{shown_bytes} bytes of memory were shown of {asked_bytes} that were asked for: the rest could have been \
         computed anew; claim less memory, and every precision that the device has"
    )]
    MemoryNotShown {
        /// What was shown.
        shown_bytes: u64,
        /// What was asked for.
        asked_bytes: u64,
    },
    /// The proof did not come.
    #[error("the proof did not come in time; try again")]
    ProofLate,
    /// The proof is wrong.
    #[error("the proof does not hold: {reason}")]
    Proof {
        /// What the verifier says.
        reason: String,
    },
    /// Devices that belong together were not shown together.
    #[error(
        "{missing} certified devices of the same owner or at the same address did not take part, or failed; challenge them at \
         the same time, or try again when their certificates have expired"
    )]
    Together {
        /// How many were not shown.
        missing: usize,
    },
    /// Another account has a certificate for the UUID.
    #[error("another account holds a certificate for a device with this UUID; it has to expire first")]
    UuidTaken,
    /// The same device began another challenge.
    #[error("the same device began another challenge")]
    Replaced,
    /// The certificate could not be kept, or the verifier could not run.
    #[error("the coordinator could not finish the challenge; try again later")]
    Unavailable,
}

impl Refusal {
    /// Its name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Echo | Self::Prepare | Self::ProofLate | Self::ResidencyLate { .. } => "late",
            Self::SlowerThanClaimed { .. } => "slower_than_claimed",
            Self::MemoryNotShown { .. } => "memory_not_shown",
            Self::Proof { .. } => "proof",
            Self::Together { .. } => "together",
            Self::UuidTaken => "uuid_taken",
            Self::Replaced => "replaced",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether it speaks against the hardware, so that an older certificate of it is not renewed.
    #[must_use]
    pub const fn is_a_failure(&self) -> bool {
        !matches!(self, Self::Together { .. } | Self::Replaced | Self::Unavailable)
    }

    /// As the answer to a step.
    #[must_use]
    pub fn step(&self) -> NextStep {
        NextStep::Refused {
            code: self.code().to_owned(),
            message: self.to_string(),
        }
    }
}
