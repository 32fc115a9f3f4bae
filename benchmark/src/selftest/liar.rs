//! Who tries to get a certificate for what it does not have.

use gristmill_protocol::hardware::Precision;

use super::device::RATE;
use super::provider::{FIRST_STAGE, HELD_RESULTS, LAST_STAGE};
use crate::challenge::dimension::Dimension;
use crate::challenge::soundness::{Share, miss};
use crate::session::Policy;

/// How a prover plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liar {
    /// As it should.
    Honest,
    /// Leaves out so many percent of the units of each round of the first stage, claims to be that much faster in it,
    /// and commits to random numbers in their place. All else it does as it should: so only the openings of this
    /// stage can catch it.
    SkipsWork(u32),
    /// Commits anew to the unit values of a challenge of yesterday.
    Yesterday,
    /// Commits to the first two rounds of the first stage in the wrong order.
    SwapsRounds,
    /// Multiplies in bfloat16 where f32 was asked for, at twice the rate.
    LowerPrecision,
    /// Takes the nearest entry of four bits, from -7 to 7, at twice the rate.
    FourBits,
    /// Computes all, but is so many times slower than claimed.
    Slower(u64),
    /// Claims twice the memory that it has, and folds random numbers in place of what it could not keep.
    TwiceTheMemory,
    /// Claims twice the memory that it has, and computes anew what it could not keep.
    TwiceTheMemoryComputedAnew,
    /// The same by units that are so many times faster than the only precision that it shows, f32.
    TwiceTheMemoryByHiddenUnits(u64),
    /// Lists one device a hundred times.
    HundredListings,
    /// Sends random commitments and a random proof.
    Garbage,
    /// Opens units half a matrix away from those asked for.
    OtherUnits,
    /// Says nothing once the first stage begins.
    NeverAnswers,
    /// Commits as it should, then never proves.
    NeverProves,
    /// Announces a proof of 10 GB.
    HugeProof,
}

impl Liar {
    /// Every liar.
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![
            Self::SkipsWork(1),
            Self::SkipsWork(5),
            Self::SkipsWork(20),
            Self::SkipsWork(50),
            Self::Yesterday,
            Self::SwapsRounds,
            Self::LowerPrecision,
            Self::FourBits,
            Self::Slower(2),
            Self::Slower(4),
            Self::Slower(16),
            Self::TwiceTheMemory,
            Self::TwiceTheMemoryComputedAnew,
            Self::TwiceTheMemoryByHiddenUnits(32),
            Self::HundredListings,
            Self::Garbage,
            Self::OtherUnits,
            Self::NeverAnswers,
            Self::NeverProves,
            Self::HugeProof,
        ]
    }

    /// What it does, in a few words.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Honest => "honest".into(),
            Self::SkipsWork(percent) => format!("skips {percent} % of the work"),
            Self::Yesterday => "answers with yesterday's result".into(),
            Self::SwapsRounds => "swaps rounds".into(),
            Self::LowerPrecision => "computes in lower precision".into(),
            Self::FourBits => "computes with four bits".into(),
            Self::Slower(times) => format!("is {times} times slower than claimed"),
            Self::TwiceTheMemory => "claims twice its memory, folds garbage".into(),
            Self::TwiceTheMemoryComputedAnew => "claims twice its memory, computes anew".into(),
            Self::TwiceTheMemoryByHiddenUnits(times) => {
                format!("claims twice its memory, computes anew {times} times faster than shown")
            }
            Self::HundredListings => "one device behind 100 listings".into(),
            Self::Garbage => "commits garbage".into(),
            Self::OtherUnits => "opens other rows than asked".into(),
            Self::NeverAnswers => "never answers".into(),
            Self::NeverProves => "never sends the proof".into(),
            Self::HugeProof => "sends a proof of 10 GB".into(),
        }
    }

    /// Units that it leaves out of each round of the first stage.
    pub(super) fn skipped_units(self) -> u32 {
        let units = Dimension::SMALLEST.units() as u64;
        match self {
            Self::SkipsWork(percent) => {
                u32::try_from((units * u64::from(percent) + 50) / 100).unwrap_or(u32::MAX)
            }
            _ => 0,
        }
    }

    /// The share of runs in which it is caught, by the formula: one less the probability that every opening of what it
    /// left out misses. Who is late, or opens less than asked, is always caught.
    #[must_use]
    pub fn expected_rate(self) -> f64 {
        let openings = Policy::default().openings;
        let units = u32::try_from(Dimension::SMALLEST.units()).unwrap_or(u32::MAX);
        let share = match self {
            Self::Honest => Share::new(0, 1),
            Self::SkipsWork(_) => Share::new(self.skipped_units(), units),
            // Two of the four rounds of the stage; half of what should have stayed in memory.
            Self::SwapsRounds | Self::TwiceTheMemory => Share::new(1, 2),
            _ => Share::new(1, 1),
        };
        1.0 - share.map_or(1.0, |share| miss(share, openings).approximate())
    }

    /// What it claims to reach in a precision.
    pub(super) fn claimed_rate(self, precision: Precision) -> u64 {
        match self {
            Self::SkipsWork(percent) if precision == FIRST_STAGE => {
                RATE * 100 / u64::from(100 - percent.min(99))
            }
            Self::LowerPrecision if precision == LAST_STAGE => 2 * RATE,
            Self::FourBits => 2 * RATE,
            _ => RATE,
        }
    }

    /// In which precisions it claims to compute.
    pub(super) const fn claimed_precisions(self) -> &'static [Precision] {
        match self {
            Self::TwiceTheMemoryByHiddenUnits(_) => &[LAST_STAGE],
            _ => &[FIRST_STAGE, LAST_STAGE],
        }
    }

    /// How many times faster it computes anew what it could not keep than it showed.
    pub(super) const fn hidden_times(self) -> u64 {
        match self {
            Self::TwiceTheMemoryByHiddenUnits(times) => times,
            _ => 1,
        }
    }

    /// What its device really reaches. It is a little faster than an honest claim.
    pub(super) fn real_rate(self) -> u64 {
        let times = match self {
            Self::Slower(times) => times,
            _ => 1,
        };
        RATE / 100 * 105 / times
    }

    /// Results that it claims to keep in memory.
    pub(super) const fn claimed_results(self) -> u64 {
        match self {
            Self::TwiceTheMemory
            | Self::TwiceTheMemoryComputedAnew
            | Self::TwiceTheMemoryByHiddenUnits(_) => 2 * HELD_RESULTS,
            _ => HELD_RESULTS,
        }
    }

    /// How many listings it has for its one device.
    pub(super) const fn listings(self) -> u8 {
        match self {
            Self::HundredListings => 100,
            _ => 1,
        }
    }
}
