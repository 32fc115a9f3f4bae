//! A peer: its links, its mesh, and what it sends.

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::configuration::Settings;
use super::memory::{Backoff, Memory, Recent};
use super::wire::frame_bytes;
use super::{Effect, Link, Links, Message, Payload, Step};

/// No heartbeat is waited for.
pub(super) const NEVER: u32 = u32::MAX;

/// What a peer has sent and received since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes of all frames sent, control messages too.
    pub sent_bytes: u64,
    /// Bytes of all frames received.
    pub received_bytes: u64,
    /// Messages received for the first time.
    pub new_messages: u32,
    /// Messages received again.
    pub duplicates: u32,
}

/// One peer of the mesh.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Peer {
    started_us: u64,
    /// Neighbours that hear the topic.
    pub(super) neighbours: Links,
    /// Links that this peer has dialled.
    pub(super) outbound: Links,
    mesh: Links,
    /// The heartbeat before which each of the mesh came into it, in the order of the links.
    mesh_since: Vec<u32>,
    /// The heartbeat that is waited for.
    pub(super) waiting_for: u32,
    /// Bytes and messages.
    pub(super) traffic: Traffic,
    pub(super) memory: Option<Box<Memory>>,
}

impl Peer {
    /// A peer that starts and knows nobody.
    #[must_use]
    pub const fn new(now_us: u64) -> Self {
        Self {
            started_us: now_us,
            neighbours: Links::of_none(),
            outbound: Links::of_none(),
            mesh: Links::of_none(),
            mesh_since: Vec::new(),
            waiting_for: NEVER,
            traffic: Traffic {
                sent_bytes: 0,
                received_bytes: 0,
                new_messages: 0,
                duplicates: 0,
            },
            memory: None,
        }
    }

    /// The links of its mesh.
    #[must_use]
    pub const fn mesh(&self) -> Links {
        self.mesh
    }

    /// The links to those that hear the topic.
    #[must_use]
    pub const fn neighbours(&self) -> Links {
        self.neighbours
    }

    /// What it has sent and received.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Bytes that it takes, on the heap too.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let remembered = self.memory.as_ref().map_or(0, |memory| memory.bytes());
        size_of::<Self>() + self.mesh_since.capacity() * size_of::<u32>() + remembered
    }

    /// The same where nothing has happened lately; `None` where it remembers something.
    #[must_use]
    pub fn idle_bytes(&self) -> Option<usize> {
        self.memory.is_none().then(|| self.memory_bytes())
    }

    /// The first heartbeat is an interval after the initial delay.
    const fn first_beat_us(&self, settings: &Settings) -> u64 {
        self.started_us + settings.config.heartbeat_initial_delay_ms.get() * 1_000 + settings.heartbeat_us
    }

    /// How many heartbeats it has had at a time.
    #[must_use]
    pub fn beat(&self, now_us: u64, settings: &Settings) -> u32 {
        let first_us = self.first_beat_us(settings);
        let beats = now_us
            .checked_sub(first_us)
            .map_or(0, |since_us| since_us / settings.heartbeat_us + 1);
        u32::try_from(beats).unwrap_or(NEVER - 1)
    }

    /// When a heartbeat is, in microseconds.
    pub(super) fn beat_at_us(&self, beat: u32, settings: &Settings) -> u64 {
        let first_us = self.first_beat_us(settings);
        first_us + u64::from(beat).saturating_sub(1) * settings.heartbeat_us
    }

    /// For how many heartbeats a neighbour has been in the mesh.
    pub(super) fn beats_in_mesh(&self, link: Link, beat: u32) -> Option<u32> {
        let since = self.mesh_since.get(self.mesh.rank(link))?;
        self.mesh.contains(link).then(|| beat.saturating_sub(*since))
    }

    pub(super) fn graft(&mut self, link: Link, beat: u32) {
        if self.mesh.insert(link) {
            // Room for as many as there are: a peer in a million has no bytes to spare.
            self.mesh_since.reserve_exact(1);
            self.mesh_since.insert(self.mesh.rank(link), beat);
        }
    }

    pub(super) fn ungraft(&mut self, link: Link) -> bool {
        let was_in = self.mesh.remove(link);
        if was_in {
            self.mesh_since.remove(self.mesh.rank(link));
        }
        was_in
    }

    /// Whether a neighbour must not be grafted yet.
    pub(super) fn is_backed_off(&self, link: Link, beat: u32) -> bool {
        self.memory.as_ref().is_some_and(|memory| {
            memory
                .backoffs
                .iter()
                .any(|backoff| backoff.link == link && backoff.free_at_beat > beat)
        })
    }

    pub(super) fn back_off<R>(&mut self, link: Link, seconds: u64, step: &Step<'_, R>) {
        if step.settings.config.prune_backoff_s.get() == 0 {
            return;
        }
        let us = seconds.min(3_600) * 1_000_000;
        let beats = us.div_ceil(step.settings.heartbeat_us) + 1;
        let backoff = Backoff {
            link,
            until_us: step.now_us + us,
            free_at_beat: self
                .beat(step.now_us, step.settings)
                .saturating_add(u32::try_from(beats).unwrap_or(NEVER)),
        };
        let backoffs = &mut self.memory.get_or_insert_default().backoffs;
        match backoffs.iter_mut().find(|old| old.link == link) {
            // What lasts longer counts.
            Some(old) if old.until_us > backoff.until_us => {}
            Some(old) => *old = backoff,
            None => backoffs.push(backoff),
        }
    }

    /// Takes a neighbour out of the mesh and tells it.
    pub(super) fn prune<R>(&mut self, link: Link, step: &mut Step<'_, R>) {
        self.ungraft(link);
        let seconds = step.settings.config.prune_backoff_s.get();
        self.back_off(link, seconds, step);
        let backoff_s = u16::try_from(seconds).unwrap_or(u16::MAX);
        self.send(link, Payload::Prune { backoff_s }, step);
    }

    pub(super) fn send<R>(&mut self, link: Link, payload: Payload, step: &mut Step<'_, R>) {
        self.traffic.sent_bytes += frame_bytes(&payload);
        step.effects.push(Effect::Send { link, payload });
    }

    /// A connection is made, dialled by this peer or not.
    pub fn connect<R: Rng>(&mut self, link: Link, dialled: bool, step: &mut Step<'_, R>) {
        if dialled {
            self.outbound.insert(link);
        }
        self.send(link, Payload::Subscribe, step);
        self.plan(step);
    }

    /// A connection is gone. Who left in disgrace is not forgotten; a good name is.
    pub fn disconnect<R: Rng>(&mut self, link: Link, step: &mut Step<'_, R>) {
        let beat = self.beat(step.now_us, step.settings);
        let good = self.score(link, beat, step.settings) > 0.0;
        self.ungraft(link);
        self.neighbours.remove(link);
        self.outbound.remove(link);
        if let Some(memory) = &mut self.memory {
            memory.unwanted.retain(|unwanted| unwanted.link != link);
            for standing in memory.standings.iter_mut().filter(|s| s.link == link) {
                standing.first_deliveries = 0.0;
            }
            memory
                .standings
                .retain(|standing| standing.link != link || (!good && !standing.is_blank()));
        }
        self.plan(step);
    }

    /// Publishes a message and says whether anybody was there to hear it.
    pub fn publish<R: Rng>(&mut self, message: Message, step: &mut Step<'_, R>) -> bool {
        let beat = self.beat(step.now_us, step.settings);
        let config = &step.settings.config;
        let below = -super::scores::whole(config.scores.publish_below.get());
        let listeners = self.with_score(self.neighbours, below, beat, step.settings);
        let recipients = if config.flood_publish {
            listeners
        } else {
            let mesh = self.mesh.and(listeners);
            let missing = u32::try_from(config.mesh.get())
                .unwrap_or(u32::MAX)
                .saturating_sub(mesh.len());
            mesh.or(listeners.without(mesh).choose(missing, step.random))
        };
        if recipients.is_empty() {
            return false;
        }
        self.remember(message, 0, step);
        for link in recipients.iter() {
            let payload = Payload::Publish {
                message,
                hops: 1,
                asked: false,
            };
            self.send(link, payload, step);
        }
        self.plan(step);
        true
    }

    /// Remembers a message as seen, and for those who ask.
    pub(super) fn remember<R>(&mut self, message: Message, hops: u8, step: &Step<'_, R>) {
        let beat = self.beat(step.now_us, step.settings);
        let until_us = step.now_us + step.settings.config.duplicate_cache_s.get() * 1_000_000;
        let memory = self.memory.get_or_insert_default();
        memory.seen.insert(message.id, step.now_us, until_us);
        memory.promises.retain(|promise| promise.id != message.id);
        memory.recent.push(Recent { message, hops, beat });
    }
}
