//! One provider that is asked: its stream, from the opening to the session's last effect.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::{ConsumerFrame, JobKind, OpenJob, ProviderFrame};
use gristmill_protocol::routing::choice::Route;
use gristmill_protocol::routing::records::RecordEvent;
use gristmill_protocol::session::consumer::{
    ConsumerEffect, ConsumerEvent, ConsumerSession, ConsumerTerms, ConsumerTimeouts,
};
use gristmill_protocol::usage::Usage;

use super::{Attempt, Consumer};
use crate::checkers::forwarding::{self, Passed};
use crate::engine::{Breach, NodeId};
use crate::people::coordinator::amount;
use crate::people::job_text;
use crate::world::event::{JobId, Message, StreamId, Timer};
use crate::world::kept::Kept;
use crate::world::roster::Part;
use crate::world::scene::Scene;

/// Tokens of the template that a provider may count beside the body's bytes, and those that end an answer: what the
/// client reserves for.
pub(crate) const INPUT_TOKENS_BESIDE: u64 = 256;
const OUTPUT_TOKENS_BEYOND: u64 = 16;
/// Most bytes of one message of an answer.
const MESSAGE_MAX_BYTES: usize = 1 << 20;

impl Consumer {
    /// Asks a provider, once there is a channel that pays it.
    pub(super) fn begin_attempt(
        &mut self,
        job: JobId,
        route: Route,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        let Some(provider) = node_of(&route) else {
            return Err(scene.breach("addresses", format!("{:?} names no node", route.addresses)));
        };
        self.check_listing(&route, provider, scene)?;
        let Some(asked) = self.jobs.get_mut(&job) else {
            return Ok(());
        };
        if !asked.tried.insert(route.provider) {
            return Err(scene.breach(
                "routing",
                format!("{} was chosen again for one request", route.provider),
            ));
        }
        // What came already is part of the prompt of the rest.
        let input_tokens = asked
            .request
            .input_tokens
            .saturating_add(asked.got)
            .min(job_text::INPUT_TOKENS_MAX);
        let output_tokens = asked.request.output_tokens.saturating_sub(asked.got).max(1);
        let most = Usage::tokens(
            job_text::body_bytes(input_tokens) as u64 + INPUT_TOKENS_BESIDE,
            u64::from(output_tokens) + OUTPUT_TOKENS_BEYOND,
        );
        let cost_max = route
            .offer
            .price
            .cost(&most)
            .unwrap_or(Credits::MAX)
            .max(Credits::micro(1));
        let stream = job.stream(asked.attempts_ever);
        asked.attempts_ever += 1;
        let (channel, is_open) = self.fund(route.provider, cost_max, scene);
        let attempt = Attempt {
            stream,
            provider,
            account: route.provider,
            price: route.offer.price,
            channel,
            cost_max,
            input_tokens,
            output_tokens,
            session: None,
            sent_us: scene.now_us(),
            first_us: None,
            got: 0,
            chunks: 0,
            vouchers: 0,
            cost: Credits::ZERO,
            arrives_us: 0,
            looks_at_ms: 0,
        };
        if let Some(asked) = self.jobs.get_mut(&job) {
            asked.cost_max = asked.cost_max.max(cost_max.microcredits());
            asked.live.push(attempt);
        }
        scene.trace(CHOSEN, u64::from(provider));
        scene.tell(Some(job), || {
            let waits = if is_open {
                ""
            } else {
                ", once the coordinator has opened a channel"
            };
            format!("It asks node {provider}{waits}.")
        });
        if is_open {
            self.open_stream(stream, scene)
        } else {
            Ok(())
        }
    }

    /// Sends the request on a stream whose channel is open.
    pub(super) fn open_stream(&mut self, stream: StreamId, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let (job, now_ms) = (stream.job(), scene.now_ms());
        let model = self
            .jobs
            .get(&job)
            .map_or("", |asked| asked.request.model.name())
            .to_owned();
        let Some(attempt) = attempt_mut(&mut self.jobs, stream) else {
            return Ok(());
        };
        let Some(channel) = self.channels.get_mut(&attempt.channel) else {
            return Ok(());
        };
        let (ticket, Some(account)) = (channel.ticket.clone(), channel.account.awake_mut()) else {
            return Ok(());
        };
        let body = job_text::body(attempt.input_tokens, attempt.output_tokens);
        let request_id = job_text::request_id(job);
        let terms = ConsumerTerms {
            request_id: request_id.clone(),
            kind: JobKind::ChatCompletions,
            provider: attempt.account,
            price_cap: attempt.price.clone(),
            body_bytes: body.len() as u64,
            cost_max: attempt.cost_max,
            message_max_bytes: MESSAGE_MAX_BYTES,
        };
        let Ok(session) = ConsumerSession::open(terms, ConsumerTimeouts::default(), account, now_ms) else {
            // Others were faster on this channel: another one is opened.
            let (provider, cost_max) = (attempt.account, attempt.cost_max);
            let (channel, is_open) = self.fund(provider, cost_max, scene);
            if let Some(attempt) = attempt_mut(&mut self.jobs, stream) {
                attempt.channel = channel;
            }
            return if is_open {
                self.open_stream(stream, scene)
            } else {
                Ok(())
            };
        };
        let open = OpenJob {
            ticket,
            request_id,
            kind: JobKind::ChatCompletions,
            model,
            price_cap: attempt.price.clone(),
            body_bytes: body.len() as u64,
            content_type: String::new(),
            trace_parent: None,
        };
        attempt.session = Some(Kept::Awake(session));
        attempt.sent_us = scene.now_us();
        let (provider, account) = (attempt.provider, attempt.account);
        for frame in [ConsumerFrame::Open(open), ConsumerFrame::BodyPart(body)] {
            scene.send_after(
                provider,
                Message::ToProvider { stream, frame },
                &mut attempt.arrives_us,
            );
        }
        scene.tally.attempts += 1;
        self.records.note(account, RecordEvent::JobBegan, now_ms);
        self.plan_deadline(stream, scene);
        self.plan_hedge(job, scene);
        Ok(())
    }

    /// A frame of a job stream.
    pub(super) fn frame(
        &mut self,
        stream: StreamId,
        frame: ProviderFrame,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        self.session_event(stream, ConsumerEvent::Frame(Box::new(frame)), scene)
    }

    pub(super) fn stream_closed(
        &mut self,
        stream: StreamId,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        self.session_event(stream, ConsumerEvent::StreamClosed, scene)
    }

    pub(super) fn deadline(&mut self, stream: StreamId, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        self.session_event(stream, ConsumerEvent::Tick, scene)
    }

    /// Lets something happen to a session.
    pub(super) fn session_event(
        &mut self,
        stream: StreamId,
        event: ConsumerEvent,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        let now_ms = scene.now_ms();
        let Some(attempt) = attempt_mut(&mut self.jobs, stream) else {
            return Ok(());
        };
        let Some(session) = attempt.session.as_mut().and_then(Kept::awake_mut) else {
            return Ok(());
        };
        let Some(account) = self
            .channels
            .get_mut(&attempt.channel)
            .and_then(|channel| channel.account.awake_mut())
        else {
            return Ok(());
        };
        if let ConsumerEvent::Frame(frame) = &event
            && let ProviderFrame::Chunk(chunk) = frame.as_ref()
        {
            let cost = attempt.price.cost(&chunk.meter).unwrap_or(Credits::MAX);
            self.bounds
                .received(attempt.channel, cost.saturating_sub(attempt.cost));
            attempt.cost = cost;
        }
        let (before, channel) = (account.owed(), attempt.channel);
        let is_chunk =
            matches!(&event, ConsumerEvent::Frame(frame) if matches!(**frame, ProviderFrame::Chunk(_)));
        let effects = session.handle(event, account, now_ms);
        let grown = account.owed().saturating_sub(before).microcredits();
        if is_chunk && grown == 0 {
            self.bounds.rejected(channel);
        }
        self.owed += grown;
        scene.tally.paid += grown;
        for effect in effects {
            self.take_effect(stream, effect, scene)?;
        }
        self.plan_deadline(stream, scene);
        self.check_debt(stream, scene)
    }

    /// A listing that an honest board would not have any more is asked by nobody.
    fn check_listing(&self, route: &Route, provider: NodeId, scene: &Scene<'_, '_>) -> Result<(), Breach> {
        let now_ms = scene.now_ms();
        let board = self.board.awake();
        let Some(listing) = board.and_then(|board| board.listing(&route.provider, now_ms)) else {
            return Ok(());
        };
        let passed = Passed {
            publisher: provider,
            sequence: listing.sequence,
            issued_at_ms: listing.issued_at_ms,
            ttl_ms: listing.ttl_ms,
            is_valid: true,
        };
        forwarding::chosen(&passed, now_ms, scene.place())?;
        let coordinator = scene.world.coordinator_account();
        if !self.would_ask(listing, coordinator, now_ms) {
            let message =
                format!("node {provider} was asked for verified hardware and has no certificate that holds");
            return Err(scene.breach("certificates", message));
        }
        Ok(())
    }

    /// While a job runs, no more is owed for it than the provider's window leaves room for.
    fn check_debt(&mut self, stream: StreamId, scene: &Scene<'_, '_>) -> Result<(), Breach> {
        let Some(attempt) = attempt_mut(&mut self.jobs, stream) else {
            return Ok(());
        };
        let Part::Provider(group) = scene.world.roster.part(attempt.provider) else {
            return Ok(());
        };
        let group = scene.world.config.providers.get(group);
        let window = group.map_or(Credits::MAX, |group| amount(group.credit_window.get()));
        self.bounds.owes(&attempt.channel, window, scene.place())
    }

    fn take_effect(
        &mut self,
        stream: StreamId,
        effect: ConsumerEffect,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        match effect {
            ConsumerEffect::Send(frame) => {
                let config = self.config(scene);
                if let Some(attempt) = attempt_mut(&mut self.jobs, stream) {
                    if let ConsumerFrame::Voucher(voucher) = &frame {
                        let content = voucher.content_unchecked();
                        self.bounds
                            .vouchered(content.channel, content.cumulative, scene.place())?;
                        attempt.vouchers += 1;
                        if !config.conduct().pays_voucher(attempt.vouchers - 1) {
                            return Ok(());
                        }
                    }
                    let message = Message::ToProvider { stream, frame };
                    scene.send_after(attempt.provider, message, &mut attempt.arrives_us);
                }
                Ok(())
            }
            ConsumerEffect::Accepted(accepted) => {
                scene.tell(Some(stream.job()), || {
                    format!(
                        "The provider takes the job; {} wait before it.",
                        accepted.position
                    )
                });
                Ok(())
            }
            ConsumerEffect::Message(message) => self.output(stream, &message, scene),
            ConsumerEffect::End(outcome) => self.ended(stream, *outcome, scene),
        }
    }

    /// A part of the answer came.
    fn output(&mut self, stream: StreamId, message: &[u8], scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let (job, now_us) = (stream.job(), scene.now_us());
        let tokens = job_text::tokens_in(message);
        let leaves_after = self.config(scene).conduct().leaves_after_chunks();
        let Some(asked) = self.jobs.get_mut(&job) else {
            return Ok(());
        };
        let Some(attempt) = asked.live.iter_mut().find(|attempt| attempt.stream == stream) else {
            return Ok(());
        };
        attempt.got += tokens;
        attempt.chunks += 1;
        asked.got += tokens;
        let chunks = attempt.chunks;
        scene.tally.output_tokens += u64::from(tokens);
        if leaves_after.is_some_and(|most| chunks >= most) {
            scene.tally.vanished += 1;
            self.vanish(job, scene);
            return Ok(());
        }
        if attempt.first_us.is_some() {
            return Ok(());
        }
        attempt.first_us = Some(now_us);
        let waited_ms = (now_us - attempt.sent_us) / 1_000;
        let account = attempt.account;
        if asked.first_us.is_none() {
            asked.first_us = Some(now_us);
            let since_ms = (now_us - asked.asked_us) / 1_000;
            scene.tally.first_token_ms.add(since_ms);
            scene.tell(Some(job), || {
                format!("The first output comes after {since_ms} ms.")
            });
        }
        let latency_ms = milliseconds(waited_ms);
        self.records
            .note(account, RecordEvent::FirstOutput { latency_ms }, scene.now_ms());
        self.drop_others(stream, scene)
    }

    /// Leaves a job without a word: not even a voucher. What was set aside for it is free again.
    fn vanish(&mut self, job: JobId, scene: &mut Scene<'_, '_>) {
        let attempts = self.jobs.remove(&job).into_iter().flat_map(|job| job.live);
        for mut attempt in attempts {
            let session = attempt.session.as_mut().and_then(Kept::awake_mut);
            let channel = self.channels.get_mut(&attempt.channel);
            if let (Some(session), Some(account)) =
                (session, channel.and_then(|channel| channel.account.awake_mut()))
            {
                session.handle(ConsumerEvent::StreamClosed, account, scene.now_ms());
                let stream = attempt.stream;
                scene.send(attempt.provider, Message::StreamClosed { stream });
            }
        }
    }

    /// Who is faster wins: the other one of a hedged pair is told to stop.
    fn drop_others(&mut self, winner: StreamId, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let job = winner.job();
        let Some(asked) = self.jobs.get_mut(&job) else {
            return Ok(());
        };
        asked
            .live
            .retain(|attempt| attempt.stream == winner || attempt.session.is_some());
        let others: Vec<_> = asked
            .live
            .iter()
            .filter(|attempt| attempt.stream != winner)
            .map(|attempt| (attempt.stream, attempt.account, attempt.sent_us))
            .collect();
        for (stream, account, sent_us) in others {
            let waited_ms = milliseconds(scene.now_us().saturating_sub(sent_us) / 1_000);
            self.records
                .note(account, RecordEvent::WasLate { waited_ms }, scene.now_ms());
            self.session_event(stream, ConsumerEvent::Cancel, scene)?;
        }
        Ok(())
    }

    /// Plans a look at a session's deadline, where none is planned that comes in time.
    fn plan_deadline(&mut self, stream: StreamId, scene: &mut Scene<'_, '_>) {
        let now_ms = scene.now_ms();
        let Some(attempt) = attempt_mut(&mut self.jobs, stream) else {
            return;
        };
        let session = attempt.session.as_ref().and_then(Kept::awake);
        let deadline_ms = session.map_or(u64::MAX, ConsumerSession::deadline_ms);
        let is_planned = attempt.looks_at_ms > now_ms && attempt.looks_at_ms <= deadline_ms;
        if deadline_ms < u64::MAX && !is_planned {
            attempt.looks_at_ms = deadline_ms;
            scene.at_ms(deadline_ms, Timer::ConsumerDeadline(stream));
        }
    }
}

fn attempt_mut(
    jobs: &mut std::collections::BTreeMap<JobId, super::Job>,
    stream: StreamId,
) -> Option<&mut Attempt> {
    let asked = jobs.get_mut(&stream.job())?;
    asked.live.iter_mut().find(|attempt| attempt.stream == stream)
}

/// The node that a provider's address names.
fn node_of(route: &Route) -> Option<NodeId> {
    route.addresses.first()?.strip_prefix("/memory/")?.parse().ok()
}

/// For records, which take measured times.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of one run")]
pub(super) const fn milliseconds(whole: u64) -> f64 {
    whole as f64
}

/// What a trace says of a choice.
const CHOSEN: u64 = 4;
