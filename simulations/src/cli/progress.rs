//! How far it is, on stderr where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Parts of one variant.
const PARTS: u64 = 1_000;

/// A bar.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Of variants that are run one after another.
    pub(super) fn of_variants(variants: usize, done: usize) -> Self {
        let parts = |count: usize| u64::try_from(count).unwrap_or(u64::MAX).saturating_mul(PARTS);
        let bar = bar(parts(variants), "{wide_bar} {percent} %, {eta} left, {msg}");
        bar.set_position(parts(done));
        Self(bar)
    }

    /// Of runs that are run side by side.
    pub(super) fn of_runs(runs: usize, done: usize) -> Self {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let bar = bar(count(runs), "{wide_bar} {pos} of {len} runs, {eta} left{msg}");
        bar.set_position(count(done));
        // The time left is that of the runs that are still to come.
        bar.reset_eta();
        Self(bar)
    }

    /// Of a variant that is on its way.
    pub(super) fn within(&self, now_us: u64, until_us: u64, events: u64) {
        let done = self.0.position() / PARTS * PARTS;
        let part = u128::from(now_us) * u128::from(PARTS) / u128::from(until_us.max(1));
        self.0
            .set_position(done + u64::try_from(part).unwrap_or(PARTS).min(PARTS - 1));
        self.0.set_message(format!("{events} events"));
    }

    pub(super) fn variant_done(&self) {
        self.0.set_position((self.0.position() / PARTS + 1) * PARTS);
    }

    pub(super) fn run_done(&self) {
        self.0.inc(1);
    }

    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
