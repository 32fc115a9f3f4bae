//! Whom the node takes for its coordinator: the keys that sign for it, the first of which names it for ever.

use std::sync::Arc;

use gristmill_protocol::log::checkpoint::LogKeys;
use tokio::sync::watch;

/// Follows the coordinator's keys. `None` until it was reached.
pub(crate) type KnownCoordinator = watch::Receiver<Option<Arc<LogKeys>>>;
