//! A board on disk, without its listings: a simulated market has each of them once and boards by the thousand.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::certified::{Certified, WrittenCertificate};
use super::{Board, Posted, Trusted};
use crate::identity::AccountId;
use crate::listing::OpenedListing;
use crate::log::checkpoint::LogKeys;

/// A [`Board`] without its listings, which it names by their [digests](OpenedListing::digest).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardSnapshot {
    providers_max: usize,
    /// The keys whose certificates count, the first one first.
    trusted: Option<Vec<AccountId>>,
    posted: Vec<WrittenPost>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenPost {
    listing: [u8; 32],
    received_at_ms: u64,
    certified: Vec<WrittenCertificate>,
}

/// Why a board can't be restored.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BoardRestoreError {
    /// Nobody has one of its listings.
    #[error("the listing {} of a board's snapshot was not handed in; hand in all that were posted", hex::encode(.0))]
    UnknownListing([u8; 32]),
    /// A certificate that counted does not hold.
    #[error("a certificate that counted for the listing {} does not hold; take the snapshot from where it was written", hex::encode(.0))]
    Certificate([u8; 32]),
}

impl BoardSnapshot {
    /// The digests of its listings, by account of their providers.
    pub fn listings(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.posted.iter().map(|posted| &posted.listing)
    }
}

impl Board {
    /// The board as it stands, without its listings.
    #[must_use]
    pub fn snapshot(&self) -> BoardSnapshot {
        let accounts = |keys: &LogKeys| keys.keys().iter().map(|key| *key.account()).collect();
        let written = |posted: &Posted| WrittenPost {
            listing: posted.opened.digest(),
            received_at_ms: posted.received_at_ms,
            certified: posted.certified.written(posted.listing()),
        };
        BoardSnapshot {
            providers_max: self.providers_max,
            trusted: self.trusted.as_deref().map(|trusted| accounts(&trusted.keys)),
            posted: self.posted.values().map(written).collect(),
        }
    }

    /// Goes on where a snapshot was taken, with the listings that `find` knows by their digests.
    ///
    /// # Errors
    /// [`BoardRestoreError`] where one of them is unknown, or a certificate that counted does not hold.
    pub fn restore(
        snapshot: BoardSnapshot,
        mut find: impl FnMut(&[u8; 32]) -> Option<Arc<OpenedListing>>,
    ) -> Result<Self, BoardRestoreError> {
        let mut accounts = snapshot.trusted.into_iter().flatten();
        let trusted = accounts.next().map(|first| {
            let mut keys = LogKeys::new(first);
            accounts.for_each(|account| keys.add_key(account));
            keys
        });
        let mut posted = BTreeMap::new();
        for written in snapshot.posted {
            let digest = written.listing;
            let opened = find(&digest).ok_or(BoardRestoreError::UnknownListing(digest))?;
            let certified = match &trusted {
                Some(keys) => Certified::read(&written.certified, opened.listing(), keys)
                    .ok_or(BoardRestoreError::Certificate(digest))?,
                None => Certified::default(),
            };
            let provider = opened.listing().provider;
            let received_at_ms = written.received_at_ms;
            posted.insert(
                provider,
                Posted {
                    opened,
                    received_at_ms,
                    certified,
                },
            );
        }
        // What had not been looked at is not told apart: the look begins anew.
        let unchecked = posted.keys().next().copied();
        Ok(Self {
            posted,
            providers_max: snapshot.providers_max,
            trusted: trusted.map(|keys| Box::new(Trusted { keys, unchecked })),
        })
    }
}
