//! All challenges of a coordinator.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::hardware::{
    ChallengeOpened, ChallengeRequest, ChallengeStep, DeviceStatus, HardwareStatus, METHOD, NextStep,
    Precision,
};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChallengeId;
use rand::Rng;

use super::admission::Admission;
use super::certified::{CertifiedRecord, Register};
use super::course::{Course, Phase, draw_seed};
use super::event::{Answer, CallId, Effect, Event, Problem, VerificationTask};
use super::group::{Group, Groups};
use super::link::{AddressKey, DeviceKey, Links};
use super::policy::Policy;
use super::refusal::Refusal;
use super::sizing::parameters_for;

mod outcome;
mod passing;

/// Why a claim in `bf16` alone is refused.
const ROUNDED: &str = "a claim names f32 or tf32 too: memory can't be shown with rounded results";
/// How long the verifier and the keeping of a certificate may take: both always report back, this is the end where
/// they do not.
const WORK_WITHIN_MS: u64 = 5 * 60_000;

/// All challenges, and the devices that hold certificates.
#[derive(Debug)]
pub struct Challenges {
    policy: Policy,
    coordinator: AccountId,
    pub(super) courses: BTreeMap<ChallengeId, Course>,
    pub(super) groups: BTreeMap<u64, Group>,
    next_group: u64,
    pub(super) register: Register,
    admission: Admission,
    forget_at_ms: u64,
    posed: u64,
    effects: Vec<Effect>,
}

/// How much there is, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Challenges that are not over.
    pub open: usize,
    /// Calls that are held.
    pub held: usize,
    /// Devices that are remembered.
    pub devices: usize,
    /// Challenges that were posed since the beginning.
    pub posed: u64,
}

impl Challenges {
    /// No challenges, with the devices that were certified before.
    #[must_use]
    pub fn new(
        policy: Policy,
        coordinator: AccountId,
        certified: impl IntoIterator<Item = CertifiedRecord>,
    ) -> Self {
        let mut register = Register::default();
        certified.into_iter().for_each(|record| register.insert(record));
        Self {
            policy,
            coordinator,
            courses: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_group: 0,
            register,
            admission: Admission::default(),
            forget_at_ms: 0,
            posed: 0,
            effects: Vec::new(),
        }
    }

    /// What follows from what happens, at a time in Unix milliseconds. Every call is answered once, now or with a
    /// later event.
    pub fn handle(&mut self, event: Event, now_ms: u64, rng: &mut dyn Rng) -> Vec<Effect> {
        // What is late is late before anything that comes now.
        self.pass_time(now_ms, rng);
        match event {
            Event::Open {
                call,
                caller,
                address,
                request,
            } => {
                let answer = self.open(caller, address, request, now_ms, rng);
                self.answer(call, answer.map(Answer::Opened));
            }
            Event::Step {
                call,
                caller,
                challenge,
                step,
            } => {
                self.step(call, caller, challenge, step, now_ms, rng);
            }
            Event::Proof {
                call,
                caller,
                challenge,
                proof,
            } => {
                self.take_proof(call, caller, challenge, proof, now_ms);
            }
            Event::Verified { challenge, verdict } => self.hear_verdict(challenge, verdict, now_ms),
            Event::Renew {
                call,
                caller,
                certificate,
            } => self.renew(call, caller, &certificate, now_ms),
            Event::Kept {
                record,
                renewal,
                is_kept,
            } => {
                self.hear_kept(*record, renewal, is_kept, now_ms);
            }
            Event::Tick => {}
        }
        self.pass_time(now_ms, rng);
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Tick`] is due where nothing else happens, Unix milliseconds.
    #[must_use]
    pub fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        let keep_ms = self.policy.keep_outcome_ms;
        let courses = self.courses.values().filter_map(|course| course.wake_ms(keep_ms));
        let rule = self.rule();
        let groups = self
            .groups
            .values()
            .filter_map(|group| rule.wake_ms(group, now_ms));
        courses.chain(groups).min()
    }

    /// How an account's devices stand.
    #[must_use]
    pub fn status(&self, account: &AccountId, now_ms: u64) -> HardwareStatus {
        let live = self
            .register
            .of_account(account)
            .filter(|record| record.is_live(now_ms));
        let signed = live.filter(|record| !record.text.is_empty());
        let devices = signed.map(|record| DeviceStatus {
            certificate: record.text.clone(),
            challenge_wanted: self.is_wanted(record, now_ms),
        });
        let open = self
            .courses
            .iter()
            .filter(|(_, course)| course.account() == account && !course.is_over());
        HardwareStatus {
            devices: devices.collect(),
            challenges: open.map(|(name, _)| *name).collect(),
        }
    }

    /// The devices that hold certificates.
    pub fn certified(&self, now_ms: u64) -> impl Iterator<Item = &CertifiedRecord> {
        let live = self
            .register
            .records()
            .filter(move |record| record.is_live(now_ms));
        live.filter(|record| !record.text.is_empty())
    }

    /// Whether somebody may upload a proof for a challenge now: nothing is read before.
    #[must_use]
    pub fn awaits_proof(&self, challenge: &ChallengeId) -> bool {
        self.courses
            .get(challenge)
            .is_some_and(|course| matches!(course.phase, Phase::Opening { .. }))
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            open: self.courses.values().filter(|course| !course.is_over()).count(),
            held: self
                .courses
                .values()
                .filter(|course| course.held.is_some())
                .count(),
            devices: self.register.len(),
            posed: self.posed,
        }
    }

    fn rule(&self) -> Groups<'_> {
        Groups {
            groups: &self.groups,
            courses: &self.courses,
            register: &self.register,
            policy: &self.policy,
        }
    }

    fn is_wanted(&self, record: &CertifiedRecord, now_ms: u64) -> bool {
        record.is_due(now_ms) || self.rule().is_wanted(&record.device(), &record.links())
    }

    fn answer(&mut self, call: CallId, answer: Result<Answer, Problem>) {
        let answer = Box::new(answer);
        self.effects.push(Effect::Answer { call, answer });
    }

    fn open(
        &mut self,
        caller: AccountId,
        address: Option<AddressKey>,
        request: ChallengeRequest,
        now_ms: u64,
        rng: &mut dyn Rng,
    ) -> Result<ChallengeOpened, Problem> {
        let ChallengeRequest { challenge, claim } = request;
        if let Some(course) = self.courses.get(&challenge) {
            return match *course.account() == caller && course.claim == claim {
                true => Ok(self.opened(challenge, course, now_ms)),
                false => Err(Problem::Conflict("the challenge exists with other content")),
            };
        }
        claim.check().map_err(|error| Problem::Claim(error.to_string()))?;
        if claim
            .throughput
            .iter()
            .all(|one| one.precision == Precision::Bf16)
        {
            return Err(Problem::Claim(ROUNDED.to_owned()));
        }
        let links = Links {
            account: caller,
            address,
            uuid: claim.uuid_digest(),
        };
        if self.register.is_taken(&links, now_ms) {
            return Err(Problem::UuidTaken);
        }
        let device = DeviceKey::of(&caller, &claim);
        if self.register.get(&device).is_none() && self.register.len() >= self.policy.devices_max {
            return Err(Problem::Full);
        }
        self.replace(&device, now_ms);
        let open = self.courses.values().filter(|course| !course.is_over());
        self.admission
            .admit(&links, open.map(|course| &course.links), &self.policy, now_ms)?;
        let group = self.join(challenge, &links, now_ms);
        let course = Course {
            parameters: parameters_for(&claim, &self.policy),
            claim,
            links,
            device,
            setup_seed: draw_seed(rng),
            phase: Phase::Echo {
                nonce: draw_seed(rng),
                sent_ms: now_ms,
                left: self.policy.echoes.max(1),
                until_ms: now_ms.saturating_add(self.policy.echo_within_ms),
            },
            quickest_echo_ms: u64::MAX,
            stages: Vec::new(),
            residency: None,
            openings: None,
            held: None,
            group,
        };
        let opened = self.opened(challenge, &course, now_ms);
        self.courses.insert(challenge, course);
        self.posed = self.posed.saturating_add(1);
        Ok(opened)
    }

    fn opened(&self, challenge: ChallengeId, course: &Course, now_ms: u64) -> ChallengeOpened {
        ChallengeOpened {
            challenge,
            method: METHOD.to_owned(),
            parameters: course.parameters.clone(),
            setup_seed: course.setup_seed,
            next: course
                .next_step(now_ms)
                .unwrap_or_else(|| self.wait_step(course, now_ms)),
        }
    }

    /// A device has one challenge at a time: the newest.
    fn replace(&mut self, device: &DeviceKey, now_ms: u64) {
        let same = self
            .courses
            .iter()
            .find(|(_, course)| course.device == *device && !course.is_over());
        if let Some(before) = same.map(|(name, _)| *name) {
            self.end(before, Err(Refusal::Replaced), now_ms);
        }
    }

    /// Joins every group that gathers and has something in common into one, and puts a challenge into it.
    fn join(&mut self, challenge: ChallengeId, links: &Links, now_ms: u64) -> u64 {
        let mut members = BTreeSet::from([challenge]);
        // The oldest counts: joining moves no group's end away.
        let mut began_ms = now_ms;
        for other in self.rule().to_join(links) {
            if let Some(group) = self.groups.remove(&other) {
                began_ms = began_ms.min(group.began_ms);
                members.extend(group.members);
            }
        }
        self.gather(members, began_ms, now_ms)
    }

    /// Makes a group of challenges that wait for each other.
    fn gather(&mut self, members: BTreeSet<ChallengeId>, began_ms: u64, now_ms: u64) -> u64 {
        let name = self.next_group;
        self.next_group += 1;
        for member in &members {
            if let Some(course) = self.courses.get_mut(member) {
                course.group = name;
            }
        }
        let group = Group {
            members,
            is_running: false,
            began_ms,
            joined_ms: now_ms,
        };
        self.groups.insert(name, group);
        name
    }

    fn step(
        &mut self,
        call: CallId,
        caller: AccountId,
        challenge: ChallengeId,
        step: ChallengeStep,
        now_ms: u64,
        rng: &mut dyn Rng,
    ) {
        let policy = &self.policy;
        let course = self
            .courses
            .get_mut(&challenge)
            .filter(|course| *course.account() == caller);
        let taken = course
            .ok_or(Problem::NotFound)
            .and_then(|course| match course.is_over() {
                true => Ok(()),
                false => course.take(step, policy, now_ms, rng),
            });
        match taken {
            Ok(()) => self.answer_or_hold(call, challenge, now_ms),
            Err(problem) => self.answer(call, Err(problem)),
        }
    }

    /// Answers with what is next, or holds the call until there is something. Of several calls of one challenge the
    /// last one is held.
    fn answer_or_hold(&mut self, call: CallId, challenge: ChallengeId, now_ms: u64) {
        let until_ms = now_ms.saturating_add(self.policy.hold_ms);
        let Some(course) = self.courses.get_mut(&challenge) else {
            return self.answer(call, Err(Problem::NotFound));
        };
        match course.next_step(now_ms) {
            Some(next) => self.answer(call, Ok(Answer::Next(next))),
            None => {
                if let Some((before, _)) = course.held.replace((call, until_ms)) {
                    self.answer_wait(before, challenge, now_ms);
                }
            }
        }
    }

    fn answer_wait(&mut self, call: CallId, challenge: ChallengeId, now_ms: u64) {
        let course = self.courses.get(&challenge);
        let next = course.map(|course| self.wait_step(course, now_ms));
        self.answer(call, next.map(Answer::Next).ok_or(Problem::NotFound));
    }

    fn wait_step(&self, course: &Course, now_ms: u64) -> NextStep {
        match course.phase {
            Phase::Verifying { .. } | Phase::Verified | Phase::Keeping { .. } => NextStep::Verifying,
            _ => NextStep::Wait {
                missing: u32::try_from(self.rule().waited_for(course, now_ms)).unwrap_or(u32::MAX),
            },
        }
    }

    fn take_proof(
        &mut self,
        call: CallId,
        caller: AccountId,
        challenge: ChallengeId,
        proof: Vec<u8>,
        now_ms: u64,
    ) {
        let course = self
            .courses
            .get_mut(&challenge)
            .filter(|course| *course.account() == caller);
        let Some(course) = course else {
            return self.answer(call, Err(Problem::NotFound));
        };
        if matches!(course.phase, Phase::Opening { .. }) {
            let Some(transcript) = course.transcript(challenge) else {
                return self.answer(call, Err(Problem::OutOfTurn));
            };
            let task = VerificationTask { transcript, proof };
            course.phase = Phase::Verifying {
                until_ms: now_ms.saturating_add(WORK_WITHIN_MS),
            };
            self.effects.push(Effect::Verify(Box::new(task)));
        }
        // A proof that comes again is answered like the first one.
        match course.phase {
            Phase::Verifying { .. } | Phase::Verified | Phase::Keeping { .. } | Phase::Over { .. } => {
                self.answer_or_hold(call, challenge, now_ms);
            }
            _ => self.answer(call, Err(Problem::OutOfTurn)),
        }
    }
}
