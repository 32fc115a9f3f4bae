//! A job's frames, both ways: drives the protocol's session over a job stream, and keeps the bill of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill_protocol::channel::ConsumerChannel;
use gristmill_protocol::content::text_bytes;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::{ConsumerFrame, JobKind, ProviderFrame};
use gristmill_protocol::session::consumer::{
    ConsumerEffect, ConsumerEvent, ConsumerFailure, ConsumerOutcome, ConsumerSession,
};
use gristmill_protocol::usage::{Unit, Usage};
use gristmill_transport::ReceiveError;
use gristmill_transport::job_stream::FrameReceiver;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use crate::core::bill::{Bill, BillItem, difference};
use crate::core::records::RecordEvent;
use crate::core::router::Route;
use crate::jobs::outbox::Outbox;
use crate::market::{Market, RunningJob};
use crate::usage::Share;
use crate::wallet::lock;

/// How long the last voucher may take after a job.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);
/// Most messages without any output that are waited through: some servers begin with an empty one.
const EMPTY_MESSAGES_MAX: usize = 4;

/// The time of one job in milliseconds. It stands still while the program does not read, which is no fault of the
/// provider's.
pub(super) struct JobClock {
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

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed().saturating_sub(self.stood_still)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn stand_still_since(&mut self, since: Instant) {
        self.stood_still += since.elapsed();
    }
}

/// A message of the answer, and how many tokens had been written by then.
pub(super) struct Output {
    pub(super) message: Vec<u8>,
    pub(super) tokens: u64,
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

/// A job with a provider, as far as it has come.
pub(super) struct Exchange {
    pub(super) beginning: Beginning,
    pub(super) clock: JobClock,
    pub(super) is_accepted: bool,
    pub(super) first_output_ms: Option<f64>,
    /// What came and was not taken yet.
    pub(super) waiting: Vec<Output>,
    pub(super) outcome: Option<Box<ConsumerOutcome>>,
    /// What is on the bill already.
    billed: (Usage, Credits),
}

impl Exchange {
    pub(super) fn new(beginning: Beginning) -> Self {
        Self {
            beginning,
            clock: JobClock::start(),
            is_accepted: false,
            first_output_ms: None,
            waiting: Vec::new(),
            outcome: None,
            billed: (Usage::new(), Credits::ZERO),
        }
    }

    /// How long it has taken, in milliseconds, without the time in which the program did not read.
    pub(super) fn elapsed_ms(&self) -> f64 {
        self.clock.elapsed().as_secs_f64() * 1_000.0
    }

    /// Goes on to the end without anybody who wants the answer: once cancelled, to the provider's last word.
    pub(super) async fn see_out(mut self) {
        while self.outcome.is_none() {
            let event = self.next_event(std::future::pending()).await;
            self.step(event);
        }
        let result = self.outcome.as_ref().map(|outcome| &outcome.result);
        if let Some(Err(ConsumerFailure::Misbehaved(what))) = result {
            let provider = self.beginning.route.provider;
            tracing::warn!(%provider, what, "a provider misbehaved after its job was cancelled");
            self.market().note(provider, RecordEvent::Misbehaved);
        }
    }

    /// What happens next; that nobody wants the answer any more where `gone` is ready first.
    pub(super) async fn next_event(&mut self, gone: impl Future<Output = ()>) -> ConsumerEvent {
        let Beginning {
            session,
            receiver,
            outbox,
            ..
        } = &mut self.beginning;
        let left_ms = session.deadline_ms().saturating_sub(self.clock.now_ms());
        let is_leaving = session.is_leaving();
        let receive = receiver.receive(Duration::from_millis(left_ms));
        let received = outbox.alongside(async {
            tokio::select! {
                received = receive => Some(received),
                () = gone, if !is_leaving => None,
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
    pub(super) fn step(&mut self, event: ConsumerEvent) {
        if self.outcome.is_some() {
            return;
        }
        let is_broken = event == ConsumerEvent::StreamClosed;
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
            // What other jobs of the channel owe goes out on their streams.
            let owes = !outcome.cost.is_zero();
            if let Some(voucher) = last_voucher.filter(|_| is_broken && owes) {
                // Its stream is gone, and it may never come back for another job.
                self.in_background(self.market().wallet.clone().hand_in(voucher));
            }
            self.close();
        } else if self.beginning.session.is_leaving() {
            self.bill();
        }
    }

    pub(super) fn market(&self) -> &Arc<Market> {
        self.beginning.running.market()
    }

    pub(super) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
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

    /// Puts what was delivered so far on the bill, beyond what is there already.
    fn bill(&mut self) {
        let beginning = &mut self.beginning;
        let (usage, cost) = (beginning.session.meter().clone(), beginning.session.cost());
        if let Some(share) = &mut beginning.share {
            share.delivered(&usage, cost);
        }
        let (usage_before, cost_before) = &self.billed;
        lock(&beginning.bill).add(BillItem {
            provider: beginning.route.provider,
            channel: beginning.channel,
            usage: difference(&usage, usage_before),
            cost: cost.saturating_sub(*cost_before),
        });
        self.billed = (usage, cost);
    }

    /// Puts what was delivered on the bill and sends what is left to send.
    fn close(&mut self) {
        self.bill();
        let beginning = &mut self.beginning;
        beginning.running.market().wallet.note_change();
        if let (Some(outcome), Some(share)) = (&self.outcome, beginning.share.take()) {
            share.end(outcome.result.is_ok());
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
