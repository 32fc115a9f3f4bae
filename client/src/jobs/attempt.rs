//! One job with one provider: drives the protocol's session over a job stream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill_protocol::channel::ConsumerChannel;
use gristmill_protocol::content::text_bytes;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::{ConsumerFrame, JobKind, ProviderFrame};
use gristmill_protocol::session::consumer::{
    ConsumerEffect, ConsumerEvent, ConsumerFailure, ConsumerOutcome, ConsumerSession,
};
use gristmill_protocol::usage::Unit;
use gristmill_transport::ReceiveError;
use gristmill_transport::job_stream::FrameReceiver;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::core::bill::{Bill, BillItem};
use crate::core::router::Route;
use crate::jobs::outbox::Outbox;
use crate::jobs::recipient::{Recipient, Stop};
use crate::market::{Market, RunningJob};
use crate::usage::Share;
use crate::wallet::lock;

/// How long the last voucher may take after a job.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
/// Most messages without any output that are waited through: some servers begin with an empty one.
const EMPTY_MESSAGES_MAX: usize = 4;

/// The time of one job in milliseconds. It stands still while the program does not read, which is no fault of the
/// provider's.
struct JobClock {
    began: Instant,
    stood_still: Duration,
}

impl JobClock {
    fn start() -> Self {
        Self {
            began: Instant::now(),
            stood_still: Duration::ZERO,
        }
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.stood_still)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn stand_still_since(&mut self, since: Instant) {
        self.stood_still += since.elapsed();
    }
}

/// A message of the answer, and how many tokens had been written by then.
struct Output {
    message: Vec<u8>,
    tokens: u64,
}

/// Whether a message is one of those without any output that are waited through. What is no chunk at all, and what
/// says that the answer failed, is handed over at once, so that another provider can be asked.
fn says_nothing(kind: JobKind, message: &[u8]) -> bool {
    if !kind.is_generated_text() || text_bytes(kind, message) > 0 {
        return false;
    }
    let chunk: Value = serde_json::from_slice(message).unwrap_or_default();
    chunk.is_object() && chunk.get("error").is_none_or(Value::is_null)
}

/// What an attempt begins with.
pub(super) struct Beginning {
    pub(super) route: Route,
    pub(super) kind: JobKind,
    pub(super) channel: ChannelId,
    /// The limit of output tokens that was set where the program set none.
    pub(super) output_limit: Option<u64>,
    pub(super) session: ConsumerSession,
    pub(super) account: Arc<Mutex<ConsumerChannel>>,
    pub(super) receiver: FrameReceiver<ProviderFrame>,
    pub(super) outbox: Outbox,
    pub(super) running: Arc<RunningJob>,
    pub(super) bill: Arc<Mutex<Bill>>,
    /// Until the session has ended.
    pub(super) share: Option<Share>,
}

/// One job with one provider. Dropping it cancels the job and pays for what was received.
pub(super) struct Attempt {
    beginning: Beginning,
    clock: JobClock,
    is_accepted: bool,
    first_output_ms: Option<f64>,
    /// What came and was not taken yet.
    waiting: Vec<Output>,
    outcome: Option<Box<ConsumerOutcome>>,
}

impl Attempt {
    pub(super) fn new(beginning: Beginning) -> Self {
        Self {
            beginning,
            clock: JobClock::start(),
            is_accepted: false,
            first_output_ms: None,
            waiting: Vec::new(),
            outcome: None,
        }
    }

    pub(super) const fn route(&self) -> &Route {
        &self.beginning.route
    }

    pub(super) const fn channel(&self) -> ChannelId {
        self.beginning.channel
    }

    pub(super) const fn output_limit(&self) -> Option<u64> {
        self.beginning.output_limit
    }

    pub(super) fn running(&self) -> &RunningJob {
        &self.beginning.running
    }

    /// Whether the provider took the job.
    pub(super) const fn is_accepted(&self) -> bool {
        self.is_accepted
    }

    /// How long the first output took, in milliseconds.
    pub(super) const fn first_output_ms(&self) -> Option<f64> {
        self.first_output_ms
    }

    /// How long it has taken, in milliseconds, without the time in which the program did not read.
    pub(super) fn elapsed_ms(&self) -> f64 {
        self.clock.elapsed().as_secs_f64() * 1_000.0
    }

    /// How the session ended, once it has.
    pub(super) fn outcome(&self) -> Option<&ConsumerOutcome> {
        self.outcome.as_deref()
    }

    /// Goes on to the first output, or to the end where that comes first.
    pub(super) async fn begin(&mut self, recipient: &Recipient) {
        while self.outcome.is_none() && self.first_output_ms.is_none() {
            let was_accepted = self.is_accepted;
            let event = self.next_event(recipient).await;
            self.step(event);
            if self.is_accepted && !was_accepted && recipient.accepted().await.is_err() {
                self.step(ConsumerEvent::Cancel);
            }
        }
    }

    /// Hands everything to the recipient, to the end of the session. Tells why the recipient wanted no more, where
    /// it did not.
    pub(super) async fn finish(&mut self, recipient: &mut Recipient) -> Option<Stop> {
        loop {
            for output in std::mem::take(&mut self.waiting) {
                if let Err(stop) = self.hand_over(output, recipient).await {
                    // What comes after this is paid for, but goes nowhere.
                    self.step(ConsumerEvent::Cancel);
                    return Some(stop);
                }
            }
            if self.outcome.is_some() {
                return None;
            }
            let event = self.next_event(recipient).await;
            self.step(event);
        }
    }

    async fn hand_over(&mut self, output: Output, recipient: &mut Recipient) -> Result<(), Stop> {
        let since = Instant::now();
        let taken = recipient.message(output.message, output.tokens);
        let taken = self.beginning.outbox.alongside(taken).await;
        self.clock.stand_still_since(since);
        taken
    }

    async fn next_event(&mut self, recipient: &Recipient) -> ConsumerEvent {
        let Beginning {
            session,
            receiver,
            outbox,
            ..
        } = &mut self.beginning;
        let left_ms = session.deadline_ms().saturating_sub(self.clock.now_ms());
        let receive = receiver.receive(Duration::from_millis(left_ms));
        let received = outbox.alongside(async {
            tokio::select! {
                received = receive => Some(received),
                () = recipient.gone() => None,
            }
        });
        match received.await {
            None => ConsumerEvent::Cancel,
            Some(Ok(frame)) => ConsumerEvent::Frame(Box::new(frame)),
            Some(Err(ReceiveError::Timeout(_))) => ConsumerEvent::Tick,
            Some(Err(error)) => {
                tracing::debug!(%error, "the job stream ended");
                ConsumerEvent::StreamClosed
            }
        }
    }

    /// One step of the session with its effects.
    fn step(&mut self, event: ConsumerEvent) {
        if self.outcome.is_some() {
            return;
        }
        let now_ms = self.clock.now_ms();
        let effects = {
            let account = &mut lock(&self.beginning.account);
            self.beginning.session.handle(event, account, now_ms)
        };
        let mut last_voucher = None;
        for effect in effects {
            match effect {
                ConsumerEffect::Send(frame) => {
                    if let ConsumerFrame::Voucher(voucher) = &frame {
                        last_voucher = Some(voucher.clone());
                    }
                    self.beginning.outbox.put(frame);
                }
                ConsumerEffect::Accepted(_) => self.is_accepted = true,
                ConsumerEffect::Message(message) => self.take(message),
                ConsumerEffect::End(outcome) => self.outcome = Some(outcome),
            }
        }
        if let Some(outcome) = &self.outcome {
            let is_broken = outcome.result.as_ref().err() == Some(&ConsumerFailure::Disconnected);
            // What other jobs of the channel owe goes out on their streams.
            let owes = !outcome.cost.is_zero();
            if let Some(voucher) = last_voucher.filter(|_| is_broken && owes) {
                // Its stream is gone, and it may never come back for another job.
                self.in_background(self.market().wallet.clone().hand_in(voucher));
            }
            self.close();
        }
    }

    fn market(&self) -> &Market {
        self.beginning.running.market()
    }

    fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            self.market().tasks.spawn_on(work, &runtime);
        }
    }

    fn take(&mut self, message: Vec<u8>) {
        let kind = self.beginning.kind;
        // The messages after the first output need no look.
        let is_output = self.first_output_ms.is_none()
            && (self.waiting.len() + 1 >= EMPTY_MESSAGES_MAX || !says_nothing(kind, &message));
        if is_output && self.first_output_ms.is_none() {
            self.first_output_ms = Some(self.elapsed_ms());
            if let Some(share) = &self.beginning.share {
                share.first_output();
            }
        }
        let tokens = self.beginning.session.meter().count(Unit::OutputToken);
        self.waiting.push(Output { message, tokens });
    }

    /// Puts what was delivered on the bill and sends what is left to send.
    fn close(&mut self) {
        let beginning = &mut self.beginning;
        let market = beginning.running.market();
        market.wallet.note_change();
        if let Some(outcome) = &self.outcome {
            if let Some(share) = beginning.share.take() {
                share.end(&outcome.usage, outcome.cost, outcome.result.is_ok());
            }
            lock(&beginning.bill).add(BillItem {
                provider: beginning.route.provider,
                channel: beginning.channel,
                usage: outcome.usage.clone(),
                cost: outcome.cost,
            });
        }
        let Some(rest) = beginning.outbox.close() else {
            return;
        };
        // Until its stream is closed the provider counts it among those that it has open.
        let running = beginning.running.clone();
        let rest = async move {
            let _ = timeout(CLOSING_TIMEOUT, rest).await;
            drop(running);
        };
        self.in_background(rest);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.outcome.is_none() {
            self.step(ConsumerEvent::Cancel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_chunks_are_waited_through() {
        for (message, expected) in [
            (
                r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
                true,
            ),
            (r#"{"choices":[],"error":null}"#, true),
            (r#"{"choices":[{"delta":{"content":"Hi"}}]}"#, false),
            (r#"{"error":{"message":"out of memory"}}"#, false),
            ("[]", false),
            ("Hi", false),
            ("", false),
        ] {
            let said = says_nothing(JobKind::ChatCompletions, message.as_bytes());
            assert_eq!(said, expected, "{message}");
        }
        assert!(!says_nothing(JobKind::AudioSpeech, b""));
    }
}
