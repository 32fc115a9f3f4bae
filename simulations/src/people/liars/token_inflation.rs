//! Claims more tokens than it wrote.
//!
//! Gains: so many percent of every answer. Against it: a meter above what the text can hold ends the job at once (a token
//! is at least a byte, and English text has about four bytes in a token, so up to 300 % pass); beyond that, consumers who
//! count again with the model's tokenizer, and price caps.

use serde::{Deserialize, Serialize};

use crate::people::conduct::ProviderConduct;

/// Claims more tokens than it wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenInflation {
    /// How many percent more.
    pub percent: u32,
}

impl ProviderConduct for TokenInflation {
    fn metered_tokens(&self, written: u64) -> u64 {
        let more = u128::from(written) * u128::from(self.percent) / 100;
        written.saturating_add(u64::try_from(more).unwrap_or(u64::MAX))
    }
}
