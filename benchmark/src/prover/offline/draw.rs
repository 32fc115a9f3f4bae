//! What an offline challenge draws: digests over everything that was said before.

use gristmill_protocol::hardware::{ChallengeSeed, UnitPosition};

use crate::challenge::philox::Key;
use crate::challenge::transcript::{StageTranscript, Transcript};

const CONTEXT: &str = "gristmill hardware offline 1";

/// Everything that a prover must not have chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// The seed of the matrices.
    pub setup_seed: ChallengeSeed,
    /// The seed of each stage.
    pub round_seeds: Vec<ChallengeSeed>,
    /// The nonce of what stayed in memory.
    pub nonce: ChallengeSeed,
    /// The units of the stages.
    pub units: Vec<UnitPosition>,
    /// The units of what stayed in memory.
    pub resident_units: Vec<UnitPosition>,
}

/// What follows from the commitments of a transcript.
#[must_use]
pub fn expected_draw(transcript: &Transcript) -> Draw {
    let (units, resident_units) = units(transcript);
    let before = |stage: usize| digest(transcript, &transcript.stages[..stage], false);
    Draw {
        setup_seed: setup_seed(transcript),
        round_seeds: (0..transcript.stages.len())
            .map(|stage| seed(&before(stage), b"stage"))
            .collect(),
        nonce: nonce(transcript),
        units,
        resident_units,
    }
}

pub(super) fn setup_seed(transcript: &Transcript) -> ChallengeSeed {
    seed(&digest(transcript, &[], false), b"setup")
}

/// The seed of the stage after those that are there.
pub(super) fn round_seed(transcript: &Transcript) -> ChallengeSeed {
    seed(&digest(transcript, &transcript.stages, false), b"stage")
}

pub(super) fn nonce(transcript: &Transcript) -> ChallengeSeed {
    seed(&digest(transcript, &transcript.stages, false), b"nonce")
}

/// The units to open: the stages take turns, and each draws uniformly over rounds, rows and columns, with replacement.
pub(super) fn units(transcript: &Transcript) -> (Vec<UnitPosition>, Vec<UnitPosition>) {
    let parameters = &transcript.parameters;
    let key = Key::from_digest(seed(&digest(transcript, &transcript.stages, true), b"units").bytes());
    let side = u64::from(parameters.units_per_side());
    let position = |[round, row, column, _]: [u64; 4], rounds| {
        let (row, column) = (below(row, side), below(column, side));
        (below(round, rounds), row, column)
    };
    let last = u32::try_from(parameters.stages.len())
        .unwrap_or(u32::MAX)
        .saturating_sub(1);
    let stages = (0_u32..).zip(&parameters.stages).cycle();
    let of_stages = (0..u64::from(parameters.openings))
        .zip(stages)
        .map(|(at, (stage, asked))| {
            let (round, row, column) = position(key.block([at, 0, 0, 0]), u64::from(asked.rounds));
            UnitPosition {
                stage,
                round,
                row,
                column,
            }
        });
    let of_residency = (0..u64::from(parameters.resident_openings)).map(|at| {
        let (round, row, column) = position(key.block([at, 1, 0, 0]), u64::from(parameters.resident_rounds));
        UnitPosition {
            stage: last,
            round,
            row,
            column,
        }
    });
    (of_stages.collect(), of_residency.collect())
}

/// A number below `bound`, which is at most 2^32. The bias is below `bound` in 2^64.
fn below(word: u64, bound: u64) -> u32 {
    u32::try_from((u128::from(word) * u128::from(bound)) >> 64).unwrap_or(u32::MAX)
}

fn seed(digest: &[u8; 32], purpose: &[u8]) -> ChallengeSeed {
    let mut hasher = blake3::Hasher::new_keyed(digest);
    hasher.update(purpose);
    ChallengeSeed::from_bytes(*hasher.finalize().as_bytes())
}

/// Over the name, the parameters and the commitments of so many stages. Each part has a length that those before it
/// tell, so no two transcripts give the same bytes.
fn digest(transcript: &Transcript, stages: &[StageTranscript], with_resident: bool) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    let parameters = &transcript.parameters;
    hasher.update(transcript.challenge.bytes());
    let mut number = |number: u32| {
        hasher.update(&number.to_le_bytes());
    };
    number(parameters.dimension);
    number(parameters.resident_rounds);
    number(parameters.openings);
    number(parameters.resident_openings);
    number(u32::try_from(parameters.stages.len()).unwrap_or(u32::MAX));
    for stage in &parameters.stages {
        number(stage.precision as u32);
        number(stage.rounds);
    }
    for root in stages.iter().flat_map(|stage| &stage.roots) {
        hasher.update(root.bytes());
    }
    if with_resident {
        for root in &transcript.resident_roots {
            hasher.update(root.bytes());
        }
    }
    *hasher.finalize().as_bytes()
}
