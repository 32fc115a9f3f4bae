//! What happens to challenges, and what follows from it.

use gristmill_protocol::hardware::{
    ChallengeOpened, ChallengeRequest, ChallengeStep, HardwareCertificate, NextStep, RenewalAnswer,
};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChallengeId;
use thiserror::Error;

use super::certified::CertifiedRecord;
use super::link::{AddressKey, DeviceKey};
use super::refusal::Refusal;
use crate::challenge::transcript::Transcript;
use crate::challenge::verifier::verify;

/// The driver's name for a call that waits for an answer. Each call has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody asks for a challenge.
    Open {
        /// The call to answer.
        call: CallId,
        /// Who asks: the signer of the call.
        caller: AccountId,
        /// From where.
        address: Option<AddressKey>,
        /// What is asked.
        request: ChallengeRequest,
    },
    /// Somebody took a step.
    Step {
        /// The call to answer.
        call: CallId,
        /// Who: the signer of the call.
        caller: AccountId,
        /// Of which challenge.
        challenge: ChallengeId,
        /// Which step.
        step: ChallengeStep,
    },
    /// Somebody uploaded a proof.
    Proof {
        /// The call to answer.
        call: CallId,
        /// Who: the signer of the call.
        caller: AccountId,
        /// Of which challenge.
        challenge: ChallengeId,
        /// Its bytes.
        proof: Vec<u8>,
    },
    /// A proof was verified.
    Verified {
        /// Of which challenge.
        challenge: ChallengeId,
        /// What is wrong with it, if anything.
        verdict: Result<(), Refusal>,
    },
    /// Somebody asks for a later expiry of a certificate that was checked.
    Renew {
        /// The call to answer.
        call: CallId,
        /// Who asks: the signer of the call.
        caller: AccountId,
        /// What the certificate says.
        certificate: Box<HardwareCertificate>,
    },
    /// What [`Effect::Keep`] asked for was done, or could not be.
    Kept {
        /// What was to be kept, with its text.
        record: Box<CertifiedRecord>,
        /// Who waits for it, where it is a renewal.
        renewal: Option<CallId>,
        /// Whether it is kept.
        is_kept: bool,
    },
    /// Time went by.
    Tick,
}

/// What follows.
#[derive(Clone, Debug)]
pub enum Effect {
    /// A call is answered.
    Answer {
        /// Which.
        call: CallId,
        /// With what.
        answer: Box<Result<Answer, Problem>>,
    },
    /// A proof is to be verified, then [`Event::Verified`] follows.
    Verify(Box<VerificationTask>),
    /// A certificate is to be signed and kept, then [`Event::Kept`] follows.
    Keep {
        /// What is kept; its text is made by signing.
        record: Box<CertifiedRecord>,
        /// Who waits for it, where it is a renewal.
        renewal: Option<CallId>,
    },
    /// What is kept of a certified device changed: it is not to be renewed. Nobody waits for it.
    Update(Box<CertifiedRecord>),
    /// What is kept of a device is no longer needed.
    Forget(DeviceKey),
    /// A challenge ended; for the log and the metrics.
    Over {
        /// Which.
        challenge: ChallengeId,
        /// Whose.
        account: AccountId,
        /// What was shown, or why nothing was.
        outcome: Result<Shown, Refusal>,
    },
}

/// The answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Event::Open`].
    Opened(ChallengeOpened),
    /// To [`Event::Step`] and [`Event::Proof`].
    Next(NextStep),
    /// To [`Event::Renew`].
    Renewal(RenewalAnswer),
}

/// What was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// The score.
    pub score: u64,
}

/// Why a call changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// The claim is out of bounds.
    #[error("{0}")]
    Claim(String),
    /// There is no such challenge of the caller.
    #[error("there is no such open challenge; ask for a new one")]
    NotFound,
    /// The name belongs to a challenge with other content, or a commitment was given before with other content.
    #[error("{0}")]
    Conflict(&'static str),
    /// The step is not the one that is next.
    #[error("this step is not next; send the step 'wait' to hear what is")]
    OutOfTurn,
    /// A commitment has another number of roots than there are rounds.
    #[error("the commitment has {actual} roots, {expected} are needed")]
    Roots {
        /// How many it has.
        actual: usize,
        /// How many it should have.
        expected: u32,
    },
    /// Another account's certificate.
    #[error("the certificate is of another account")]
    OtherAccount,
    /// Another account has a certificate for the UUID.
    #[error("another account holds a certificate for a device with this UUID; it has to expire first")]
    UuidTaken,
    /// The caller, or its address, has too many challenges, or begins them too often.
    #[error("{who} has too many challenges, or begins them too often; try again later")]
    TooMany {
        /// Who.
        who: &'static str,
    },
    /// All callers together have too many challenges.
    #[error("the coordinator challenges as many devices as it can; try again later")]
    Full,
    /// The coordinator could not keep the certificate.
    #[error("the coordinator could not keep the certificate; try again later")]
    NotKept,
}

/// Everything that the verifier of a proof needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationTask {
    /// What was said before the proof.
    pub transcript: Transcript,
    /// The proof.
    pub proof: Vec<u8>,
}

impl VerificationTask {
    /// Verifies the proof. This takes a processor for up to seconds: drivers do it on threads of their own.
    ///
    /// # Errors
    /// [`Refusal::Proof`] with what is wrong.
    pub fn run(&self) -> Result<(), Refusal> {
        match verify(&self.transcript, &self.proof) {
            Ok(_) => Ok(()),
            Err(error) => Err(Refusal::Proof {
                reason: error.to_string(),
            }),
        }
    }
}
