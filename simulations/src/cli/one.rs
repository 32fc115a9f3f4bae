//! Runs one variant with one seed: from its beginning or a snapshot to its end, or to a snapshot where it is stopped.

use std::sync::atomic::AtomicBool;

use anyhow::Context;

use super::machine::{self, Watch};
use super::resume::Snapshot;
use crate::engine::{Ended, Interest, Limits, Simulation, Stop};
use crate::results::RunResult;
use crate::running::{self, Circumstances};
use crate::scenario::plan::{Plan, Variant};
use crate::world::MarketWorld;

/// What is run.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) plan: &'a Plan,
    pub(super) variant: &'a Variant,
    pub(super) seed: u64,
    pub(super) threads: usize,
    pub(super) interest: Option<&'a Interest>,
    /// An end before the scenario's, in microseconds.
    pub(super) until_us: Option<u64>,
}

/// What came of it.
pub(super) enum Outcome {
    /// A result.
    Done {
        result: Box<RunResult>,
        stories: Vec<crate::engine::Story>,
    },
    /// It was stopped on the way.
    Stopped(Box<Simulation<MarketWorld>>),
}

impl Order<'_> {
    /// Runs, from a snapshot of this very run if there is one. `progress` hears of virtual time, the run's end, and events.
    pub(super) fn perform(
        &self,
        snapshot: Option<Snapshot>,
        stop: &AtomicBool,
        mut progress: impl FnMut(u64, u64, u64),
    ) -> anyhow::Result<Outcome> {
        let watch = Watch::start();
        let (mut simulation, mut limits) = self.begin(snapshot)?;
        limits.until_us = limits.until_us.min(self.until_us.unwrap_or(u64::MAX));
        let stop = Stop {
            requested: stop,
            threads: self.threads,
            interest: self.interest,
        };
        let until_us = limits.until_us;
        let ended = simulation.run(limits, stop, |now_us, events| progress(now_us, until_us, events))?;
        if ended == Ended::Stopped {
            return Ok(Outcome::Stopped(Box::new(simulation)));
        }
        let circumstances = Circumstances {
            host: machine::host(),
            wall_s: watch.passed().as_secs_f64(),
            threads: self.threads,
            peak_rss_bytes: machine::peak_rss_bytes(),
        };
        let stories = simulation.take_stories();
        let result = running::finish(
            self.plan,
            self.variant,
            self.seed,
            &mut simulation,
            &ended,
            &circumstances,
        );
        Ok(Outcome::Done {
            result: Box::new(result),
            stories,
        })
    }

    fn begin(&self, snapshot: Option<Snapshot>) -> anyhow::Result<(Simulation<MarketWorld>, Limits)> {
        let Some(mut snapshot) = snapshot else {
            return Ok(running::begin(self.variant, self.seed)?);
        };
        running::resume(self.variant, self.seed, &mut snapshot).context("the stopped run cannot go on")
    }
}
