//! What a peer does with what comes from a neighbour.

use rand::Rng;
use rand::seq::SliceRandom;

use super::memory::{Promise, UNWANTED_US, Unwanted};
use super::peer::{NEVER, Peer};
use super::scores::whole;
use super::wire::{frame_bytes, message_bytes};
use super::{Ids, Link, Message, MessageId, Payload, Step, Verdict};

/// Most messages that one neighbour may say not to want (libp2p's `IDONTWANT_CAP`).
const UNWANTED_MAX: usize = 10_000;

/// Longest back-off that a neighbour may ask for, in seconds (libp2p's `MAX_REMOTE_PRUNE_BACKOFF_SECONDS`).
const REMOTE_BACKOFF_MAX_S: u64 = 3_600;

impl Peer {
    /// Something comes from a neighbour. Where it is a message that has not been seen, `validate` is asked what it is worth.
    pub fn receive<R: Rng>(
        &mut self,
        link: Link,
        payload: Payload,
        validate: impl FnOnce(MessageId) -> Verdict,
        step: &mut Step<'_, R>,
    ) {
        self.traffic.received_bytes += frame_bytes(&payload);
        let beat = self.beat(step.now_us, step.settings);
        let score = self.score(link, beat, step.settings);
        let scores = &step.settings.config.scores;
        let heard = score >= -whole(scores.graylist_below.get());
        let believed = score >= -whole(scores.gossip_below.get());
        match payload {
            Payload::Subscribe => self.on_subscribe(link, beat, step),
            _ if !heard => {}
            Payload::Publish { message, hops, .. } => self.on_message(link, message, hops, validate, step),
            Payload::IHave(have) if believed => self.on_ihave(link, beat, &have.0, step),
            Payload::IWant(want) if believed => self.on_iwant(link, &want.0, step),
            Payload::IHave(_) | Payload::IWant(_) => {}
            Payload::IDontWant(id) => self.on_idontwant(link, id, step.now_us),
            Payload::Graft => self.on_graft(link, beat, score, step),
            Payload::Prune { backoff_s } => {
                self.ungraft(link);
                self.back_off(link, u64::from(backoff_s).min(REMOTE_BACKOFF_MAX_S), step);
            }
        }
        self.plan(step);
    }

    fn on_subscribe<R: Rng>(&mut self, link: Link, beat: u32, step: &mut Step<'_, R>) {
        self.neighbours.insert(link);
        let low = self.mesh().len() < u32::try_from(step.settings.config.mesh_low.get()).unwrap_or(0);
        let blamed = self.score(link, beat, step.settings) < 0.0;
        if low && !blamed && !self.mesh().contains(link) && !self.is_backed_off(link, beat) {
            self.graft(link, beat);
            self.send(link, Payload::Graft, step);
        }
    }

    fn on_message<R: Rng>(
        &mut self,
        link: Link,
        message: Message,
        hops: u8,
        validate: impl FnOnce(MessageId) -> Verdict,
        step: &mut Step<'_, R>,
    ) {
        let beat = self.beat(step.now_us, step.settings);
        let seen = self
            .memory
            .as_ref()
            .and_then(|memory| memory.seen.get(message.id, step.now_us));
        if let Some(invalid) = seen {
            self.traffic.duplicates += 1;
            if invalid {
                self.judge(link, beat, step.settings, |standing| standing.invalid += 1.0);
            }
            return;
        }
        self.traffic.new_messages += 1;
        self.say_idontwant(link, message, step);
        self.remember(message, hops, step);
        match validate(message.id) {
            Verdict::Accept => {
                let most = step.settings.config.scores.first_deliveries_max.get();
                self.judge(link, beat, step.settings, |standing| {
                    if f64::from(standing.first_deliveries) + 1.0 <= whole(most) {
                        standing.first_deliveries += 1.0;
                    }
                });
                self.forward(link, message, hops, step);
            }
            verdict => {
                if let Some(memory) = &mut self.memory {
                    memory.recent.retain(|recent| recent.message.id != message.id);
                }
                if verdict == Verdict::Reject {
                    if let Some(memory) = &mut self.memory {
                        memory.seen.mark_invalid(message.id);
                    }
                    self.judge(link, beat, step.settings, |standing| standing.invalid += 1.0);
                }
            }
        }
    }

    /// Tells those who might send a large message as well that it is here.
    fn say_idontwant<R>(&mut self, from: Link, message: Message, step: &mut Step<'_, R>) {
        if message_bytes(message.bytes) <= step.settings.config.idontwant_bytes.get() {
            return;
        }
        let mut others = self.mesh();
        if let Some(memory) = &self.memory {
            let asked = memory.promises.iter().filter(|promise| promise.id == message.id);
            asked.for_each(|promise| {
                others.insert(promise.link);
            });
        }
        others.remove(from);
        for link in others.iter() {
            self.send(link, Payload::IDontWant(message.id), step);
        }
    }

    fn forward<R>(&mut self, from: Link, message: Message, hops: u8, step: &mut Step<'_, R>) {
        let mut others = self.mesh();
        others.remove(from);
        let now_us = step.now_us;
        for link in others.iter() {
            let unwanted = |memory: &super::memory::Memory| memory.is_unwanted(link, message.id, now_us);
            if self.memory.as_deref().is_some_and(unwanted) {
                continue;
            }
            let payload = Payload::Publish {
                message,
                hops: hops.saturating_add(1),
                asked: false,
            };
            self.send(link, payload, step);
        }
    }

    fn on_ihave<R: Rng>(&mut self, link: Link, beat: u32, have: &[MessageId], step: &mut Step<'_, R>) {
        let config = &step.settings.config;
        let memory = self.memory.get_or_insert_default();
        if u64::from(memory.count_ihave(link, beat)) > config.ihaves_max.get() || !config.ask {
            return;
        }
        let now_us = step.now_us;
        let mut wanted: Vec<MessageId> = Vec::new();
        for id in have {
            let promised = memory.promises.iter().any(|promise| promise.id == *id);
            if !promised && memory.seen.get(*id, now_us).is_none() && !wanted.contains(id) {
                wanted.push(*id);
            }
        }
        if wanted.is_empty() {
            return;
        }
        wanted.shuffle(step.random);
        let until_us = now_us + config.promise_s.get() * 1_000_000;
        memory.promises.extend(wanted.iter().map(|id| Promise {
            id: *id,
            link,
            until_us,
        }));
        self.send(link, Payload::IWant(Box::new(Ids(wanted))), step);
    }

    fn on_iwant<R>(&mut self, link: Link, want: &[MessageId], step: &mut Step<'_, R>) {
        let beat = self.beat(step.now_us, step.settings);
        let config = &step.settings.config;
        let kept_for = u32::try_from(config.history_length.get()).unwrap_or(NEVER);
        for id in want {
            let Some(memory) = &mut self.memory else { return };
            let recent = memory
                .recent
                .iter()
                .find(|recent| recent.message.id == *id && beat < recent.beat.saturating_add(kept_for));
            let Some(recent) = recent.copied() else { continue };
            if u64::from(memory.count_answer(link, *id)) > config.retransmissions_max.get()
                || memory.is_unwanted(link, *id, step.now_us)
            {
                continue;
            }
            let payload = Payload::Publish {
                message: recent.message,
                hops: recent.hops.saturating_add(1),
                asked: true,
            };
            self.send(link, payload, step);
        }
    }

    fn on_idontwant(&mut self, link: Link, id: MessageId, now_us: u64) {
        let memory = self.memory.get_or_insert_default();
        memory.unwanted.retain(|unwanted| unwanted.until_us > now_us);
        if memory.unwanted.len() < UNWANTED_MAX {
            memory.unwanted.push(Unwanted {
                id,
                link,
                until_us: now_us + UNWANTED_US,
            });
        }
    }

    fn on_graft<R>(&mut self, link: Link, beat: u32, score: f64, step: &mut Step<'_, R>) {
        if self.mesh().contains(link) {
            return;
        }
        let config = &step.settings.config;
        let backoff = self
            .memory
            .as_ref()
            .and_then(|memory| memory.backoffs.iter().find(|backoff| backoff.link == link))
            .map_or(0, |backoff| backoff.until_us.saturating_sub(step.now_us));
        if backoff > 0 {
            let flood = backoff
                > config
                    .prune_backoff_s
                    .get()
                    .saturating_sub(config.graft_flood_s.get())
                    * 1_000_000;
            let count = if flood { 2.0 } else { 1.0 };
            self.judge(link, beat, step.settings, |standing| {
                standing.bad_manners += count;
            });
            self.prune(link, step);
            return;
        }
        let full = u64::from(self.mesh().len()) >= config.mesh_high.get();
        if score < 0.0 || (full && !self.outbound.contains(link)) {
            self.prune(link, step);
        } else if self.neighbours.contains(link) {
            self.graft(link, beat);
        }
    }
}
