//! A coordinator without sockets, and devices that answer it as they are told.

use std::collections::BTreeMap;

use gristmill_protocol::hardware::{
    ChallengeOpened, ChallengeRequest, ChallengeStep, HardwareCertificate, HardwareClaim, HardwareDigest,
    HardwareKind, NextStep, Precision, RenewalAnswer, Throughput, UnitsRoot,
};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChallengeId;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;

use crate::session::{
    AddressKey, Answer, CallId, CertifiedRecord, Challenges, Effect, Event, Policy, Problem, Refusal,
};

pub(super) const BEGIN_MS: u64 = 1_800_000_000_000;
/// What the devices of the tests claim: four rounds of the smallest dimension take four seconds.
pub(super) const RATE: u64 = 256 * 256 * 256;
pub(super) const MEMORY_BYTES: u64 = 4 * 2 * 256 * 256;

pub(super) fn account(name: u8) -> AccountId {
    AccountId::from_public_key([name; 32])
}

pub(super) fn claim(uuid: Option<&str>, index: u32) -> HardwareClaim {
    HardwareClaim {
        kind: HardwareKind::Cpu,
        index,
        name: "device".into(),
        vendor: "maker".into(),
        uuid: uuid.map(str::to_owned),
        driver: None,
        memory_bytes: MEMORY_BYTES,
        throughput: vec![Throughput {
            precision: Precision::F32,
            multiply_adds_per_second: RATE,
        }],
        fingerprint: HardwareDigest::from_bytes([7; 32]),
    }
}

pub(super) fn roots(count: u32) -> Vec<UnitsRoot> {
    (0..count)
        .map(|round| UnitsRoot::from_bytes([round as u8; 32]))
        .collect()
}

pub(super) struct Desk {
    pub(super) challenges: Challenges,
    pub(super) now_ms: u64,
    pub(super) rng: ChaCha8Rng,
    pub(super) answers: BTreeMap<CallId, Result<Answer, Problem>>,
    /// What every verified proof gets.
    pub(super) verdict: Result<(), Refusal>,
    /// Whether certificates can be kept.
    pub(super) keeps: bool,
    /// What is on the disk.
    pub(super) kept: BTreeMap<HardwareDigest, CertifiedRecord>,
    next_call: u64,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self::with(Policy::default(), [])
    }

    pub(super) fn with(policy: Policy, kept: impl IntoIterator<Item = CertifiedRecord>) -> Self {
        Self {
            challenges: Challenges::new(policy, account(0), kept),
            now_ms: BEGIN_MS,
            rng: ChaCha8Rng::seed_from_u64(7),
            answers: BTreeMap::new(),
            verdict: Ok(()),
            keeps: true,
            kept: BTreeMap::new(),
            next_call: 0,
        }
    }

    pub(super) fn call(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    /// Handles an event and does what follows, as a driver does.
    pub(super) fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.challenges.handle(event, self.now_ms, &mut self.rng) {
                match effect {
                    Effect::Answer { call, answer } => {
                        assert!(
                            self.answers.insert(call, *answer).is_none(),
                            "{call:?} answered twice"
                        );
                    }
                    Effect::Verify(task) => events.push(Event::Verified {
                        challenge: task.transcript.challenge,
                        verdict: self.verdict.clone(),
                    }),
                    Effect::Keep { mut record, renewal } => {
                        record.text = format!("{}.{}", record.certificate.jti, record.certificate.exp);
                        if self.keeps {
                            self.kept.insert(*record.device().digest(), *record.clone());
                        }
                        events.push(Event::Kept {
                            record,
                            renewal,
                            is_kept: self.keeps,
                        });
                    }
                    Effect::Update(record) => {
                        self.kept.insert(*record.device().digest(), *record);
                    }
                    Effect::Forget(device) => {
                        self.kept.remove(device.digest());
                    }
                    Effect::Over { .. } => {}
                }
            }
        }
    }

    pub(super) fn advance(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        self.handle(Event::Tick);
    }

    pub(super) fn open(
        &mut self,
        name: u8,
        at: Option<&str>,
        claim: HardwareClaim,
    ) -> Result<Device, Problem> {
        let call = self.call();
        let challenge = ChallengeId::from_bytes(u128::from(call.0).to_le_bytes());
        let caller = account(name);
        self.handle(Event::Open {
            call,
            caller,
            address: at.and_then(|address| AddressKey::of(address.parse().unwrap())),
            request: ChallengeRequest { challenge, claim },
        });
        match self.answers.remove(&call).expect("answered at once")? {
            Answer::Opened(opened) => Ok(Device {
                caller,
                challenge,
                opened,
            }),
            other => panic!("{other:?}"),
        }
    }

    /// Takes a step and gives the call, which may be held.
    pub(super) fn step(&mut self, device: &Device, step: ChallengeStep) -> CallId {
        let call = self.call();
        self.handle(Event::Step {
            call,
            caller: device.caller,
            challenge: device.challenge,
            step,
        });
        call
    }

    pub(super) fn answer(&mut self, call: CallId) -> Option<Result<NextStep, Problem>> {
        Some(match self.answers.remove(&call)? {
            Ok(Answer::Next(next)) => Ok(next),
            Err(problem) => Err(problem),
            Ok(other) => panic!("{other:?}"),
        })
    }

    /// Takes a step that is answered at once.
    pub(super) fn next(&mut self, device: &Device, step: ChallengeStep) -> NextStep {
        let call = self.step(device, step);
        self.answer(call).expect("answered at once").expect("no problem")
    }

    /// What is next for a device now, without waiting for it.
    pub(super) fn now(&mut self, device: &Device) -> Option<NextStep> {
        let call = self.step(device, ChallengeStep::Wait);
        self.answer(call).map(Result::unwrap)
    }

    /// Echoes and says that it is ready.
    pub(super) fn prepare(&mut self, device: &Device, echo_ms: u64) -> CallId {
        let mut next = device.opened.next.clone();
        while let NextStep::Echo { nonce } = next {
            self.now_ms += echo_ms;
            next = self.next(device, ChallengeStep::Echo { nonce });
        }
        assert!(matches!(next, NextStep::Prepare { .. }), "{next:?}");
        self.step(device, ChallengeStep::Ready)
    }

    pub(super) fn commit_stage(&mut self, device: &Device, stage: u32) -> CallId {
        let rounds = device.opened.parameters.stages[stage as usize].rounds;
        self.step(
            device,
            ChallengeStep::StageCommitment {
                stage,
                roots: roots(rounds),
            },
        )
    }

    pub(super) fn commit_residency(&mut self, device: &Device) -> CallId {
        let rounds = device.opened.parameters.resident_rounds;
        self.step(
            device,
            ChallengeStep::ResidencyCommitment { roots: roots(rounds) },
        )
    }

    /// Uploads a proof and expects to hear the end at once.
    pub(super) fn prove(&mut self, device: &Device) -> NextStep {
        let call = self.upload(device);
        self.answer(call).expect("answered at once").expect("no problem")
    }

    /// Uploads a proof and gives the call, which may be held.
    pub(super) fn upload(&mut self, device: &Device) -> CallId {
        let call = self.call();
        self.handle(Event::Proof {
            call,
            caller: device.caller,
            challenge: device.challenge,
            proof: vec![1, 2, 3],
        });
        call
    }

    /// The whole course of one device that is alone, taking so long for its stage and for its memory.
    pub(super) fn run(&mut self, device: &Device, stage_ms: u64, residency_ms: u64) -> NextStep {
        self.prepare(device, 10);
        self.advance(1_000);
        let next = self.now(device);
        assert!(matches!(next, Some(NextStep::Stage { .. })), "{next:?}");
        self.now_ms += stage_ms;
        let call = self.commit_stage(device, 0);
        let next = self.answer(call).expect("answered at once").unwrap();
        if !matches!(next, NextStep::Residency { .. }) {
            return next;
        }
        self.now_ms += residency_ms;
        let call = self.commit_residency(device);
        match self.answer(call).expect("answered at once").unwrap() {
            NextStep::Open { .. } => self.prove(device),
            next => next,
        }
    }

    /// Runs a device alone at what it claims, and expects a certificate.
    pub(super) fn certify(
        &mut self,
        name: u8,
        at: Option<&str>,
        claim: HardwareClaim,
    ) -> HardwareCertificate {
        let device = self.open(name, at, claim).unwrap();
        let next = self.run(&device, 4_000, 100);
        assert!(matches!(next, NextStep::Certified { .. }), "{next:?}");
        self.certificate_of(&device)
    }

    pub(super) fn certificate_of(&self, device: &Device) -> HardwareCertificate {
        let mut certified = self.challenges.certified(self.now_ms);
        let record = certified.find(|record| record.certificate.jti == device.challenge);
        record.expect("certified").certificate.clone()
    }

    pub(super) fn renew(
        &mut self,
        caller: AccountId,
        certificate: &HardwareCertificate,
    ) -> Result<RenewalAnswer, Problem> {
        let call = self.call();
        self.handle(Event::Renew {
            call,
            caller,
            certificate: Box::new(certificate.clone()),
        });
        match self.answers.remove(&call).expect("answered at once")? {
            Answer::Renewal(renewal) => Ok(renewal),
            other => panic!("{other:?}"),
        }
    }
}

pub(super) struct Device {
    pub(super) caller: AccountId,
    pub(super) challenge: ChallengeId,
    pub(super) opened: ChallengeOpened,
}

pub(super) fn refusal(next: &NextStep) -> &str {
    match next {
        NextStep::Refused { code, .. } => code,
        other => panic!("{other:?}"),
    }
}
