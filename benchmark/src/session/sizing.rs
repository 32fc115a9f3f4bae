//! How large a challenge has to be for what is claimed.

use gristmill_protocol::hardware::{
    ChallengeParameters, DIMENSION_MAX, DIMENSION_MIN, HardwareClaim, HardwareKind, Precision, ROUNDS_MAX,
    Stage,
};

use super::policy::Policy;

/// Fewest results that fill the memory: a single one would say little about the rest.
const RESULTS_MIN: u64 = 4;
/// The dimension where the claimed memory can't be filled in time: small enough to fill much of it, large enough that
/// folding is quicker than computing anew.
const SLOW_DIMENSION: u32 = 1_024;

/// The order of the stages. The results of the last one stay in memory: `bf16` comes first, because its results are
/// rounded and so take less than their room.
const ORDER: [Precision; 3] = [Precision::Bf16, Precision::F32, Precision::Tf32];

/// The parameters of a challenge for a claim that was checked. The largest matrices are taken with which the memory
/// can be filled in time: with them, folding costs least beside multiplying.
#[must_use]
pub fn parameters_for(claim: &HardwareClaim, policy: &Policy) -> ChallengeParameters {
    let claimed = |precision| claim.rate_in(precision).map(|rate| (precision, rate.max(1)));
    let stages: Vec<_> = ORDER.into_iter().filter_map(claimed).collect();
    let filling = Filling {
        memory_bytes: claim.memory_bytes,
        // A claim names one precision at least; one multiply-add per second stands for none.
        rate: stages.last().map_or(1, |(_, rate)| *rate),
        time_ms: match claim.kind {
            HardwareKind::Cpu => policy.last_stage_of_processor_ms,
            _ => policy.last_stage_ms,
        },
    };
    let dimension = filling.dimension();
    let resident = filling.results(dimension).clamp(1, u64::from(ROUNDS_MAX));
    let last = stages.len().saturating_sub(1);
    let stage = |(at, (precision, rate)): (usize, &(Precision, u64))| {
        let timed = rounds_in(dimension, *rate, policy.stage_ms).clamp(1, u64::from(ROUNDS_MAX));
        Stage {
            precision: *precision,
            rounds: as_u32(if at == last { timed.max(resident) } else { timed }),
        }
    };
    ChallengeParameters {
        dimension,
        stages: stages.iter().enumerate().map(stage).collect(),
        resident_rounds: as_u32(resident),
        // As many for each stage: what one of them shows must not hang on how much is done in the others.
        openings: policy.openings.saturating_mul(as_u32(stages.len() as u64)),
        resident_openings: policy.openings,
    }
}

/// What is to be filled, how fast, and in what time.
struct Filling {
    memory_bytes: u64,
    rate: u64,
    time_ms: u64,
}

impl Filling {
    fn dimension(&self) -> u32 {
        let dimensions = || {
            std::iter::successors(Some(DIMENSION_MAX), |dimension| {
                (*dimension > DIMENSION_MIN).then_some(dimension / 2)
            })
        };
        let fills = |dimension: &u32| {
            let results = self.results(*dimension);
            results >= RESULTS_MIN && results == results_in(self.memory_bytes, *dimension)
        };
        let fills_most = |dimensions: &mut dyn Iterator<Item = u32>| {
            dimensions
                .filter(|dimension| self.results(*dimension) >= RESULTS_MIN)
                .max_by_key(|dimension| self.results(*dimension) * u64::from(*dimension).pow(2))
        };
        dimensions()
            .find(fills)
            .or_else(|| fills_most(&mut dimensions().filter(|dimension| *dimension >= SLOW_DIMENSION)))
            .or_else(|| fills_most(&mut dimensions().filter(|dimension| *dimension < SLOW_DIMENSION)))
            .unwrap_or(DIMENSION_MIN)
    }

    /// How many results of a dimension fit into the memory and can be had in time.
    fn results(&self, dimension: u32) -> u64 {
        results_in(self.memory_bytes, dimension)
            .min(rounds_in(dimension, self.rate, self.time_ms))
            .min(u64::from(ROUNDS_MAX))
    }
}

/// How many results fit into so much memory.
fn results_in(memory_bytes: u64, dimension: u32) -> u64 {
    memory_bytes / (2 * u64::from(dimension) * u64::from(dimension))
}

/// How many rounds take at most so long at a rate.
fn rounds_in(dimension: u32, rate: u64, time_ms: u64) -> u64 {
    let rounds = u128::from(rate) * u128::from(time_ms) / 1_000 / u128::from(dimension).pow(3);
    u64::try_from(rounds).unwrap_or(u64::MAX)
}

fn as_u32(rounds: u64) -> u32 {
    u32::try_from(rounds).unwrap_or(ROUNDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::hardware::{HardwareDigest, Throughput};
    use proptest::prelude::*;

    fn claim(memory_bytes: u64, rates: &[(Precision, u64)]) -> HardwareClaim {
        HardwareClaim {
            kind: HardwareKind::Cpu,
            index: 0,
            name: "test".into(),
            vendor: String::new(),
            uuid: None,
            driver: None,
            memory_bytes,
            throughput: rates
                .iter()
                .map(|(precision, rate)| Throughput {
                    precision: *precision,
                    multiply_adds_per_second: *rate,
                })
                .collect(),
            fingerprint: HardwareDigest::from_bytes([0; 32]),
        }
    }

    fn parameters(memory_bytes: u64, rates: &[(Precision, u64)]) -> ChallengeParameters {
        parameters_for(&claim(memory_bytes, rates), &Policy::default())
    }

    #[test]
    fn large_and_small_devices_get_what_fits_them() {
        let card = |rates: &[_]| {
            let claim = HardwareClaim {
                kind: HardwareKind::Cuda,
                ..claim(128 << 30, rates)
            };
            parameters_for(&claim, &Policy::default())
        };
        let large = card(&[(Precision::F32, 25_000_000_000_000)]);
        assert_eq!((large.dimension, large.resident_rounds), (8_192, 1_024));
        let tensor = [
            (Precision::F32, 25_000_000_000_000),
            (Precision::Tf32, 200_000_000_000_000),
        ];
        let large = card(&tensor);
        assert_eq!((large.dimension, large.resident_rounds), (16_384, 256));
        assert_eq!(large.stages[1].precision, Precision::Tf32);
        let hasty = parameters(128 << 30, &[(Precision::F32, 25_000_000_000_000)]);
        assert_eq!((hasty.dimension, hasty.resident_rounds), (4_096, 3_637));
        let processor = parameters(256 << 20, &[(Precision::F32, 50_000_000_000)]);
        assert_eq!((processor.dimension, processor.resident_rounds), (2_048, 32));
        let slow = parameters(64 << 30, &[(Precision::F32, 50_000_000_000)]);
        assert_eq!((slow.dimension, slow.resident_rounds), (1_024, 465));
        let tiny = parameters(1, &[(Precision::Bf16, 1)]);
        assert_eq!((tiny.dimension, tiny.resident_rounds), (256, 1));
    }

    proptest! {
        #[test]
        fn parameters_are_always_in_bounds_and_take_bounded_time(
            memory_bytes in 1u64..=64 << 40,
            rates in proptest::collection::vec(1u64..=100_000_000_000_000_000, 1..=3),
        ) {
            let rates: Vec<_> = Precision::ALL.into_iter().zip(rates).collect();
            let claim = claim(memory_bytes, &rates);
            prop_assert_eq!(claim.check(), Ok(()));
            let policy = Policy::default();
            let parameters = parameters_for(&claim, &policy);
            prop_assert_eq!(parameters.check(), Ok(()));
            for stage in &parameters.stages {
                let rate = u128::from(claim.rate_in(stage.precision).unwrap());
                let work = u128::from(stage.rounds) * u128::from(parameters.multiply_adds_per_round());
                prop_assert!(stage.rounds == 1 || work * 1_000 <= rate * u128::from(policy.last_stage_of_processor_ms));
            }
            prop_assert!(parameters.resident_rounds == 1 || parameters.resident_bytes() <= memory_bytes);
        }
    }
}
