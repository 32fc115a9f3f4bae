//! What was published: a listing lies here once, however many nodes hear of it, and is opened and verified once.
//!
//! Shards read what others wrote. A node only looks up what it was sent, which was written in an earlier window, so
//! what it finds does not depend on which thread is faster.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use gristmill_protocol::listing::{ListingError, OpenedListing};
use serde::{Deserialize, Serialize};

use crate::engine::NodeId;
use crate::gossip::MessageId;

/// A message that was published.
#[derive(Clone, Debug)]
pub struct Published {
    /// Which.
    pub id: MessageId,
    /// When, in microseconds of virtual time.
    pub at_us: u64,
    /// How many bytes travel.
    pub bytes: u32,
    /// Whether it is what its signer may say, as its publisher knows.
    pub is_genuine: bool,
    /// What it says, or why nobody should take it.
    pub opened: Result<Arc<OpenedListing>, ListingError>,
}

/// A message as snapshots keep it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredMessage {
    id: MessageId,
    at_us: u64,
    sealed: Vec<u8>,
    is_genuine: bool,
}

/// A message and the bytes that travel, for snapshots.
#[derive(Debug)]
struct Kept {
    published: Published,
    /// Of an invalid one; a valid one has them in its listing.
    invalid: Option<Box<[u8]>>,
}

/// For how long a message is kept after it was published: longer than any listing lives and gossip remembers.
const KEPT_US: u64 = 720_000_000;

/// All that was published lately, by publisher.
#[derive(Debug, Default)]
pub struct Catalogue {
    of_publisher: Vec<RwLock<VecDeque<Kept>>>,
    /// What a snapshot named by its digest; empty where the run began here.
    restored: BTreeMap<[u8; 32], Arc<OpenedListing>>,
}

impl Catalogue {
    /// Nothing yet, of the nodes below this number.
    #[must_use]
    pub fn new(publishers: NodeId) -> Self {
        Self {
            of_publisher: (0..publishers).map(|_| RwLock::default()).collect(),
            restored: BTreeMap::new(),
        }
    }

    /// Adds a message and says how many bytes it has. Those of one publisher come in the order of their numbers.
    pub fn add(&self, id: MessageId, at_us: u64, sealed: Vec<u8>, is_genuine: bool) -> u32 {
        let opened = OpenedListing::open(&sealed).map(Arc::new);
        let published = Published {
            id,
            at_us,
            bytes: u32::try_from(sealed.len()).unwrap_or(u32::MAX),
            is_genuine,
            opened,
        };
        let bytes = published.bytes;
        let invalid = published.opened.is_err().then(|| sealed.into_boxed_slice());
        if let Some(messages) = self.of_publisher.get(id.publisher() as usize) {
            let mut messages = messages.write().unwrap_or_else(PoisonError::into_inner);
            messages.push_back(Kept { published, invalid });
        }
        bytes
    }

    /// A message that was published lately.
    #[must_use]
    pub fn get(&self, id: MessageId) -> Option<Published> {
        let messages = self.of_publisher.get(id.publisher() as usize)?;
        let messages = messages.read().unwrap_or_else(PoisonError::into_inner);
        let place = messages.partition_point(|kept| kept.published.id < id);
        let kept = messages.get(place).filter(|kept| kept.published.id == id)?;
        Some(kept.published.clone())
    }

    /// Forgets what nobody can still hear of. Between epochs only.
    pub fn forget_before(&mut self, now_us: u64) {
        for messages in &mut self.of_publisher {
            let messages = messages.get_mut().unwrap_or_else(PoisonError::into_inner);
            while messages
                .front()
                .is_some_and(|kept| kept.published.at_us + KEPT_US < now_us)
            {
                messages.pop_front();
            }
        }
    }

    /// What a snapshot keeps.
    pub(crate) fn stored(&self) -> Vec<StoredMessage> {
        let mut stored = Vec::new();
        for messages in &self.of_publisher {
            let messages = messages.read().unwrap_or_else(PoisonError::into_inner);
            stored.extend(messages.iter().map(|kept| StoredMessage {
                id: kept.published.id,
                at_us: kept.published.at_us,
                is_genuine: kept.published.is_genuine,
                sealed: match (&kept.published.opened, &kept.invalid) {
                    (Ok(opened), _) => opened.sealed().to_vec(),
                    (Err(_), invalid) => invalid.as_deref().unwrap_or_default().to_vec(),
                },
            }));
        }
        stored
    }

    /// Takes back what a snapshot kept.
    pub(crate) fn restore(&mut self, stored: Vec<StoredMessage>) {
        for message in stored {
            self.add(message.id, message.at_us, message.sealed, message.is_genuine);
            if let Some(opened) = self.get(message.id).and_then(|published| published.opened.ok()) {
                self.restored.insert(opened.digest(), opened);
            }
        }
    }

    /// The listing that a snapshot names, for boards that are woken.
    pub(crate) fn by_digest(&self, digest: &[u8; 32]) -> Option<Arc<OpenedListing>> {
        self.restored.get(digest).cloned()
    }
}
