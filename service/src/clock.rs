//! The clock of the machine. What decides is given the time; only what starts it asks here.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gristmill_transport::Clock;

/// Unix time in milliseconds.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The clock as the mesh and whoever else keeps one wants it.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(unix_ms)
}
