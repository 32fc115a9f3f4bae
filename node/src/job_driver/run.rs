//! One job from its acceptance to its end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_protocol::job::{ConsumerFrame, JobFailed, JobKind, RequestId};
use gristmill_protocol::session::provider::{
    ProviderEffect, ProviderEnd, ProviderEvent, ProviderOutcome, ProviderSession,
};
use gristmill_protocol::trace::TraceParent;
use gristmill_protocol::usage::Unit;
use gristmill_transport::job_stream::FrameReceiver;
use gristmill_transport::{ProviderJobStream, ReceiveError};
use serde_json::Value;
use tokio::sync::watch;

use super::engine_task::{EngineNews, EngineTask};
use super::outbox::{Outbox, hear_out};
use super::{JobHost, SEND_TIMEOUT, Taken};
use crate::channels::OpenChannel;
use crate::core::metering::PlausibleMeter;
use crate::engine::{Engine, EngineError, EngineRequest, RequestBody};
use crate::metrics::EndedJob;
use crate::slots::JobPlace;

/// How long before its ticket ends a job is broken off, so that its last voucher can still be handed in.
const BREAK_OFF_BEFORE_END_MS: u64 = 10_000;
/// Longest time for the whole body, however steadily its parts come: a place is taken meanwhile.
const BODY_MAX_MS: u64 = 120_000;
/// The longest sleep: clocks can be set, and a job looks at least this often.
const SLEEP_MAX_MS: u64 = 60_000;
/// A receive without a timeout of its own: the session has the deadlines.
const NO_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// What happens to a job: an event of the session, or one that only the driver knows.
enum News {
    Event(ProviderEvent),
    Engine(EngineNews),
    Sent,
    /// The job has had its time; the engine is told to stop.
    BreakOff(JobFailed),
}

/// A job that runs.
pub(super) struct JobRun {
    host: Arc<JobHost>,
    session: ProviderSession,
    channel: Arc<OpenChannel>,
    payments: watch::Receiver<u64>,
    engine: Arc<dyn Engine>,
    kind: JobKind,
    model: String,
    /// The media type of a body that is passed through.
    content_type: String,
    /// The span of this job in the caller's trace.
    trace_parent: Option<TraceParent>,
    request_id: RequestId,
    meter: PlausibleMeter,
    outbox: Outbox,
    receiver: FrameReceiver<ConsumerFrame>,
    place: Option<JobPlace>,
    work: Option<EngineTask>,
    broken_off: bool,
    /// Whether the consumer's stream has ended, so that it hears nothing more.
    is_hung_up: bool,
    body_by_ms: u64,
    began: Instant,
    /// When the first text came, after the beginning.
    first_text: Option<Duration>,
    outcome: Option<ProviderOutcome>,
}

impl JobRun {
    /// A job that was taken, and what to do first.
    pub(super) fn new(
        host: Arc<JobHost>,
        taken: Taken,
        stream: ProviderJobStream,
    ) -> (Vec<ProviderEffect>, Self) {
        let (sender, receiver) = stream.split();
        let terms = taken.admitted.terms;
        let engine = taken.catalogue.engine(taken.admitted.offer);
        let model = taken.catalogue.offers[taken.admitted.offer].model.clone();
        let run = Self {
            payments: taken.channel.changes(),
            body_by_ms: (host.clock)().saturating_add(BODY_MAX_MS),
            session: taken.session,
            channel: taken.channel,
            engine,
            kind: terms.kind,
            model,
            content_type: taken.content_type,
            trace_parent: taken.trace_parent,
            meter: PlausibleMeter::new(terms.kind, terms.body_bytes),
            request_id: terms.request_id,
            outbox: Outbox::new(sender, SEND_TIMEOUT),
            receiver,
            place: Some(taken.place),
            work: None,
            broken_off: false,
            is_hung_up: false,
            began: Instant::now(),
            first_text: None,
            outcome: None,
            host,
        };
        (taken.effects, run)
    }

    /// Runs the job to its end and leaves nothing behind.
    pub(super) async fn until_end(mut self, first: Vec<ProviderEffect>) {
        self.apply(first);
        while self.outcome.is_none() {
            match self.next().await {
                News::Event(event) => self.handle(event),
                News::Engine(news) => self.hear_engine(news),
                News::Sent => {}
                News::BreakOff(failed) => self.break_off(failed),
            }
        }
        self.conclude().await;
    }

    async fn next(&mut self) -> News {
        let now_ms = (self.host.clock)();
        let reads_body = self.place.is_some();
        if !self.broken_off && now_ms >= self.channel.ends_at_ms().saturating_sub(BREAK_OFF_BEFORE_END_MS) {
            let reason = "the channel ends; open another one";
            return News::BreakOff(JobFailed::new(503, "channel_expired", reason, None));
        }
        if reads_body && now_ms >= self.body_by_ms {
            return News::Event(ProviderEvent::StreamClosed);
        }
        let mut wake_ms = self.session.deadline_ms();
        if !self.broken_off {
            wake_ms = wake_ms.min(self.channel.ends_at_ms().saturating_sub(BREAK_OFF_BEFORE_END_MS));
        }
        if reads_body {
            wake_ms = wake_ms.min(self.body_by_ms);
        }
        let sleep = Duration::from_millis(wake_ms.saturating_sub(now_ms).min(SLEEP_MAX_MS));
        let wants_output = self.session.wants_output() && self.outbox.has_room();
        let work = self
            .work
            .as_mut()
            .filter(|work| wants_output && !work.has_ended());
        tokio::select! {
            frame = self.receiver.receive(NO_TIMEOUT) => News::Event(event(frame)),
            sent = self.outbox.send_next(), if !self.outbox.is_idle() => match sent {
                Ok(()) => News::Sent,
                Err(error) => {
                    tracing::debug!(%error, "the consumer can't be reached");
                    News::Event(ProviderEvent::StreamClosed)
                }
            },
            Some(news) = next_of(work) => News::Engine(news),
            Ok(()) = self.payments.changed() => News::Event(ProviderEvent::ChannelPaid),
            () = self.host.abort.cancelled(), if !self.broken_off => {
                let reason = "the provider is stopping";
                News::BreakOff(JobFailed::new(503, "provider_stopping", reason, None))
            }
            () = tokio::time::sleep(sleep) => News::Event(ProviderEvent::Tick),
        }
    }

    fn handle(&mut self, event: ProviderEvent) {
        self.is_hung_up |= event == ProviderEvent::StreamClosed;
        let now_ms = (self.host.clock)();
        let effects = self.session.handle(event, &mut self.channel.lock(), now_ms);
        self.apply(effects);
    }

    fn hear_engine(&mut self, news: EngineNews) {
        let event = match news {
            EngineNews::Output(output) => {
                let meter = self.meter.after_message(&output.message, &output.meter);
                if self.first_text.is_none() && self.meter.has_text() {
                    self.first_text = Some(self.began.elapsed());
                }
                ProviderEvent::EngineOutput {
                    message: output.message,
                    meter,
                }
            }
            EngineNews::Finished(usage) => ProviderEvent::EngineFinished {
                usage: self.meter.after_all(&usage),
            },
            EngineNews::Failed(error) => {
                // The message may quote the request: it is for the consumer alone.
                tracing::info!(status = error.status, code = error.code, "the engine failed");
                ProviderEvent::EngineFailed(failed(&error))
            }
        };
        self.handle(event);
    }

    fn break_off(&mut self, failed: JobFailed) {
        tracing::info!(code = failed.code, "job broken off");
        self.broken_off = true;
        if let Some(work) = &mut self.work {
            work.stop();
        }
        let reads_body = self.place.is_some();
        self.handle(if reads_body {
            ProviderEvent::StreamClosed
        } else {
            ProviderEvent::EngineFailed(failed)
        });
    }

    /// Does what the session says. What fails at once on this side goes straight back to it.
    fn apply(&mut self, effects: Vec<ProviderEffect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                ProviderEffect::Send(frame) => self.outbox.push(frame),
                ProviderEffect::StartEngine { body } => {
                    if let Err(failed) = self.start_engine(body) {
                        self.place = None;
                        let now_ms = (self.host.clock)();
                        let event = ProviderEvent::EngineFailed(failed);
                        effects.extend(self.session.handle(event, &mut self.channel.lock(), now_ms));
                    }
                }
                ProviderEffect::StopEngine => {
                    if let Some(work) = &mut self.work {
                        work.stop();
                    }
                }
                ProviderEffect::KeepVoucher(voucher) => {
                    self.host.vouchers.keep(voucher, self.channel.terms());
                    self.channel.wake_jobs();
                }
                ProviderEffect::End(outcome) => {
                    self.outcome = Some(outcome);
                    self.channel.wake_jobs();
                }
            }
        }
    }

    fn start_engine(&mut self, body: Vec<u8>) -> Result<(), JobFailed> {
        let body = if self.kind.is_passed_through() {
            RequestBody::PassedThrough {
                content_type: std::mem::take(&mut self.content_type),
                bytes: body.into(),
            }
        } else {
            RequestBody::Json(json_object(&body)?)
        };
        let request = EngineRequest {
            request_id: self.request_id.to_string(),
            kind: self.kind,
            model: self.model.clone(),
            body,
            trace_parent: self.trace_parent,
        };
        if let Some(place) = self.place.take() {
            self.work = Some(EngineTask::start(Arc::clone(&self.engine), request, place));
        }
        Ok(())
    }

    /// Says the last words, listens for the consumer's, and waits for the engine to have stopped.
    async fn conclude(self) {
        let Some(outcome) = self.outcome else { return };
        tracing::info!(
            reason = ?outcome.reason,
            input_tokens = outcome.usage.count(Unit::InputToken),
            output_tokens = outcome.usage.count(Unit::OutputToken),
            cost = %outcome.cost,
            "job ended"
        );
        self.host.tally.note(self.kind, &self.model, &outcome);
        self.host.metrics.ended(&EndedJob {
            kind: self.kind,
            model: &self.model,
            outcome: &outcome,
            duration: self.began.elapsed(),
            first_text: self.first_text,
        });
        drop(self.place);
        let (channel, vouchers) = (&self.channel, &self.host.vouchers);
        let last_words = async {
            // Who cancelled still hears the last word and pays; who hung up does neither.
            if outcome.reason != ProviderEnd::ConsumerLeft || !self.is_hung_up {
                self.outbox.finish().await;
                // A voucher that comes late is as good as one in time.
                hear_out(self.receiver, |frame| {
                    if let ConsumerFrame::Voucher(voucher) = frame
                        && channel.lock().accept(&voucher) == Ok(true)
                    {
                        vouchers.keep(Box::new(voucher), channel.terms());
                        channel.wake_jobs();
                    }
                })
                .await;
            }
        };
        let engine_stopped = async {
            if let Some(work) = self.work {
                work.stopped().await;
            }
        };
        tokio::join!(last_words, engine_stopped);
    }
}

/// Reads a body that has to be a JSON object.
fn json_object(body: &[u8]) -> Result<Value, JobFailed> {
    let invalid = |reason: &str| JobFailed::new(400, "invalid_request_error", reason, None);
    let body: Value = serde_json::from_slice(body)
        // Where it is broken, but not what it says.
        .map_err(|error| {
            invalid(&format!(
                "the body is not JSON: line {}, column {}",
                error.line(),
                error.column()
            ))
        })?;
    if !body.is_object() {
        return Err(invalid("the body is not a JSON object"));
    }
    Ok(body)
}

async fn next_of(work: Option<&mut EngineTask>) -> Option<EngineNews> {
    match work {
        Some(work) => Some(work.next().await),
        None => None,
    }
}

fn event(received: Result<ConsumerFrame, ReceiveError>) -> ProviderEvent {
    match received {
        Ok(ConsumerFrame::BodyPart(part)) => ProviderEvent::BodyPart(part),
        Ok(ConsumerFrame::Voucher(voucher)) => ProviderEvent::Voucher(Box::new(voucher)),
        Ok(ConsumerFrame::Cancel) => ProviderEvent::Cancel,
        Ok(ConsumerFrame::Open(_)) => {
            tracing::debug!("the consumer asked for a second job on one stream");
            ProviderEvent::StreamClosed
        }
        Err(ReceiveError::Timeout(_)) => ProviderEvent::Tick,
        Err(error @ (ReceiveError::Closed | ReceiveError::Decode(_) | ReceiveError::Io(_))) => {
            tracing::debug!(%error, "the consumer's stream ended");
            ProviderEvent::StreamClosed
        }
    }
}

fn failed(error: &EngineError) -> JobFailed {
    JobFailed::new(error.status, &error.code, &error.message, error.param.as_deref())
}
