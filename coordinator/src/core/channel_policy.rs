//! Which channels a coordinator opens.

use gristmill_protocol::coordinator_api::OpenChannelRequest;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use thiserror::Error;

use crate::settings::CHANNEL_LIFE_MIN_MS;

/// The bounds of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelPolicy {
    /// The largest limit.
    pub limit_max: Credits,
    /// The longest life in milliseconds.
    pub life_max_ms: u64,
}

/// Why a channel is not opened, whatever the balance.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// A channel that holds nothing.
    #[error("limit is 0; a channel must hold something")]
    NoLimit,
    /// A channel that holds too much.
    #[error(
        "limit is {limit} credits, at most {max} are allowed; open a smaller channel and another one later"
    )]
    LimitTooLarge {
        /// What was asked for.
        limit: Credits,
        /// What is allowed.
        max: Credits,
    },
    /// A channel that lives too long or not long enough.
    #[error("life_ms is {life_ms}; {min_ms} to {max_ms} are allowed")]
    LifeOutOfBounds {
        /// What was asked for.
        life_ms: u64,
        /// The shortest.
        min_ms: u64,
        /// The longest.
        max_ms: u64,
    },
    /// A channel to oneself.
    #[error("the provider is the caller itself; a channel pays somebody else")]
    OwnProvider,
}

impl ChannelPolicy {
    /// Checks a request, and says until when its channel can be redeemed (Unix milliseconds).
    ///
    /// # Errors
    /// [`PolicyError`] naming the bound that it breaks.
    pub fn redeem_by_ms(
        &self,
        request: &OpenChannelRequest,
        consumer: &AccountId,
        now_ms: u64,
    ) -> Result<u64, PolicyError> {
        if request.provider == *consumer {
            return Err(PolicyError::OwnProvider);
        }
        if request.limit.is_zero() {
            return Err(PolicyError::NoLimit);
        }
        if request.limit > self.limit_max {
            return Err(PolicyError::LimitTooLarge {
                limit: request.limit,
                max: self.limit_max,
            });
        }
        let (life_ms, min_ms, max_ms) = (request.life_ms, CHANNEL_LIFE_MIN_MS, self.life_max_ms);
        if !(min_ms..=max_ms).contains(&life_ms) {
            return Err(PolicyError::LifeOutOfBounds {
                life_ms,
                min_ms,
                max_ms,
            });
        }
        Ok(now_ms.saturating_add(life_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::ids::ChannelId;

    const POLICY: ChannelPolicy = ChannelPolicy {
        limit_max: Credits::micro(1_000),
        life_max_ms: 60_000,
    };
    const CONSUMER: AccountId = AccountId::from_public_key([1; 32]);

    fn request(limit: u32, life_ms: u64, provider: u8) -> OpenChannelRequest {
        OpenChannelRequest {
            channel: ChannelId::from_bytes([5; 16]),
            provider: AccountId::from_public_key([provider; 32]),
            limit: Credits::micro(limit),
            life_ms,
        }
    }

    #[test]
    fn bounds_hold_at_n_and_break_at_n_plus_1() {
        let check =
            |limit, life_ms, provider| POLICY.redeem_by_ms(&request(limit, life_ms, provider), &CONSUMER, 10);
        assert_eq!(check(1_000, 60_000, 2), Ok(60_010));
        assert_eq!(check(1, CHANNEL_LIFE_MIN_MS, 2), Ok(CHANNEL_LIFE_MIN_MS + 10));
        assert!(matches!(
            check(1_001, 60_000, 2),
            Err(PolicyError::LimitTooLarge { .. })
        ));
        assert!(matches!(
            check(1_000, 60_001, 2),
            Err(PolicyError::LifeOutOfBounds { .. })
        ));
        assert!(matches!(
            check(1, CHANNEL_LIFE_MIN_MS - 1, 2),
            Err(PolicyError::LifeOutOfBounds { .. })
        ));
        assert_eq!(check(0, 60_000, 2), Err(PolicyError::NoLimit));
        assert_eq!(check(1, 60_000, 1), Err(PolicyError::OwnProvider));
    }
}
