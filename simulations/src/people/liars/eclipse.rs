//! Stands around a victim and lets it hear of accomplices alone (E. Heilman et al., "Eclipse Attacks on Bitcoin's
//! Peer-to-Peer Network", USENIX Security 2015).
//!
//! Gains: the victim's jobs at the accomplices' prices. Against it: connections that the victim opens itself, several
//! peers to begin with, and the coordinator's directory.

use serde::{Deserialize, Serialize};

use crate::engine::NodeId;
use crate::people::conduct::{Forwarding, ProviderConduct};

/// Lets a victim hear of accomplices alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eclipse {
    /// The first accomplice's node.
    pub accomplices_from: NodeId,
    /// The first node behind the accomplices.
    pub accomplices_to: NodeId,
}

impl ProviderConduct for Eclipse {
    fn forwards_gossip(&self) -> Forwarding {
        Forwarding::AccompliceOnly(self.accomplices_from, self.accomplices_to)
    }
}
