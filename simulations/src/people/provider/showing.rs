//! How a provider shows its hardware to the coordinator: when, as the shipped node plans it; with what, by the device that it
//! has at that moment. As in nodes, jobs come first: a proof is broken off where one comes.

use std::collections::BTreeSet;

use gristmill_benchmark::upkeep::{AttemptEnd, Duty, HardwarePlan, HardwareStep, Standing, duty};
use gristmill_protocol::hardware::{HardwareCertificate, HardwareStatus};
use gristmill_protocol::log::checkpoint::LogKeys;
use serde::{Deserialize, Serialize};

use super::Provider;
use crate::engine::Breach;
use crate::people::devices::DeviceClass;
use crate::people::hardware::{DeskAnswer, Prover, ProverCall, Work, claim_of};
use crate::people::whole;
use crate::world::event::{Message, Timer};
use crate::world::scene::Scene;

/// How long an answer of the coordinator is waited for: it holds a call for four seconds at most.
const ANSWER_WITHIN_US: u64 = 30_000_000;
/// What computes a proof where the only device of many listings is with another one.
const WITHOUT_DEVICE: DeviceClass = DeviceClass::Processor;
/// How much must be left of a turn for a proof to be begun, in microseconds.
const TURN_LEFT_US: u64 = 120_000_000;
/// The first of the addresses that providers call from, one each: 10.0.0.0.
const FIRST_ADDRESS: u32 = 0x0a00_0000;

/// How a provider's hardware stands.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Showing {
    plan: HardwarePlan,
    doing: Doing,
    /// How many calls it has made: an answer to another one than the last is too late.
    calls: u32,
    /// Whether the last call is not answered yet.
    is_waiting: bool,
    /// What the device works on.
    work: Option<Work>,
    /// Its certificates, as they stand in the next listing, and whether the last one had others.
    tokens: Vec<String>,
    has_news: bool,
    /// When the next look is planned, in microseconds.
    looks_us: u64,
    /// When the proof that runs began, in microseconds.
    began_us: u64,
    /// How many times it has rented what it claims, and until when the last time, in microseconds.
    rented: u32,
    rented_until_us: u64,
    /// Until when its certificates hold, and for how long they do in all, in microseconds.
    certified_until_us: u64,
    certified_us: u64,
}

/// What it is about with the coordinator.
#[derive(Debug, Default, Serialize, Deserialize)]
enum Doing {
    #[default]
    Nothing,
    /// Asks how its device stands.
    Asks,
    /// Asks for a later expiry.
    Renews,
    /// Shows its device.
    Shows(Prover),
}

impl Showing {
    /// Whether the last listing had other certificates.
    pub(super) const fn has_news(&self) -> bool {
        self.has_news
    }

    /// The certificates for a listing that is published now.
    pub(super) fn say(&mut self) -> &[String] {
        self.has_news = false;
        &self.tokens
    }

    /// For how long its certificates have held by this time, in microseconds.
    pub(crate) const fn certified_us(&self, now_us: u64) -> u64 {
        self.certified_us
            .saturating_sub(self.certified_until_us.saturating_sub(now_us))
    }

    /// The machine stops: all but what it has rented is forgotten, and asked for again.
    pub(super) fn forget(&mut self) {
        *self = Self {
            calls: self.calls.wrapping_add(1),
            rented: self.rented,
            rented_until_us: self.rented_until_us,
            certified_until_us: self.certified_until_us,
            certified_us: self.certified_us,
            ..Self::default()
        };
    }

    /// Takes in what the coordinator has certified, and what of it stands in listings from now on.
    fn hold(&mut self, standings: &[Standing], lists_expired: bool, (now_us, now_ms): (u64, u64)) {
        self.plan
            .holds(standings.iter().map(|standing| &standing.certificate));
        let expires_ms = standings
            .iter()
            .map(|standing| standing.certificate.exp.saturating_mul(1_000))
            .max();
        let left_us = expires_ms
            .unwrap_or(0)
            .saturating_sub(now_ms)
            .saturating_mul(1_000);
        let until_us = now_us.saturating_add(left_us);
        self.certified_us += until_us.saturating_sub(self.certified_until_us.max(now_us));
        self.certified_until_us = self.certified_until_us.max(until_us);
        if standings.is_empty() && lists_expired {
            return;
        }
        let tokens: Vec<String> = standings.iter().map(|standing| standing.token.clone()).collect();
        self.has_news |= tokens != self.tokens;
        self.tokens = tokens;
    }
}

impl Provider {
    /// The device that it has now: what it has rented, or its own.
    pub(super) fn device_now(&self, scene: &Scene<'_, '_>) -> DeviceClass {
        let config = self.config(scene);
        match scene.now_us() < self.showing.rented_until_us {
            true => config.claimed_device(),
            false => config.device,
        }
    }

    /// Among how many listings its device is shared; an answer takes so many times as long, as where all are busy.
    pub(super) fn sharers(&self, scene: &Scene<'_, '_>) -> u64 {
        match self.config(scene).conduct().turn_s() {
            0 => 1,
            _ => self.config(scene).count.get().max(1),
        }
    }

    /// How long the device that is shared stays with this listing, in microseconds; none where it is with another one.
    fn turn_left_us(&self, scene: &Scene<'_, '_>) -> Option<u64> {
        let turn_us = self.config(scene).conduct().turn_s() * 1_000_000;
        let now_us = scene.now_us();
        let Some(turn) = now_us.checked_div(turn_us) else {
            return Some(u64::MAX);
        };
        let group = scene.world.roster.provider_group(usize::from(self.group));
        let place = u64::from(scene.node().saturating_sub(group.start));
        (turn % self.sharers(scene) == place).then(|| turn_us - now_us % turn_us)
    }

    /// From where it calls.
    fn address(&self, scene: &Scene<'_, '_>) -> u32 {
        let group = scene.world.roster.provider_group(usize::from(self.group));
        match self.config(scene).conduct().is_at_one_address() {
            true => FIRST_ADDRESS + group.start,
            false => FIRST_ADDRESS + scene.node(),
        }
    }

    /// Does what is due for its certificate, or plans to.
    pub(super) fn look_at_hardware(&mut self, scene: &mut Scene<'_, '_>) {
        let is_wanted = scene.world.config.defences.challenges_per_day.is_some();
        if !is_wanted || !matches!(self.showing.doing, Doing::Nothing) {
            return;
        }
        let (now_ms, now_us) = (scene.now_ms(), scene.now_us());
        match self
            .showing
            .plan
            .step(whole(self.jobs.len() as u64), true, now_ms)
        {
            HardwareStep::WaitForChange => {}
            HardwareStep::WaitUntil(at_ms) => {
                let at_us = now_us + at_ms.saturating_sub(now_ms).max(1) * 1_000;
                let is_planned = self.showing.looks_us > now_us && self.showing.looks_us <= at_us;
                if !is_planned {
                    self.showing.looks_us = at_us;
                    scene.after(at_us - now_us, Timer::Hardware);
                }
            }
            HardwareStep::Begin => {
                self.showing.doing = Doing::Asks;
                self.call(ProverCall::Status(scene.account()), 0, scene);
            }
        }
    }

    /// A job came or went.
    pub(super) fn jobs_changed(&mut self, scene: &mut Scene<'_, '_>) {
        if !self.jobs.is_empty() && matches!(self.showing.doing, Doing::Shows(_)) {
            scene.tally.hardware.interrupted += 1;
            self.attempt_ended(AttemptEnd::Interrupted, scene);
        } else {
            self.look_at_hardware(scene);
        }
    }

    fn call(&mut self, call: ProverCall, roots: u32, scene: &mut Scene<'_, '_>) {
        self.showing.calls = self.showing.calls.wrapping_add(1);
        self.showing.is_waiting = true;
        let number = self.showing.calls;
        scene.send(0, Message::ToDesk { number, roots, call });
        scene.after(ANSWER_WITHIN_US, Timer::Unanswered(number));
    }

    fn attempt_ended(&mut self, end: AttemptEnd, scene: &mut Scene<'_, '_>) {
        let (now_ms, now_us) = (scene.now_ms(), scene.now_us());
        if let Doing::Shows(_) = std::mem::take(&mut self.showing.doing) {
            scene.tally.hardware.shown_us += now_us - self.showing.began_us;
        }
        self.showing.work = None;
        self.showing.is_waiting = false;
        self.showing.calls = self.showing.calls.wrapping_add(1);
        self.showing.plan.ended(end, now_ms, scene.random());
        self.look_at_hardware(scene);
    }

    /// The coordinator answers.
    pub(super) fn hear_desk(
        &mut self,
        number: u32,
        answer: DeskAnswer,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        if number != self.showing.calls || !std::mem::take(&mut self.showing.is_waiting) {
            return Ok(());
        }
        let device = match self.turn_left_us(scene) {
            Some(_) => self.device_now(scene),
            None => WITHOUT_DEVICE,
        };
        match (&mut self.showing.doing, answer) {
            (Doing::Asks, DeskAnswer::Standing(status)) => return self.see_to(status, scene),
            (Doing::Renews, DeskAnswer::ChallengeRequired) => self.show(scene),
            (Doing::Renews, DeskAnswer::Certified(token)) => {
                scene.tally.hardware.renewed += 1;
                return self.certified(token, scene);
            }
            (Doing::Shows(_), DeskAnswer::Certified(token)) => {
                scene.tally.hardware.given += 1;
                return self.certified(token, scene);
            }
            (Doing::Shows(_), DeskAnswer::Refused(code)) => {
                let config = self.config(scene);
                let is_honest = config.claimed_device() == config.device && self.sharers(scene) == 1;
                scene.tally.hardware.refused(&code, is_honest);
                scene.tell(None, || format!("It gets no certificate: {code}."));
                self.attempt_ended(AttemptEnd::Failed, scene);
            }
            (Doing::Shows(prover), answer) => {
                prover.computes_with(device);
                match prover.hear(&answer, scene.random()) {
                    Some(work) if work.takes_us == 0 => self.call(work.call, work.roots, scene),
                    Some(work) => {
                        self.showing.work = Some(work);
                        scene.after(work.takes_us, Timer::Worked(number));
                    }
                    None => self.attempt_ended(AttemptEnd::Failed, scene),
                }
            }
            (Doing::Nothing | Doing::Asks | Doing::Renews, _) => {
                self.attempt_ended(AttemptEnd::Failed, scene);
            }
        }
        Ok(())
    }

    /// The device is done with what a call takes.
    pub(super) fn device_is_done(&mut self, number: u32, scene: &mut Scene<'_, '_>) {
        if number == self.showing.calls
            && let Some(work) = self.showing.work.take()
        {
            self.call(work.call, work.roots, scene);
        }
    }

    /// No answer came.
    pub(super) fn desk_is_late(&mut self, number: u32, scene: &mut Scene<'_, '_>) {
        if number == self.showing.calls && self.showing.is_waiting {
            self.attempt_ended(AttemptEnd::Failed, scene);
        }
    }

    /// Keeps what holds, and does what is due.
    fn see_to(&mut self, status: HardwareStatus, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let now_ms = scene.now_ms();
        let mut standings = Vec::new();
        for device in status.devices {
            standings.extend(standing(device.certificate, device.challenge_wanted, scene));
        }
        let lists_expired = self.config(scene).conduct().lists_expired_certificates();
        self.showing
            .hold(&standings, lists_expired, (scene.now_us(), now_ms));
        let claim = claim_of(self.config(scene).claimed_device());
        let devices = BTreeSet::from([(claim.kind, claim.index)]);
        match duty(&devices, &standings, now_ms) {
            Duty::Nothing => self.attempt_ended(AttemptEnd::Done, scene),
            Duty::Show => self.show(scene),
            Duty::Renew(_) => {
                self.showing.doing = Doing::Renews;
                self.call(ProverCall::Renew, 0, scene);
            }
        }
        self.look_at_listing(scene)
    }

    fn certified(&mut self, token: String, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let standings: Vec<Standing> = standing(token, false, scene).into_iter().collect();
        let now = (scene.now_us(), scene.now_ms());
        self.showing.hold(&standings, false, now);
        let end = match standings.is_empty() {
            true => AttemptEnd::Failed,
            false => AttemptEnd::Done,
        };
        self.attempt_ended(end, scene);
        self.look_at_listing(scene)
    }

    /// Asks to be challenged, unless a job is there. A liar may rent what it claims for it.
    fn show(&mut self, scene: &mut Scene<'_, '_>) {
        let turn_left_us = self.turn_left_us(scene);
        // Who waits for its turn does so as honest nodes wait for their jobs to end.
        if !self.jobs.is_empty() || turn_left_us.is_none_or(|left_us| left_us < TURN_LEFT_US) {
            self.attempt_ended(AttemptEnd::Busy, scene);
            return;
        }
        let (config, now_us) = (self.config(scene), scene.now_us());
        let (conduct, claimed) = (config.conduct(), config.claimed_device());
        if now_us >= self.showing.rented_until_us {
            let rents_for_s = conduct.rents_for_s(self.showing.rented);
            if rents_for_s > 0 {
                self.showing.rented += 1;
                self.showing.rented_until_us = now_us + rents_for_s * 1_000_000;
                scene.tally.hardware.rented_s += rents_for_s;
            }
        }
        let prover = Prover::new(self.device_now(scene), conduct.answers_challenge(claimed));
        self.showing.doing = Doing::Shows(prover);
        self.showing.began_us = now_us;
        scene.tally.hardware.challenges += 1;
        scene.tell(None, || {
            format!("It asks to show its hardware: {}.", claimed.figures().name)
        });
        let open = ProverCall::Open {
            account: scene.account(),
            address: self.address(scene),
            claimed,
        };
        self.call(open, 0, scene);
    }
}

/// Checks a certificate as nodes do.
fn standing(token: String, challenge_wanted: bool, scene: &Scene<'_, '_>) -> Option<Standing> {
    let keys = LogKeys::new(scene.world.coordinator_account());
    let certificate = HardwareCertificate::open(&token, &keys, scene.now_ms()).ok()?;
    (certificate.sub == scene.account()).then_some(Standing {
        token,
        certificate,
        challenge_wanted,
    })
}
