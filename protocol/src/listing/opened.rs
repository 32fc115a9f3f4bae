//! A listing that was opened once, for as many boards as there are.

use std::sync::Arc;

use crate::listing::{Listing, ListingError};

/// A listing and the bytes that it travelled in, of which everything was checked that does not depend on the time:
/// size, encoding, signature and bounds.
///
/// There is no other way to make one, so whoever holds it needs no second look. What depends on the time stays with
/// each [`Board`](crate::board::Board).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedListing {
    listing: Listing,
    sealed: Arc<[u8]>,
}

impl OpenedListing {
    /// Opens what [`Listing::seal`] made.
    ///
    /// # Errors
    /// [`ListingError`] saying what is wrong with it at any time.
    pub fn open(sealed: &[u8]) -> Result<Self, ListingError> {
        Ok(Self {
            listing: Listing::open_at_any_time(sealed)?,
            sealed: sealed.into(),
        })
    }

    /// What the provider says.
    #[must_use]
    pub const fn listing(&self) -> &Listing {
        &self.listing
    }

    /// The bytes that travel, signature and all.
    #[must_use]
    pub const fn sealed(&self) -> &Arc<[u8]> {
        &self.sealed
    }

    /// BLAKE3 over the bytes that travel: by it a snapshot of a board names the listing.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.sealed).as_bytes()
    }
}
