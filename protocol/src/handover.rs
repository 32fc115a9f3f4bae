//! The hand-over of a coordinator's signing key: from the old key to a new one, agreed by both and kept in the ledger.

use bincode::{Decode, Encode};
use thiserror::Error;

use crate::identity::{AccountId, Signed, SignedContent};

/// "From now on `new` signs for this log." Signed by both keys, so that nobody can hand over to a key that its owner
/// does not know of, or take over a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct KeyHandover {
    /// The first key of the log, which names it for ever.
    pub log: AccountId,
    /// Who signed until now.
    pub old: AccountId,
    /// Who signs from now on.
    pub new: AccountId,
    /// When the two agreed, Unix time in milliseconds.
    pub agreed_at_ms: u64,
}

impl SignedContent for KeyHandover {
    const NAME: &'static str = "key-handover";
    const VERSION: u16 = 1;
}

/// A hand-over with the signatures of both keys.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SignedHandover {
    /// As the old key signed it.
    pub by_old: Signed<KeyHandover>,
    /// As the new key signed it.
    pub by_new: Signed<KeyHandover>,
}

/// Why a hand-over does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandoverError {
    /// A signature does not hold, or is another key's.
    #[error("the hand-over is not signed by both keys")]
    Signature,
    /// The two keys signed different things.
    #[error("the two keys signed different hand-overs")]
    Different,
    /// It hands over from a key to itself.
    #[error("the new key is the old one; make a new key first")]
    SameKey,
    /// It does not follow from the key that is known.
    #[error("the hand-over is from {old}, but {known} signs")]
    NotFromKnown {
        /// Who hands over.
        old: AccountId,
        /// Who signs as far as is known.
        known: AccountId,
    },
    /// It is of another log.
    #[error("the hand-over is of the log of {actual}, not of {expected}")]
    OtherLog {
        /// The log it names.
        actual: AccountId,
        /// The log it should name.
        expected: AccountId,
    },
}

impl SignedHandover {
    /// What both keys agreed on, after checking both signatures.
    ///
    /// # Errors
    /// [`HandoverError`] that says why it does not count.
    pub fn verify(&self) -> Result<&KeyHandover, HandoverError> {
        let agreed = self.by_old.content_unchecked();
        if agreed != self.by_new.content_unchecked() {
            return Err(HandoverError::Different);
        }
        if agreed.old == agreed.new {
            return Err(HandoverError::SameKey);
        }
        let verify = |signed: &Signed<KeyHandover>, signer| signed.verify_from(signer).map(|_| ());
        verify(&self.by_old, &agreed.old)
            .and_then(|()| verify(&self.by_new, &agreed.new))
            .map_err(|_| HandoverError::Signature)?;
        Ok(agreed)
    }
}

/// Follows hand-overs in order from the first key of a log to the one that signs now.
///
/// # Errors
/// [`HandoverError`] at the first that does not follow.
pub fn follow<'a>(
    log: &AccountId,
    handovers: impl IntoIterator<Item = &'a SignedHandover>,
) -> Result<AccountId, HandoverError> {
    let mut known = *log;
    for handover in handovers {
        let agreed = handover.verify()?;
        if agreed.log != *log {
            return Err(HandoverError::OtherLog {
                actual: agreed.log,
                expected: *log,
            });
        }
        if agreed.old != known {
            return Err(HandoverError::NotFromKnown {
                old: agreed.old,
                known,
            });
        }
        known = agreed.new;
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keypair;

    fn keypair(name: u8) -> Keypair {
        Keypair::from_secret(&[name; 32])
    }

    fn handover(log: u8, old: u8, new: u8) -> SignedHandover {
        let agreed = KeyHandover {
            log: keypair(log).account(),
            old: keypair(old).account(),
            new: keypair(new).account(),
            agreed_at_ms: 5,
        };
        SignedHandover {
            by_old: keypair(old).sign(agreed),
            by_new: keypair(new).sign(agreed),
        }
    }

    #[test]
    fn a_chain_leads_to_the_key_that_signs_now() {
        let log = keypair(1).account();
        assert_eq!(follow(&log, []), Ok(log));
        let chain = [handover(1, 1, 2), handover(1, 2, 3)];
        assert_eq!(follow(&log, &chain), Ok(keypair(3).account()));
        assert_eq!(
            follow(&log, &[handover(1, 2, 3)]),
            Err(HandoverError::NotFromKnown {
                old: keypair(2).account(),
                known: log
            })
        );
        assert_eq!(
            follow(&log, &[handover(2, 1, 2)]),
            Err(HandoverError::OtherLog {
                actual: keypair(2).account(),
                expected: log
            })
        );
    }

    #[test]
    fn both_keys_must_have_signed_the_same() {
        let good = handover(1, 1, 2);
        assert!(good.verify().is_ok());
        let other = handover(1, 1, 3);
        for (by_old, by_new, error) in [
            (&good.by_old, &other.by_new, HandoverError::Different),
            (&good.by_new, &good.by_new, HandoverError::Signature),
            (&good.by_old, &good.by_old, HandoverError::Signature),
        ] {
            let mixed = SignedHandover {
                by_old: by_old.clone(),
                by_new: by_new.clone(),
            };
            assert_eq!(mixed.verify().map(|_| ()), Err(error));
        }
        assert_eq!(
            handover(1, 1, 1).verify().map(|_| ()),
            Err(HandoverError::SameKey)
        );
    }
}
