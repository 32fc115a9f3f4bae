//! The provider's side of a job: reads the body, meters what the engine gives, delivers only inside the credit
//! window, and ends with a signed delivery.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::channel::{AdmissionRefusal, ProviderChannel};
use crate::content::tokens_max;
use crate::credits::Credits;
use crate::identity::{Keypair, Signed};
use crate::job::{Chunk, Delivery, JobAccepted, JobDone, JobFailed, JobRefused, ProviderFrame, RefusalCode};
use crate::planted::{self, Bug};
use crate::usage::{Unit, Usage};
use crate::voucher::Voucher;

mod slices;
mod snapshot;
mod terms;

use slices::{Growth, Slice};
pub use snapshot::ProviderSnapshot;
pub use terms::{ProviderTerms, ProviderTimeouts};

/// What happens to a provider's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderEvent {
    /// The next part of the body arrived.
    BodyPart(Vec<u8>),
    /// A voucher arrived.
    Voucher(Box<Signed<Voucher>>),
    /// The consumer wants no more.
    Cancel,
    /// The stream broke or was closed.
    StreamClosed,
    /// Another job's voucher raised the channel.
    ChannelPaid,
    /// The engine made a message. Only after [`ProviderSession::wants_output`].
    EngineOutput {
        /// One JSON document.
        message: Vec<u8>,
        /// What was used so far.
        meter: Usage,
    },
    /// The engine is done.
    EngineFinished {
        /// What was used in all.
        usage: Usage,
    },
    /// The engine broke off.
    EngineFailed(JobFailed),
    /// The time of [`ProviderSession::deadline_ms`] has come, or the driver looks whether it has.
    Tick,
}

/// What a driver has to do for a provider's session, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderEffect {
    /// Send a frame.
    Send(ProviderFrame),
    /// Start the engine with the whole body.
    StartEngine {
        /// The request body.
        body: Vec<u8>,
    },
    /// Stop the engine now.
    StopEngine,
    /// Keep a voucher where a restart finds it, and tell the channel's other sessions.
    KeepVoucher(Box<Signed<Voucher>>),
    /// The session is over; close the stream.
    End(ProviderOutcome),
}

/// How a job ended for its provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderOutcome {
    /// Why.
    pub reason: ProviderEnd,
    /// What was delivered.
    pub usage: Usage,
    /// What that costs.
    pub cost: Credits,
}

/// Why a job ended for its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProviderEnd {
    /// Delivered whole.
    Completed,
    /// The engine failed, or the request could not be honoured.
    Failed,
    /// The consumer cancelled or went away.
    ConsumerLeft,
    /// No voucher came in time.
    Unpaid,
    /// The consumer broke the protocol.
    Misbehaved,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    ReadingBody,
    Running,
    Settling(ProviderEnd),
    Ended,
}

/// What follows the last slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Ending {
    Done,
    Failed(JobFailed),
}

/// The provider's side of one job.
#[derive(Debug)]
pub struct ProviderSession {
    keypair: Keypair,
    terms: ProviderTerms,
    timeouts: ProviderTimeouts,
    state: State,
    body: Vec<u8>,
    reservation: Credits,
    /// What the slices add up to, delivered or waiting.
    metered: Usage,
    delivered: Usage,
    delivered_cost: Credits,
    waiting: VecDeque<Slice>,
    ending: Option<Ending>,
    transcript: blake3::Hasher,
    engine_deadline_ms: u64,
    deadline_ms: u64,
}

impl ProviderSession {
    /// Takes a job that admission let in, against what its channel allows.
    ///
    /// # Errors
    /// [`JobRefused`] where the channel does not allow it; nothing is reserved then.
    pub fn accept(
        keypair: Keypair,
        terms: ProviderTerms,
        timeouts: ProviderTimeouts,
        channel: &mut ProviderChannel,
        now_ms: u64,
    ) -> Result<(Self, Vec<ProviderEffect>), JobRefused> {
        let (input_tokens, _) = tokens_max(terms.kind, terms.body_bytes, 0);
        let input = Usage::tokens(input_tokens, 0).with(Unit::ByteIn, terms.body_bytes);
        let refused = |code, retry, reason: &dyn ToString| JobRefused::new(code, retry, &reason.to_string());
        let input_cost = terms
            .price
            .cost(&input)
            .map_err(|error| refused(RefusalCode::BodyTooLarge, 0, &error))?;
        channel.admit(input_cost).map_err(|refusal| match refusal {
            AdmissionRefusal::InputAboveWindow { .. } => refused(RefusalCode::BodyTooLarge, 0, &refusal),
            AdmissionRefusal::WindowTaken => refused(RefusalCode::Busy, 1_000, &refusal),
            AdmissionRefusal::Exhausted { .. } => refused(RefusalCode::ChannelExhausted, 0, &refusal),
        })?;
        let accepted = JobAccepted {
            price: terms.price.clone(),
            position: terms.position,
            credit_window: channel.window(),
            highest_voucher: channel.highest_voucher().cloned(),
        };
        let mut session = Self {
            keypair,
            timeouts,
            state: State::ReadingBody,
            body: Vec::new(),
            reservation: input_cost,
            metered: Usage::new(),
            delivered: Usage::new(),
            delivered_cost: Credits::ZERO,
            waiting: VecDeque::new(),
            ending: None,
            transcript: blake3::Hasher::new(),
            engine_deadline_ms: u64::MAX,
            deadline_ms: now_ms.saturating_add(timeouts.body_ms),
            terms,
        };
        let mut effects = vec![ProviderEffect::Send(ProviderFrame::Accepted(accepted))];
        session.start_when_body_is_whole(now_ms, &mut effects);
        Ok((session, effects))
    }

    /// Whether the engine's next message may be handed in: its output waits with the engine otherwise.
    #[must_use]
    pub fn wants_output(&self) -> bool {
        self.state == State::Running && self.waiting.is_empty() && self.ending.is_none()
    }

    /// When [`ProviderEvent::Tick`] is due, Unix milliseconds.
    #[must_use]
    pub const fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// Whether the session is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Goes one step.
    pub fn handle(
        &mut self,
        event: ProviderEvent,
        channel: &mut ProviderChannel,
        now_ms: u64,
    ) -> Vec<ProviderEffect> {
        let mut effects = Vec::new();
        match (self.state, event) {
            (State::Ended, _) => {}
            (State::ReadingBody, ProviderEvent::BodyPart(part)) => {
                self.read_body(&part, channel, now_ms, &mut effects);
            }
            (_, ProviderEvent::BodyPart(part)) if part.is_empty() => {}
            (_, ProviderEvent::BodyPart(_)) => {
                let failed =
                    JobFailed::new(400, "invalid_request", "more body came than was announced", None);
                self.break_off(failed, ProviderEnd::Misbehaved, channel, &mut effects);
            }
            (_, ProviderEvent::Voucher(voucher)) => {
                self.take_voucher(*voucher, channel, now_ms, &mut effects);
            }
            (_, ProviderEvent::ChannelPaid) => self.deliver(channel, now_ms, &mut effects),
            (State::ReadingBody | State::Running, ProviderEvent::Cancel) => {
                self.cancelled(channel, now_ms, &mut effects);
            }
            // It still pays for what is on its way.
            (State::Settling(_), ProviderEvent::Cancel) => {}
            (State::Settling(reason), ProviderEvent::StreamClosed) => {
                self.end(reason, channel, &mut effects);
            }
            (_, ProviderEvent::StreamClosed) => {
                effects.push(ProviderEffect::StopEngine);
                self.end(ProviderEnd::ConsumerLeft, channel, &mut effects);
            }
            (State::Running, ProviderEvent::EngineOutput { message, meter }) => {
                self.cut_into_slices(&message, true, &meter, channel.window());
                self.deliver(channel, now_ms, &mut effects);
            }
            (State::Running, ProviderEvent::EngineFinished { usage }) => {
                self.cut_into_slices(&[], false, &usage, channel.window());
                self.ending = Some(Ending::Done);
                self.deliver(channel, now_ms, &mut effects);
            }
            (State::Running, ProviderEvent::EngineFailed(failed)) => {
                self.ending = Some(Ending::Failed(failed));
                self.deliver(channel, now_ms, &mut effects);
            }
            (_, ProviderEvent::Tick) => self.tick(channel, now_ms, &mut effects),
            // What an engine says after it was stopped is of no interest.
            (
                State::ReadingBody | State::Settling(_),
                ProviderEvent::EngineOutput { .. }
                | ProviderEvent::EngineFinished { .. }
                | ProviderEvent::EngineFailed(_),
            ) => {}
        }
        effects
    }

    /// Stops, says so behind everything that was sent, and waits for the voucher over that.
    fn cancelled(&mut self, channel: &mut ProviderChannel, now_ms: u64, effects: &mut Vec<ProviderEffect>) {
        effects.push(ProviderEffect::StopEngine);
        self.waiting.clear();
        self.ending = None;
        channel.release(std::mem::take(&mut self.reservation));
        if planted::is(Bug::CancelledOutputCountedTwice) {
            let _ = channel.deliver(self.delivered_cost);
        }
        let failed = JobFailed::new(499, "cancelled", "the consumer cancelled the job", None);
        effects.push(ProviderEffect::Send(ProviderFrame::Failed(failed)));
        self.settle(ProviderEnd::ConsumerLeft, now_ms);
        if self.delivered_cost.is_zero() || channel.unpaid().is_zero() {
            self.end(ProviderEnd::ConsumerLeft, channel, effects);
        }
    }

    fn read_body(
        &mut self,
        part: &[u8],
        channel: &mut ProviderChannel,
        now_ms: u64,
        effects: &mut Vec<ProviderEffect>,
    ) {
        if (self.body.len() + part.len()) as u64 > self.terms.body_bytes {
            let failed = JobFailed::new(400, "invalid_request", "more body came than was announced", None);
            return self.break_off(failed, ProviderEnd::Misbehaved, channel, effects);
        }
        self.body.extend_from_slice(part);
        self.deadline_ms = now_ms.saturating_add(self.timeouts.body_ms);
        self.start_when_body_is_whole(now_ms, effects);
    }

    fn start_when_body_is_whole(&mut self, now_ms: u64, effects: &mut Vec<ProviderEffect>) {
        if self.body.len() as u64 == self.terms.body_bytes {
            self.state = State::Running;
            self.engine_deadline_ms = now_ms.saturating_add(self.timeouts.engine_ms);
            self.deadline_ms = self.engine_deadline_ms;
            effects.push(ProviderEffect::StartEngine {
                body: std::mem::take(&mut self.body),
            });
        }
    }

    fn take_voucher(
        &mut self,
        voucher: Signed<Voucher>,
        channel: &mut ProviderChannel,
        now_ms: u64,
        effects: &mut Vec<ProviderEffect>,
    ) {
        match channel.accept(&voucher) {
            Ok(raised) => {
                if raised {
                    effects.push(ProviderEffect::KeepVoucher(Box::new(voucher)));
                }
                if planted::is(Bug::VoucherWakesNobody) && !self.waiting.is_empty() {
                    return;
                }
                self.deliver(channel, now_ms, effects);
            }
            Err(error) => {
                let failed = JobFailed::new(402, "invalid_voucher", &error.to_string(), None);
                self.break_off(failed, ProviderEnd::Misbehaved, channel, effects);
            }
        }
    }

    /// Lines up what the meter grew by in slices of at most a part of the window each, so that a consumer that stops
    /// paying has received at most what the window allows, however large a message is.
    fn cut_into_slices(&mut self, message: &[u8], ends_message: bool, meter: &Usage, window: Credits) {
        let growth = Growth {
            from: &self.metered,
            to: self.metered.maximum(meter),
            planned: self
                .waiting
                .back()
                .map_or(self.delivered_cost, |slice| slice.total),
        };
        match growth.slices(message, ends_message, &self.terms.price, window) {
            Ok(slices) => {
                self.metered = growth.to;
                self.waiting.extend(slices);
            }
            Err(_) => {
                let reason = "the meter passed the largest amount there is";
                let failed = JobFailed::new(500, "meter_overflow", reason, None);
                self.ending = Some(Ending::Failed(failed));
            }
        }
    }

    /// Sends what the window allows; after the last slice, the ending.
    fn deliver(&mut self, channel: &mut ProviderChannel, now_ms: u64, effects: &mut Vec<ProviderEffect>) {
        while let Some(slice) = self.waiting.front() {
            let cost = slice.total.saturating_sub(self.delivered_cost);
            let shows_input = slice.meter.count(Unit::InputToken) > 0;
            let settled = if shows_input {
                self.reservation
            } else {
                Credits::ZERO
            };
            if !channel.fits_limit(cost) {
                let reason = "the channel's limit is used up; open a larger channel";
                let failed = JobFailed::new(402, "budget_exhausted", reason, None);
                return self.break_off(failed, ProviderEnd::Failed, channel, effects);
            }
            if !channel.may_deliver(cost, settled) {
                let waits_already = self.deadline_ms != self.engine_deadline_ms;
                if !waits_already {
                    self.deadline_ms = now_ms.saturating_add(self.timeouts.voucher_ms);
                }
                return;
            }
            // The sum is below the limit, which is an amount.
            let _ = channel.deliver(cost);
            channel.release(settled);
            self.reservation = self.reservation.saturating_sub(settled);
            let Some(slice) = self.waiting.pop_front() else {
                return;
            };
            self.deadline_ms = self.engine_deadline_ms;
            self.delivered_cost = slice.total;
            self.delivered = slice.meter.clone();
            self.transcript.update(&slice.payload);
            effects.push(ProviderEffect::Send(ProviderFrame::Chunk(Chunk {
                payload: slice.payload,
                ends_message: slice.ends_message,
                meter: slice.meter,
            })));
        }
        match self.ending.take() {
            Some(Ending::Done) => self.finish(channel, now_ms, effects),
            Some(Ending::Failed(failed)) => {
                effects.push(ProviderEffect::Send(ProviderFrame::Failed(failed)));
                self.settle(ProviderEnd::Failed, now_ms);
            }
            None => {}
        }
        if let State::Settling(reason) = self.state
            && channel.unpaid().is_zero()
        {
            self.end(reason, channel, effects);
        }
    }

    fn finish(&mut self, channel: &ProviderChannel, now_ms: u64, effects: &mut Vec<ProviderEffect>) {
        let delivery = Delivery {
            channel: channel.id(),
            request_id: self.terms.request_id.clone(),
            usage: self.delivered.clone(),
            cost: self.delivered_cost,
            transcript: *self.transcript.finalize().as_bytes(),
        };
        let done = JobDone {
            usage: self.delivered.clone(),
            delivery: self.keypair.sign(delivery),
        };
        effects.push(ProviderEffect::Send(ProviderFrame::Done(done)));
        self.settle(ProviderEnd::Completed, now_ms);
    }

    fn settle(&mut self, reason: ProviderEnd, now_ms: u64) {
        self.state = State::Settling(reason);
        self.deadline_ms = now_ms.saturating_add(self.timeouts.settlement_ms);
    }

    fn tick(&mut self, channel: &mut ProviderChannel, now_ms: u64, effects: &mut Vec<ProviderEffect>) {
        if now_ms < self.deadline_ms {
            return;
        }
        let (failed, end) = match self.state {
            State::ReadingBody => (
                JobFailed::new(408, "timeout", "the request body did not arrive in time", None),
                ProviderEnd::ConsumerLeft,
            ),
            State::Running if !self.waiting.is_empty() => (
                JobFailed::new(
                    402,
                    "voucher_timeout",
                    "no voucher came for what was delivered",
                    None,
                ),
                ProviderEnd::Unpaid,
            ),
            State::Running => (
                JobFailed::new(
                    504,
                    "timeout",
                    "the engine took longer than the provider allows",
                    None,
                ),
                ProviderEnd::Failed,
            ),
            State::Settling(reason) => {
                let unpaid = reason == ProviderEnd::Completed && !channel.unpaid().is_zero();
                return self.end(
                    if unpaid { ProviderEnd::Unpaid } else { reason },
                    channel,
                    effects,
                );
            }
            State::Ended => return,
        };
        self.break_off(failed, end, channel, effects);
    }

    fn break_off(
        &mut self,
        failed: JobFailed,
        reason: ProviderEnd,
        channel: &mut ProviderChannel,
        effects: &mut Vec<ProviderEffect>,
    ) {
        effects.push(ProviderEffect::StopEngine);
        effects.push(ProviderEffect::Send(ProviderFrame::Failed(failed)));
        self.end(reason, channel, effects);
    }

    fn end(&mut self, reason: ProviderEnd, channel: &mut ProviderChannel, effects: &mut Vec<ProviderEffect>) {
        channel.end_job(std::mem::take(&mut self.reservation));
        self.waiting.clear();
        self.state = State::Ended;
        self.deadline_ms = u64::MAX;
        if planted::is(Bug::SessionNeverEnds) {
            return;
        }
        let (usage, cost) = (self.delivered.clone(), self.delivered_cost);
        effects.push(ProviderEffect::End(ProviderOutcome { reason, usage, cost }));
    }
}
