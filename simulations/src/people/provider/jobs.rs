//! Jobs: who is let in, and what sessions want done.

use std::collections::VecDeque;

use gristmill_protocol::channel::ProviderChannel;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::{ConsumerFrame, JobKind, JobRefused, OpenJob, ProviderFrame, RefusalCode};
use gristmill_protocol::session::provider::{
    ProviderEffect, ProviderEnd, ProviderEvent, ProviderSession, ProviderTerms, ProviderTimeouts,
};
use gristmill_protocol::tokens::TicketClaims;

use super::engine::Engine;
use super::{Channel, Job, Offered, Provider, price_of};
use crate::engine::{Breach, NodeId};
use crate::people::coordinator::amount;
use crate::people::job_text;
use crate::world::event::{Message, StreamId, Timer};
use crate::world::scene::Scene;

/// How long a ticket must still hold for a new job, as in nodes.
const TICKET_MARGIN_MS: u64 = 30_000;
/// When it may be worth asking a full provider again, as in nodes.
const BUSY_RETRY_AFTER_MS: u32 = 1_000;

impl Provider {
    /// A frame of a job stream.
    pub(super) fn frame(
        &mut self,
        stream: StreamId,
        from: NodeId,
        frame: ConsumerFrame,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        let event = match frame {
            ConsumerFrame::Open(open) => {
                if self.jobs.contains_key(&stream) {
                    return Ok(());
                }
                return match self.admit(stream, from, &open, scene) {
                    Ok(()) => {
                        self.jobs_changed(scene);
                        self.look_at_listing(scene)
                    }
                    Err(refused) => {
                        scene.tell(Some(stream.job()), || format!("It refuses: {}.", refused.reason));
                        let frame = ProviderFrame::Refused(refused);
                        scene.send(from, Message::ToConsumer { stream, frame });
                        Ok(())
                    }
                };
            }
            ConsumerFrame::BodyPart(part) => ProviderEvent::BodyPart(part),
            ConsumerFrame::Voucher(voucher) => ProviderEvent::Voucher(Box::new(voucher)),
            ConsumerFrame::Cancel => ProviderEvent::Cancel,
        };
        self.session_event(stream, event, scene)
    }

    pub(super) fn stream_closed(
        &mut self,
        stream: StreamId,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        self.session_event(stream, ProviderEvent::StreamClosed, scene)
    }

    /// Decides about a job as nodes do: ticket, offer, price, room; then its channel has a say.
    fn admit(
        &mut self,
        stream: StreamId,
        from: NodeId,
        open: &OpenJob,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), JobRefused> {
        let config = self.config(scene);
        let digest = *blake3::hash(open.ticket.as_bytes()).as_bytes();
        let ticket = self.check_ticket(open, digest, &scene.world.account(from), scene)?;
        let is_asked_for =
            |offered: &&Offered| open.kind == JobKind::ChatCompletions && offered.model.name() == open.model;
        let offered = self.offers.iter().find(is_asked_for);
        let Some((model, output)) = offered.and_then(|offered| Some((offered.model, offered.price?))) else {
            let reason = "no such model here now";
            return Err(JobRefused::new(RefusalCode::ModelNotFound, 0, reason));
        };
        let price = price_of(output);
        if !price.within(&open.price_cap) {
            return Err(JobRefused::new(
                RefusalCode::PriceAboveCap,
                0,
                "the price is above the cap of the request",
            ));
        }
        let room = config.slots() + config.queue.get();
        if self.jobs.len() as u64 >= room {
            let reason = format!("{} jobs run or wait here already", self.jobs.len());
            return Err(JobRefused::new(RefusalCode::Busy, BUSY_RETRY_AFTER_MS, &reason));
        }
        let position = (self.jobs.len() as u64 + 1).saturating_sub(config.slots());
        let terms = ProviderTerms {
            request_id: open.request_id.clone(),
            kind: open.kind,
            price: price.clone(),
            body_bytes: open.body_bytes,
            position: u32::try_from(position).unwrap_or(u32::MAX),
        };
        let window = amount(config.credit_window.get());
        let channel = self.channels.entry(ticket.jti).or_insert_with(|| Channel {
            account: ProviderChannel::new(&ticket, window, None),
            token_digest: digest,
            persisted: None,
            settled: Credits::ZERO,
            ticket,
        });
        let (id, account) = (channel.ticket.jti, &mut channel.account);
        self.bounds.opened(id, channel.ticket.limit);
        let timeouts = ProviderTimeouts::default();
        let (session, effects) =
            ProviderSession::accept(scene.keypair(), terms, timeouts, account, scene.now_ms())?;
        let job = Job {
            session: crate::world::kept::Kept::Awake(session),
            channel: id,
            model,
            price,
            cost: Credits::ZERO,
            engine: Engine::Waiting,
            input_tokens: 0,
            output_tokens: 0,
            arrives_us: 0,
            looks_at_ms: 0,
            came_us: scene.now_us(),
            moved_us: scene.now_us(),
        };
        self.jobs.insert(stream, job);
        self.note_whether_full(scene);
        scene.tell(Some(stream.job()), || {
            format!("It takes the job; {position} wait before it.")
        });
        let mut events = VecDeque::new();
        let _ = self.take_effects(stream, effects, &mut events, scene);
        self.plan_deadline(stream, scene);
        Ok(())
    }

    fn check_ticket(
        &self,
        open: &OpenJob,
        digest: [u8; 32],
        peer: &AccountId,
        scene: &Scene<'_, '_>,
    ) -> Result<TicketClaims, JobRefused> {
        let invalid = |reason: &str| JobRefused::new(RefusalCode::InvalidTicket, 0, reason);
        let known = self
            .channels
            .values()
            .find(|channel| channel.token_digest == digest);
        let ticket = match known {
            Some(known) => known.ticket.clone(),
            None => {
                let coordinator = scene.world.coordinator_account();
                TicketClaims::verify(&open.ticket, &coordinator, &scene.account(), scene.now_ms())
                    .map_err(|error| invalid(&error.to_string()))?
            }
        };
        if ticket.sub != *peer {
            return Err(JobRefused::new(
                RefusalCode::NotTicketHolder,
                0,
                "the ticket is for somebody else",
            ));
        }
        let ends_at_ms = ticket.redeem_by_ms.min(ticket.exp.saturating_mul(1_000));
        if ends_at_ms.saturating_sub(scene.now_ms()) < TICKET_MARGIN_MS {
            return Err(invalid("the ticket ends too soon"));
        }
        Ok(ticket)
    }

    /// Lets something happen to a session, and to the others of its channel what follows from it.
    pub(super) fn session_event(
        &mut self,
        stream: StreamId,
        event: ProviderEvent,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        let mut events = VecDeque::from([(stream, event)]);
        while let Some((stream, event)) = events.pop_front() {
            let Some(job) = self.jobs.get_mut(&stream) else {
                continue;
            };
            let (Some(session), Some(channel)) =
                (job.session.awake_mut(), self.channels.get_mut(&job.channel))
            else {
                continue;
            };
            job.moved_us = scene.now_us();
            let id = job.channel;
            let before = channel.account.delivered();
            if let ProviderEvent::Voucher(voucher) = &event {
                let content = voucher.content_unchecked();
                self.bounds
                    .vouchered(content.channel, content.cumulative, scene.now_us());
            }
            let effects = session.handle(event, &mut channel.account, scene.now_ms());
            let grown = channel.account.delivered().saturating_sub(before);
            self.delivered += grown.microcredits();
            self.take_effects(stream, effects, &mut events, scene)?;
            self.plan_deadline(stream, scene);
            self.hand_over(stream, scene)?;
            if let Some(channel) = self.channels.get(&id) {
                let (delivered, vouchered) = (channel.account.delivered(), channel.account.vouchered());
                self.bounds.holds(id, delivered, vouchered, scene.place())?;
            }
        }
        Ok(())
    }

    fn take_effects(
        &mut self,
        stream: StreamId,
        effects: Vec<ProviderEffect>,
        events: &mut VecDeque<(StreamId, ProviderEvent)>,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        for effect in effects {
            match effect {
                ProviderEffect::Send(frame) => {
                    self.check_bounds(stream, &frame, scene)?;
                    if let Some(job) = self.jobs.get_mut(&stream) {
                        let message = Message::ToConsumer { stream, frame };
                        scene.send_after(stream.consumer(), message, &mut job.arrives_us);
                    }
                }
                ProviderEffect::StartEngine { body } => self.start_engine(stream, &body, scene),
                ProviderEffect::StopEngine => self.stop_engine(stream, scene),
                ProviderEffect::KeepVoucher(_) => {
                    self.plan_persisting(scene);
                    self.wake_others(stream, events);
                }
                ProviderEffect::End(outcome) => {
                    self.stop_engine(stream, scene);
                    // What was reserved is free for the others.
                    self.wake_others(stream, events);
                    self.note_whether_full(scene);
                    if let Some(mut job) = self.jobs.remove(&stream) {
                        let closed = Message::StreamClosed { stream };
                        scene.send_after(stream.consumer(), closed, &mut job.arrives_us);
                    }
                    scene.trace(ENDED, outcome.cost.microcredits());
                    scene.tell(Some(stream.job()), || ended_words(outcome.reason).to_owned());
                    self.jobs_changed(scene);
                    self.look_at_listing(scene)?;
                }
            }
        }
        Ok(())
    }

    /// What is unpaid on the channel, by the meters that were sent, is within its window.
    fn check_bounds(
        &mut self,
        stream: StreamId,
        frame: &ProviderFrame,
        scene: &Scene<'_, '_>,
    ) -> Result<(), Breach> {
        let (ProviderFrame::Chunk(chunk), Some(job)) = (frame, self.jobs.get_mut(&stream)) else {
            return Ok(());
        };
        let cost = job.price.cost(&chunk.meter).unwrap_or(Credits::MAX);
        let grown = cost.saturating_sub(job.cost);
        job.cost = cost;
        let window = amount(self.config(scene).credit_window.get());
        let channel = self.jobs.get(&stream).map(|job| job.channel);
        channel.map_or(Ok(()), |channel| {
            self.bounds.delivered(channel, grown, window, scene.place())
        })
    }

    fn wake_others(&self, stream: StreamId, events: &mut VecDeque<(StreamId, ProviderEvent)>) {
        let Some(channel) = self.jobs.get(&stream).map(|job| job.channel) else {
            return;
        };
        let others = self
            .jobs
            .iter()
            .filter(|(other, job)| **other != stream && job.channel == channel);
        events.extend(others.map(|(other, _)| (*other, ProviderEvent::ChannelPaid)));
    }

    fn start_engine(&mut self, stream: StreamId, body: &[u8], scene: &mut Scene<'_, '_>) {
        let (input_tokens, output_tokens) = job_text::read_body(body).unwrap_or((1, 1));
        if let Some(job) = self.jobs.get_mut(&stream) {
            job.input_tokens = input_tokens;
            job.output_tokens = output_tokens;
            self.queue.push_back(stream);
        }
        self.begin_engines(scene);
    }

    /// Plans a look at a session's deadline, where none is planned that comes in time.
    fn plan_deadline(&mut self, stream: StreamId, scene: &mut Scene<'_, '_>) {
        let Some(job) = self.jobs.get_mut(&stream) else {
            return;
        };
        let deadline_ms = job.session.awake().map_or(u64::MAX, ProviderSession::deadline_ms);
        let is_planned = job.looks_at_ms > scene.now_ms() && job.looks_at_ms <= deadline_ms;
        if deadline_ms < u64::MAX && !is_planned {
            job.looks_at_ms = deadline_ms;
            scene.at_ms(deadline_ms, Timer::ProviderDeadline(stream));
        }
    }

    pub(super) fn deadline(&mut self, stream: StreamId, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        self.session_event(stream, ProviderEvent::Tick, scene)
    }
}

/// What a trace says of a job's end.
const ENDED: u64 = 3;

const fn ended_words(reason: ProviderEnd) -> &'static str {
    match reason {
        ProviderEnd::Completed => "It has delivered everything and was paid.",
        ProviderEnd::Failed => "It could not go on.",
        ProviderEnd::ConsumerLeft => "The consumer wants no more.",
        ProviderEnd::Unpaid => "It stops, since no voucher came.",
        ProviderEnd::Misbehaved => "It stops, since the consumer broke the protocol.",
    }
}
