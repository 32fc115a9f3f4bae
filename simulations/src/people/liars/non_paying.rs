//! Reads and does not pay.
//!
//! Gains: what a provider gives before it must have a voucher. Against it: the credit window, beyond which a provider
//! sends nothing; so the gain is at most a window for each channel, and a channel needs credits.

use serde::{Deserialize, Serialize};

use crate::people::conduct::ConsumerConduct;

/// Reads and does not pay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NonPaying {
    /// How many vouchers of a job it signs before it signs no more.
    pub pays_vouchers: u32,
    /// After how many chunks it leaves; none: it stays while anything comes.
    pub leaves_after_chunks: Option<u32>,
}

impl ConsumerConduct for NonPaying {
    fn pays_voucher(&self, vouchers_of_job: u32) -> bool {
        vouchers_of_job < self.pays_vouchers
    }

    fn leaves_after_chunks(&self) -> Option<u32> {
        self.leaves_after_chunks
    }
}
