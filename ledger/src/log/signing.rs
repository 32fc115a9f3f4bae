//! Whose key signs for a log, and how it came to be that one.

use std::fmt;

use gristmill_protocol::handover::{HandoverError, SignedHandover};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_protocol::log::note::VerifierKey;

/// The key that signs for a log, and the hand-overs that lead to it.
#[derive(Clone)]
pub struct LogSigner {
    pub(super) keypair: Keypair,
    pub(super) keys: LogKeys,
    verifier_key: VerifierKey,
    handovers: Vec<SignedHandover>,
}

impl LogSigner {
    /// The signer of the log that `first` signed first for, to whose key these hand-overs lead.
    ///
    /// # Errors
    /// [`HandoverError`] where they lead to another key.
    pub fn new(
        keypair: Keypair,
        first: AccountId,
        handovers: Vec<SignedHandover>,
    ) -> Result<Self, HandoverError> {
        let old = keypair.account();
        let mut keys = LogKeys::new(first);
        for handover in &handovers {
            keys.follow(handover)?;
        }
        let known = handovers
            .last()
            .map_or(first, |last| last.by_old.content_unchecked().new);
        let verifier_key = keys.keys().iter().find(|key| *key.account() == old);
        match verifier_key.cloned().filter(|_| known == old) {
            None => Err(HandoverError::NotFromKnown { old, known }),
            Some(verifier_key) => Ok(Self {
                keypair,
                keys,
                verifier_key,
                handovers,
            }),
        }
    }

    /// The key that signs now, with its secret.
    #[must_use]
    pub const fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// The account that signs now.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.keypair.account()
    }

    /// The key that signs now, as C2SP signed-note writes it.
    #[must_use]
    pub const fn verifier_key(&self) -> &VerifierKey {
        &self.verifier_key
    }

    /// The hand-overs from the first key to this one, in order.
    #[must_use]
    pub fn handovers(&self) -> &[SignedHandover] {
        &self.handovers
    }
}

impl fmt::Debug for LogSigner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LogSigner")
            .field("origin", &self.keys.origin())
            .field("account", &self.account())
            .finish_non_exhaustive()
    }
}
