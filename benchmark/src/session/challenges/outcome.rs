//! How challenges end, and what becomes of certificates.

use gristmill_protocol::hardware::{CertifiedDevice, HardwareCertificate, METHOD, RenewalAnswer, Throughput};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChallengeId;
use gristmill_protocol::jws::Audience;
use rand::Rng;

use super::super::certified::{CertifiedRecord, Renewal, draw_again, expiry};
use super::super::course::{Course, Phase};
use super::super::event::{Answer, CallId, Effect, Problem, Shown};
use super::super::link::{AddressKey, DeviceKey};
use super::super::policy::Policy;
use super::super::refusal::Refusal;
use super::super::shown::{credit_ms, fastest_rate, memory_shown, rate_shown};
use super::{Challenges, WORK_WITHIN_MS};
use crate::score::score;

impl Challenges {
    pub(super) fn hear_verdict(&mut self, challenge: ChallengeId, verdict: Result<(), Refusal>, now_ms: u64) {
        let course = self.courses.get(&challenge);
        if course.is_none_or(|course| !matches!(course.phase, Phase::Verifying { .. })) {
            return;
        }
        match verdict {
            Ok(()) => {
                if let Some(course) = self.courses.get_mut(&challenge) {
                    course.phase = Phase::Verified;
                }
            }
            Err(refusal) => self.end(challenge, Err(refusal), now_ms),
        }
    }

    /// Certifies what is verified, once there is a verdict on every member of the group: those first that hold a
    /// certificate, because the others depend on them.
    pub(super) fn certify_groups(&mut self, now_ms: u64, rng: &mut dyn Rng) {
        let mut verified: Vec<(bool, ChallengeId)> = Vec::new();
        for group in self.groups.values() {
            let members = || {
                let known = |name: &ChallengeId| self.courses.get(name).map(|course| (*name, course));
                group.members.iter().filter_map(known)
            };
            if members().all(|(_, course)| course.is_judged()) {
                let ready = members().filter(|(_, course)| matches!(course.phase, Phase::Verified));
                verified.extend(ready.map(|(name, course)| (!self.is_certified(course, now_ms), name)));
            }
        }
        verified.sort_unstable();
        for (_, challenge) in verified {
            let Some(course) = self.courses.get(&challenge) else {
                continue;
            };
            match self.certify(challenge, course, now_ms, rng) {
                Ok(record) => {
                    if let Some(course) = self.courses.get_mut(&challenge) {
                        let until_ms = now_ms.saturating_add(WORK_WITHIN_MS);
                        course.phase = Phase::Keeping { until_ms };
                    }
                    // From now on it counts as certified, also while its certificate is being kept.
                    self.register.insert(record.clone());
                    let record = Box::new(record);
                    self.effects.push(Effect::Keep {
                        record,
                        renewal: None,
                    });
                }
                Err(refusal) => self.end(challenge, Err(refusal), now_ms),
            }
        }
    }

    fn is_certified(&self, course: &Course, now_ms: u64) -> bool {
        let record = self.register.get(&course.device);
        record.is_some_and(|record| record.is_live(now_ms))
    }

    /// How many linked devices hold certificates that were not shown in the same group. Otherwise one device could be
    /// shown again and again under new names, while those before it come to the barrier and then fail.
    fn not_shown_together(&self, course: &Course, now_ms: u64) -> usize {
        if self.is_certified(course, now_ms) {
            return 0;
        }
        let group = self.groups.get(&course.group);
        let is_shown = |device: &DeviceKey| {
            let record = self.register.get(device);
            record.is_some_and(|record| {
                group.is_some_and(|group| group.members.contains(&record.certificate.jti))
            })
        };
        let linked = self.register.linked(&course.links, now_ms);
        linked.iter().filter(|device| !is_shown(device)).count()
    }

    /// What a verified challenge shows.
    fn certify(
        &self,
        challenge: ChallengeId,
        course: &Course,
        now_ms: u64,
        rng: &mut dyn Rng,
    ) -> Result<CertifiedRecord, Refusal> {
        // Another account's device with the same UUID may have been certified meanwhile.
        if self.register.is_taken(&course.links, now_ms) {
            return Err(Refusal::UuidTaken);
        }
        let missing = self.not_shown_together(course, now_ms);
        if missing > 0 {
            return Err(Refusal::Together { missing });
        }
        let throughput = throughput_of(course, &self.policy);
        let memory_bytes = memory_of(course, &throughput, &self.policy)?;
        let before = self.register.get(&course.device);
        let rates = throughput.iter().map(|one| one.multiply_adds_per_second);
        let (claim, shown_at) = (&course.claim, now_ms / 1_000);
        let certificate = HardwareCertificate {
            iss: self.coordinator,
            sub: course.links.account,
            aud: Audience::One(self.coordinator),
            jti: challenge,
            iat: shown_at,
            exp: expiry(now_ms, u64::MAX),
            shown_at,
            method: METHOD.to_owned(),
            device: CertifiedDevice {
                kind: claim.kind,
                index: claim.index,
                name: claim.name.clone(),
                vendor: claim.vendor.clone(),
                uuid: course.links.uuid,
            },
            memory_bytes,
            score: score(rates, memory_bytes),
            throughput,
            fingerprint: claim.fingerprint,
            fingerprint_changed: before
                .is_some_and(|before| before.certificate.fingerprint != claim.fingerprint),
        };
        Ok(CertifiedRecord {
            certificate,
            text: String::new(),
            address: course.links.address.map(AddressKey::parts),
            again_at_ms: draw_again(before, &self.policy, now_ms, rng),
            has_failed: false,
        })
    }

    pub(super) fn renew(
        &mut self,
        call: CallId,
        caller: AccountId,
        certificate: &HardwareCertificate,
        now_ms: u64,
    ) {
        if certificate.sub != caller {
            return self.answer(call, Err(Problem::OtherAccount));
        }
        let device = &certificate.device;
        let device = DeviceKey::of_parts(&caller, device.kind, device.index, device.uuid);
        let record = self.register.get(&device);
        // Only the newest showing is renewed, and nothing that is not on record any more.
        let newest =
            record.filter(|record| record.certificate.jti == certificate.jti && !record.text.is_empty());
        let renewal = match newest {
            Some(record) if !self.is_wanted(record, now_ms) => {
                record.renewed(self.coordinator, &self.policy, now_ms)
            }
            _ => Renewal::ChallengeRequired,
        };
        match renewal {
            Renewal::Renewed(record) => {
                let renewal = Some(call);
                self.effects.push(Effect::Keep { record, renewal });
            }
            Renewal::ChallengeRequired => {
                self.answer(call, Ok(Answer::Renewal(RenewalAnswer::ChallengeRequired)));
            }
        }
    }

    /// A certificate is given out once it is kept: what consumers accept is what the group rule counts, also after a
    /// restart.
    pub(super) fn hear_kept(
        &mut self,
        mut record: CertifiedRecord,
        renewal: Option<CallId>,
        is_kept: bool,
        now_ms: u64,
    ) {
        let (challenge, text) = (record.certificate.jti, record.text.clone());
        let known = self.register.get(&record.device());
        let is_newest = known.is_some_and(|known| known.certificate.jti == challenge);
        if is_kept && is_newest {
            // It may have failed another challenge meanwhile.
            record.has_failed = known.is_some_and(|known| known.has_failed);
            self.register.insert(record.clone());
        }
        match renewal {
            Some(call) if is_kept && is_newest => {
                let certificate = text;
                self.answer(call, Ok(Answer::Renewal(RenewalAnswer::Renewed { certificate })));
            }
            Some(call) => self.answer(call, Err(Problem::NotKept)),
            None => {
                let course = self.courses.get(&challenge);
                if course.is_none_or(|course| !matches!(course.phase, Phase::Keeping { .. })) {
                    return;
                }
                let outcome = match is_kept && is_newest {
                    true => Ok((text, shown_of(&record))),
                    false => Err(Refusal::Unavailable),
                };
                self.end(challenge, outcome, now_ms);
            }
        }
    }

    /// Ends a challenge. Where its hardware failed, the certificate that it may have from before is not renewed.
    pub(super) fn end(
        &mut self,
        challenge: ChallengeId,
        outcome: Result<(String, Shown), Refusal>,
        now_ms: u64,
    ) {
        let Some(course) = self.courses.get_mut(&challenge) else {
            return;
        };
        let (account, device) = (*course.account(), course.device);
        let told = outcome.as_ref().map(|(_, shown)| *shown).map_err(Clone::clone);
        let is_a_failure = outcome.as_ref().is_err_and(Refusal::is_a_failure);
        course.phase = Phase::Over {
            outcome: outcome.map(|(text, _)| text),
            at_ms: now_ms,
        };
        // What only an open challenge needs can be large.
        course.stages = Vec::new();
        course.residency = None;
        course.openings = None;
        let known = self.register.get(&device).filter(|known| !known.is_due(now_ms));
        if is_a_failure && known.is_some_and(|known| !known.text.is_empty()) {
            let record = self.register.update(&device, |record| record.has_failed = true);
            self.effects
                .extend(record.map(|record| Effect::Update(Box::new(record.clone()))));
        }
        self.effects.push(Effect::Over {
            challenge,
            account,
            outcome: told,
        });
    }
}

const fn shown_of(record: &CertifiedRecord) -> Shown {
    Shown {
        memory_bytes: record.certificate.memory_bytes,
        score: record.certificate.score,
    }
}

fn throughput_of(course: &Course, policy: &Policy) -> Vec<Throughput> {
    let stages = course.stages.iter().map(|done| {
        let credit = credit_ms(policy, course.quickest_echo_ms, done.elapsed_ms);
        let stage = done.stage;
        Throughput {
            precision: stage.precision,
            multiply_adds_per_second: rate_shown(course.work_of(stage.rounds), done.elapsed_ms, credit),
        }
    });
    stages.collect()
}

fn memory_of(course: &Course, throughput: &[Throughput], policy: &Policy) -> Result<u64, Refusal> {
    let elapsed_ms = course.residency.as_ref().map_or(u64::MAX, |done| done.elapsed_ms);
    let counted_ms = elapsed_ms.saturating_sub(credit_ms(policy, course.quickest_echo_ms, elapsed_ms));
    let rates = throughput
        .iter()
        .map(|one| (one.precision, one.multiply_adds_per_second));
    let fastest = fastest_rate(course.claim.kind, rates);
    let work = course.work_of(course.parameters.resident_rounds);
    let asked_bytes = course.parameters.resident_bytes();
    let shown_bytes = memory_shown(asked_bytes, work, fastest, counted_ms);
    if u128::from(shown_bytes) * 100 < u128::from(asked_bytes) * u128::from(policy.memory_share_percent) {
        return Err(Refusal::MemoryNotShown {
            shown_bytes,
            asked_bytes,
        });
    }
    Ok(shown_bytes)
}
