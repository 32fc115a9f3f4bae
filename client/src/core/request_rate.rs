//! How often a program may ask: the generic cell rate algorithm (ITU-T I.371, "virtual scheduling"), with one number
//! per key. A minute's requests may come at once, and after that one by one.

use std::collections::BTreeMap;

use crate::core::keys::KeyId;

/// A minute in microseconds.
const MINUTE_US: u64 = 60_000_000;

/// The rates of all keys. Time is counted in microseconds from any fixed moment and never runs backwards.
#[derive(Clone, Debug, Default)]
pub struct RequestRates {
    /// When the last request would be due at the key's steady rate.
    due_us: BTreeMap<KeyId, u64>,
}

impl RequestRates {
    /// Takes note of a request.
    ///
    /// # Errors
    /// In how many seconds, at least one, the next one is welcome, where this is one too many.
    pub fn admit(&mut self, key: KeyId, per_minute: u32, now_us: u64) -> Result<(), u32> {
        let apart_us = MINUTE_US / u64::from(per_minute.max(1));
        let due_us = self.due_us.get(&key).copied().unwrap_or(0).max(now_us);
        let early_us = (due_us + apart_us).saturating_sub(now_us.saturating_add(MINUTE_US));
        if early_us > 0 {
            return Err(u32::try_from(early_us.div_ceil(1_000_000)).unwrap_or(u32::MAX));
        }
        self.due_us.insert(key, due_us + apart_us);
        Ok(())
    }

    /// Forgets the keys that are not among these.
    pub fn retain(&mut self, is_known: impl Fn(&KeyId) -> bool) {
        self.due_us.retain(|key, _| is_known(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::keys::KeyDigest;
    use proptest::prelude::*;

    fn key(text: &str) -> KeyId {
        KeyDigest::of(text.as_bytes()).id()
    }

    #[test]
    fn a_minutes_requests_may_come_at_once_and_then_one_by_one() {
        let mut rates = RequestRates::default();
        for _ in 0..3 {
            assert_eq!(rates.admit(key("a"), 3, 5), Ok(()));
        }
        assert_eq!(rates.admit(key("a"), 3, 5), Err(20));
        assert_eq!(rates.admit(key("b"), 3, 5), Ok(()), "another key has its own");
        assert_eq!(rates.admit(key("a"), 3, 19_500_005), Err(1));
        assert_eq!(rates.admit(key("a"), 3, 20_000_005), Ok(()));
        assert_eq!(rates.admit(key("a"), 3, 20_000_005), Err(20));
        assert_eq!(rates.admit(key("c"), 1, 0), Ok(()));
        assert_eq!(rates.admit(key("c"), 1, 0), Err(60));
    }

    proptest! {
        /// In no minute are there more than twice the requests: those saved up, and those that came due.
        #[test]
        fn the_rate_is_kept(per_minute in 1u32..50, waits in proptest::collection::vec(0u64..5_000_000, 1..300)) {
            let (mut rates, mut now_us, mut taken) = (RequestRates::default(), 0, Vec::new());
            for wait in waits {
                now_us += wait;
                match rates.admit(key("a"), per_minute, now_us) {
                    Ok(()) => taken.push(now_us),
                    Err(seconds) => {
                        let later = now_us + u64::from(seconds) * 1_000_000;
                        prop_assert_eq!(rates.clone().admit(key("a"), per_minute, later), Ok(()), "Retry-After holds");
                    }
                }
            }
            for begin in &taken {
                let within = taken.iter().filter(|at| (*begin..begin + MINUTE_US).contains(at)).count();
                prop_assert!(within <= 2 * per_minute as usize);
            }
        }
    }
}
