//! Answers with a smaller model than it lists. Of tested shadow interfaces to well-known models, 46 % did.
//!
//! Gains: the price of the large model at the cost of the small one. Against it: questions with known answers among the
//! usual ones, and records that add up; a single odd answer proves nothing.

use serde::{Deserialize, Serialize};

use crate::people::conduct::ProviderConduct;
use crate::people::popularity::ModelSize;

/// Answers with a smaller model than it lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmallerModel {
    /// What answers where something larger is listed.
    pub serves: ModelSize,
}

impl ProviderConduct for SmallerModel {
    fn serves_model(&self, listed: ModelSize) -> ModelSize {
        listed.min(self.serves)
    }
}
