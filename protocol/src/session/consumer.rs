//! The consumer's side of a job: checks every claim of the provider, pays for what arrived and nothing else.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::channel::{ConsumerChannel, ConsumerChannelError, window_part};
use crate::codec::PAYLOAD_MAX_BYTES;
use crate::content::{is_plausible, text_bytes};
use crate::credits::Credits;
use crate::identity::Signed;
use crate::job::{
    Chunk, ConsumerFrame, Delivery, JobAccepted, JobDone, JobFailed, JobRefused, ProviderFrame,
};
use crate::planted::{self, Bug};
use crate::usage::{Price, Usage};

mod snapshot;
mod terms;

pub use snapshot::ConsumerSnapshot;
pub use terms::{ConsumerTerms, ConsumerTimeouts};

/// What happens to a consumer's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerEvent {
    /// A frame arrived.
    Frame(Box<ProviderFrame>),
    /// The program went away. What is on its way by then is still taken and paid for, so that both sides agree on what
    /// the channel owes; the session ends with the provider's last word.
    Cancel,
    /// What came is of no use. It is paid for, and nothing that comes after it is.
    Reject,
    /// The stream broke or was closed.
    StreamClosed,
    /// The time of [`ConsumerSession::deadline_ms`] has come, or the driver looks whether it has.
    Tick,
}

/// What a driver has to do for a consumer's session, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsumerEffect {
    /// Send a frame.
    Send(ConsumerFrame),
    /// The provider takes the job.
    Accepted(Box<JobAccepted>),
    /// A whole message of the answer: one JSON document.
    Message(Vec<u8>),
    /// The session is over; close the stream.
    End(Box<ConsumerOutcome>),
}

/// How a job ended for its consumer.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerOutcome {
    /// What was received and found plausible.
    pub usage: Usage,
    /// What that costs.
    pub cost: Credits,
    /// The provider's signature over the whole, or why there is none.
    pub result: Result<Signed<Delivery>, ConsumerFailure>,
}

/// Why a job did not end well for its consumer.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum ConsumerFailure {
    /// Refused; another provider may take it.
    #[error("the provider refused: {}", .0.reason)]
    Refused(JobRefused),
    /// Broke off at the provider.
    #[error("the provider failed: {}", .0.reason)]
    Failed(JobFailed),
    /// The provider broke the protocol or its meter can't be true. Don't ask it again.
    #[error("the provider misbehaved: {0}")]
    Misbehaved(String),
    /// The job would cost more than was reserved for it.
    #[error("the job would cost more than the {0} set aside for it; raise max_tokens or the budget")]
    AboveReservation(Credits),
    /// The stream broke.
    #[error("the connection to the provider broke")]
    Disconnected,
    /// Nothing came in time.
    #[error("the provider did not answer in time")]
    TimedOut,
    /// This side cancelled.
    #[error("cancelled")]
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    AwaitingAnswer,
    Receiving { price: Price, window: Credits },
    Ended,
}

/// The consumer's side of one job. Its reservation must have been made on the channel before.
#[derive(Debug)]
pub struct ConsumerSession {
    terms: ConsumerTerms,
    timeouts: ConsumerTimeouts,
    state: State,
    reserved: Credits,
    meter: Usage,
    cost: Credits,
    message: Vec<u8>,
    text_bytes: u64,
    payload_bytes: u64,
    transcript: blake3::Hasher,
    deadline_ms: u64,
    /// Why the provider was told to stop, where it was.
    leaving: Option<ConsumerFailure>,
    /// The worth of what came since then.
    since_cancel: Credits,
    /// How long all that is waited for.
    leave_by_ms: u64,
}

impl ConsumerSession {
    /// A session whose `Open` frame is on its way. [`ConsumerTerms::cost_max`] is reserved on `channel` here.
    ///
    /// # Errors
    /// [`ConsumerChannelError::Exhausted`] where the channel has too little left.
    pub fn open(
        terms: ConsumerTerms,
        timeouts: ConsumerTimeouts,
        channel: &mut ConsumerChannel,
        now_ms: u64,
    ) -> Result<Self, ConsumerChannelError> {
        channel.reserve(terms.cost_max)?;
        Ok(Self {
            state: State::AwaitingAnswer,
            reserved: terms.cost_max,
            meter: Usage::new(),
            cost: Credits::ZERO,
            message: Vec::new(),
            text_bytes: 0,
            payload_bytes: 0,
            transcript: blake3::Hasher::new(),
            deadline_ms: now_ms.saturating_add(timeouts.answer_ms),
            leaving: None,
            since_cancel: Credits::ZERO,
            leave_by_ms: u64::MAX,
            timeouts,
            terms,
        })
    }

    /// When [`ConsumerEvent::Tick`] is due, Unix milliseconds.
    #[must_use]
    pub const fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// What was received so far and found plausible.
    #[must_use]
    pub const fn meter(&self) -> &Usage {
        &self.meter
    }

    /// What that costs.
    #[must_use]
    pub const fn cost(&self) -> Credits {
        self.cost
    }

    /// Whether the session is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether the provider was told to stop, and only its last word is waited for.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Goes one step.
    pub fn handle(
        &mut self,
        event: ConsumerEvent,
        channel: &mut ConsumerChannel,
        now_ms: u64,
    ) -> Vec<ConsumerEffect> {
        let mut effects = Vec::new();
        if self.state == State::Ended {
            return effects;
        }
        let failure = match event {
            ConsumerEvent::Frame(frame) => match self.take(*frame, channel, now_ms, &mut effects) {
                Ok(()) => return effects,
                Err(failure) => failure,
            },
            ConsumerEvent::Cancel => {
                self.cancel(channel, now_ms, &mut effects);
                return effects;
            }
            ConsumerEvent::Reject => ConsumerFailure::Cancelled,
            ConsumerEvent::StreamClosed => ConsumerFailure::Disconnected,
            ConsumerEvent::Tick if now_ms >= self.deadline_ms => ConsumerFailure::TimedOut,
            ConsumerEvent::Tick => return effects,
        };
        self.leave(failure, channel, &mut effects);
        effects
    }

    fn take(
        &mut self,
        frame: ProviderFrame,
        channel: &mut ConsumerChannel,
        now_ms: u64,
        effects: &mut Vec<ConsumerEffect>,
    ) -> Result<(), ConsumerFailure> {
        match (self.state.clone(), frame) {
            (State::AwaitingAnswer, ProviderFrame::Accepted(accepted)) => {
                self.accepted(accepted, channel, now_ms, effects)
            }
            (State::AwaitingAnswer, ProviderFrame::Refused(refused)) => {
                Err(ConsumerFailure::Refused(refused))
            }
            (State::Receiving { price, window }, ProviderFrame::Chunk(chunk)) => {
                self.wait_for(self.timeouts.next_chunk_ms, now_ms);
                self.chunk(chunk, &price, window, channel, effects)
            }
            (State::Receiving { price, window }, ProviderFrame::Done(done)) => {
                self.done(done, &price, window, channel, effects)
            }
            (_, ProviderFrame::Failed(failed)) => Err(ConsumerFailure::Failed(failed)),
            (_, frame) => Err(misbehaved(match frame {
                ProviderFrame::Accepted(_) => "it accepted twice",
                ProviderFrame::Refused(_) => "it refused a job that it had accepted",
                ProviderFrame::Chunk(_) | ProviderFrame::Done(_) | ProviderFrame::Failed(_) => {
                    "it answered a job that it had not accepted"
                }
            })),
        }
    }

    fn accepted(
        &mut self,
        accepted: JobAccepted,
        channel: &mut ConsumerChannel,
        now_ms: u64,
        effects: &mut Vec<ConsumerEffect>,
    ) -> Result<(), ConsumerFailure> {
        if !accepted.price.within(&self.terms.price_cap) {
            return Err(misbehaved("it asks for more than its offer said"));
        }
        let owed = channel
            .reconcile(accepted.highest_voucher.as_ref(), &self.terms.request_id)
            .map_err(|error| ConsumerFailure::Misbehaved(error.to_string()))?;
        effects.extend(owed.map(ConsumerFrame::Voucher).map(ConsumerEffect::Send));
        if planted::is(Bug::PaidBeforeOutput) && channel.receive(window_part(accepted.credit_window)).is_ok()
        {
            self.pay(channel, effects);
        }
        self.wait_for(self.timeouts.first_chunk_ms, now_ms);
        self.state = State::Receiving {
            price: accepted.price.clone(),
            window: accepted.credit_window,
        };
        if !self.is_leaving() {
            effects.push(ConsumerEffect::Accepted(Box::new(accepted)));
        }
        Ok(())
    }

    fn chunk(
        &mut self,
        chunk: Chunk,
        price: &Price,
        window: Credits,
        channel: &mut ConsumerChannel,
        effects: &mut Vec<ConsumerEffect>,
    ) -> Result<(), ConsumerFailure> {
        if chunk.payload.len() > PAYLOAD_MAX_BYTES {
            return Err(misbehaved("a payload is over the limit"));
        }
        if self.message.len() + chunk.payload.len() > self.terms.message_max_bytes {
            return Err(misbehaved("a message of the answer is over the limit"));
        }
        self.payload_bytes = self.payload_bytes.saturating_add(chunk.payload.len() as u64);
        self.transcript.update(&chunk.payload);
        self.message.extend_from_slice(&chunk.payload);
        let mut text = self.text_bytes;
        if chunk.ends_message {
            text = text.saturating_add(text_bytes(self.terms.kind, &self.message));
            self.text_bytes = text;
        } else {
            // How much of an unfinished message is text shows when it is whole.
            text = text.saturating_add(self.message.len() as u64);
        }
        self.owe(&chunk.meter, text, price, window, channel)?;
        if chunk.ends_message {
            let message = std::mem::take(&mut self.message);
            if !self.is_leaving() {
                effects.push(ConsumerEffect::Message(message));
            }
        }
        // What a cancelled job sends on is paid for when it has ended: a voucher would let it send more.
        if !self.is_leaving() && channel.voucher_due(window) {
            self.pay(channel, effects);
        }
        Ok(())
    }

    /// Takes a meter over, after checking that it can be true and that it is within what was set aside.
    fn owe(
        &mut self,
        meter: &Usage,
        text_bytes: u64,
        price: &Price,
        window: Credits,
        channel: &mut ConsumerChannel,
    ) -> Result<(), ConsumerFailure> {
        if !meter.covers(&self.meter) {
            return Err(misbehaved("its meter ran backwards"));
        }
        let is_plausible = is_plausible(
            meter,
            self.terms.kind,
            self.terms.body_bytes,
            text_bytes,
            self.payload_bytes,
        );
        if !is_plausible && !planted::is(Bug::MeterNotChecked) {
            return Err(misbehaved(
                "its meter counts more tokens than there can be in so much text",
            ));
        }
        let cost = price
            .cost(meter)
            .map_err(|error| ConsumerFailure::Misbehaved(error.to_string()))?;
        if cost > self.terms.cost_max {
            return Err(ConsumerFailure::AboveReservation(self.terms.cost_max));
        }
        let grown = cost.saturating_sub(self.cost);
        if self.is_leaving() {
            // An honest provider has no more than its window on the way when it hears of the cancel.
            let since_cancel = self.since_cancel.saturating_add(grown);
            if since_cancel > window {
                return Err(ConsumerFailure::Cancelled);
            }
            self.since_cancel = since_cancel;
        }
        channel
            .receive(grown)
            .map_err(|_| ConsumerFailure::AboveReservation(self.terms.cost_max))?;
        channel.release(grown.min(self.reserved));
        self.reserved = self.reserved.saturating_sub(grown);
        self.meter = meter.clone();
        self.cost = cost;
        Ok(())
    }

    fn done(
        &mut self,
        done: JobDone,
        price: &Price,
        window: Credits,
        channel: &mut ConsumerChannel,
        effects: &mut Vec<ConsumerEffect>,
    ) -> Result<(), ConsumerFailure> {
        if !self.message.is_empty() {
            return Err(misbehaved("its answer ended inside a message"));
        }
        self.owe(&done.usage, self.text_bytes, price, window, channel)?;
        let expected = Delivery {
            channel: channel.id(),
            request_id: self.terms.request_id.clone(),
            usage: done.usage,
            cost: self.cost,
            transcript: *self.transcript.finalize().as_bytes(),
        };
        match done.delivery.verify_from(&self.terms.provider) {
            Ok(delivery) if *delivery == expected => {}
            Ok(_) => return Err(misbehaved("it signed another delivery than the one that arrived")),
            Err(_) => return Err(misbehaved("its signature over the delivery does not hold")),
        }
        let transcript = *self.transcript.finalize().as_bytes();
        let voucher = channel.promise_again(&self.terms.request_id, transcript);
        effects.extend(voucher.map(ConsumerFrame::Voucher).map(ConsumerEffect::Send));
        let result = self.leaving.take().map_or(Ok(done.delivery), Err);
        self.end(result, channel, effects);
        Ok(())
    }

    /// Sets the deadline of what comes next.
    fn wait_for(&mut self, milliseconds: u64, now_ms: u64) {
        let milliseconds = match self.is_leaving() {
            true => self.timeouts.last_word_ms,
            false => milliseconds,
        };
        self.deadline_ms = now_ms.saturating_add(milliseconds).min(self.leave_by_ms);
    }

    /// Pays for what was received, tells the provider to stop, and waits for its last word.
    ///
    /// What the provider has sent by then counts as delivered on its side. Nobody would ever pay for it if it went
    /// unread, and a channel of which many jobs are cancelled would fill up with it.
    fn cancel(&mut self, channel: &mut ConsumerChannel, now_ms: u64, effects: &mut Vec<ConsumerEffect>) {
        if self.is_leaving() {
            return;
        }
        self.pay(channel, effects);
        effects.push(ConsumerEffect::Send(ConsumerFrame::Cancel));
        self.leaving = Some(ConsumerFailure::Cancelled);
        self.leave_by_ms = now_ms.saturating_add(self.timeouts.next_chunk_ms);
        self.wait_for(self.timeouts.last_word_ms, now_ms);
    }

    fn pay(&self, channel: &mut ConsumerChannel, effects: &mut Vec<ConsumerEffect>) {
        let transcript = *self.transcript.finalize().as_bytes();
        let voucher = channel.promise(&self.terms.request_id, transcript);
        effects.extend(voucher.map(ConsumerFrame::Voucher).map(ConsumerEffect::Send));
    }

    /// Pays for what was received, tells the provider where it can still hear it, and ends.
    fn leave(
        &mut self,
        failure: ConsumerFailure,
        channel: &mut ConsumerChannel,
        effects: &mut Vec<ConsumerEffect>,
    ) {
        // Also where the stream broke: what is promised outlives a restart, and a provider that does not hear it now
        // is told with the next job on the channel.
        self.pay(channel, effects);
        let was_told = self.is_leaving();
        // A lie weighs more than why the provider was left.
        let failure = match (self.leaving.take(), failure) {
            (None, failure) | (Some(_), failure @ ConsumerFailure::Misbehaved(_)) => failure,
            (Some(leaving), _) => leaving,
        };
        let hears_no_more = matches!(
            failure,
            ConsumerFailure::Refused(_) | ConsumerFailure::Failed(_) | ConsumerFailure::Disconnected
        );
        if !hears_no_more && !was_told {
            effects.push(ConsumerEffect::Send(ConsumerFrame::Cancel));
        }
        self.end(Err(failure), channel, effects);
    }

    fn end(
        &mut self,
        result: Result<Signed<Delivery>, ConsumerFailure>,
        channel: &mut ConsumerChannel,
        effects: &mut Vec<ConsumerEffect>,
    ) {
        if !planted::is(Bug::ReservationKept) {
            channel.release(std::mem::take(&mut self.reserved));
        }
        self.state = State::Ended;
        self.deadline_ms = u64::MAX;
        let (usage, cost) = (self.meter.clone(), self.cost);
        effects.push(ConsumerEffect::End(Box::new(ConsumerOutcome {
            usage,
            cost,
            result,
        })));
    }
}

fn misbehaved(what: &str) -> ConsumerFailure {
    ConsumerFailure::Misbehaved(what.to_owned())
}
