//! The only clock of a node: everything that decides is given the time.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gristmill_transport::Clock;

/// The clock of the machine: Unix time in milliseconds.
#[must_use]
pub(crate) fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
