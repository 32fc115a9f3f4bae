//! Opens accounts for their starter grants, and uses them up or moves them to one provider. Seen wherever computing is
//! given away for trying: free tiers of build services were mined on.
//!
//! Gains: grants times accounts. Against it: the operator's daily budget, which bounds all grants of a day together,
//! whoever gets them; so honest newcomers may find it empty.

use serde::{Deserialize, Serialize};

use crate::engine::NodeId;
use crate::people::conduct::ConsumerConduct;

/// Opens accounts for their starter grants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StarterFarm {
    /// How many accounts it opens in a day.
    pub accounts_per_day: u32,
    /// The provider that earns what the accounts are given; none: it has jobs done with it.
    #[serde(default)]
    pub moves_to: Option<NodeId>,
}

impl ConsumerConduct for StarterFarm {
    fn farms_grants(&self) -> u32 {
        self.accounts_per_day
    }

    fn moves_credits_to(&self) -> Option<NodeId> {
        self.moves_to
    }
}
