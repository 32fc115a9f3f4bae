//! Sends more listings than the mesh should carry.
//!
//! Gains: nothing for itself but others' loss: bandwidth, and boards full of nothing. Against it: forged ones are not
//! passed on and cost their sender score; of one key only one in five seconds is passed on. Against many keys, each with
//! valid listings, stands the board's room alone.

use serde::{Deserialize, Serialize};

use crate::people::conduct::{Flood, ProviderConduct};

/// Sends more listings than the mesh should carry, at each publishing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListingFlood {
    /// Well signed ones of its own key, sooner than allowed.
    pub hasty: u32,
    /// Farewells that are older than its listing.
    pub stale: u32,
    /// Ones with a signature that does not hold.
    pub forged: u32,
    /// Valid ones of keys that nobody has heard of.
    pub of_new_keys: u32,
}

impl ProviderConduct for ListingFlood {
    fn listings_to_flood(&self) -> Flood {
        Flood {
            hasty: self.hasty,
            stale: self.stale,
            forged: self.forged,
            of_new_keys: self.of_new_keys,
        }
    }
}
