//! Which units a prover has to open: drawn by the coordinator after every commitment is in.

use gristmill_protocol::hardware::{ChallengeParameters, UnitPosition};
use rand::{Rng, RngExt as _};

/// Where a unit is, in words: for messages.
#[must_use]
pub fn place(unit: &UnitPosition) -> String {
    let UnitPosition {
        stage,
        round,
        row,
        column,
    } = unit;
    format!("unit at row {row}, column {column} of round {round} of stage {stage}, each counted from 0,")
}

/// The units of one challenge to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Openings {
    /// Units of the stages.
    pub units: Vec<UnitPosition>,
    /// Units of what stayed in memory.
    pub resident_units: Vec<UnitPosition>,
}

/// Draws the units, each independently of the others.
///
/// The stages take turns, so that each gets its share of the openings however few its rounds are: what is shown in one
/// precision must not hang on how much was done in another. Within a stage, and within what stayed in memory, every
/// unit of every round is equally likely.
#[must_use]
pub fn draw(parameters: &ChallengeParameters, rng: &mut dyn Rng) -> Openings {
    let side = parameters.units_per_side().max(1);
    let mut unit = |stage: u32, rounds: u32| UnitPosition {
        stage,
        round: rng.random_range(0..rounds.max(1)),
        row: rng.random_range(0..side),
        column: rng.random_range(0..side),
    };
    let stages = (0_u32..).zip(&parameters.stages).cycle();
    let units = stages
        .take(parameters.openings as usize)
        .map(|(number, stage)| unit(number, stage.rounds))
        .collect();
    let last = u32::try_from(parameters.stages.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let resident_units = (0..parameters.resident_openings)
        .map(|_| unit(last, parameters.resident_rounds))
        .collect();
    Openings {
        units,
        resident_units,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::hardware::{Precision, Stage};
    use rand::SeedableRng as _;

    #[test]
    fn every_stage_gets_its_share_and_every_unit_its_chance() {
        let stage = |precision, rounds| Stage { precision, rounds };
        let parameters = ChallengeParameters {
            dimension: 256,
            stages: vec![stage(Precision::Bf16, 2), stage(Precision::F32, 100)],
            resident_rounds: 10,
            openings: 1_000,
            resident_openings: 1_000,
        };
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut openings = draw(&parameters, &mut rng);
        let of_first = openings.units.iter().filter(|unit| unit.stage == 0);
        assert_eq!(of_first.clone().count(), 500);
        let at_first_round = of_first.filter(|unit| unit.round == 0).count();
        assert!((200..=300).contains(&at_first_round), "{at_first_round}");
        assert!(
            openings
                .resident_units
                .iter()
                .all(|unit| unit.stage == 1 && unit.round < 10)
        );
        for rounds in [2, 100] {
            let of_stage = openings
                .units
                .iter()
                .filter(|unit| (unit.stage == 1) == (rounds == 100));
            assert!(
                of_stage
                    .clone()
                    .all(|unit| unit.round < rounds && unit.row < 32 && unit.column < 32)
            );
        }
        for coordinate in [|unit: &UnitPosition| unit.row, |unit: &UnitPosition| unit.column] {
            openings.units.sort_by_key(coordinate);
            let different = openings
                .units
                .chunk_by(|left, right| coordinate(left) == coordinate(right))
                .count();
            assert_eq!(different, 32);
        }
        assert_ne!(draw(&parameters, &mut rng), openings);
    }
}
