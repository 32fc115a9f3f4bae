//! What the swarm's task and the handles share.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use gristmill_protocol::board::{Board, Insertion};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::listing::ListingError;
use gristmill_protocol::log::checkpoint::LogKeys;
use libp2p::Multiaddr;
use tokio::sync::watch;

use super::checkpoints::CheckpointFilter;

/// The listings whose certificates are looked at under one lock: eight signatures each at most, some milliseconds in all.
const CHECKED_AT_ONCE: usize = 8;

/// The state that handles read without asking the task.
pub(super) struct Shared {
    pub(super) board: RwLock<Board>,
    pub(super) checkpoints: Mutex<CheckpointFilter>,
    /// Whether any log is watched.
    pub(super) watching: watch::Sender<bool>,
    pub(super) board_version: watch::Sender<u64>,
    /// Changes when listings on the board have certificates to look at.
    pub(super) unchecked: watch::Sender<()>,
    pub(super) peers: watch::Sender<BTreeSet<AccountId>>,
    /// The peers that listen to listings.
    pub(super) listeners: watch::Sender<BTreeSet<AccountId>>,
    pub(super) listening: watch::Sender<Vec<Multiaddr>>,
}

impl Shared {
    /// What judges messages about logs.
    pub(super) fn checkpoints(&self) -> MutexGuard<'_, CheckpointFilter> {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies a sealed listing and posts it.
    pub(super) fn insert(&self, sealed: &[u8], now_ms: u64) -> Result<Insertion, ListingError> {
        let insertion = self
            .board
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(sealed, now_ms)?;
        if insertion.is_news() {
            self.board_changed();
        }
        Ok(insertion)
    }

    /// Believes the certificates of hardware that these keys sign.
    pub(super) fn trust(&self, keys: LogKeys) {
        self.board
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .trust(keys);
        self.board_changed();
        self.unchecked.send_replace(());
    }

    /// Looks at the certificates of some listings that were posted before their signers were trusted. What is left is
    /// announced again, so that the board is never locked for long.
    pub(super) fn check_certificates(&self, now_ms: u64) {
        let check = self
            .board
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .check_certificates(CHECKED_AT_ONCE, now_ms);
        match check.is_complete {
            true => self.board_changed(),
            false => {
                self.unchecked.send_replace(());
            }
        }
    }

    /// Forgets expired listings.
    pub(super) fn expire(&self, now_ms: u64) {
        self.board
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .expire(now_ms);
        self.board_changed();
    }

    fn board_changed(&self) {
        self.board_version
            .send_modify(|version| *version = version.wrapping_add(1));
    }
}
