//! Whatever callers send, in whatever order and at whatever time, what the machine promises holds.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::hardware::{ChallengeRequest, ChallengeSeed, ChallengeStep, NextStep, RenewalAnswer};
use gristmill_protocol::ids::ChallengeId;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use super::desk::{BEGIN_MS, account, claim, roots};
use crate::session::{
    AddressKey, Answer, CallId, CertifiedRecord, Challenges, Effect, Event, Policy, Refusal,
};

/// What somebody does next.
#[derive(Clone, Debug)]
enum Act {
    Open {
        owner: u8,
        address: u8,
        uuid: u8,
    },
    /// Does what it was told last, if it is this device's turn.
    Go {
        device: usize,
    },
    /// Sends something else.
    Nonsense {
        device: usize,
        kind: u8,
    },
    /// All do what they are told for a while, and so does what belongs to the coordinator: by chance alone hardly
    /// anybody comes to a certificate, and nobody to a second one.
    GoOn,
    /// Asks for a later expiry of some certificate.
    Renew {
        which: usize,
    },
    Pass {
        ms: u64,
    },
    FinishWork {
        good: bool,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => (1u8..4, 0u8..3, 0u8..4).prop_map(|(owner, address, uuid)| Act::Open { owner, address, uuid }),
        10 => (0usize..8).prop_map(|device| Act::Go { device }),
        2 => Just(Act::GoOn),
        1 => (0usize..4).prop_map(|which| Act::Renew { which }),
        1 => (0usize..8, 0u8..6).prop_map(|(device, kind)| Act::Nonsense { device, kind }),
        4 => prop_oneof![0u64..50, 0u64..1_500, 0u64..200_000].prop_map(|ms| Act::Pass { ms }),
        3 => any::<bool>().prop_map(|good| Act::FinishWork { good }),
    ];
    prop::collection::vec(act, 1..150)
}

#[derive(Default)]
struct World {
    challenges: Option<Challenges>,
    now_ms: u64,
    calls: BTreeMap<CallId, ChallengeId>,
    answered: BTreeSet<CallId>,
    devices: Vec<(u8, ChallengeId)>,
    told: BTreeMap<ChallengeId, NextStep>,
    rounds: BTreeMap<ChallengeId, (u32, u32)>,
    committed: BTreeMap<ChallengeId, u32>,
    seeds: BTreeMap<ChallengeSeed, ChallengeId>,
    work: Vec<Event>,
    next_call: u64,
    /// The challenges that ended with a certificate, by the owner of the device.
    certified: BTreeMap<u8, BTreeSet<ChallengeId>>,
    renewed: u32,
}

impl World {
    fn handle(&mut self, event: Event, rng: &mut ChaCha8Rng, good: bool) {
        let now_ms = self.now_ms;
        let effects = self.challenges.as_mut().unwrap().handle(event, now_ms, rng);
        for effect in effects {
            match effect {
                Effect::Answer { call, answer } => {
                    assert!(self.answered.insert(call), "answered twice");
                    let challenge = self.calls[&call];
                    match *answer {
                        Ok(Answer::Opened(opened)) => {
                            let parameters = &opened.parameters;
                            self.rounds.insert(
                                challenge,
                                (parameters.stages[0].rounds, parameters.resident_rounds),
                            );
                            self.hear(challenge, opened.next);
                        }
                        Ok(Answer::Next(next)) => self.hear(challenge, next),
                        Ok(Answer::Renewal(RenewalAnswer::Renewed { .. })) => self.renewed += 1,
                        Ok(Answer::Renewal(RenewalAnswer::ChallengeRequired)) | Err(_) => {}
                    }
                }
                Effect::Verify(task) => {
                    assert_eq!(
                        self.committed.get(&task.transcript.challenge),
                        Some(&2),
                        "proved before everything was committed to"
                    );
                    let verdict = match good {
                        true => Ok(()),
                        false => Err(Refusal::Proof { reason: "bad".into() }),
                    };
                    self.work.push(Event::Verified {
                        challenge: task.transcript.challenge,
                        verdict,
                    });
                }
                Effect::Keep { mut record, renewal } => {
                    if renewal.is_none() {
                        self.check_group(&record);
                    }
                    record.text = "signed".into();
                    self.work.push(Event::Kept {
                        record,
                        renewal,
                        is_kept: good,
                    });
                }
                Effect::Update(_) | Effect::Forget(_) | Effect::Over { .. } => {}
            }
        }
        let counts = self.challenges.as_ref().unwrap().counts();
        assert!(counts.open <= 6 && counts.held <= counts.open);
    }

    fn hear(&mut self, challenge: ChallengeId, next: NextStep) {
        let committed = self.committed.get(&challenge).copied().unwrap_or(0);
        let mut seed_of_one = |seed: ChallengeSeed| {
            let owner = *self.seeds.entry(seed).or_insert(challenge);
            assert_eq!(owner, challenge, "two challenges with one seed");
        };
        match &next {
            NextStep::Stage { round_seed, .. } => {
                assert_eq!(committed, 0);
                seed_of_one(*round_seed);
            }
            NextStep::Residency { nonce, .. } => {
                assert_eq!(committed, 1, "the nonce is told after the stages");
                seed_of_one(*nonce);
            }
            NextStep::Open { .. } => assert_eq!(committed, 2, "openings are drawn after the commitments"),
            NextStep::Certified { .. } => {
                assert_eq!(committed, 2);
                let owner = self
                    .devices
                    .iter()
                    .find(|(_, name)| *name == challenge)
                    .unwrap()
                    .0;
                self.certified.entry(owner).or_default().insert(challenge);
            }
            _ => {}
        }
        self.told.insert(challenge, next);
    }

    fn call_for(&mut self, challenge: ChallengeId) -> CallId {
        self.next_call += 1;
        let call = CallId(self.next_call);
        self.calls.insert(call, challenge);
        call
    }

    fn go(&mut self, owner: u8, challenge: ChallengeId, rng: &mut ChaCha8Rng) {
        let Some(told) = self.told.get(&challenge).cloned() else {
            return;
        };
        let (stage_rounds, resident_rounds) = self.rounds[&challenge];
        let step = match told {
            NextStep::Echo { nonce } => ChallengeStep::Echo { nonce },
            NextStep::Prepare { .. } => ChallengeStep::Ready,
            NextStep::Stage { .. } => {
                self.committed.insert(challenge, 1);
                ChallengeStep::StageCommitment {
                    stage: 0,
                    roots: roots(stage_rounds),
                }
            }
            NextStep::Residency { .. } => {
                self.committed.insert(challenge, 2);
                ChallengeStep::ResidencyCommitment {
                    roots: roots(resident_rounds),
                }
            }
            NextStep::Open { .. } => {
                let call = self.call_for(challenge);
                let proof = Event::Proof {
                    call,
                    caller: account(owner),
                    challenge,
                    proof: vec![1],
                };
                return self.handle(proof, rng, true);
            }
            _ => ChallengeStep::Wait,
        };
        let call = self.call_for(challenge);
        self.handle(
            Event::Step {
                call,
                caller: account(owner),
                challenge,
                step,
            },
            rng,
            true,
        );
    }

    fn go_on(&mut self, rng: &mut ChaCha8Rng) {
        for _ in 0..20 {
            let is_open = |(_, challenge): &&(u8, ChallengeId)| {
                let told = self.told.get(challenge);
                told.is_some_and(|told| {
                    !matches!(told, NextStep::Certified { .. } | NextStep::Refused { .. })
                })
            };
            let open: Vec<_> = self.devices.iter().filter(is_open).copied().collect();
            if open.is_empty() {
                return;
            }
            // A stage takes what it should at the claimed rate, the fold of the memory no time.
            let told = |wanted: fn(&NextStep) -> bool| {
                open.iter()
                    .any(|(_, challenge)| self.told.get(challenge).is_some_and(wanted))
            };
            let ms = if told(|next| matches!(next, NextStep::Residency { .. })) {
                0
            } else if told(|next| matches!(next, NextStep::Stage { .. })) {
                4_000
            } else {
                300
            };
            self.act(Act::Pass { ms }, rng);
            for (owner, challenge) in open {
                self.go(owner, challenge, rng);
                self.act(Act::FinishWork { good: true }, rng);
            }
        }
    }

    fn renew(&mut self, which: usize, rng: &mut ChaCha8Rng) {
        let challenges = self.challenges.as_ref().unwrap();
        let certificates: Vec<_> = challenges
            .certified(self.now_ms)
            .map(|record| record.certificate.clone())
            .collect();
        let Some(certificate) = certificates.into_iter().nth(which) else {
            return;
        };
        let call = self.call_for(certificate.jti);
        let caller = certificate.sub;
        let renew = Event::Renew {
            call,
            caller,
            certificate: Box::new(certificate),
        };
        self.handle(renew, rng, true);
    }

    fn nonsense(&mut self, owner: u8, challenge: ChallengeId, kind: u8, rng: &mut ChaCha8Rng) {
        let call = self.call_for(challenge);
        let (caller, seed) = (account(owner), ChallengeSeed::from_bytes([kind; 32]));
        let step = match kind {
            0 => ChallengeStep::Echo { nonce: seed },
            1 => ChallengeStep::StageCommitment {
                stage: 7,
                roots: roots(1),
            },
            2 => ChallengeStep::StageCommitment {
                stage: 0,
                roots: Vec::new(),
            },
            3 => ChallengeStep::ResidencyCommitment { roots: roots(9) },
            4 => {
                return self.handle(
                    Event::Proof {
                        call,
                        caller: account(9),
                        challenge,
                        proof: Vec::new(),
                    },
                    rng,
                    true,
                );
            }
            _ => {
                return self.handle(
                    Event::Verified {
                        challenge: ChallengeId::from_bytes([9; 16]),
                        verdict: Ok(()),
                    },
                    rng,
                    true,
                );
            }
        };
        self.handle(
            Event::Step {
                call,
                caller,
                challenge,
                step,
            },
            rng,
            true,
        );
    }

    fn act(&mut self, act: Act, rng: &mut ChaCha8Rng) {
        match act {
            Act::Open { owner, address, uuid } => {
                let mut name = [0xee; 16];
                name[0] = self.devices.len() as u8;
                let challenge = ChallengeId::from_bytes(name);
                self.devices.push((owner, challenge));
                let call = self.call_for(challenge);
                let uuid = (uuid > 0).then(|| uuid.to_string());
                let request = ChallengeRequest {
                    challenge,
                    claim: claim(uuid.as_deref(), 0),
                };
                let address = (address > 0)
                    .then(|| AddressKey::of([192, 0, 2, address].into()))
                    .flatten();
                self.handle(
                    Event::Open {
                        call,
                        caller: account(owner),
                        address,
                        request,
                    },
                    rng,
                    true,
                );
            }
            Act::Go { device } => {
                if let Some((owner, challenge)) = self.devices.iter().rev().nth(device).copied() {
                    self.go(owner, challenge, rng);
                }
            }
            Act::GoOn => self.go_on(rng),
            Act::Renew { which } => self.renew(which, rng),
            Act::Nonsense { device, kind } => {
                if let Some((owner, challenge)) = self.devices.iter().rev().nth(device).copied() {
                    self.nonsense(owner, challenge, kind, rng);
                }
            }
            Act::Pass { ms } => {
                self.now_ms += ms;
                self.handle(Event::Tick, rng, true);
            }
            Act::FinishWork { good } => {
                if !self.work.is_empty() {
                    let event = self.work.remove(0);
                    self.handle(event, rng, good);
                }
            }
        }
    }

    /// Whoever is newly certified was challenged at one time with every certified device that it is linked to.
    fn check_group(&self, record: &CertifiedRecord) {
        let challenges = self.challenges.as_ref().unwrap();
        let course = &challenges.courses[&record.certificate.jti];
        let members = &challenges.groups[&course.group].members;
        for device in challenges.register.linked(&record.links(), self.now_ms) {
            let is_member = |name: &ChallengeId| {
                let member = challenges.courses.get(name);
                member.is_some_and(|member| member.device == device)
            };
            assert!(members.iter().any(is_member), "a certified device stayed away");
        }
    }

    /// Devices with something in common whose certificates hold at one time ran at one time.
    fn check_certificates(&self) {
        let records: Vec<_> = self.challenges.as_ref().unwrap().certified(self.now_ms).collect();
        for (at, one) in records.iter().enumerate() {
            for other in &records[..at] {
                let is_same_uuid = one.certificate.device.uuid.is_some()
                    && one.certificate.device.uuid == other.certificate.device.uuid;
                assert!(
                    !is_same_uuid || one.certificate.sub == other.certificate.sub,
                    "one UUID, two owners"
                );
            }
        }
    }
}

/// Plays acts from the beginning, and lets everything come to an end.
fn play(acts: Vec<Act>, seed: u64) -> World {
    let policy = Policy {
        open_max: 6,
        ..Policy::default()
    };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut world = World {
        challenges: Some(Challenges::new(policy, account(0), [])),
        now_ms: BEGIN_MS,
        ..World::default()
    };
    for act in acts {
        world.act(act, &mut rng);
        world.check_certificates();
    }
    // In the end, nothing is left waiting.
    for _ in 0..40 {
        world.act(Act::FinishWork { good: true }, &mut rng);
    }
    for _ in 0..100 {
        world.act(Act::Pass { ms: 60_000 }, &mut rng);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_in_every_order(acts in acts(), seed in any::<u64>()) {
        let world = play(acts, seed);
        let counts = world.challenges.as_ref().unwrap().counts();
        prop_assert_eq!((counts.open, counts.held), (0, 0));
        // A made-up verdict has no call.
        let unanswered = world.calls.keys().filter(|call| !world.answered.contains(call)).count();
        prop_assert!(unanswered <= world.calls.len() / 2);
    }
}

/// What is tried above is worth something: the same draws come to second certificates and to renewals.
#[test]
fn the_orders_that_are_tried_come_to_second_certificates() {
    let mut runner = TestRunner::deterministic();
    let (mut second, mut renewed) = (0, 0);
    for seed in 0..60 {
        let acts = acts().new_tree(&mut runner).unwrap().current();
        let world = play(acts, seed);
        second += u32::from(world.certified.values().any(|challenges| challenges.len() > 1));
        renewed += u32::from(world.renewed > 0);
    }
    assert!(second >= 10 && renewed >= 10, "{second} and {renewed} of 60");
}
