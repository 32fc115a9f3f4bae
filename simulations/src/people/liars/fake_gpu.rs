//! Lists a device that it does not have. Seen at io.net in 2024: 1.8 million listed GPUs that were none.
//!
//! It may rent one for an hour to be certified with it, once or whenever it is challenged: nothing can tell whose device
//! answered.
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

    fn answers_challenge(&self, _claimed: DeviceClass) -> ProofPlay {
        match self.skips_percent {
            0 => ProofPlay::ComputesAll,
            percent => ProofPlay::SkipsPercent(percent.min(100)),
        }
    }
}
