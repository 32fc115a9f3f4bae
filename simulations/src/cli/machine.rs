//! What a result says about the machine: its name, its memory, and real time. Nothing of it reaches a digest.

use std::time::Duration;

use crate::results::Host;

/// A watch for real time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch(std::time::Instant);

impl Watch {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a run takes is told to people and never seen by it"
    )]
    pub(super) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(super) fn passed(self) -> Duration {
        self.0.elapsed()
    }
}

/// How many threads the program may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// This machine.
pub(super) fn host() -> Host {
    Host {
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        cpu: line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
        cores: u32::try_from(cores()).unwrap_or(u32::MAX),
    }
}

/// The most memory that this program has held, in bytes; 0 where the system does not say.
pub(super) fn peak_rss_bytes() -> u64 {
    let peak = line_of("/proc/self/status", "VmHWM");
    let kibibytes = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1_024)
}

/// What stands behind a name and a colon in a file of the system.
#[expect(
    clippy::disallowed_methods,
    reason = "the system tells about the machine in files; the result goes into a manifest only"
)]
fn line_of(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
