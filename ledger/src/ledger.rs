//! The ledger as the coordinator uses it: a handle over one [`Store`].

use std::path::Path;
use std::sync::Arc;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;

use crate::book::{Balance, ChannelState, Head};
use crate::entry::Entry;
use crate::index::Selection;
use crate::outcome::Posted;
use crate::record::Record;
use crate::store::{EmbeddedOptions, EmbeddedStore, OpenError, PostError, ReadError, ShutdownError, Store};

/// A ledger. Clones are the same ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Arc<dyn Store>,
}

impl Ledger {
    /// Opens the embedded ledger in `directory`, or begins one. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(directory: &Path, options: &EmbeddedOptions) -> Result<Self, OpenError> {
        EmbeddedStore::open(directory, options).map(Self::over)
    }

    /// A ledger in any store.
    #[must_use]
    pub fn over(store: impl Store) -> Self {
        Self {
            store: Arc::new(store),
        }
    }

    /// Where it is kept.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// Posts an entry at this time (Unix, in milliseconds). Resolves once it is durable.
    ///
    /// An entry that was posted before gives the answer of then. Dropping the future does not take the entry back.
    ///
    /// # Errors
    /// [`PostError`]
    pub async fn post(&self, entry: Entry, now_ms: u64) -> Result<Posted, PostError> {
        self.store.post(entry.check()?, now_ms).await
    }

    /// What is one for the whole book: sequence, time, totals.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn head(&self) -> Result<Head, ReadError> {
        self.store.head().await
    }

    /// What an account has.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn balance(&self, account: &AccountId) -> Result<Balance, ReadError> {
        self.store.balance(account).await
    }

    /// A channel as it is now.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn channel(&self, channel: &ChannelId) -> Result<Option<ChannelState>, ReadError> {
        self.store.channel(channel).await
    }

    /// Open channels whose time to redeem is over at `now_ms`, the longest expired first, at most `limit`.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn expired_channels(&self, now_ms: u64, limit: usize) -> Result<Vec<ChannelId>, ReadError> {
        self.store.expired_channels(now_ms, limit).await
    }

    /// The answer that the post of this sequence had: the same as then, for ever.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn posted(&self, sequence: u64) -> Result<Option<Posted>, ReadError> {
        self.store.posted(sequence).await
    }

    /// The record of this sequence as it is kept.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn record(&self, sequence: u64) -> Result<Option<Record>, ReadError> {
        let mut records = self.store.records(sequence, 1).await?;
        Ok(records.pop())
    }

    /// What concerns an account, the newest first, below the sequence `before` if given, at most `limit`
    /// ([`PAGE_MAX_ITEMS`](crate::index::PAGE_MAX_ITEMS) at most).
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn history(
        &self,
        account: &AccountId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError> {
        self.store.history(account, Selection::All, before, limit).await
    }

    /// What an account paid or was paid, the newest first, below the sequence `before` if given, at most `limit`
    /// ([`PAGE_MAX_ITEMS`](crate::index::PAGE_MAX_ITEMS) at most). Each can be made a receipt again.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn settlements(
        &self,
        account: &AccountId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError> {
        self.store
            .history(account, Selection::Settlements, before, limit)
            .await
    }

    /// Why the ledger takes no more entries, if so.
    #[must_use]
    pub fn read_only_reason(&self) -> Option<String> {
        self.store.read_only_reason()
    }

    /// Takes no more entries, finishes what is waiting, and gives everything free. May be called more than once.
    ///
    /// # Errors
    /// [`ShutdownError`]
    pub async fn shutdown(&self) -> Result<(), ShutdownError> {
        self.store.shutdown().await
    }
}
