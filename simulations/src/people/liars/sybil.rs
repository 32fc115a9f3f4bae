//! One of many identities of one owner, which takes in listings and passes on nothing.
//!
//! Gains: others' listings travel worse, its owner's look better beside them. Against it: several paths for every message,
//! mesh scores, and listings that a peer asks for when it hears that they exist.

use serde::{Deserialize, Serialize};

use crate::people::conduct::{Forwarding, ProviderConduct};

/// Takes in listings and passes on nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sybil {}

impl ProviderConduct for Sybil {
    fn forwards_gossip(&self) -> Forwarding {
        Forwarding::Nothing
    }
}
