//! The coordinator's desk for proofs of hardware: what the shipped driver does around the shipped machine.
//!
//! The machine itself can't be written down, so the desk keeps what was said to it: with the same numbers it comes to the
//! same state again, which is what a snapshot needs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use gristmill_benchmark::session::{
    AddressKey, Answer, CallId, Challenges, Effect, Event, Policy, Refusal, VerificationTask,
};
use gristmill_protocol::hardware::{
    ChallengeParameters, ChallengeRequest, ChallengeSeed, ChallengeStep, HardwareCertificate, NextStep,
    Precision, RenewalAnswer, UnitPosition, UnitsRoot,
};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::ChallengeId;
use serde::{Deserialize, Serialize};

use super::{DeskAnswer, ProverCall, Truth, claim_of};
use crate::engine::{NodeId, Random};

/// Most calls that a desk hears in a run; it takes up no more challenges then.
const HEARD_MAX: usize = 2_000_000;
/// How long a certificate of the shipped coordinator holds before it has to be renewed, in milliseconds.
const CERTIFICATE_LIFE_MS: u64 = 6 * 3_600_000;

/// What a scenario varies of the shipped policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeskConfig {
    /// The longest time between two challenges that the coordinator demands, in seconds; as shipped, 18 hours.
    pub challenge_every_s: u64,
    /// Units of each stage that are opened; as shipped, 271.
    pub openings: u32,
}

impl Default for DeskConfig {
    fn default() -> Self {
        Self {
            challenge_every_s: 18 * 3_600,
            openings: Policy::default().openings,
        }
    }
}

impl DeskConfig {
    fn policy(self) -> Policy {
        let every_ms = self.challenge_every_s.saturating_mul(1_000);
        let shipped = Policy::default();
        Policy {
            again_after_ms: shipped.again_after_ms.min(every_ms),
            // The time of the next challenge is drawn up to this less the life of a certificate.
            shown_life_ms: every_ms.saturating_add(CERTIFICATE_LIFE_MS),
            openings: self.openings,
            ..shipped
        }
    }
}

/// How a challenge ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a certificate for so many bytes of memory and this score.
    Shown {
        /// Memory, in bytes.
        memory_bytes: u64,
        /// The score.
        score: u64,
    },
    /// Without one, and why: the shipped machine's code.
    Refused(&'static str),
}

/// What follows from a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A provider is answered.
    Answer(NodeId, DeskAnswer),
    /// A provider's challenge ended; for figures.
    Over(NodeId, Outcome),
}

/// A call as it was heard; none: time went by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Heard {
    now_ms: u64,
    node: NodeId,
    call: Option<ProverCall>,
}

/// The coordinator's desk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Desk {
    config: DeskConfig,
    seed: u64,
    heard: Vec<Heard>,
    /// What the calls have led to; made anew where it is missing.
    #[serde(skip)]
    state: Option<Box<State>>,
}

impl Desk {
    /// A desk that has heard nothing.
    #[must_use]
    pub const fn new(config: DeskConfig, seed: u64) -> Self {
        Self {
            config,
            seed,
            heard: Vec::new(),
            state: None,
        }
    }

    /// A provider calls, at this time in Unix milliseconds.
    pub fn hear(&mut self, coordinator: &Keypair, node: NodeId, call: ProverCall, now_ms: u64) -> Vec<Told> {
        if self.heard.len() >= HEARD_MAX {
            return vec![Told::Answer(node, DeskAnswer::Refused("full".to_owned()))];
        }
        self.go_on(
            coordinator,
            Heard {
                now_ms,
                node,
                call: Some(call),
            },
        )
    }

    /// Time went by.
    pub fn tick(&mut self, coordinator: &Keypair, now_ms: u64) -> Vec<Told> {
        let heard = Heard {
            now_ms,
            node: 0,
            call: None,
        };
        self.go_on(coordinator, heard)
    }

    /// When [`Desk::tick`] is due, in Unix milliseconds, where nothing else is heard.
    #[must_use]
    pub fn wake_ms(&mut self, coordinator: &Keypair, now_ms: u64) -> Option<u64> {
        self.state(coordinator).challenges.wake_ms(now_ms)
    }

    fn go_on(&mut self, coordinator: &Keypair, heard: Heard) -> Vec<Told> {
        let turn = self.heard.len();
        let random = Random::of_purpose(self.seed, "challenges", turn as u64);
        let told = self.state(coordinator).happen(coordinator, heard, random);
        self.heard.push(heard);
        told
    }

    fn state(&mut self, coordinator: &Keypair) -> &mut State {
        let (config, seed, heard) = (self.config, self.seed, &self.heard);
        self.state.get_or_insert_with(|| {
            let mut state = Box::new(State::new(config.policy(), coordinator.account()));
            for (turn, heard) in heard.iter().enumerate() {
                let random = Random::of_purpose(seed, "challenges", turn as u64);
                state.happen(coordinator, *heard, random);
            }
            state
        })
    }
}

/// A challenge that a provider is in, or was in last.
#[derive(Debug)]
struct Case {
    account: AccountId,
    challenge: ChallengeId,
    parameters: Option<ChallengeParameters>,
    nonce: ChallengeSeed,
    truth: Truth,
    certificate: Option<HardwareCertificate>,
}

#[derive(Debug)]
struct State {
    challenges: Challenges,
    cases: BTreeMap<NodeId, Case>,
    /// Whose call waits for an answer.
    callers: BTreeMap<CallId, NodeId>,
    next_call: u64,
    told: Vec<Told>,
}

impl State {
    fn new(policy: Policy, coordinator: AccountId) -> Self {
        Self {
            challenges: Challenges::new(policy, coordinator, []),
            cases: BTreeMap::new(),
            callers: BTreeMap::new(),
            next_call: 0,
            told: Vec::new(),
        }
    }

    fn happen(&mut self, coordinator: &Keypair, heard: Heard, mut random: Random) -> Vec<Told> {
        let event = match heard.call {
            None => Some(Event::Tick),
            Some(call) => self.event(heard.node, call, &mut random),
        };
        let mut events: Vec<Event> = event.into_iter().collect();
        while let Some(event) = events.pop() {
            for effect in self.challenges.handle(event, heard.now_ms, &mut random) {
                events.extend(self.follow(coordinator, effect));
            }
        }
        std::mem::take(&mut self.told)
    }

    /// The machine's event for a call; none where nothing was opened before.
    fn event(&mut self, node: NodeId, call: ProverCall, random: &mut Random) -> Option<Event> {
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.callers.insert(id, node);
        if let ProverCall::Open {
            account,
            address,
            claimed,
        } = call
        {
            let mut name = [0; 16];
            rand::Rng::fill_bytes(random, &mut name);
            let challenge = ChallengeId::from_bytes(name);
            let certificate = self.cases.remove(&node).and_then(|case| case.certificate);
            let case = Case {
                account,
                challenge,
                parameters: None,
                nonce: ChallengeSeed::from_bytes([0; 32]),
                truth: Truth::default(),
                certificate,
            };
            self.cases.insert(node, case);
            return Some(Event::Open {
                call: id,
                caller: account,
                address: AddressKey::of(IpAddr::V4(Ipv4Addr::from_bits(address))),
                request: ChallengeRequest {
                    challenge,
                    claim: claim_of(claimed),
                },
            });
        }
        let case = self.cases.get_mut(&node)?;
        let (caller, challenge) = (case.account, case.challenge);
        let step = match call {
            ProverCall::Echo => ChallengeStep::Echo { nonce: case.nonce },
            ProverCall::Ready => ChallengeStep::Ready,
            ProverCall::Wait | ProverCall::Open { .. } => ChallengeStep::Wait,
            ProverCall::Stage(stage) => ChallengeStep::StageCommitment {
                stage,
                roots: case.roots(stage),
            },
            ProverCall::Residency => ChallengeStep::ResidencyCommitment {
                roots: case.resident_roots(),
            },
            ProverCall::Proof(truth) => {
                case.truth = truth;
                return Some(Event::Proof {
                    call: id,
                    caller,
                    challenge,
                    proof: Vec::new(),
                });
            }
            ProverCall::Renew => {
                let certificate = Box::new(case.certificate.clone()?);
                return Some(Event::Renew {
                    call: id,
                    caller,
                    certificate,
                });
            }
        };
        Some(Event::Step {
            call: id,
            caller,
            challenge,
            step,
        })
    }

    /// Does what the shipped driver does with an effect, and says what that leads to.
    fn follow(&mut self, coordinator: &Keypair, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Answer { call, answer } => {
                if let Some(node) = self.callers.remove(&call) {
                    let answer = match *answer {
                        Ok(answer) => self.answer(node, answer),
                        Err(problem) => DeskAnswer::Refused(problem.to_string()),
                    };
                    self.told.push(Told::Answer(node, answer));
                }
                None
            }
            Effect::Verify(task) => {
                let challenge = task.transcript.challenge;
                let case = self.cases.values().find(|case| case.challenge == challenge);
                let truth = case.map_or_else(Truth::default, |case| case.truth);
                Some(Event::Verified {
                    challenge,
                    verdict: verdict(&task, truth),
                })
            }
            Effect::Keep { mut record, renewal } => {
                record.text = record.certificate.sign(coordinator);
                let holder = self
                    .cases
                    .values_mut()
                    .find(|case| case.account == record.certificate.sub);
                if let Some(case) = holder {
                    case.certificate = Some(record.certificate.clone());
                }
                Some(Event::Kept {
                    record,
                    renewal,
                    is_kept: true,
                })
            }
            Effect::Over {
                challenge, outcome, ..
            } => {
                let case = self.cases.iter().find(|(_, case)| case.challenge == challenge);
                if let Some((node, _)) = case {
                    let outcome = match outcome {
                        Ok(shown) => Outcome::Shown {
                            memory_bytes: shown.memory_bytes,
                            score: shown.score,
                        },
                        Err(refusal) => Outcome::Refused(refusal.code()),
                    };
                    self.told.push(Told::Over(*node, outcome));
                }
                None
            }
            Effect::Update(_) | Effect::Forget(_) => None,
        }
    }

    fn answer(&mut self, node: NodeId, answer: Answer) -> DeskAnswer {
        let next = match answer {
            Answer::Opened(opened) => {
                if let Some(case) = self.cases.get_mut(&node) {
                    case.parameters = Some(opened.parameters);
                }
                opened.next
            }
            Answer::Next(next) => next,
            Answer::Renewal(RenewalAnswer::Renewed { certificate }) => {
                return DeskAnswer::Certified(certificate);
            }
            Answer::Renewal(RenewalAnswer::ChallengeRequired) => return DeskAnswer::ChallengeRequired,
        };
        let Some(case) = self.cases.get_mut(&node) else {
            return DeskAnswer::Wait;
        };
        match next {
            NextStep::Echo { nonce } => {
                case.nonce = nonce;
                DeskAnswer::Echo
            }
            NextStep::Prepare { .. } => DeskAnswer::Prepare,
            NextStep::Wait { .. } | NextStep::Verifying => DeskAnswer::Wait,
            NextStep::Stage { stage, within_ms, .. } => DeskAnswer::Stage {
                stage,
                precision: case.precision(Some(stage)),
                multiply_adds: u64::from(case.rounds(stage)).saturating_mul(case.multiply_adds()),
                within_ms,
            },
            NextStep::Residency { within_ms, .. } => {
                let results = case.resident_rounds();
                DeskAnswer::Residency {
                    results,
                    precision: case.precision(None),
                    result_bytes: case.resident_bytes() / u64::from(results.max(1)),
                    result_multiply_adds: case.multiply_adds(),
                    within_ms,
                }
            }
            NextStep::Open { .. } => DeskAnswer::Open,
            NextStep::Certified { certificate } => DeskAnswer::Certified(certificate),
            NextStep::Refused { code, .. } => DeskAnswer::Refused(code),
        }
    }
}

impl Case {
    fn rounds(&self, stage: u32) -> u32 {
        let stages = self.parameters.iter().flat_map(|parameters| &parameters.stages);
        stages
            .zip(0..)
            .find(|(_, at)| *at == stage)
            .map_or(0, |(stage, _)| stage.rounds)
    }

    /// The precision of a stage, or of the last one, whose results stay.
    fn precision(&self, stage: Option<u32>) -> Precision {
        let stages = self.parameters.as_ref().map(|parameters| &parameters.stages);
        let stage = stages.and_then(|stages| match stage {
            Some(stage) => stages.get(stage as usize),
            None => stages.last(),
        });
        stage.map_or(Precision::F32, |stage| stage.precision)
    }

    fn resident_rounds(&self) -> u32 {
        self.parameters
            .as_ref()
            .map_or(0, |parameters| parameters.resident_rounds)
    }

    fn resident_bytes(&self) -> u64 {
        self.parameters
            .as_ref()
            .map_or(0, ChallengeParameters::resident_bytes)
    }

    fn multiply_adds(&self) -> u64 {
        self.parameters
            .as_ref()
            .map_or(0, ChallengeParameters::multiply_adds_per_round)
    }

    fn roots(&self, stage: u32) -> Vec<UnitsRoot> {
        vec![UnitsRoot::from_bytes([1; 32]); self.rounds(stage) as usize]
    }

    fn resident_roots(&self) -> Vec<UnitsRoot> {
        vec![UnitsRoot::from_bytes([2; 32]); self.resident_rounds() as usize]
    }
}

/// What the verifier finds: a unit that the machine drew and the prover left out.
fn verdict(task: &VerificationTask, truth: Truth) -> Result<(), Refusal> {
    let transcript = &task.transcript;
    let is_skipped = |purpose: &str, unit: &UnitPosition| {
        let mut hasher = blake3::Hasher::new_derive_key("gristmill simulations: units that are left out");
        hasher.update(transcript.challenge.to_string().as_bytes());
        hasher.update(purpose.as_bytes());
        for number in [unit.stage, unit.round, unit.row, unit.column] {
            hasher.update(&number.to_le_bytes());
        }
        let mut lot = [0; 8];
        hasher.finalize_xof().fill(&mut lot);
        u64::from_le_bytes(lot) % 100 < u64::from(truth.skipped_percent)
    };
    let skipped = transcript.units.iter().any(|unit| is_skipped("stage", unit));
    let made_up = transcript
        .resident_units
        .iter()
        .any(|unit| unit.round >= truth.resident_results || is_skipped("resident", unit));
    match skipped || made_up {
        true => Err(Refusal::Proof {
            reason: "an opened unit is not what it should be".to_owned(),
        }),
        false => Ok(()),
    }
}
