//! What is counted of challenges of hardware.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counts of challenges, as providers see them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwareTally {
    /// Challenges that providers asked for.
    pub challenges: u64,
    /// Those of them that were broken off because a job came.
    pub interrupted: u64,
    /// Certificates that were given.
    pub given: u64,
    /// Certificates whose expiry was put off.
    pub renewed: u64,
    /// Refusals, by the coordinator's code.
    pub refused: BTreeMap<String, u64>,
    /// Refusals of providers that have what they claim.
    pub honest_refused: u64,
    /// Microseconds from asking for a challenge to its end, of all providers.
    pub shown_us: u64,
    /// Seconds for which liars rented what they claim.
    pub rented_s: u64,
}

impl HardwareTally {
    /// Counts a refusal.
    pub fn refused(&mut self, code: &str, is_honest: bool) {
        *self.refused.entry(code.to_owned()).or_insert(0) += 1;
        self.honest_refused += u64::from(is_honest);
    }

    /// Adds what another shard counted.
    pub fn merge(&mut self, other: &Self) {
        for (code, count) in &other.refused {
            *self.refused.entry(code.clone()).or_insert(0) += count;
        }
        for (one, more) in [
            (&mut self.challenges, other.challenges),
            (&mut self.interrupted, other.interrupted),
            (&mut self.given, other.given),
            (&mut self.renewed, other.renewed),
            (&mut self.honest_refused, other.honest_refused),
            (&mut self.shown_us, other.shown_us),
            (&mut self.rented_s, other.rented_s),
        ] {
            *one += more;
        }
    }
}
