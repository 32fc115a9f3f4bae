//! A sixteenth of the nodes: their states, what is to happen to them, and one window of it.

use super::context::{Context, Outbox};
use super::queue::{Entry, Queue};
use super::story::{Interest, STORIES_MAX, Story};
use super::trace::Trace;
use super::{Breach, NodeId, SHARDS, World, slot_of};

/// A broken rule and where in the order of events.
#[derive(Clone, Debug)]
pub(super) struct BrokenAt {
    pub(super) order: (u64, u64),
    pub(super) breach: Breach,
}

/// The nodes whose number leaves the same rest when divided by [`SHARDS`].
pub(super) struct Shard<W: World> {
    pub(super) state: W::Shard,
    pub(super) queue: Queue<W::Event>,
    /// How many events each of its nodes has scheduled.
    pub(super) counters: Vec<u32>,
    pub(super) outbox: Outbox<W::Event>,
    /// What other shards sent during the last window.
    pub(super) inbox: [Vec<Entry<W::Event>>; SHARDS],
    pub(super) trace: Trace,
    pub(super) events: u64,
    pub(super) broken: Option<BrokenAt>,
    pub(super) stories: Vec<Story>,
    own: Vec<Entry<W::Event>>,
}

/// What is the same for all shards of a window.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) seed: u64,
    pub(super) end_us: u64,
    pub(super) lookahead_us: u64,
    pub(super) interest: Option<&'a Interest>,
}

impl<W: World> Shard<W> {
    pub(super) fn new(state: W::Shard, nodes: usize) -> Self {
        Self {
            state,
            queue: Queue::default(),
            counters: vec![0; nodes],
            outbox: Outbox::default(),
            inbox: std::array::from_fn(|_| Vec::new()),
            trace: Trace::default(),
            events: 0,
            broken: None,
            stories: Vec::new(),
            own: Vec::new(),
        }
    }

    /// Schedules an event before the run begins.
    pub(super) fn schedule(&mut self, at_us: u64, node: NodeId, event: W::Event) {
        let mut tie = u64::from(node) << 32;
        if let Some(counter) = self.counters.get_mut(slot_of(node)) {
            tie |= u64::from(*counter);
            *counter = counter.wrapping_add(1);
        }
        self.queue.push(Entry {
            at_us,
            tie,
            node,
            event,
        });
    }

    /// When the next event of this shard happens, what it has sent to others included.
    pub(super) fn next_at_us(&mut self) -> u64 {
        let queued = self.queue.peek_at_us().unwrap_or(u64::MAX);
        queued.min(self.outbox.first_at_us)
    }

    /// How many events wait here.
    pub(super) fn pending(&self) -> usize {
        self.queue.len() + self.inbox.iter().map(Vec::len).sum::<usize>()
    }

    /// Lets everything happen that is due before the window's end, up to the first broken rule.
    pub(super) fn run_window(&mut self, world: &W, window: Window<'_>) {
        for entries in &mut self.inbox {
            for entry in entries.drain(..) {
                self.queue.push(entry);
            }
        }
        while self.broken.is_none()
            && let Some(entry) = self.queue.pop_before(window.end_us)
        {
            self.happen(world, window, entry);
        }
    }

    fn happen(&mut self, world: &W, window: Window<'_>, entry: Entry<W::Event>) {
        self.events += 1;
        self.trace.number(entry.at_us);
        self.trace.number(entry.tie);
        self.trace.number(u64::from(entry.node));
        let order = entry.order();
        let mut context = Context {
            seed: window.seed,
            lookahead_us: window.lookahead_us,
            at_us: entry.at_us,
            tie: entry.tie,
            node: entry.node,
            random: None,
            counters: &mut self.counters,
            own: &mut self.own,
            outbox: &mut self.outbox,
            trace: &mut self.trace,
            interest: window.interest.filter(|_| self.stories.len() < STORIES_MAX),
            stories: &mut self.stories,
        };
        if let Err(breach) = world.handle(&mut self.state, entry.node, entry.event, &mut context) {
            self.broken = Some(BrokenAt { order, breach });
        }
        for entry in self.own.drain(..) {
            self.queue.push(entry);
        }
    }
}
