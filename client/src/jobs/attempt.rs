//! One job with one provider: drives the protocol's session over a job stream.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill_protocol::channel::ConsumerChannel;
use gristmill_protocol::job::ProviderFrame;
use gristmill_protocol::session::consumer::{
    ConsumerEffect, ConsumerEvent, ConsumerOutcome, ConsumerSession,
};
use gristmill_transport::ReceiveError;
use gristmill_transport::job_stream::FrameReceiver;
use tokio::time::Instant;

use crate::core::failure::ApiFailure;
use crate::jobs::outbox::Outbox;
use crate::jobs::recipient::{Recipient, Stop};
use crate::wallet::lock;

/// The time of one job in milliseconds. It stands still while the program does not read, which is no fault of the
/// provider's.
pub(super) struct JobClock {
    began: Instant,
    stood_still: Duration,
}

impl JobClock {
    pub(super) fn start() -> Self {
        Self {
            began: Instant::now(),
            stood_still: Duration::ZERO,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        let elapsed = self.began.elapsed().saturating_sub(self.stood_still);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn elapsed_ms(&self) -> f64 {
        self.began
            .elapsed()
            .saturating_sub(self.stood_still)
            .as_secs_f64()
            * 1_000.0
    }

    fn stand_still_since(&mut self, since: Instant) {
        self.stood_still += since.elapsed();
    }
}

/// How an attempt ended.
pub(super) struct AttemptEnd {
    pub(super) outcome: ConsumerOutcome,
    /// What was wrong with a message that the session let pass.
    pub(super) unusable: Option<ApiFailure>,
}

/// One job with one provider.
pub(super) struct Attempt {
    pub(super) session: ConsumerSession,
    pub(super) account: Arc<Mutex<ConsumerChannel>>,
    pub(super) receiver: FrameReceiver<ProviderFrame>,
    pub(super) outbox: Outbox,
    pub(super) clock: JobClock,
}

impl Attempt {
    /// Goes on to the end. What is left to send comes back with it.
    pub(super) async fn run(mut self, recipient: &mut Recipient) -> (AttemptEnd, Outbox) {
        let mut unusable = None;
        let mut event = self.next_event(recipient).await;
        loop {
            let (effects, stop) = self.step(event, recipient).await;
            if let Some(Stop::Unusable(failure)) = &stop {
                unusable = Some(failure.clone());
            }
            if let Some(outcome) = effects {
                return (
                    AttemptEnd {
                        outcome: *outcome,
                        unusable,
                    },
                    self.outbox,
                );
            }
            event = match stop {
                Some(_) => ConsumerEvent::Cancel,
                None => self.next_event(recipient).await,
            };
        }
    }

    async fn next_event(&mut self, recipient: &Recipient) -> ConsumerEvent {
        let left_ms = self.session.deadline_ms().saturating_sub(self.clock.now_ms());
        let receive = self.receiver.receive(Duration::from_millis(left_ms));
        let received = self.outbox.alongside(async {
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

    /// One step of the session with its effects. Comes back with the outcome where the session is over, and with a
    /// reason to stop where the recipient has one.
    async fn step(
        &mut self,
        event: ConsumerEvent,
        recipient: &mut Recipient,
    ) -> (Option<Box<ConsumerOutcome>>, Option<Stop>) {
        let now_ms = self.clock.now_ms();
        let effects = self.session.handle(event, &mut lock(&self.account), now_ms);
        let (mut outcome, mut stop) = (None, None);
        for effect in effects {
            match effect {
                ConsumerEffect::Send(frame) => self.outbox.put(frame),
                ConsumerEffect::End(end) => outcome = Some(end),
                // What comes after the program has gone is paid for, but goes nowhere.
                _ if stop.is_some() => {}
                ConsumerEffect::Accepted(_) => stop = recipient.accepted().await.err(),
                ConsumerEffect::Message(message) => {
                    let elapsed_ms = self.clock.elapsed_ms();
                    let since = Instant::now();
                    let taken = self
                        .outbox
                        .alongside(recipient.message(message, elapsed_ms))
                        .await;
                    self.clock.stand_still_since(since);
                    stop = taken.err();
                }
            }
        }
        (outcome, stop)
    }
}
