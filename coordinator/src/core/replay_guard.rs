//! Which caller tokens were used already. Remembers each until it would be refused for its age, and bounds both
//! how many it remembers in all and how many of one account.
//!
//! A restart forgets what was used. That is harmless: every call of the coordinator's interface is idempotent, so
//! a token of the minute before repeats only what was done.

use std::collections::BTreeMap;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::jws::Claims as _;
use gristmill_protocol::tokens::CallerClaims;
use thiserror::Error;

/// Most tokens that are remembered unless told otherwise: about 100 MB, some 10,000 calls a second.
pub const REMEMBERED_MAX: usize = 1_000_000;
/// Most of them that one account may have unless told otherwise: some 60 calls a second.
pub const REMEMBERED_PER_ACCOUNT_MAX: u32 = 6_000;

/// Why a valid token was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// It was used before.
    #[error("the token was used before; sign a new one for each call")]
    Replayed,
    /// The account calls too often.
    #[error("the account made more than {limit} calls within a token's life; call less often")]
    TooManyCalls {
        /// How many calls it may make within the life of a token.
        limit: u32,
    },
    /// All accounts together call too often.
    #[error("the coordinator is answering as many calls as it can; try again in a few seconds")]
    Full,
}

/// A used token: when it can be forgotten, and a digest of its issuer and `jti`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Used {
    forget_at_ms: u64,
    digest: [u8; 16],
}

/// The used tokens of the last minute and a half.
#[derive(Clone, Debug)]
pub struct ReplayGuard {
    used: BTreeMap<Used, AccountId>,
    calls: BTreeMap<AccountId, u32>,
    remembered_max: usize,
    per_account_max: u32,
}

impl Default for ReplayGuard {
    fn default() -> Self {
        Self::new(REMEMBERED_MAX, REMEMBERED_PER_ACCOUNT_MAX)
    }
}

impl ReplayGuard {
    /// A guard that remembers at most so many tokens, and of one account at most `per_account_max`.
    #[must_use]
    pub const fn new(remembered_max: usize, per_account_max: u32) -> Self {
        Self {
            used: BTreeMap::new(),
            calls: BTreeMap::new(),
            remembered_max,
            per_account_max,
        }
    }

    /// Admits a verified token once.
    ///
    /// # Errors
    /// [`ReplayError`] where it was used before or a bound is reached.
    pub fn admit(&mut self, claims: &CallerClaims, now_ms: u64) -> Result<(), ReplayError> {
        self.forget_expired(now_ms);
        let used = Used {
            // The token is refused as expired from this moment on.
            forget_at_ms: claims
                .exp
                .saturating_mul(1_000)
                .saturating_add(CallerClaims::LEEWAY_MS),
            digest: digest(claims),
        };
        if self.used.contains_key(&used) {
            return Err(ReplayError::Replayed);
        }
        let calls = self.calls.get(&claims.iss).copied().unwrap_or(0);
        if calls >= self.per_account_max {
            return Err(ReplayError::TooManyCalls {
                limit: self.per_account_max,
            });
        }
        if self.used.len() >= self.remembered_max {
            return Err(ReplayError::Full);
        }
        self.used.insert(used, claims.iss);
        self.calls.insert(claims.iss, calls + 1);
        Ok(())
    }

    fn forget_expired(&mut self, now_ms: u64) {
        while let Some(oldest) = self.used.first_entry() {
            if oldest.key().forget_at_ms > now_ms {
                return;
            }
            let account = oldest.remove();
            match self.calls.get_mut(&account) {
                Some(calls) if *calls > 1 => *calls -= 1,
                _ => {
                    self.calls.remove(&account);
                }
            }
        }
    }

    /// How many tokens are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.used.len()
    }
}

fn digest(claims: &CallerClaims) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("gristmill/used-caller-token/1");
    hasher.update(claims.iss.public_key());
    hasher.update(claims.jti.as_bytes());
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::jws::TokenError;
    use gristmill_protocol::tokens::Call;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;
    const CALL: Call<'_> = Call {
        method: "GET",
        path: "/v1/account",
        body: b"",
    };

    fn keypair(byte: u8) -> Keypair {
        Keypair::from_secret(&[byte; 32])
    }

    fn token(account: u8, nonce: u8, now_ms: u64) -> String {
        CALL.sign(&keypair(account), keypair(99).account(), [nonce; 16], now_ms)
    }

    fn claims(account: u8, nonce: u8, now_ms: u64) -> CallerClaims {
        verify(&token(account, nonce, now_ms), now_ms).unwrap()
    }

    fn verify(token: &str, now_ms: u64) -> Result<CallerClaims, TokenError> {
        CALL.verify(token, &keypair(99).account(), now_ms)
    }

    #[test]
    fn a_token_is_admitted_once_for_as_long_as_it_would_verify() {
        let token = token(1, 7, NOW);
        let mut guard = ReplayGuard::default();
        assert_eq!(guard.admit(&verify(&token, NOW).unwrap(), NOW), Ok(()));
        for later_ms in [0, 1, 59_999, 60_000, 89_999] {
            let claims = verify(&token, NOW + later_ms).unwrap();
            assert_eq!(
                guard.admit(&claims, NOW + later_ms),
                Err(ReplayError::Replayed),
                "{later_ms}"
            );
        }
        assert!(verify(&token, NOW + 90_000).is_err());
        guard.admit(&claims(2, 1, NOW + 90_000), NOW + 90_000).unwrap();
        assert_eq!(guard.remembered(), 1);
    }

    #[test]
    fn the_same_nonce_of_another_account_is_another_token() {
        let mut guard = ReplayGuard::default();
        assert_eq!(guard.admit(&claims(1, 7, NOW), NOW), Ok(()));
        assert_eq!(guard.admit(&claims(2, 7, NOW), NOW), Ok(()));
    }

    #[test]
    fn both_bounds_hold_and_heal() {
        let mut guard = ReplayGuard::new(3, 2);
        guard.admit(&claims(1, 1, NOW), NOW).unwrap();
        guard.admit(&claims(1, 2, NOW), NOW).unwrap();
        assert_eq!(
            guard.admit(&claims(1, 3, NOW), NOW),
            Err(ReplayError::TooManyCalls { limit: 2 })
        );
        guard.admit(&claims(2, 1, NOW), NOW).unwrap();
        assert_eq!(guard.admit(&claims(3, 1, NOW), NOW), Err(ReplayError::Full));
        let later = NOW + 90_000;
        assert_eq!(guard.admit(&claims(1, 3, later), later), Ok(()));
        assert_eq!((guard.remembered(), guard.calls.len()), (1, 1));
    }

    proptest! {
        #[test]
        fn no_token_is_ever_admitted_twice(calls in proptest::collection::vec((0u8..3, 0u8..6, 0u64..40), 1..60)) {
            let mut guard = ReplayGuard::new(16, 8);
            let tokens: Vec<Vec<String>> =
                (0..3).map(|account| (0..6).map(|nonce| token(account + 1, nonce, NOW)).collect()).collect();
            let (mut admitted, mut now_ms) = (std::collections::BTreeSet::new(), NOW);
            for (account, nonce, seconds) in calls {
                now_ms += seconds * 1_000;
                let text = &tokens[usize::from(account)][usize::from(nonce)];
                let Ok(claims) = verify(text, now_ms) else { continue };
                if guard.admit(&claims, now_ms).is_ok() {
                    prop_assert!(admitted.insert((account, nonce)));
                }
                prop_assert!(guard.remembered() <= 16);
                let counted: u32 = guard.calls.values().sum();
                prop_assert_eq!(usize::try_from(counted).unwrap(), guard.remembered());
            }
        }
    }
}
