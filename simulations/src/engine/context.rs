//! What a node can do while an event happens to it.

use super::queue::Entry;
use super::random::Random;
use super::story::{Interest, Story};
use super::trace::Trace;
use super::{NodeId, SHARDS, shard_of, slot_of};

/// What goes from one shard to another at the end of a window.
pub(super) struct Outbox<E> {
    /// By the shard that it goes to.
    pub(super) entries: [Vec<Entry<E>>; SHARDS],
    /// When the first of them happens.
    pub(super) first_at_us: u64,
}

impl<E> Default for Outbox<E> {
    fn default() -> Self {
        Self {
            entries: std::array::from_fn(|_| Vec::new()),
            first_at_us: u64::MAX,
        }
    }
}

/// The hands of a node at one event.
pub struct Context<'a, E> {
    pub(super) seed: u64,
    pub(super) lookahead_us: u64,
    pub(super) at_us: u64,
    pub(super) tie: u64,
    pub(super) node: NodeId,
    pub(super) random: Option<Random>,
    /// How many events each node of the shard has scheduled.
    pub(super) counters: &'a mut [u32],
    pub(super) own: &'a mut Vec<Entry<E>>,
    pub(super) outbox: &'a mut Outbox<E>,
    pub(super) trace: &'a mut Trace,
    pub(super) interest: Option<&'a Interest>,
    pub(super) stories: &'a mut Vec<Story>,
}

impl<E> Context<'_, E> {
    /// Microseconds of virtual time since the run began.
    #[must_use]
    pub const fn now_us(&self) -> u64 {
        self.at_us
    }

    /// The node that the event happens to.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Lets an event happen to another node, or to this one. What goes to another takes at least the world's
    /// lookahead; less is made that much.
    pub fn send(&mut self, to: NodeId, delay_us: u64, event: E) {
        if to == self.node {
            self.after(delay_us, event);
            return;
        }
        debug_assert!(delay_us >= self.lookahead_us, "{delay_us} is below the lookahead");
        let entry = self.entry(to, delay_us.max(self.lookahead_us), event);
        let (from, target) = (shard_of(self.node), shard_of(to));
        if from == target {
            self.own.push(entry);
            return;
        }
        self.outbox.first_at_us = self.outbox.first_at_us.min(entry.at_us);
        if let Some(entries) = self.outbox.entries.get_mut(target) {
            entries.push(entry);
        }
    }

    /// Lets an event happen to this node.
    pub fn after(&mut self, delay_us: u64, event: E) {
        let entry = self.entry(self.node, delay_us, event);
        self.own.push(entry);
    }

    fn entry(&mut self, node: NodeId, delay_us: u64, event: E) -> Entry<E> {
        let mut tie = u64::from(self.node) << 32;
        if let Some(counter) = self.counters.get_mut(slot_of(self.node)) {
            tie |= u64::from(*counter);
            // After 2^32 events of one node ties repeat, of which the older ones happened long ago.
            *counter = counter.wrapping_add(1);
        }
        Entry {
            at_us: self.at_us.saturating_add(delay_us),
            tie,
            node,
            event,
        }
    }

    /// Random numbers of this event alone.
    pub fn random(&mut self) -> &mut Random {
        self.random
            .get_or_insert_with(|| Random::of_event(self.seed, self.node, self.at_us, self.tie))
    }

    /// Adds to the digest of the run what this event did. The event's time, node and order are in it already.
    pub fn trace(&mut self, what: u64, value: u64) {
        self.trace.number(what);
        self.trace.number(value);
    }

    /// Whether somebody wants to know about this node or job: what to tell is worth making only then.
    #[must_use]
    pub fn is_told(&self, job: Option<u64>) -> bool {
        self.interest
            .is_some_and(|interest| interest.covers(self.node, job))
    }

    /// Tells what happened to this node, for `explain`. The words are made only where somebody wants them.
    pub fn tell(&mut self, job: Option<u64>, words: impl FnOnce() -> String) {
        if !self.is_told(job) {
            return;
        }
        self.stories.push(Story {
            at_us: self.at_us,
            tie: self.tie,
            node: self.node,
            job,
            words: words(),
        });
    }
}
