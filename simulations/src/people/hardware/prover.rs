//! A provider that is asked to show its hardware: how long its device takes, and what it leaves out.

use gristmill_protocol::hardware::Precision;
use serde::{Deserialize, Serialize};

use super::{DeskAnswer, ProverCall, Truth, reached, read_per_s};
use crate::engine::Random;
use crate::people::conduct::ProofPlay;
use crate::people::devices::DeviceClass;

/// Which share of its memory a device can keep results in, in percent.
const KEPT_PERCENT: u64 = 95;
/// How long it takes to make the matrices, in microseconds.
const PREPARE_US: u64 = 2_000_000;
/// How much longer work takes by chance, at most, in parts of a thousand.
const LONGER_PER_MILLE: u64 = 30;

/// A call and how long the device works before it can be sent, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// How long.
    pub takes_us: u64,
    /// How many roots are in the call.
    pub roots: u32,
    /// What is said then.
    pub call: ProverCall,
}

/// A prover: the device that it truly has, what it claims, and how it plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prover {
    has: DeviceClass,
    play: ProofPlay,
    truth: Truth,
}

impl Prover {
    /// A prover that has a device and plays so.
    #[must_use]
    pub fn new(has: DeviceClass, play: ProofPlay) -> Self {
        Self {
            has,
            play,
            truth: Truth::default(),
        }
    }

    /// It has another device from now on.
    pub const fn computes_with(&mut self, has: DeviceClass) {
        self.has = has;
    }

    /// What it does because of an answer; none: nothing more.
    pub fn hear(&mut self, answer: &DeskAnswer, random: &mut Random) -> Option<Work> {
        let at_once = |call| {
            let (takes_us, roots) = (0, 0);
            Some(Work {
                takes_us,
                roots,
                call,
            })
        };
        match *answer {
            DeskAnswer::Echo => at_once(ProverCall::Echo),
            DeskAnswer::Prepare => Some(Work {
                takes_us: PREPARE_US,
                roots: 0,
                call: ProverCall::Ready,
            }),
            DeskAnswer::Wait => at_once(ProverCall::Wait),
            DeskAnswer::Stage { .. } | DeskAnswer::Residency { .. } if self.play == ProofPlay::Silent => None,
            DeskAnswer::Stage {
                stage,
                rounds,
                precision,
                multiply_adds,
                ..
            } => {
                let done = multiply_adds / 100 * u64::from(100 - self.skips());
                Some(Work {
                    takes_us: self.computes_us(done, precision, random),
                    roots: rounds,
                    call: ProverCall::Stage(stage),
                })
            }
            DeskAnswer::Residency {
                results,
                precision,
                result_bytes,
                result_multiply_adds,
                ..
            } => Some(Work {
                takes_us: self.folds_us(results, precision, (result_bytes, result_multiply_adds), random),
                roots: results,
                call: ProverCall::Residency,
            }),
            DeskAnswer::Open => at_once(ProverCall::Proof(self.truth)),
            DeskAnswer::Standing(_)
            | DeskAnswer::Certified(_)
            | DeskAnswer::Refused(_)
            | DeskAnswer::ChallengeRequired => None,
        }
    }

    fn skips(&self) -> u32 {
        match self.play {
            ProofPlay::SkipsPercent(percent) => percent.min(100),
            ProofPlay::ComputesAll | ProofPlay::Silent => 0,
        }
    }

    /// Folds what stayed in memory. Who computes all computes anew what did not fit; who leaves work out makes it up.
    fn folds_us(
        &mut self,
        results: u32,
        precision: Precision,
        (result_bytes, result_multiply_adds): (u64, u64),
        random: &mut Random,
    ) -> u64 {
        let figures = self.has.figures();
        let fit = figures.memory_bytes / 100 * KEPT_PERCENT / result_bytes.max(1);
        let kept = u32::try_from(fit).unwrap_or(u32::MAX).min(results);
        let anew = match self.skips() {
            0 => results - kept,
            _ => 0,
        };
        self.truth = Truth {
            skipped_percent: self.skips(),
            resident_results: kept + anew,
        };
        let folded_bytes = u128::from(results) * u128::from(result_bytes);
        let folds_us = folded_bytes * 1_000_000 / u128::from(read_per_s(&figures).max(1));
        let folds_us = u64::try_from(folds_us).unwrap_or(u64::MAX);
        let multiply_adds = u64::from(anew).saturating_mul(result_multiply_adds);
        folds_us.saturating_add(self.computes_us(multiply_adds, precision, random))
    }

    fn computes_us(&self, multiply_adds: u64, precision: Precision, random: &mut Random) -> u64 {
        let longer = 1_000 + random.below(LONGER_PER_MILLE + 1);
        let rate = u128::from(reached(&self.has.figures(), precision).max(1));
        let takes_us = u128::from(multiply_adds) * 1_000 * u128::from(longer) / rate;
        u64::try_from(takes_us).unwrap_or(u64::MAX)
    }
}
