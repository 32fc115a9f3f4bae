//! A prover that answers what the coordinator says next: honest work by the integer reference, and what a liar does
//! instead.

use gristmill_protocol::hardware::{
    ChallengeOpened, ChallengeRequest, ChallengeSeed, ChallengeStep, HardwareClaim, HardwareDigest,
    HardwareKind, NextStep, Precision, Throughput, UnitPosition, UnitsRoot,
};
use gristmill_protocol::ids::ChallengeId;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use super::device::Work;
use super::liar::Liar;
use crate::challenge::bookkeeping::Bookkeeping;
use crate::challenge::commitment::{CHUNK_VALUES, Opening, levels};
use crate::challenge::dimension::Dimension;
use crate::challenge::fold::{Rounding, fold};
use crate::challenge::matrices::Matrices;
use crate::challenge::proof::Proof;
use crate::challenge::recomputation::Reference;
use crate::challenge::residency::{self, Weights};

/// The first stage: nothing of it stays in memory.
pub(super) const FIRST_STAGE: Precision = Precision::Bf16;
/// The last stage: its results stay.
pub(super) const LAST_STAGE: Precision = Precision::F32;
/// Results that a device of the self-test has memory for.
pub(super) const HELD_RESULTS: u64 = 4;
const DIMENSION: Dimension = Dimension::SMALLEST;
/// Ten gigabytes.
const HUGE_BYTES: u64 = 10_000_000_000;

/// What a provider sends.
#[derive(Debug)]
pub(super) enum Message {
    Step(ChallengeStep),
    Proof(Vec<u8>),
    /// A body of so many bytes, of which none was read yet.
    AnnouncedProof(u64),
}

/// One listing of a device.
#[derive(Debug)]
pub(super) struct Provider {
    liar: Liar,
    challenge: ChallengeId,
    bookkeeping: Bookkeeping,
    opened: Option<ChallengeOpened>,
    reference: Option<Reference>,
    /// Results of the last stage, the exact sums.
    results: Vec<Vec<i32>>,
    /// Whether it sees that it is too late and computes nothing any more.
    is_late: bool,
    rng: ChaCha8Rng,
}

impl Provider {
    pub(super) fn new(liar: Liar, mut rng: ChaCha8Rng) -> Self {
        let challenge = ChallengeId::from_bytes(rng.random());
        Self {
            liar,
            challenge,
            bookkeeping: Bookkeeping::new(challenge, DIMENSION),
            opened: None,
            reference: None,
            results: Vec::new(),
            is_late: false,
            rng,
        }
    }

    pub(super) const fn challenge(&self) -> ChallengeId {
        self.challenge
    }

    pub(super) const fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }

    /// What it claims, as the listing of that number.
    pub(super) fn request(&self, listing: u8) -> ChallengeRequest {
        let throughput = self
            .liar
            .claimed_precisions()
            .iter()
            .map(|&precision| Throughput {
                precision,
                multiply_adds_per_second: self.liar.claimed_rate(precision),
            });
        ChallengeRequest {
            challenge: self.challenge,
            claim: HardwareClaim {
                kind: HardwareKind::Cuda,
                index: u32::from(listing),
                name: "virtual device".into(),
                vendor: String::new(),
                uuid: None,
                driver: None,
                memory_bytes: self.liar.claimed_results() * DIMENSION.resident_bytes(),
                throughput: throughput.collect(),
                fingerprint: HardwareDigest::from_bytes([0; 32]),
            },
        }
    }

    /// The challenge was opened: the matrices are made.
    pub(super) fn begin(&mut self, opened: ChallengeOpened) {
        self.opened = Some(opened);
    }

    /// Whether its challenge was opened.
    pub(super) const fn has_begun(&self) -> bool {
        self.opened.is_some()
    }

    /// What it computes and sends because of what the coordinator said. `None`: nothing more.
    pub(super) fn hear(&mut self, next: NextStep) -> Option<(Work, Message)> {
        let free = |step| Some((Work::default(), Message::Step(step)));
        match next {
            NextStep::Echo { nonce } => free(ChallengeStep::Echo { nonce }),
            NextStep::Prepare { .. } => {
                self.prepare();
                free(ChallengeStep::Ready)
            }
            NextStep::Wait { .. } | NextStep::Verifying => free(ChallengeStep::Wait),
            NextStep::Stage { .. } if self.liar == Liar::NeverAnswers => None,
            NextStep::Stage {
                stage, round_seed, ..
            } => {
                let (multiply_adds, roots) = self.stage(stage, &round_seed);
                let step = ChallengeStep::StageCommitment { stage, roots };
                Some((
                    Work {
                        multiply_adds,
                        folded_bytes: 0,
                    },
                    Message::Step(step),
                ))
            }
            NextStep::Residency { nonce, .. } => {
                let (work, roots) = self.residency(&nonce);
                Some((work, Message::Step(ChallengeStep::ResidencyCommitment { roots })))
            }
            NextStep::Open {
                units,
                resident_units,
                ..
            } => self
                .prove(units, &resident_units)
                .map(|message| (Work::default(), message)),
            NextStep::Certified { .. } | NextStep::Refused { .. } => None,
        }
    }

    /// From now on it sends anything: it knows that its device is busy until after the deadline.
    pub(super) const fn give_up(&mut self) {
        self.is_late = true;
    }

    fn prepare(&mut self) {
        let Some(opened) = &self.opened else { return };
        let matrices = Matrices::new(opened.setup_seed.bytes(), DIMENSION);
        let mut reference = Reference::new(&matrices);
        if self.liar == Liar::FourBits {
            reference.clamp(7);
        }
        self.reference = Some(reference);
    }

    fn rounds(&self, stage: u32) -> u32 {
        let opened = self.opened.as_ref();
        opened
            .and_then(|opened| opened.parameters.stages.get(stage as usize))
            .map_or(0, |stage| stage.rounds)
    }

    fn precision(&self, stage: u32) -> Precision {
        let opened = self.opened.as_ref();
        opened
            .and_then(|opened| opened.parameters.stages.get(stage as usize))
            .map_or(LAST_STAGE, |stage| stage.precision)
    }

    /// The commitments of a stage, and how much was computed for them.
    fn stage(&mut self, stage: u32, round_seed: &ChallengeSeed) -> (u64, Vec<UnitsRoot>) {
        self.bookkeeping.begin_stage(round_seed);
        self.results.clear();
        let rounds = self.rounds(stage);
        let all = u64::from(rounds) * DIMENSION.multiply_adds();
        match self.liar {
            _ if self.is_late => (all, self.random_roots(rounds)),
            Liar::Garbage => (0, self.random_roots(rounds)),
            Liar::Yesterday => {
                let values = yesterday::stage(stage, rounds);
                (
                    0,
                    values
                        .iter()
                        .map(|values| self.bookkeeping.commit(values))
                        .collect(),
                )
            }
            Liar::SwapsRounds if stage == 0 => (all, self.swapped(rounds)),
            Liar::SkipsWork(percent) if stage == 0 => {
                let roots = (0..rounds).map(|_| self.round(stage));
                let roots = roots.collect();
                (all / 100 * u64::from(100 - percent), roots)
            }
            Liar::LowerPrecision if self.precision(stage) == LAST_STAGE => {
                (all / 2, self.all_rounds(stage, rounds))
            }
            Liar::FourBits => (all / 2, self.all_rounds(stage, rounds)),
            _ => (all, self.all_rounds(stage, rounds)),
        }
    }

    fn all_rounds(&mut self, stage: u32, rounds: u32) -> Vec<UnitsRoot> {
        (0..rounds).map(|_| self.round(stage)).collect()
    }

    fn round(&mut self, stage: u32) -> UnitsRoot {
        let values = self.values(stage, &self.bookkeeping.order());
        self.bookkeeping.commit(&values)
    }

    /// The unit values that it commits to for a round of that order.
    fn values(&mut self, stage: u32, order: &[u32]) -> Vec<i32> {
        let result = self
            .reference
            .as_ref()
            .map(|reference| reference.result(order))
            .unwrap_or_default();
        let rounding = match self.liar {
            Liar::LowerPrecision => Rounding::Bfloat16,
            _ => self.precision(stage).into(),
        };
        let mut values = fold(&result, DIMENSION, rounding);
        if stage == 0 {
            let skipped = self.liar.skipped_units() as usize;
            for unit in rand::seq::index::sample(&mut self.rng, values.len(), skipped) {
                values[unit] = self.rng.random_range(-(1 << 23)..1 << 23);
            }
        }
        self.results.push(result);
        values
    }

    /// The first two rounds are committed to in the wrong order; the rest follows as it should.
    fn swapped(&mut self, rounds: u32) -> Vec<UnitsRoot> {
        let mut straight = self.bookkeeping.clone();
        let first = self.values(0, &straight.order());
        straight.commit(&first);
        let second = self.values(0, &straight.order());
        let mut roots = vec![self.bookkeeping.commit(&second), self.bookkeeping.commit(&first)];
        roots.extend((2..rounds).map(|_| self.round(0)));
        roots
    }

    fn random_roots(&mut self, count: u32) -> Vec<UnitsRoot> {
        (0..count)
            .map(|_| UnitsRoot::from_bytes(self.rng.random()))
            .collect()
    }

    /// The commitments to what stayed in memory.
    fn residency(&mut self, nonce: &ChallengeSeed) -> (Work, Vec<UnitsRoot>) {
        let resident = self
            .opened
            .as_ref()
            .map_or(0, |opened| opened.parameters.resident_rounds);
        let mut work = Work {
            multiply_adds: 0,
            folded_bytes: u64::from(resident) * DIMENSION.resident_bytes(),
        };
        self.bookkeeping.begin_residency(nonce);
        if self.is_late || self.liar == Liar::Garbage {
            return (work, self.random_roots(resident));
        }
        if self.liar == Liar::Yesterday {
            let values = yesterday::resident(resident);
            return (
                work,
                values
                    .iter()
                    .map(|values| self.bookkeeping.commit_resident(values))
                    .collect(),
            );
        }
        let held = usize::try_from(HELD_RESULTS).unwrap_or(usize::MAX);
        if matches!(
            self.liar,
            Liar::TwiceTheMemoryComputedAnew | Liar::TwiceTheMemoryByHiddenUnits(_)
        ) {
            let anew = u64::from(resident).saturating_sub(HELD_RESULTS) * DIMENSION.multiply_adds();
            work.multiply_adds = anew / self.liar.hidden_times();
        }
        let weights = Weights::new(nonce.bytes());
        let first = self.results.len().saturating_sub(resident as usize);
        let mut roots = Vec::new();
        for (at, result) in self.results[first..].iter().enumerate() {
            let values = if self.liar == Liar::TwiceTheMemory && at >= held {
                (0..DIMENSION.units())
                    .map(|_| self.rng.random_range(-(1 << 23)..1 << 23))
                    .collect()
            } else {
                residency::fold(result, DIMENSION, &weights)
            };
            roots.push(self.bookkeeping.commit_resident(&values));
        }
        (work, roots)
    }

    fn prove(&mut self, mut units: Vec<UnitPosition>, resident_units: &[UnitPosition]) -> Option<Message> {
        match self.liar {
            Liar::NeverProves => None,
            Liar::HugeProof => Some(Message::AnnouncedProof(HUGE_BYTES)),
            Liar::Garbage => Some(Message::Proof(
                self.garbage(units.len(), resident_units.len()).encode(),
            )),
            _ => {
                if self.liar == Liar::OtherUnits {
                    let side = u32::try_from(DIMENSION.units_per_side()).unwrap_or(u32::MAX);
                    units
                        .iter_mut()
                        .for_each(|unit| unit.row = (unit.row + side / 2) % side);
                }
                let proof = self.bookkeeping.prove(&units, resident_units).ok()?;
                Some(Message::Proof(proof.encode()))
            }
        }
    }

    fn garbage(&mut self, units: usize, resident_units: usize) -> Proof {
        let rng = &mut self.rng;
        let mut opening = || Opening {
            values: (0..CHUNK_VALUES).map(|_| rng.random()).collect(),
            siblings: (0..levels(DIMENSION)).map(|_| rng.random()).collect(),
        };
        Proof {
            openings: (0..units).map(|_| opening()).collect(),
            resident_openings: (0..resident_units).map(|_| opening()).collect(),
        }
    }
}

/// The unit values of an honest challenge of yesterday, made once.
mod yesterday {
    use std::sync::LazyLock;

    use super::{DIMENSION, FIRST_STAGE, LAST_STAGE, Matrices, Reference, Weights, fold, residency};
    use crate::challenge::permutation;

    const ROUNDS: u8 = 8;

    struct Values {
        first: Vec<Vec<i32>>,
        last: Vec<Vec<i32>>,
        resident: Vec<Vec<i32>>,
    }

    static YESTERDAY: LazyLock<Values> = LazyLock::new(|| {
        let reference = Reference::new(&Matrices::new(&[1; 32], DIMENSION));
        let result = |round: u8| reference.result(&permutation::of_round(&[round; 32], DIMENSION));
        let results: Vec<Vec<i32>> = (0..ROUNDS).map(result).collect();
        let weights = Weights::new(&[2; 32]);
        let folded = |precision: gristmill_protocol::hardware::Precision| {
            results
                .iter()
                .map(|result| fold(result, DIMENSION, precision.into()))
                .collect()
        };
        Values {
            first: folded(FIRST_STAGE),
            last: folded(LAST_STAGE),
            resident: results
                .iter()
                .map(|result| residency::fold(result, DIMENSION, &weights))
                .collect(),
        }
    });

    pub(super) fn stage(stage: u32, rounds: u32) -> Vec<&'static [i32]> {
        let values = if stage == 0 {
            &YESTERDAY.first
        } else {
            &YESTERDAY.last
        };
        some(values, rounds)
    }

    pub(super) fn resident(rounds: u32) -> Vec<&'static [i32]> {
        some(&YESTERDAY.resident, rounds)
    }

    fn some(values: &'static [Vec<i32>], rounds: u32) -> Vec<&'static [i32]> {
        values
            .iter()
            .cycle()
            .take(rounds as usize)
            .map(Vec::as_slice)
            .collect()
    }
}
