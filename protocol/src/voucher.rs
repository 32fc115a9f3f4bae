//! A consumer's promise to pay, cumulative over a channel.

use bincode::{Decode, Encode};

use crate::credits::Credits;
use crate::identity::SignedContent;
use crate::ids::ChannelId;
use crate::job::RequestId;

/// "So far I owe this channel `cumulative`." Only the highest one counts, so losing, repeating and reordering
/// vouchers is harmless. The coordinator settles it for whoever hands it in.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct Voucher {
    /// The channel that pays.
    pub channel: ChannelId,
    /// Everything owed on the channel since it was opened.
    pub cumulative: Credits,
    /// The job that brought the amount here.
    pub request_id: RequestId,
    /// BLAKE3 over that job's payload bytes received so far.
    pub transcript: [u8; 32],
}

impl SignedContent for Voucher {
    const NAME: &'static str = "voucher";
    const VERSION: u16 = 1;
}
