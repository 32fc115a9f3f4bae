//! One job with one provider, as its request sees it: the way to the first output, the answer, and what became of it.

use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::session::consumer::{ConsumerEvent, ConsumerOutcome};
use tokio::time::Instant;

use crate::core::router::Route;
use crate::jobs::exchange::{Beginning, Exchange, Output};
use crate::jobs::recipient::{Recipient, Stop};
use crate::market::RunningJob;

/// One job with one provider. Dropping it cancels the job: what is on its way by then is received and paid for in the
/// background.
pub(super) struct Attempt {
    /// Taken when it is dropped.
    exchange: Option<Exchange>,
}

impl Attempt {
    pub(super) fn new(beginning: Beginning) -> Self {
        Self {
            exchange: Some(Exchange::new(beginning)),
        }
    }

    #[expect(clippy::expect_used, reason = "taken nowhere but in drop")]
    fn exchange(&self) -> &Exchange {
        self.exchange.as_ref().expect("it is there until this is dropped")
    }

    #[expect(clippy::expect_used, reason = "taken nowhere but in drop")]
    fn exchange_mut(&mut self) -> &mut Exchange {
        self.exchange.as_mut().expect("it is there until this is dropped")
    }

    pub(super) fn route(&self) -> &Route {
        &self.exchange().beginning.route
    }

    pub(super) fn channel(&self) -> ChannelId {
        self.exchange().beginning.channel
    }

    pub(super) fn output_limit(&self) -> Option<u64> {
        self.exchange().beginning.output_limit
    }

    pub(super) fn running(&self) -> &RunningJob {
        &self.exchange().beginning.running
    }

    /// Whether the provider took the job.
    pub(super) fn is_accepted(&self) -> bool {
        self.exchange().is_accepted
    }

    /// How long the first output took, in milliseconds.
    pub(super) fn first_output_ms(&self) -> Option<f64> {
        self.exchange().first_output_ms
    }

    /// How long it has taken, in milliseconds, without the time in which the program did not read.
    pub(super) fn elapsed_ms(&self) -> f64 {
        self.exchange().elapsed_ms()
    }

    /// How the session ended, once it has.
    pub(super) fn outcome(&self) -> Option<&ConsumerOutcome> {
        self.exchange().outcome.as_deref()
    }

    /// Goes on to the first output, or to the end where that comes first.
    pub(super) async fn begin(&mut self, recipient: &Recipient) {
        let exchange = self.exchange_mut();
        while exchange.outcome.is_none() && exchange.first_output_ms.is_none() {
            let was_accepted = exchange.is_accepted;
            let event = exchange.next_event(recipient.gone()).await;
            exchange.step(event);
            if exchange.is_accepted && !was_accepted && recipient.accepted().await.is_err() {
                exchange.step(ConsumerEvent::Cancel);
            }
        }
        if exchange.is_accepted && exchange.first_output_ms.is_none() {
            // Where the program is gone there is nobody to tell.
            let _ = recipient.withdrawn().await;
        }
    }

    /// Hands everything to the recipient, to the end of the session. Tells why the recipient wanted no more, where
    /// it did not.
    pub(super) async fn finish(&mut self, recipient: &mut Recipient) -> Option<Stop> {
        let exchange = self.exchange_mut();
        let mut stop = None;
        loop {
            for output in std::mem::take(&mut exchange.waiting) {
                if let Err(why) = hand_over(exchange, output, recipient).await {
                    // What comes after this is paid for as the session says, but goes nowhere.
                    exchange.step(match why {
                        Stop::Gone => ConsumerEvent::Cancel,
                        Stop::Unusable(_) => ConsumerEvent::Reject,
                    });
                    stop = Some(why);
                    break;
                }
            }
            if exchange.outcome.is_some() {
                return stop;
            }
            let event = exchange.next_event(recipient.gone()).await;
            exchange.step(event);
        }
    }
}

async fn hand_over(exchange: &mut Exchange, output: Output, recipient: &mut Recipient) -> Result<(), Stop> {
    let since = Instant::now();
    let taken = recipient.message(output.message, output.tokens);
    let taken = exchange.beginning.outbox.alongside(taken).await;
    exchange.clock.stand_still_since(since);
    taken
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Some(mut exchange) = self.exchange.take() else {
            return;
        };
        exchange.step(ConsumerEvent::Cancel);
        if exchange.outcome.is_none() {
            let tasks = exchange.market().tasks.clone();
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                tasks.spawn_on(exchange.see_out(), &runtime);
            }
        }
    }
}
