//! No honest peer passes on an invalid listing, an old one, or more of one provider than one in five seconds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Place;
use crate::engine::{Breach, NodeId};

/// The rule's name in breaches.
pub const RULE: &str = "forwarding";
/// The least time between two listings of one provider that are passed on, in milliseconds: 5 s with 1 s of tolerance.
pub const INTERVAL_MIN_MS: u64 = 4_000;
/// How far ahead of a peer's clock a listing may be issued, in milliseconds.
pub const AHEAD_MAX_MS: u64 = 60_000;

/// What a listing truly is, as the world that made it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Whose listing.
    pub publisher: NodeId,
    /// Its sequence.
    pub sequence: u64,
    /// When it was issued, by its publisher's clock, in Unix milliseconds.
    pub issued_at_ms: u64,
    /// For how long it holds, in milliseconds; zero for a farewell.
    pub ttl_ms: u64,
    /// Whether its signature and its bounds hold.
    pub is_valid: bool,
}

/// What one honest peer has passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// The newest listing of each provider: its sequence, and when the last one that was no farewell was passed on.
    newest: BTreeMap<NodeId, (u64, u64)>,
}

impl Forwarding {
    /// The peer passes on a listing, at this time of its own clock in Unix milliseconds.
    ///
    /// # Errors
    /// The breach, where an honest peer would not.
    pub fn passed(&mut self, listing: &Passed, clock_ms: u64, place: Place) -> Result<(), Breach> {
        let Passed {
            publisher,
            sequence,
            issued_at_ms,
            ..
        } = *listing;
        let newest = self.newest.get(&publisher).copied();
        let wrong = match newest {
            _ if !listing.is_valid => Some("is invalid".to_owned()),
            _ if issued_at_ms > clock_ms.saturating_add(AHEAD_MAX_MS) => {
                Some(format!("is issued {} ms ahead", issued_at_ms - clock_ms))
            }
            _ if listing.ttl_ms > 0 && issued_at_ms.saturating_add(listing.ttl_ms) <= clock_ms => {
                Some("has expired".to_owned())
            }
            Some((newest, _)) if sequence <= newest => Some(format!("is not newer than {newest}")),
            // A farewell may come at once.
            Some((_, before_ms))
                if listing.ttl_ms > 0 && clock_ms < before_ms.saturating_add(INTERVAL_MIN_MS) =>
            {
                Some(format!(
                    "comes {} ms after the one before",
                    clock_ms.saturating_sub(before_ms)
                ))
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            let message = format!("listing {sequence} of node {publisher} was passed on although it {wrong}");
            return Err(place.breach(RULE, message));
        }
        let passed_ms = match newest {
            Some((_, before_ms)) if listing.ttl_ms == 0 => before_ms,
            _ => clock_ms,
        };
        self.newest.insert(publisher, (sequence, passed_ms));
        Ok(())
    }
}

/// A consumer asks by a listing, at this time of its own clock in Unix milliseconds.
///
/// # Errors
/// The breach, where the listing is invalid or its time is over.
pub fn chosen(listing: &Passed, clock_ms: u64, place: Place) -> Result<(), Breach> {
    let is_over = listing.issued_at_ms.saturating_add(listing.ttl_ms) <= clock_ms;
    let wrong = match listing.is_valid {
        false => "is invalid",
        true if is_over => "has expired",
        true => return Ok(()),
    };
    let message = format!(
        "listing {} of node {} was chosen although it {wrong}",
        listing.sequence, listing.publisher
    );
    Err(place.breach(RULE, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK_MS: u64 = 1_800_000_000_000;

    fn listing(sequence: u64, issued_after_ms: u64) -> Passed {
        Passed {
            publisher: 7,
            sequence,
            issued_at_ms: CLOCK_MS + issued_after_ms,
            ttl_ms: 60_000,
            is_valid: true,
        }
    }

    #[test]
    fn an_honest_peer_passes_on_what_is_new_and_valid() {
        let mut forwarding = Forwarding::default();
        let mut pass = |listing: Passed, after_ms| {
            let place = Place { node: 1, at_us: 5 };
            forwarding
                .passed(&listing, CLOCK_MS + after_ms, place)
                .map_err(|breach| breach.message)
        };
        let has = |result: Result<(), String>, words: &str| {
            let message = result.unwrap_err();
            assert!(message.contains(words), "{message}");
        };
        assert_eq!(pass(listing(1, 0), 10), Ok(()));
        assert_eq!(pass(listing(2, 4_000), 4_010), Ok(()));
        has(pass(listing(2, 9_000), 9_000), "not newer");
        has(pass(listing(3, 7_999), 8_009), "3999 ms after");
        let forged = Passed {
            is_valid: false,
            ..listing(4, 20_000)
        };
        has(pass(forged, 20_000), "invalid");
        has(pass(listing(5, 90_001), 30_000), "ahead");
        has(pass(listing(5, 30_000), 90_000), "expired");
        let farewell = Passed {
            ttl_ms: 0,
            ..listing(6, 4_001)
        };
        assert_eq!(pass(farewell, 4_002), Ok(()));
    }

    #[test]
    fn a_consumer_asks_by_what_holds() {
        let place = Place { node: 1, at_us: 5 };
        assert_eq!(chosen(&listing(1, 0), CLOCK_MS + 59_999, place), Ok(()));
        assert!(chosen(&listing(1, 0), CLOCK_MS + 60_000, place).is_err());
        let forged = Passed {
            is_valid: false,
            ..listing(1, 0)
        };
        assert!(chosen(&forged, CLOCK_MS, place).is_err());
    }
}
