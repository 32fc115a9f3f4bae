//! The hold model (W. McCormack, R. Sargent, "Analysis of future event set algorithms for discrete event simulation",
//! Communications of the ACM 24, 1981): a queue of constant size, from which the first event is taken and into which a
//! later one is put.

use std::collections::BinaryHeap;
use std::time::Instant;

use anyhow::Context;
use clap::ValueEnum;
use gristmill_simulations::engine::Random;
use gristmill_simulations::engine::queue::{Entry, Queue};
use serde_json::{Value, json};

use crate::process::{peak_memory_bytes, processor_seconds};

/// An event of the largest size that worlds have.
type Event = [u64; 3];

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// The engine's
    Engine,
    /// The standard library's `BinaryHeap`
    Heap,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Increments {
    /// Of an exponential distribution with a mean of a second
    Exponential,
    /// Mostly below 10 ms, one of 16 from 5 to 15 s
    Bimodal,
    /// Latencies from 10 to 160 ms, one of 8 a heartbeat of a second
    Gossip,
    /// Always the same moment
    Burst,
}

impl Increments {
    fn draw(self, random: &mut Random) -> u64 {
        match self {
            Self::Exponential => random.exponential(1_000_000),
            Self::Bimodal if random.below(16) == 0 => random.between(5_000_000, 15_000_000),
            Self::Bimodal => random.below(10_000),
            Self::Gossip if random.below(8) == 0 => 1_000_000,
            Self::Gossip => random.between(10_000, 160_000),
            Self::Burst => 0,
        }
    }
}

/// What the hold model does with a queue.
trait Hold {
    fn put(&mut self, entry: Entry<Event>);
    fn take(&mut self) -> Option<Entry<Event>>;
}

impl Hold for Queue<Event> {
    fn put(&mut self, entry: Entry<Event>) {
        self.push(entry);
    }

    fn take(&mut self) -> Option<Entry<Event>> {
        self.pop_before(u64::MAX)
    }
}

/// The first of these is the largest to a heap.
struct Waiting(Entry<Event>);

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.0.order() == other.0.order()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.order().cmp(&self.0.order())
    }
}

impl Hold for BinaryHeap<Waiting> {
    fn put(&mut self, entry: Entry<Event>) {
        self.push(Waiting(entry));
    }

    fn take(&mut self) -> Option<Entry<Event>> {
        self.pop().map(|waiting| waiting.0)
    }
}

pub(crate) fn measure(
    queue: Kind,
    increments: Increments,
    pending: u32,
    operations: u32,
) -> anyhow::Result<Value> {
    match queue {
        Kind::Engine => run(&mut Queue::default(), increments, pending, operations),
        Kind::Heap => run(&mut BinaryHeap::new(), increments, pending, operations),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a run takes is what is measured"
)]
fn run(
    queue: &mut impl Hold,
    increments: Increments,
    pending: u32,
    operations: u32,
) -> anyhow::Result<Value> {
    let mut random = Random::of_purpose(1, "hold", pending.into());
    let mut next = |at_us: u64, node: u32, number: u32| Entry {
        at_us: at_us + increments.draw(&mut random),
        // As in the engine: by the node that scheduled it, then by its count.
        tie: u64::from(node) << 32 | u64::from(number),
        node,
        event: [number.into(); 3],
    };
    (0..pending).for_each(|node| queue.put(next(0, node, 0)));
    // At first all waiting events lie within one increment; as many operations as wait make it a steady state.
    let (mut started, mut used, mut order) = (Instant::now(), processor_seconds()?, 0_u64);
    for number in 0..operations.saturating_add(pending) {
        if number == pending {
            (started, used) = (Instant::now(), processor_seconds()?);
        }
        let entry = queue.take().context("the queue has lost an event")?;
        order = order.rotate_left(5) ^ entry.at_us ^ entry.tie;
        queue.put(next(entry.at_us, entry.node, number));
    }
    let (wall_s, processor_s) = (started.elapsed().as_secs_f64(), processor_seconds()? - used);
    Ok(json!({
        "pending": pending,
        "operations": operations,
        "wall_s": wall_s,
        "processor_s": processor_s,
        "nanoseconds": processor_s * 1e9 / f64::from(operations),
        "order": format!("{order:016x}"),
        "peak_memory_bytes": peak_memory_bytes()?,
    }))
}
