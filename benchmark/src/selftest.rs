//! How often liars are caught: each of them plays whole challenges against the coordinator's own state machine and the
//! verifier, beside honest provers. Time is a number that the devices' models move, never a clock.

mod device;
mod liar;
mod provider;
mod world;

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use serde::{Deserialize, Serialize};

pub use liar::Liar;

/// Runs of each liar where nobody asks for another number: enough to see the rates, done in seconds.
pub const QUICK_RUNS: u32 = 40;
/// Honest runs for each run of a liar.
pub const HONEST_RUNS_PER_RUN: u32 = 10;

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Provers that do as they should.
    pub honest: HonestRuns,
    /// Each liar.
    pub liars: Vec<LiarRuns>,
}

/// What came out of honest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HonestRuns {
    /// How many.
    pub runs: u32,
    /// How many got no certificate, or one for less memory than they have to have. None should be.
    pub refused: u32,
}

/// What came out of the runs of one liar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiarRuns {
    /// What it does.
    pub name: String,
    /// How many.
    pub runs: u32,
    /// In how many it got nothing that it lied about.
    pub caught: u32,
    /// The share that the formula of `docs/PROOF.md` foretells.
    pub expected_rate: f64,
}

impl LiarRuns {
    /// Whether as many were caught as foretold: within 4.5 standard deviations of the binomial distribution and one run
    /// more, which chance alone misses once in 100,000 tables. Who is always to be caught must always be.
    #[must_use]
    pub fn is_as_foretold(&self) -> bool {
        let (runs, rate) = (f64::from(self.runs), self.expected_rate);
        let slack = if rate < 1.0 { 1.0 } else { 0.0 };
        let deviation = (runs * rate * (1.0 - rate)).sqrt();
        (f64::from(self.caught) - runs * rate).abs() <= 4.5 * deviation + slack
    }
}

/// Plays `runs` runs of every liar and ten times as many honest ones, on all processors. The same number gives the same
/// report. `progress` hears, on any thread, how many runs are done, and of how many.
pub fn run(runs: u32, progress: &(dyn Fn(u32, u32) + Sync)) -> Report {
    let honest = Liar::Honest;
    let liars = Liar::all();
    let mut plan: Vec<(Liar, u32)> = Vec::new();
    plan.extend((0..runs.saturating_mul(HONEST_RUNS_PER_RUN)).map(|run| (honest, run)));
    plan.extend(
        liars
            .iter()
            .flat_map(|&liar| (0..runs).map(move |run| (liar, run))),
    );
    let caught = play_all(&plan, progress);
    let count = |liar| {
        let mine = plan.iter().zip(&caught).filter(|((other, _), _)| *other == liar);
        let caught = mine.clone().filter(|(_, is_caught)| **is_caught).count();
        (as_u32(mine.count()), as_u32(caught))
    };
    let (honest_runs, refused) = count(honest);
    let liars = liars.into_iter().map(|liar| {
        let (runs, caught) = count(liar);
        LiarRuns {
            name: liar.name(),
            runs,
            caught,
            expected_rate: liar.expected_rate(),
        }
    });
    Report {
        honest: HonestRuns {
            runs: honest_runs,
            refused,
        },
        liars: liars.collect(),
    }
}

/// Whether each run of the plan ended with the prover caught.
fn play_all(plan: &[(Liar, u32)], progress: &(dyn Fn(u32, u32) + Sync)) -> Vec<bool> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = plan.len().div_ceil(threads).max(1);
    let done = AtomicU32::new(0);
    let all = as_u32(plan.len());
    let mut caught = vec![false; plan.len()];
    // Neighbours in the plan take equally long, so every thread gets each kind.
    let mut shares: Vec<Vec<(usize, Liar, u32)>> = vec![Vec::with_capacity(share); threads];
    for (at, &(liar, run)) in plan.iter().enumerate() {
        shares[at % threads].push((at, liar, run));
    }
    let play = |share: &[(usize, Liar, u32)]| -> Vec<(usize, bool)> {
        let results = share.iter().map(|&(at, liar, run)| {
            let is_caught = world::play(liar, run);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
            (at, is_caught)
        });
        results.collect()
    };
    thread::scope(|scope| {
        let handles: Vec<_> = shares.iter().map(|share| scope.spawn(|| play(share))).collect();
        for handle in handles {
            // A run that panicked would be a fault of this program: then the whole test fails with it.
            let results = handle
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            for (at, is_caught) in results {
                caught[at] = is_caught;
            }
        }
    });
    caught
}

fn as_u32(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
