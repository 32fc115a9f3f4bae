//! How many job streams peers may have open here at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gristmill_protocol::identity::AccountId;

/// Counts the open incoming streams of every peer against two limits.
#[derive(Debug)]
pub(crate) struct StreamBudget {
    per_peer_max: usize,
    total_max: usize,
    open: Mutex<OpenStreams>,
}

#[derive(Debug, Default)]
struct OpenStreams {
    total: usize,
    /// Peers with at least one open stream.
    by_peer: HashMap<AccountId, usize>,
}

impl StreamBudget {
    pub(crate) fn new(per_peer_max: usize, total_max: usize) -> Arc<Self> {
        Arc::new(Self {
            per_peer_max,
            total_max,
            open: Mutex::default(),
        })
    }

    /// A place for one more stream of a peer, given back when the permit is dropped; `None` at a limit.
    pub(crate) fn admit(self: &Arc<Self>, account: AccountId) -> Option<StreamPermit> {
        let mut open = self.lock();
        let of_peer = open.by_peer.get(&account).copied().unwrap_or(0);
        if open.total >= self.total_max || of_peer >= self.per_peer_max {
            return None;
        }
        open.total += 1;
        open.by_peer.insert(account, of_peer + 1);
        Some(StreamPermit {
            budget: Arc::clone(self),
            account,
        })
    }

    fn lock(&self) -> MutexGuard<'_, OpenStreams> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's place in a [`StreamBudget`].
#[derive(Debug)]
pub(crate) struct StreamPermit {
    budget: Arc<StreamBudget>,
    account: AccountId,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.budget.lock();
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.by_peer.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                open.by_peer.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_per_peer_and_in_total_and_places_come_back() {
        let budget = StreamBudget::new(2, 3);
        let [first, second] = [1, 2].map(|byte| AccountId::from_public_key([byte; 32]));
        let held = [budget.admit(first), budget.admit(first)];
        assert!(held.iter().all(Option::is_some));
        assert!(budget.admit(first).is_none(), "third stream of one peer");
        let last = budget.admit(second);
        assert!(last.is_some());
        assert!(budget.admit(second).is_none(), "fourth stream in all");
        drop(held);
        assert!(budget.admit(second).is_some());
        drop(last);
        assert_eq!(budget.lock().total, 0);
        assert!(
            budget.lock().by_peer.is_empty(),
            "peers without streams are forgotten"
        );
    }
}
