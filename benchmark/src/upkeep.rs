//! When a node looks after the certificates of its hardware, and what it does about them.
//!
//! Jobs come first: nothing is computed while one runs or waits, and what has begun is broken off when one comes. Only
//! asking for a later expiry, which takes no device, is done beside jobs. The coordinator says at random when a device
//! is wanted for a challenge, so the node looks every few minutes; most looks end with nothing to do.

use std::collections::BTreeSet;

use gristmill_protocol::hardware::{HardwareCertificate, HardwareKind};
use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

/// How long no job must have been there before anything begins, in milliseconds: jobs come in bursts.
pub const IDLE_MS: u64 = 3_000;
/// Between two looks at the coordinator while all is well, in milliseconds. Devices that are challenged together wait
/// for each other three times as long.
pub const LOOK_EVERY_MS: u64 = 180_000;
/// Before trying again what a job broke off, in milliseconds.
pub const AFTER_INTERRUPTION_MS: u64 = 10_000;
/// Before trying again what failed, in milliseconds; doubles.
pub const AFTER_FAILURE_MS: u64 = 30_000;
/// The longest time before trying again what failed, in milliseconds.
pub const AFTER_FAILURE_MAX_MS: u64 = 30 * 60 * 1_000;
/// Before asking a coordinator again that issues no certificates, in milliseconds.
pub const AFTER_NO_SUCH_CALL_MS: u64 = 60 * 60 * 1_000;
/// A certificate is renewed when no more than this part of its life is left: one half.
const RENEW_BELOW: u64 = 2;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardwareStep {
    /// Look at how the devices stand with the coordinator, do what is due, and tell [`HardwarePlan::ended`].
    Begin,
    /// Nothing before this time, unless a job comes or goes. Unix milliseconds.
    WaitUntil(u64),
    /// Nothing, unless a job comes or goes or the coordinator is reached.
    WaitForChange,
}

/// How what was begun ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// All that was due is done.
    Done,
    /// A job came.
    Interrupted,
    /// A job was there, and a device would have been needed.
    Busy,
    /// The coordinator issues no certificates.
    NoSuchCall,
    /// Something else was in the way.
    Failed,
}

/// Decides when to begin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardwarePlan {
    /// Since when no job has been there, Unix milliseconds.
    idle_since_ms: Option<u64>,
    /// When the next look is due, Unix milliseconds.
    due_ms: u64,
    /// When the last attempt ended, Unix milliseconds.
    ended_ms: u64,
    /// Failures in a row.
    failures: u32,
    /// From when on a certificate can be renewed, Unix milliseconds; `None` where there is none.
    renew_from_ms: Option<u64>,
}

impl HardwarePlan {
    /// What to do, with so many jobs there, and whether the coordinator was reached yet.
    pub fn step(&mut self, jobs: u32, has_coordinator: bool, now_ms: u64) -> HardwareStep {
        // A clock that was set back must not silence the node until it has caught up.
        if now_ms < self.ended_ms {
            (self.ended_ms, self.due_ms) = (now_ms, now_ms);
        }
        let idle_since_ms = self.idle_since_ms.map_or(now_ms, |since_ms| since_ms.min(now_ms));
        self.idle_since_ms = (jobs == 0).then_some(idle_since_ms);
        let not_before_ms = match (jobs, self.renew_from_ms) {
            (0, _) => idle_since_ms.saturating_add(IDLE_MS),
            (_, Some(renew_from_ms)) => renew_from_ms,
            (_, None) => return HardwareStep::WaitForChange,
        };
        if !has_coordinator {
            return HardwareStep::WaitForChange;
        }
        let from_ms = self.due_ms.max(not_before_ms);
        if now_ms < from_ms {
            HardwareStep::WaitUntil(from_ms)
        } else {
            HardwareStep::Begin
        }
    }

    /// These are the certificates that the node holds now.
    pub fn holds<'a>(&mut self, certificates: impl IntoIterator<Item = &'a HardwareCertificate>) {
        self.renew_from_ms = certificates.into_iter().map(renew_from_ms).min();
    }

    /// What was begun has ended. Waits are spread by a quarter, so that the nodes of a coordinator that was away do not
    /// come back all at once.
    pub fn ended(&mut self, end: AttemptEnd, now_ms: u64, random: &mut impl Rng) {
        self.failures = match end {
            AttemptEnd::Failed => self.failures.saturating_add(1),
            AttemptEnd::Done | AttemptEnd::NoSuchCall => 0,
            AttemptEnd::Interrupted | AttemptEnd::Busy => self.failures,
        };
        let wait_ms = match end {
            AttemptEnd::Done | AttemptEnd::Busy => LOOK_EVERY_MS,
            AttemptEnd::Interrupted => AFTER_INTERRUPTION_MS,
            AttemptEnd::NoSuchCall => AFTER_NO_SUCH_CALL_MS,
            AttemptEnd::Failed => {
                let doubled = AFTER_FAILURE_MS.checked_shl(self.failures.saturating_sub(1).min(16));
                doubled.map_or(AFTER_FAILURE_MAX_MS, |wait_ms| wait_ms.min(AFTER_FAILURE_MAX_MS))
            }
        };
        let spread_ms = random.random_range(0..=wait_ms / 4);
        (self.ended_ms, self.due_ms) = (now_ms, now_ms.saturating_add(wait_ms - spread_ms));
    }
}

/// A device by its kind and its number among those of this kind.
pub type DeviceKey = (HardwareKind, u32);

/// A certificate that the coordinator has given, and whether it wants the device for a challenge now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// As it stands in listings.
    pub token: String,
    /// What it says.
    pub certificate: HardwareCertificate,
    /// Whether a challenge is wanted.
    pub challenge_wanted: bool,
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nothing.
    Nothing,
    /// These certificates, by their places, are old enough to be renewed.
    Renew(Vec<usize>),
    /// The devices have to be shown. All of them: the coordinator challenges those of one owner together.
    Show,
}

/// From when on a certificate is renewed, Unix milliseconds.
fn renew_from_ms(certificate: &HardwareCertificate) -> u64 {
    let life_ms = certificate
        .exp
        .saturating_sub(certificate.iat)
        .saturating_mul(1_000);
    let expires_at_ms = certificate.exp.saturating_mul(1_000);
    expires_at_ms.saturating_sub(life_ms / RENEW_BELOW)
}

/// What is due for this machine's devices.
#[must_use]
pub fn duty(devices: &BTreeSet<DeviceKey>, standings: &[Standing], now_ms: u64) -> Duty {
    let of_device = |standing: &Standing| {
        let device = &standing.certificate.device;
        devices.contains(&(device.kind, device.index))
    };
    let living_ms = |standing: &Standing| {
        standing
            .certificate
            .exp
            .saturating_mul(1_000)
            .saturating_sub(now_ms)
    };
    let living: Vec<(usize, &Standing)> = standings
        .iter()
        .enumerate()
        .filter(|(_, standing)| of_device(standing) && living_ms(standing) > 0)
        .collect();
    let certified: BTreeSet<DeviceKey> = living
        .iter()
        .map(|(_, standing)| {
            (
                standing.certificate.device.kind,
                standing.certificate.device.index,
            )
        })
        .collect();
    if certified != *devices || living.iter().any(|(_, standing)| standing.challenge_wanted) {
        return Duty::Show;
    }
    let is_old = |standing: &Standing| now_ms >= renew_from_ms(&standing.certificate);
    let old: Vec<usize> = living
        .iter()
        .filter(|(_, standing)| is_old(standing))
        .map(|(place, _)| *place)
        .collect();
    if old.is_empty() {
        Duty::Nothing
    } else {
        Duty::Renew(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::hardware::{
        CERTIFICATE_LIFE_SECONDS, CertifiedDevice, HardwareDigest, METHOD, Precision, Throughput,
    };
    use gristmill_protocol::identity::{AccountId, Keypair};
    use gristmill_protocol::ids::ChallengeId;
    use gristmill_protocol::jws::Audience;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    const NOW: u64 = 1_800_000_000_000;
    const LIFE_MS: u64 = CERTIFICATE_LIFE_SECONDS * 1_000;

    fn random() -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(7)
    }

    /// A certificate of a processor, by a coordinator about an account.
    fn certificate(issuer: &Keypair, about: AccountId, index: u32, issued_at_ms: u64) -> HardwareCertificate {
        let iat = issued_at_ms / 1_000;
        HardwareCertificate {
            iss: issuer.account(),
            sub: about,
            aud: Audience::One(issuer.account()),
            jti: ChallengeId::from_bytes([7; 16]),
            iat,
            exp: iat + CERTIFICATE_LIFE_SECONDS,
            shown_at: iat,
            method: METHOD.into(),
            device: CertifiedDevice {
                kind: HardwareKind::Cpu,
                index,
                name: "A processor".into(),
                vendor: String::new(),
                uuid: None,
            },
            memory_bytes: 1 << 30,
            throughput: vec![Throughput {
                precision: Precision::F32,
                multiply_adds_per_second: 1_000_000_000,
            }],
            score: 10,
            fingerprint: HardwareDigest::from_bytes([9; 32]),
            fingerprint_changed: false,
        }
    }

    fn standing(index: u32, issued_at_ms: u64) -> Standing {
        let issuer = Keypair::from_secret(&[1; 32]);
        let certificate = certificate(
            &issuer,
            Keypair::from_secret(&[2; 32]).account(),
            index,
            issued_at_ms,
        );
        Standing {
            token: certificate.sign(&issuer),
            certificate,
            challenge_wanted: false,
        }
    }

    fn devices(indices: &[u32]) -> BTreeSet<DeviceKey> {
        indices.iter().map(|index| (HardwareKind::Cpu, *index)).collect()
    }

    #[test]
    fn nothing_begins_before_the_coordinator_is_there_and_jobs_have_gone_for_a_while() {
        let mut plan = HardwarePlan::default();
        assert_eq!(plan.step(0, false, NOW), HardwareStep::WaitForChange);
        assert_eq!(
            plan.step(0, true, NOW + 10),
            HardwareStep::WaitUntil(NOW + IDLE_MS)
        );
        assert_eq!(plan.step(1, true, NOW + IDLE_MS), HardwareStep::WaitForChange);
        let gone_ms = NOW + 60_000;
        assert_eq!(
            plan.step(0, true, gone_ms),
            HardwareStep::WaitUntil(gone_ms + IDLE_MS)
        );
        assert_eq!(plan.step(0, true, gone_ms + IDLE_MS), HardwareStep::Begin);
    }

    #[test]
    fn what_a_job_broke_off_is_tried_soon_and_what_failed_ever_later() {
        let (mut plan, mut random) = (HardwarePlan::default(), random());
        let wait_after = |plan: &mut HardwarePlan, end, random: &mut ChaCha8Rng| {
            plan.step(0, true, NOW);
            plan.ended(end, NOW, random);
            match plan.step(0, true, NOW) {
                HardwareStep::WaitUntil(at_ms) => at_ms - NOW,
                other => panic!("{other:?}"),
            }
        };
        let spread = |wait_ms: u64, most_ms: u64| (most_ms - most_ms / 4..=most_ms).contains(&wait_ms);
        let interrupted = wait_after(&mut plan, AttemptEnd::Interrupted, &mut random);
        assert!(spread(interrupted, AFTER_INTERRUPTION_MS), "{interrupted}");
        for most_ms in [30_000, 60_000, 120_000] {
            let failed = wait_after(&mut plan, AttemptEnd::Failed, &mut random);
            assert!(spread(failed, most_ms), "{failed} of {most_ms}");
        }
        for _ in 0..40 {
            let failed = wait_after(&mut plan, AttemptEnd::Failed, &mut random);
            assert!(failed <= AFTER_FAILURE_MAX_MS);
        }
        let none = wait_after(&mut plan, AttemptEnd::NoSuchCall, &mut random);
        assert!(spread(none, AFTER_NO_SUCH_CALL_MS), "{none}");
        let done = wait_after(&mut plan, AttemptEnd::Done, &mut random);
        assert!(spread(done, LOOK_EVERY_MS), "{done}");
        let failed = wait_after(&mut plan, AttemptEnd::Failed, &mut random);
        assert!(
            spread(failed, AFTER_FAILURE_MS),
            "success forgets failures: {failed}"
        );
    }

    #[test]
    fn a_clock_set_back_does_not_silence_the_node() {
        let mut plan = HardwarePlan::default();
        plan.step(0, true, NOW);
        plan.ended(AttemptEnd::NoSuchCall, NOW, &mut random());
        let earlier_ms = NOW - 86_400_000;
        assert_eq!(
            plan.step(0, true, earlier_ms),
            HardwareStep::WaitUntil(earlier_ms + IDLE_MS)
        );
        assert_eq!(plan.step(0, true, earlier_ms + IDLE_MS), HardwareStep::Begin);
    }

    #[test]
    fn devices_are_shown_when_one_has_no_certificate_or_is_wanted() {
        let fresh = [standing(0, NOW), standing(1, NOW)];
        assert_eq!(duty(&devices(&[0, 1]), &fresh, NOW), Duty::Nothing);
        assert_eq!(
            duty(&devices(&[0, 1]), &fresh[..1], NOW),
            Duty::Show,
            "one has none"
        );
        assert_eq!(duty(&devices(&[0]), &[], NOW), Duty::Show, "the very first time");
        assert_eq!(
            duty(&devices(&[0]), &fresh, NOW),
            Duty::Nothing,
            "one was taken out"
        );
        assert_eq!(duty(&devices(&[0, 1]), &fresh, NOW + LIFE_MS), Duty::Show);
        let mut wanted = fresh;
        wanted[1].challenge_wanted = true;
        assert_eq!(duty(&devices(&[0, 1]), &wanted, NOW), Duty::Show);
        assert_eq!(duty(&devices(&[0]), &wanted, NOW), Duty::Nothing);
    }

    #[test]
    fn certificates_are_renewed_in_the_second_half_of_their_life() {
        let standings = [standing(0, NOW), standing(1, NOW - LIFE_MS / 2)];
        let devices = devices(&[0, 1]);
        assert_eq!(duty(&devices, &standings, NOW - 1), Duty::Nothing);
        assert_eq!(duty(&devices, &standings, NOW), Duty::Renew(vec![1]));
        let one = duty(&devices, &standings, NOW + LIFE_MS / 2 - 1);
        assert_eq!(one, Duty::Renew(vec![1]));
    }

    #[test]
    fn a_node_that_is_never_idle_renews_all_the_same() {
        let mut plan = HardwarePlan::default();
        plan.holds([&standing(0, NOW).certificate]);
        plan.ended(AttemptEnd::Done, NOW, &mut random());
        let half_ms = NOW + LIFE_MS / 2;
        assert_eq!(plan.step(3, true, NOW), HardwareStep::WaitUntil(half_ms));
        assert_eq!(plan.step(3, true, half_ms), HardwareStep::Begin);
        // Where the coordinator wants to see the device, it waits for its jobs to end, and does not ask all the time.
        plan.ended(AttemptEnd::Busy, half_ms, &mut random());
        let HardwareStep::WaitUntil(again_ms) = plan.step(3, true, half_ms) else {
            panic!("it asks again at once");
        };
        assert!(again_ms - half_ms >= LOOK_EVERY_MS / 2);
        plan.holds([]);
        assert_eq!(plan.step(3, true, again_ms), HardwareStep::WaitForChange);
    }

    proptest! {
        /// Whatever comes, a job keeps anything from beginning as long as there is nothing to renew, and without one
        /// something begins in time.
        #[test]
        fn it_never_begins_beside_a_job_and_never_sleeps_for_ever(
            seed in any::<u64>(),
            events in proptest::collection::vec((0u32..3, 0u64..100_000, 0usize..4), 1..40),
        ) {
            let (mut plan, mut random, mut now_ms) = (HardwarePlan::default(), ChaCha8Rng::seed_from_u64(seed), NOW);
            for (jobs, wait_ms, end) in events {
                now_ms += wait_ms;
                let step = plan.step(jobs, true, now_ms);
                if jobs > 0 {
                    prop_assert_eq!(step, HardwareStep::WaitForChange);
                } else if step == HardwareStep::Begin {
                    let ends = [AttemptEnd::Done, AttemptEnd::Interrupted, AttemptEnd::NoSuchCall, AttemptEnd::Failed];
                    plan.ended(ends[end], now_ms, &mut random);
                }
            }
            plan.step(0, true, now_ms);
            let latest_ms = now_ms + AFTER_NO_SUCH_CALL_MS + IDLE_MS;
            prop_assert_eq!(plan.step(0, true, latest_ms), HardwareStep::Begin);
        }
    }
}
