//! The only clock of the coordinator: everything that decides is given the time.

use std::fmt;
use std::sync::Arc;

use gristmill_service::clock::unix_ms;

/// Tells the Unix time in milliseconds. Tests bring their own.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The clock of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self::new(unix_ms)
    }

    /// A clock that asks a function for the Unix time in milliseconds.
    #[must_use]
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_ms))
    }

    /// The same clock as the mesh wants it.
    pub(crate) fn for_mesh(&self) -> gristmill_transport::mesh::Clock {
        Arc::clone(&self.0)
    }

    /// The Unix time in milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Clock({} ms)", self.now_ms())
    }
}
