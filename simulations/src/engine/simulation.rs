//! A run: its world, its shards, its clock and its digest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use thiserror::Error;

use super::parallel::{self, Epoch, EpochEnd};
use super::shard::Shard;
use super::story::{Interest, STORIES_MAX, Story};
use super::trace::{Chain, EpochDigest};
use super::{Breach, EPOCH_US, NodeId, SHARDS, World, nodes_of_shard, shard_of};

/// How far a run may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// When it ends, in microseconds of virtual time.
    pub until_us: u64,
    /// Most events; looked at between epochs.
    pub events_max: u64,
    /// Most events that may wait at one moment.
    pub pending_max: usize,
}

impl Limits {
    /// The usual limits, with an end.
    #[must_use]
    pub const fn until_us(until_us: u64) -> Self {
        Self {
            until_us,
            events_max: 20_000_000_000,
            pending_max: 100_000_000,
        }
    }
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

/// How a run is driven: by whom it may be stopped, on how many threads, and whose story it tells.
#[derive(Clone, Copy, Debug)]
pub struct Stop<'a> {
    /// Set from outside (Ctrl-C); the run stops after its epoch.
    pub requested: &'a AtomicBool,
    /// On how many threads; the outcome is the same.
    pub threads: usize,
    /// Whose story is told.
    pub interest: Option<&'a Interest>,
}

/// Why a run went no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The end was reached, or nothing is left to happen.
    AtEnd,
    /// It was stopped from outside, and can go on.
    Stopped,
    /// A rule was broken.
    Broken(Breach),
}

/// A world, its nodes and what is to happen to them.
pub struct Simulation<W: World> {
    pub(super) world: W,
    pub(super) seed: u64,
    pub(super) nodes: NodeId,
    pub(super) now_us: u64,
    pub(super) shards: [Mutex<Shard<W>>; SHARDS],
    pub(super) chain: Chain,
}

impl<W: World> Simulation<W> {
    /// A world of so many nodes; `states` gives each shard's.
    pub fn new(world: W, seed: u64, nodes: NodeId, mut states: impl FnMut(usize) -> W::Shard) -> Self {
        Self {
            world,
            seed,
            nodes,
            now_us: 0,
            shards: std::array::from_fn(|shard| {
                Mutex::new(Shard::new(states(shard), nodes_of_shard(nodes, shard)))
            }),
            chain: Chain::default(),
        }
    }

    /// Lets an event happen once the run goes on; not before now.
    pub fn schedule(&mut self, at_us: u64, node: NodeId, event: W::Event) {
        let at_us = at_us.max(self.now_us);
        if let Some(shard) = self.shards.get_mut(shard_of(node)) {
            of(shard).schedule(at_us, node, event);
        }
    }

    /// Microseconds of virtual time since the beginning.
    #[must_use]
    pub const fn now_us(&self) -> u64 {
        self.now_us
    }

    /// How many nodes there are.
    #[must_use]
    pub const fn nodes(&self) -> NodeId {
        self.nodes
    }

    /// How many events have happened.
    pub fn events(&mut self) -> u64 {
        self.shards.iter_mut().map(|shard| of(shard).events).sum()
    }

    /// How many events wait.
    pub fn pending(&mut self) -> usize {
        self.shards.iter_mut().map(|shard| of(shard).pending()).sum()
    }

    /// BLAKE3 over everything that happened in whole epochs, in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        self.chain.digest()
    }

    /// Digests on the way, to find where two runs part.
    #[must_use]
    pub fn epochs(&self) -> &[EpochDigest] {
        self.chain.kept()
    }

    /// The world and the states of its shards.
    pub fn parts(&mut self) -> (&mut W, Vec<&mut W::Shard>) {
        let states = self.shards.iter_mut().map(|shard| &mut of(shard).state).collect();
        (&mut self.world, states)
    }

    /// What was told so far, in order.
    pub fn take_stories(&mut self) -> Vec<Story> {
        let mut stories: Vec<Story> = self
            .shards
            .iter_mut()
            .flat_map(|shard| std::mem::take(&mut of(shard).stories))
            .collect();
        stories.sort_by_key(|story| (story.at_us, story.tie));
        stories.truncate(STORIES_MAX);
        stories
    }

    /// Runs to the end, a broken rule, or until it is stopped. `after_epoch` is called with virtual time and events.
    ///
    /// # Errors
    /// [`LimitError`] where the run grows beyond its limits.
    pub fn run(
        &mut self,
        limits: Limits,
        stop: Stop<'_>,
        mut after_epoch: impl FnMut(u64, u64),
    ) -> Result<Ended, LimitError> {
        while self.now_us < limits.until_us {
            if stop.requested.load(Ordering::Relaxed) {
                return Ok(Ended::Stopped);
            }
            let Some(end_us) = self.next_epoch_end_us(limits.until_us) else {
                self.now_us = limits.until_us;
                break;
            };
            let epoch = Epoch {
                seed: self.seed,
                end_us,
                interest: stop.interest,
                pending_max: limits.pending_max,
            };
            let end = parallel::run(&self.world, &self.shards, epoch, stop.threads);
            if let Some(ended) = self.end_epoch(end, end_us, limits)? {
                return Ok(ended);
            }
            let events = self.events();
            after_epoch(self.now_us, events);
            if events > limits.events_max {
                return Err(LimitError::Events {
                    limit: limits.events_max,
                    at_ms: self.now_us / 1_000,
                });
            }
        }
        Ok(Ended::AtEnd)
    }

    /// The end of the epoch in which the next event happens; none where nothing happens before the run's end.
    fn next_epoch_end_us(&mut self, until_us: u64) -> Option<u64> {
        let next_us = self.shards.iter_mut().map(|shard| of(shard).next_at_us()).min()?;
        if next_us >= until_us {
            return None;
        }
        Some((next_us / EPOCH_US + 1).saturating_mul(EPOCH_US).min(until_us))
    }

    fn end_epoch(&mut self, end: EpochEnd, end_us: u64, limits: Limits) -> Result<Option<Ended>, LimitError> {
        if let EpochEnd::TooMany { at_us } = end {
            return Err(LimitError::Pending {
                limit: limits.pending_max,
                at_ms: at_us / 1_000,
            });
        }
        self.now_us = end_us;
        self.chain
            .extend(end_us, self.shards.iter_mut().map(|shard| &mut of(shard).trace));
        if let Some(breach) = self.first_breach() {
            return Ok(Some(Ended::Broken(breach)));
        }
        let mut states: Vec<&mut W::Shard> =
            self.shards.iter_mut().map(|shard| &mut of(shard).state).collect();
        Ok(self.world.survey(&mut states, end_us).err().map(Ended::Broken))
    }

    /// Of the rules that were broken in one window, the one that comes first in the order of events.
    fn first_breach(&mut self) -> Option<Breach> {
        self.shards
            .iter_mut()
            .filter_map(|shard| of(shard).broken.clone())
            .min_by_key(|broken| broken.order)
            .map(|broken| broken.breach)
    }
}

/// A shard that nobody else holds.
pub(super) fn of<W: World>(shard: &mut Mutex<Shard<W>>) -> &mut Shard<W> {
    shard.get_mut().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
