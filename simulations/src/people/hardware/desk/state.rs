//! What the calls at the desk have led to: the shipped machine, and which provider is in which challenge.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use gristmill_benchmark::session::{
    AddressKey, Answer, CallId, CertifiedRecord, Challenges, Effect, Event, Policy, Problem, Refusal,
    VerificationTask,
};
use gristmill_protocol::hardware::{
    ChallengeParameters, ChallengeRequest, ChallengeSeed, ChallengeStep, HardwareCertificate, NextStep,
    Precision, RenewalAnswer, UnitPosition, UnitsRoot,
};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::ChallengeId;

use super::{Call, Heard, Outcome, Said, Told};
use crate::engine::{NodeId, Random};
use crate::people::hardware::{DeskAnswer, ProverCall, Truth, claim_of};

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

/// The machine and what its driver would hold.
#[derive(Debug)]
pub(super) struct State {
    policy: Policy,
    pub(super) challenges: Challenges,
    cases: BTreeMap<NodeId, Case>,
    /// Whose call waits for an answer.
    callers: BTreeMap<CallId, Call>,
    next_call: u64,
    told: Vec<Told>,
}

impl State {
    pub(super) fn new(policy: Policy, coordinator: AccountId) -> Self {
        Self {
            challenges: Challenges::new(policy.clone(), coordinator, []),
            policy,
            cases: BTreeMap::new(),
            callers: BTreeMap::new(),
            next_call: 0,
            told: Vec::new(),
        }
    }

    pub(super) fn happen(&mut self, coordinator: &Keypair, heard: Heard, mut random: Random) -> Vec<Told> {
        let event = match heard.said {
            Said::Nothing => Some(Event::Tick),
            Said::Restarted => {
                self.restart(coordinator.account(), heard.now_ms);
                None
            }
            Said::Call(call, said) => self.event(call, said, &mut random),
        };
        let mut events: Vec<Event> = event.into_iter().collect();
        while let Some(event) = events.pop() {
            for effect in self.challenges.handle(event, heard.now_ms, &mut random) {
                events.extend(self.follow(coordinator, effect));
            }
        }
        std::mem::take(&mut self.told)
    }

    /// The machine begins anew with the certificates that are on the disk; challenges and callers are forgotten.
    fn restart(&mut self, coordinator: AccountId, now_ms: u64) {
        let certified: Vec<CertifiedRecord> = self.challenges.certified(now_ms).cloned().collect();
        self.challenges = Challenges::new(self.policy.clone(), coordinator, certified);
        self.callers.clear();
    }

    /// The machine's event for a call; none where there is nothing that it could be about, and then nobody answers.
    fn event(&mut self, caller: Call, call: ProverCall, random: &mut Random) -> Option<Event> {
        let (id, node) = (CallId(self.next_call), caller.node);
        self.next_call += 1;
        self.callers.insert(id, caller);
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
            ProverCall::Wait | ProverCall::Open { .. } | ProverCall::Status(_) => ChallengeStep::Wait,
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
                if let Some(caller) = self.callers.remove(&call) {
                    let answer = match *answer {
                        Ok(answer) => self.answer(caller.node, answer),
                        Err(problem) => DeskAnswer::Refused(code_of(&problem).to_owned()),
                    };
                    self.told.push(Told::Answer(caller, answer));
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
                rounds: case.rounds(stage),
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

/// The name of a problem for figures.
const fn code_of(problem: &Problem) -> &'static str {
    match problem {
        Problem::TooMany { .. } => "too_many",
        Problem::Full => "full",
        Problem::UuidTaken => "uuid_taken",
        Problem::NotKept => "unavailable",
        Problem::NotFound | Problem::OutOfTurn | Problem::Conflict(_) => "out_of_turn",
        Problem::Claim(_) | Problem::Roots { .. } | Problem::OtherAccount => "out_of_bounds",
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
