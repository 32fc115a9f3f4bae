//! The course of one challenge, from the first echo to its end.

use gristmill_protocol::hardware::{
    ChallengeParameters, ChallengeSeed, ChallengeStep, HardwareClaim, METHOD, NextStep, Stage, UnitsRoot,
};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChallengeId;
use rand::Rng;

use super::event::{CallId, Problem};
use super::link::{DeviceKey, Links};
use super::policy::Policy;
use super::refusal::Refusal;
use super::shown::deadline_ms;
use crate::challenge::openings::{Openings, draw};
use crate::challenge::transcript::{StageTranscript, Transcript};

/// One challenge.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub(super) claim: HardwareClaim,
    pub(super) links: Links,
    pub(super) device: DeviceKey,
    pub(super) parameters: ChallengeParameters,
    pub(super) setup_seed: ChallengeSeed,
    pub(super) phase: Phase,
    pub(super) quickest_echo_ms: u64,
    pub(super) stages: Vec<StageDone>,
    pub(super) residency: Option<ResidencyDone>,
    pub(super) openings: Option<Openings>,
    /// The call that waits until there is something to do, and until when.
    pub(super) held: Option<(CallId, u64)>,
    /// Which devices it is challenged together with.
    pub(super) group: u64,
}

/// Where a challenge stands. What ends a phase by itself is `until_ms`.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Echoes are timed.
    Echo {
        nonce: ChallengeSeed,
        sent_ms: u64,
        left: u32,
        until_ms: u64,
    },
    /// The matrices are made.
    Preparing { until_ms: u64 },
    /// Ready for the next stage, or for the fold of what stayed in memory.
    Waiting { since_ms: u64 },
    /// A stage runs.
    Stage {
        round_seed: ChallengeSeed,
        started_ms: u64,
        until_ms: u64,
    },
    /// What stayed in memory is folded.
    Residency {
        nonce: ChallengeSeed,
        started_ms: u64,
        until_ms: u64,
    },
    /// Units are opened.
    Opening { until_ms: u64 },
    /// The proof is verified.
    Verifying { until_ms: u64 },
    /// The proof holds; the verdicts on those that it is challenged together with are waited for.
    Verified,
    /// The certificate is signed and kept.
    Keeping { until_ms: u64 },
    /// The certificate is given out, or there is none.
    Over {
        outcome: Result<String, Refusal>,
        at_ms: u64,
    },
}

/// A stage with its time.
#[derive(Clone, Debug)]
pub(super) struct StageDone {
    pub(super) stage: Stage,
    pub(super) committed: StageTranscript,
    pub(super) elapsed_ms: u64,
}

/// The fold of what stayed in memory, with its time.
#[derive(Clone, Debug)]
pub(super) struct ResidencyDone {
    pub(super) nonce: ChallengeSeed,
    pub(super) roots: Vec<UnitsRoot>,
    pub(super) elapsed_ms: u64,
}

pub(super) fn draw_seed(rng: &mut dyn Rng) -> ChallengeSeed {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    ChallengeSeed::from_bytes(bytes)
}

impl Course {
    pub(super) const fn account(&self) -> &AccountId {
        &self.links.account
    }

    pub(super) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over { .. })
    }

    /// Since when it waits for the others, where it does.
    pub(super) const fn waiting_since(&self) -> Option<u64> {
        match self.phase {
            Phase::Waiting { since_ms } => Some(since_ms),
            _ => None,
        }
    }

    /// Whether there is nothing left to find out: it is verified, or over.
    pub(super) const fn is_judged(&self) -> bool {
        matches!(
            self.phase,
            Phase::Verified | Phase::Keeping { .. } | Phase::Over { .. }
        )
    }

    /// Whether a stage comes next, not the fold of what stayed in memory.
    pub(super) const fn has_stages_left(&self) -> bool {
        self.stages.len() < self.parameters.stages.len()
    }

    /// When its phase ends by itself, or its held call is answered.
    pub(super) fn wake_ms(&self, keep_outcome_ms: u64) -> Option<u64> {
        let phase_ms = match &self.phase {
            Phase::Echo { until_ms, .. }
            | Phase::Preparing { until_ms }
            | Phase::Stage { until_ms, .. }
            | Phase::Residency { until_ms, .. }
            | Phase::Opening { until_ms }
            | Phase::Verifying { until_ms }
            | Phase::Keeping { until_ms } => Some(until_ms.saturating_add(1)),
            Phase::Waiting { .. } | Phase::Verified => None,
            Phase::Over { at_ms, .. } => Some(at_ms.saturating_add(keep_outcome_ms)),
        };
        let held_ms = self.held.map(|(_, until_ms)| until_ms);
        [phase_ms, held_ms].into_iter().flatten().min()
    }

    /// What the provider has to do next; none where it can only wait.
    pub(super) fn next_step(&self, now_ms: u64) -> Option<NextStep> {
        let within = |until_ms: &u64| until_ms.saturating_sub(now_ms);
        Some(match &self.phase {
            Phase::Echo { nonce, .. } => NextStep::Echo { nonce: *nonce },
            Phase::Preparing { until_ms } => NextStep::Prepare {
                within_ms: within(until_ms),
            },
            Phase::Stage {
                round_seed, until_ms, ..
            } => NextStep::Stage {
                stage: as_u32(self.stages.len()),
                round_seed: *round_seed,
                within_ms: within(until_ms),
            },
            Phase::Residency { nonce, until_ms, .. } => NextStep::Residency {
                nonce: *nonce,
                within_ms: within(until_ms),
            },
            Phase::Opening { until_ms } => {
                let openings = self.openings.as_ref()?;
                NextStep::Open {
                    units: openings.units.clone(),
                    resident_units: openings.resident_units.clone(),
                    within_ms: within(until_ms),
                }
            }
            Phase::Over {
                outcome: Ok(certificate),
                ..
            } => NextStep::Certified {
                certificate: certificate.clone(),
            },
            Phase::Over {
                outcome: Err(refusal),
                ..
            } => refusal.step(),
            Phase::Waiting { .. } | Phase::Verifying { .. } | Phase::Verified | Phase::Keeping { .. } => {
                return None;
            }
        })
    }

    /// Takes a step. One that was taken before changes nothing.
    pub(super) fn take(
        &mut self,
        step: ChallengeStep,
        policy: &Policy,
        now_ms: u64,
        rng: &mut dyn Rng,
    ) -> Result<(), Problem> {
        match step {
            ChallengeStep::Echo { nonce } => self.hear_echo(nonce, policy, now_ms, rng),
            ChallengeStep::Ready => match self.phase {
                Phase::Preparing { .. } => self.phase = Phase::Waiting { since_ms: now_ms },
                Phase::Echo { .. } => return Err(Problem::OutOfTurn),
                _ => {}
            },
            ChallengeStep::Wait => {}
            ChallengeStep::StageCommitment { stage, roots } => {
                let at = usize::try_from(stage).unwrap_or(usize::MAX);
                return self.commit_stage(at, roots, now_ms);
            }
            ChallengeStep::ResidencyCommitment { roots } => {
                return self.commit_residency(roots, policy, now_ms, rng);
            }
        }
        Ok(())
    }

    fn hear_echo(&mut self, heard: ChallengeSeed, policy: &Policy, now_ms: u64, rng: &mut dyn Rng) {
        let Phase::Echo {
            nonce,
            sent_ms,
            left,
            until_ms,
        } = self.phase
        else {
            return;
        };
        if heard != nonce {
            return;
        }
        self.quickest_echo_ms = self.quickest_echo_ms.min(now_ms.saturating_sub(sent_ms));
        self.phase = match left.saturating_sub(1) {
            0 => Phase::Preparing {
                until_ms: now_ms.saturating_add(policy.prepare_within_ms),
            },
            left => Phase::Echo {
                nonce: draw_seed(rng),
                sent_ms: now_ms,
                left,
                until_ms,
            },
        };
    }

    fn commit_stage(&mut self, at: usize, roots: Vec<UnitsRoot>, now_ms: u64) -> Result<(), Problem> {
        if let Some(done) = self.stages.get(at) {
            return match done.committed.roots == roots {
                true => Ok(()),
                false => Err(Problem::Conflict("the stage was committed to with other roots")),
            };
        }
        let Phase::Stage {
            round_seed,
            started_ms,
            ..
        } = self.phase
        else {
            return Err(Problem::OutOfTurn);
        };
        let stage = match self.parameters.stages.get(at) {
            Some(stage) if at == self.stages.len() => *stage,
            _ => return Err(Problem::OutOfTurn),
        };
        check_roots(&roots, stage.rounds)?;
        self.stages.push(StageDone {
            stage,
            committed: StageTranscript { round_seed, roots },
            elapsed_ms: now_ms.saturating_sub(started_ms),
        });
        self.phase = Phase::Waiting { since_ms: now_ms };
        Ok(())
    }

    fn commit_residency(
        &mut self,
        roots: Vec<UnitsRoot>,
        policy: &Policy,
        now_ms: u64,
        rng: &mut dyn Rng,
    ) -> Result<(), Problem> {
        if let Some(done) = &self.residency {
            return match done.roots == roots {
                true => Ok(()),
                false => Err(Problem::Conflict("the memory was committed to with other roots")),
            };
        }
        let Phase::Residency {
            nonce, started_ms, ..
        } = self.phase
        else {
            return Err(Problem::OutOfTurn);
        };
        check_roots(&roots, self.parameters.resident_rounds)?;
        self.residency = Some(ResidencyDone {
            nonce,
            roots,
            elapsed_ms: now_ms.saturating_sub(started_ms),
        });
        self.openings = Some(draw(&self.parameters, rng));
        self.phase = Phase::Opening {
            until_ms: now_ms.saturating_add(policy.proof_within_ms),
        };
        Ok(())
    }

    /// Begins what is next: a stage, or the fold of what stayed in memory. The clock runs from now on.
    pub(super) fn begin(&mut self, policy: &Policy, now_ms: u64, rng: &mut dyn Rng) {
        let echo_ms = self.quickest_echo_ms;
        self.phase = match self.parameters.stages.get(self.stages.len()) {
            Some(stage) => {
                let claimed = self.claim.rate_in(stage.precision).unwrap_or(u64::MAX);
                let allowed_ms = deadline_ms(policy, self.work_of(stage.rounds), claimed, echo_ms);
                Phase::Stage {
                    round_seed: draw_seed(rng),
                    started_ms: now_ms,
                    until_ms: now_ms.saturating_add(allowed_ms),
                }
            }
            None => Phase::Residency {
                nonce: draw_seed(rng),
                started_ms: now_ms,
                until_ms: now_ms.saturating_add(self.residency_within_ms(policy)),
            },
        };
    }

    /// Longer than that, and everything could have been computed anew.
    fn residency_within_ms(&self, policy: &Policy) -> u64 {
        let last = self.parameters.stages.last();
        let claimed = last.and_then(|stage| self.claim.rate_in(stage.precision));
        let work = self.work_of(self.parameters.resident_rounds);
        deadline_ms(policy, work, claimed.unwrap_or(u64::MAX), self.quickest_echo_ms)
            .saturating_add(policy.residency_slack_ms)
    }

    /// Multiply-adds of so many rounds.
    pub(super) fn work_of(&self, rounds: u32) -> u128 {
        u128::from(rounds) * u128::from(self.parameters.multiply_adds_per_round())
    }

    /// All that was said, once there is nothing left to say but the proof.
    pub(super) fn transcript(&self, challenge: ChallengeId) -> Option<Transcript> {
        let (residency, openings) = (self.residency.as_ref()?, self.openings.as_ref()?);
        Some(Transcript {
            method: METHOD.to_owned(),
            challenge,
            parameters: self.parameters.clone(),
            setup_seed: self.setup_seed,
            stages: self.stages.iter().map(|done| done.committed.clone()).collect(),
            nonce: residency.nonce,
            resident_roots: residency.roots.clone(),
            units: openings.units.clone(),
            resident_units: openings.resident_units.clone(),
        })
    }

    /// Why the phase is over its time, where it is.
    pub(super) fn overdue(&self, now_ms: u64) -> Option<Refusal> {
        match &self.phase {
            Phase::Echo { until_ms, .. } if now_ms > *until_ms => Some(Refusal::Echo),
            Phase::Preparing { until_ms } if now_ms > *until_ms => Some(Refusal::Prepare),
            Phase::Stage {
                until_ms, started_ms, ..
            } if now_ms > *until_ms => Some(Refusal::SlowerThanClaimed {
                stage: self.stages.len(),
                allowed_ms: until_ms.saturating_sub(*started_ms),
            }),
            Phase::Residency {
                until_ms, started_ms, ..
            } if now_ms > *until_ms => Some(Refusal::ResidencyLate {
                allowed_ms: until_ms.saturating_sub(*started_ms),
            }),
            Phase::Opening { until_ms } if now_ms > *until_ms => Some(Refusal::ProofLate),
            Phase::Verifying { until_ms } | Phase::Keeping { until_ms } if now_ms > *until_ms => {
                Some(Refusal::Unavailable)
            }
            _ => None,
        }
    }
}

fn check_roots(roots: &[UnitsRoot], expected: u32) -> Result<(), Problem> {
    match u32::try_from(roots.len()) == Ok(expected) {
        true => Ok(()),
        false => Err(Problem::Roots {
            actual: roots.len(),
            expected,
        }),
    }
}

fn as_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
