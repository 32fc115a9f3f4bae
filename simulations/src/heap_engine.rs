//! The event heap, virtual time, seeded randomness and the digest of a run. Knows nothing of the market.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

/// Most events of one run.
pub const EVENTS_MAX: u64 = 100_000_000;
/// Most events that may wait at one moment.
pub const PENDING_EVENTS_MAX: usize = 20_000_000;

/// The random numbers of one actor for one purpose. Each actor has its own stream, so that one more draw by one
/// of them leaves the others' luck as it was.
#[must_use]
pub fn stream(seed: u64, purpose: &str, actor: u64) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new_derive_key("gristmill simulations: random stream of an actor");
    hasher
        .update(&seed.to_le_bytes())
        .update(&actor.to_le_bytes())
        .update(purpose.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// An event and when it happens. Ordered by time, then by the order of scheduling.
#[derive(Debug)]
struct Scheduled<E> {
    at_us: u64,
    sequence: u64,
    event: E,
}

impl<E> Scheduled<E> {
    const fn order(&self) -> (u64, u64) {
        (self.at_us, self.sequence)
    }
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// Virtual time and what is still to happen in it.
#[derive(Debug)]
pub struct Scheduler<E> {
    heap: BinaryHeap<Reverse<Scheduled<E>>>,
    now_us: u64,
    next_sequence: u64,
}

impl<E> Default for Scheduler<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            now_us: 0,
            next_sequence: 0,
        }
    }
}

impl<E> Scheduler<E> {
    /// Microseconds of virtual time since the run began.
    #[must_use]
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Lets an event happen in `delay_us` microseconds, after those scheduled earlier for the same moment.
    pub fn schedule_after(&mut self, delay_us: u64, event: E) {
        let at_us = self.now_us.saturating_add(delay_us);
        self.heap.push(Reverse(Scheduled {
            at_us,
            sequence: self.next_sequence,
            event,
        }));
        self.next_sequence += 1;
    }

    /// How many events wait.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.heap.len()
    }

    /// The next event not after `until_us`; the clock moves to its time.
    pub fn next_until(&mut self, until_us: u64) -> Option<E> {
        if self.heap.peek()?.0.at_us > until_us {
            return None;
        }
        let Reverse(scheduled) = self.heap.pop()?;
        self.now_us = scheduled.at_us;
        Some(scheduled.event)
    }
}

/// The digest of all that happened: what a run writes into it must not depend on the machine.
#[derive(Clone, Debug, Default)]
pub struct Trace(blake3::Hasher);

impl Trace {
    /// Adds a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    /// Adds the index of an actor.
    pub fn actor(&mut self, index: usize) -> &mut Self {
        self.number(index as u64)
    }

    /// Adds a name or other bytes, with their length.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64).0.update(bytes);
        self
    }

    /// The digest so far, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// What events happen to.
pub trait World {
    /// What can happen.
    type Event;
    /// A rule that was broken.
    type Breach;

    /// Lets one event happen and checks the rules.
    ///
    /// # Errors
    /// The rule that this event broke; the run stops.
    fn handle(
        &mut self,
        event: Self::Event,
        scheduler: &mut Scheduler<Self::Event>,
        trace: &mut Trace,
    ) -> Result<(), Self::Breach>;
}

/// How far a run may go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// When it ends, in microseconds of virtual time.
    pub until_us: u64,
    /// Most events; the run fails above it.
    pub events_max: u64,
    /// Most waiting events; the run fails above it.
    pub pending_max: usize,
}

impl Limits {
    /// The usual limits, with an end.
    #[must_use]
    pub const fn until_us(until_us: u64) -> Self {
        Self {
            until_us,
            events_max: EVENTS_MAX,
            pending_max: PENDING_EVENTS_MAX,
        }
    }
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<B> {
    /// How many events happened, the last one included.
    pub events: u64,
    /// BLAKE3 over everything that happened, in hexadecimal.
    pub digest: String,
    /// When it stopped, in microseconds of virtual time.
    pub stopped_at_us: u64,
    /// The rule that its last event broke.
    pub breach: Option<B>,
}

/// A run that grew beyond its limits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LimitError {
    /// Too many events happened.
    #[error(
        "the run is over {limit} events at {at_ms} ms of virtual time; make the scenario smaller or shorter"
    )]
    Events {
        /// The limit.
        limit: u64,
        /// When, in milliseconds of virtual time.
        at_ms: u64,
    },
    /// Too many events wait.
    #[error("over {limit} events wait at {at_ms} ms of virtual time; make the scenario smaller")]
    Pending {
        /// The limit.
        limit: usize,
        /// When, in milliseconds of virtual time.
        at_ms: u64,
    },
}

/// Runs a world until its end, a breach, or until nothing is left to happen.
///
/// # Errors
/// [`LimitError`] where the run grows beyond its limits.
pub fn run<W: World>(
    world: &mut W,
    scheduler: &mut Scheduler<W::Event>,
    limits: Limits,
) -> Result<Outcome<W::Breach>, LimitError> {
    let (mut trace, mut events, mut breach) = (Trace::default(), 0, None);
    while breach.is_none()
        && let Some(event) = scheduler.next_until(limits.until_us)
    {
        let at_ms = scheduler.now_us() / 1_000;
        if events == limits.events_max {
            return Err(LimitError::Events {
                limit: limits.events_max,
                at_ms,
            });
        }
        events += 1;
        trace.number(scheduler.now_us());
        breach = world.handle(event, scheduler, &mut trace).err();
        if scheduler.pending() > limits.pending_max {
            return Err(LimitError::Pending {
                limit: limits.pending_max,
                at_ms,
            });
        }
    }
    Ok(Outcome {
        events,
        digest: trace.digest(),
        stopped_at_us: scheduler.now_us(),
        breach,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::RngExt;

    /// Walkers that each wait for a random time, and one rule: none takes more than `steps_max` steps.
    struct Walkers {
        walkers: Vec<(ChaCha8Rng, u64)>,
        steps_max: u64,
    }

    impl World for Walkers {
        type Event = usize;
        type Breach = usize;

        fn handle(
            &mut self,
            walker: usize,
            scheduler: &mut Scheduler<usize>,
            trace: &mut Trace,
        ) -> Result<(), usize> {
            let (rng, steps) = &mut self.walkers[walker];
            *steps += 1;
            trace.actor(walker).bytes(b"step");
            scheduler.schedule_after(rng.random_range(1..1_000), walker);
            if *steps > self.steps_max {
                Err(walker)
            } else {
                Ok(())
            }
        }
    }

    fn walk(seed: u64, steps_max: u64, limits: Limits) -> Result<Outcome<usize>, LimitError> {
        let mut scheduler = Scheduler::default();
        (0..3).for_each(|walker| scheduler.schedule_after(0, walker));
        let walkers = (0..3).map(|walker| (stream(seed, "walk", walker), 0)).collect();
        run(&mut Walkers { walkers, steps_max }, &mut scheduler, limits)
    }

    #[test]
    fn a_seed_gives_the_same_digest_on_every_machine() {
        let outcome = walk(7, u64::MAX, Limits::until_us(100_000)).unwrap();
        assert_eq!(outcome, walk(7, u64::MAX, Limits::until_us(100_000)).unwrap());
        assert_ne!(
            outcome.digest,
            walk(8, u64::MAX, Limits::until_us(100_000)).unwrap().digest
        );
        assert_eq!(
            outcome.digest,
            "59d88c5bfc34a6862f20ef4f6e24e04be6c6f80019d15d024376accdc196ffe2"
        );
        assert!(outcome.stopped_at_us <= 100_000);
    }

    #[test]
    fn a_breach_stops_at_its_event_and_replays() {
        let outcome = walk(7, 10, Limits::until_us(u64::MAX)).unwrap();
        assert!(outcome.breach.is_some() && outcome.events > 10 && outcome.events <= 31);
        assert_eq!(outcome, walk(7, 10, Limits::until_us(u64::MAX)).unwrap());
    }

    #[test]
    fn limits_hold_at_the_edge() {
        let limits = Limits {
            until_us: u64::MAX,
            events_max: 50,
            pending_max: 3,
        };
        assert!(matches!(
            walk(7, u64::MAX, limits),
            Err(LimitError::Events { limit: 50, .. })
        ));
        let breached_at_the_limit = walk(
            7,
            10,
            Limits {
                events_max: walk(7, 10, limits).unwrap().events,
                ..limits
            },
        );
        assert!(breached_at_the_limit.is_ok());
        let limits = Limits {
            pending_max: 2,
            ..limits
        };
        assert!(matches!(
            walk(7, u64::MAX, limits),
            Err(LimitError::Pending { limit: 2, .. })
        ));
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_actor() {
        let first = |seed, purpose, actor| stream(seed, purpose, actor).random::<u64>();
        let all = [
            first(1, "a", 1),
            first(2, "a", 1),
            first(1, "b", 1),
            first(1, "a", 2),
        ];
        assert!((0..4).all(|one| (0..one).all(|other| all[one] != all[other])));
        assert_eq!(first(1, "a", 1), all[0]);
    }

    proptest! {
        /// Time never runs back, events of one moment keep the order of scheduling, and none is lost.
        #[test]
        fn events_come_by_time_and_then_by_scheduling(delays in proptest::collection::vec(0u64..20, 0..200)) {
            let mut scheduler = Scheduler::default();
            let mut expected = Vec::new();
            for (number, delay) in delays.iter().enumerate() {
                scheduler.schedule_after(*delay, number);
                expected.push((*delay, number));
            }
            expected.sort_unstable();
            let mut happened = Vec::new();
            while let Some(number) = scheduler.next_until(u64::MAX) {
                happened.push((scheduler.now_us(), number));
            }
            prop_assert_eq!(happened, expected);
        }

        /// The same, where events schedule others while time passes.
        #[test]
        fn what_is_scheduled_on_the_way_is_never_in_the_past(delays in proptest::collection::vec(0u64..9, 1..200)) {
            let mut scheduler = Scheduler::default();
            scheduler.schedule_after(0, 0usize);
            let (mut last, mut happened) = ((0, 0), 0);
            let mut delays = delays.into_iter();
            while let Some(number) = scheduler.next_until(u64::MAX) {
                happened += 1;
                prop_assert!(number == 0 || (scheduler.now_us(), number) > last);
                last = (scheduler.now_us(), number);
                for delay in delays.by_ref().take(2) {
                    let sequence = usize::try_from(scheduler.next_sequence).unwrap();
                    scheduler.schedule_after(delay, sequence);
                }
            }
            prop_assert_eq!(happened, scheduler.next_sequence);
        }
    }
}
