//! A progress bar on stderr for each device; none where stderr is no terminal.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::inventory::Device;
use crate::prover::{Listener, Progress};

/// The bars of some devices.
#[derive(Clone, Debug)]
pub(super) struct Bars {
    all: MultiProgress,
    bars: Arc<Mutex<Vec<ProgressBar>>>,
}

impl Bars {
    pub(super) fn new(devices: &[Device]) -> Self {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("{prefix} {bar:30} {msg} {elapsed}").ok();
        let bar = |device: &Device| {
            let bar = all.add(ProgressBar::new(1));
            if let Some(style) = &style {
                bar.set_style(style.clone());
            }
            bar.set_prefix(format!("{}:{} {}", device.kind, device.index, device.name));
            bar
        };
        Self {
            bars: Arc::new(Mutex::new(devices.iter().map(bar).collect())),
            all,
        }
    }

    /// What a prover tells of its progress, drawn.
    pub(super) fn listener(&self) -> Listener {
        let bars = self.bars.clone();
        Arc::new(move |progress: Progress| {
            let bars = bars.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(bar) = bars.get(progress.device) {
                bar.set_length(progress.of);
                bar.set_position(progress.done);
                bar.set_message(progress.phase.to_string());
            }
        })
    }

    /// Says a line on stderr, above the bars where there are any.
    pub(super) fn say(&self, line: &str) {
        // With a standard error that is closed there is nobody to tell.
        let _ = self.all.suspend(|| writeln!(io::stderr(), "{line}"));
    }

    /// Takes the bars away, so that what follows stands where they were.
    pub(super) fn clear(&self) {
        for bar in self.bars.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            bar.finish_and_clear();
        }
        // Only drawing can fail, and there is nothing left to draw.
        let _ = self.all.clear();
    }
}
