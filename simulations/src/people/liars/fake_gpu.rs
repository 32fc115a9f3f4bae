//! Lists a device that it does not have. Seen at io.net in 2024: 1.8 million listed GPUs that were none.
//!
//! It may rent one for an hour to be certified with it, once or whenever it is challenged: nothing can tell whose device
//! answered.
//!
//! Or it has one device behind many listings: each says that it has it, and one after the other shows it. At one address the
//! coordinator challenges all of them at one time; nothing ties those at several addresses to each other.
//!
//! Gains: jobs of consumers who pay for speed. Against it: proofs of hardware, certificates, and consumers who ask only
//! verified providers; challenges that come again; consumers' own records of how fast somebody is.

use serde::{Deserialize, Serialize};

use crate::people::conduct::{ProofPlay, ProviderConduct};
use crate::people::devices::DeviceClass;

/// Lists a device that it does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FakeGpu {
    /// What it says it has.
    pub claims: DeviceClass,
    /// How many percent of a proof's work it leaves out, to be quicker than it is.
    #[serde(default)]
    pub skips_percent: u32,
    /// For how many seconds it rents what it claims, to be certified with it.
    #[serde(default)]
    pub rents_for_s: u64,
    /// How many times it does so: once to begin with, or again whenever it is challenged.
    #[serde(default = "once")]
    pub rents_times: u32,
    /// For how many seconds in turn each of the group has the only device that all of them list, to be shown with it; 0: each has
    /// its own.
    #[serde(default)]
    pub turn_s: u64,
    /// Whether all of the group are at one address, where the coordinator challenges them at one time.
    #[serde(default)]
    pub one_address: bool,
}

const fn once() -> u32 {
    1
}

impl ProviderConduct for FakeGpu {
    fn claimed_device(&self, _own: DeviceClass) -> DeviceClass {
        self.claims
    }

    fn rents_for_s(&self, times_before: u32) -> u64 {
        match times_before < self.rents_times {
            true => self.rents_for_s,
            false => 0,
        }
    }

    fn turn_s(&self) -> u64 {
        self.turn_s
    }

    fn is_at_one_address(&self) -> bool {
        self.one_address
    }

    fn lists_expired_certificates(&self) -> bool {
        true
    }

    fn answers_challenge(&self, _claimed: DeviceClass) -> ProofPlay {
        match self.skips_percent {
            0 => ProofPlay::ComputesAll,
            percent => ProofPlay::SkipsPercent(percent.min(100)),
        }
    }
}
