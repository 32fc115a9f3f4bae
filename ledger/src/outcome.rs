//! What an entry did: the transfers of double-entry bookkeeping, and what a receipt says about them.

use bincode::{Decode, Encode};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, EntryId, GrantId};
use gristmill_protocol::job::RequestId;
use gristmill_protocol::log::hash::LogHash;
use serde::Serialize;

use crate::digest::Digest;
use crate::entry::{CloseReason, GrantKind};

/// An account of the book. All of them together always hold zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(tag = "account", content = "of", rename_all = "snake_case")]
pub enum BookAccount {
    /// Where credits come from; the only account below zero.
    Issuance,
    /// What the coordinator earned.
    Fees,
    /// What an account can spend.
    Available(AccountId),
    /// What a channel holds for its provider.
    Held(ChannelId),
}

/// An amount that left one account of the book for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Transfer {
    /// Who has less.
    pub from: BookAccount,
    /// Who has more.
    pub to: BookAccount,
    /// How much; never zero.
    pub amount: Credits,
}

/// What an entry did.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Outcome {
    /// What moved, in order.
    pub transfers: Vec<Transfer>,
    /// What it means.
    pub effect: Effect,
}

/// What an entry means to its parties.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// An account received new credits.
    Granted(Granted),
    /// A channel holds credits.
    Opened(Opened),
    /// A provider was paid.
    Settled(Settlement),
    /// A channel ended.
    Closed(Closed),
    /// Every open channel can be redeemed longer.
    Extended(Extended),
    /// An account was frozen, or is no longer.
    Frozen(Frozen),
    /// Another key signs from now on.
    KeyRotated(KeyRotated),
}

/// An account received new credits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Granted {
    /// The grant.
    pub grant: GrantId,
    /// Who received.
    pub account: AccountId,
    /// How much.
    pub amount: Credits,
    /// On whose account.
    pub kind: GrantKind,
}

/// A channel holds credits: what a ticket says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Opened {
    /// The channel.
    pub channel: ChannelId,
    /// Who pays.
    pub consumer: AccountId,
    /// Who can be paid.
    pub provider: AccountId,
    /// Most that can be paid.
    pub limit: Credits,
    /// The coordinator's share in 1/10,000.
    pub fee_basis_points: u16,
    /// Until when the provider can redeem, Unix time in milliseconds, as first agreed.
    pub redeem_by_ms: u64,
}

/// A provider was paid: what a receipt says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Settlement {
    /// The channel that paid.
    pub channel: ChannelId,
    /// Who paid.
    pub consumer: AccountId,
    /// Who was paid.
    pub provider: AccountId,
    /// What the channel had paid before.
    pub settled_before: Credits,
    /// What the channel has paid now.
    pub settled_after: Credits,
    /// What the consumer paid by this entry, fee included.
    pub amount: Credits,
    /// What of it the coordinator kept; the provider received the rest.
    pub fee: Credits,
    /// The job that the voucher names.
    pub request_id: RequestId,
    /// BLAKE3 over that job's payload, as the voucher names it.
    pub transcript: Digest,
}

/// A channel ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Closed {
    /// The channel.
    pub channel: ChannelId,
    /// Who paid.
    pub consumer: AccountId,
    /// Who was paid.
    pub provider: AccountId,
    /// What was paid in all.
    pub settled: Credits,
    /// What returned to the consumer.
    pub returned: Credits,
    /// Why it ended.
    pub reason: CloseReason,
}

/// Every open channel can be redeemed longer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Extended {
    /// By how long, in milliseconds.
    pub downtime_ms: u64,
}

/// An account was frozen, or is no longer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Frozen {
    /// The entry's name.
    pub entry: EntryId,
    /// Whose account.
    pub account: AccountId,
    /// Whether it is frozen now.
    pub frozen: bool,
}

/// Another key signs from now on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct KeyRotated {
    /// The first key of the log.
    pub log: AccountId,
    /// Who signed until now.
    pub old: AccountId,
    /// Who signs from now on.
    pub new: AccountId,
}

impl Outcome {
    /// The accounts that this concerns, each once.
    #[must_use]
    pub fn parties(&self) -> Vec<AccountId> {
        let (first, second) = match &self.effect {
            Effect::Granted(granted) => return vec![granted.account],
            Effect::Opened(opened) => (opened.consumer, opened.provider),
            Effect::Settled(settled) => (settled.consumer, settled.provider),
            Effect::Closed(closed) => (closed.consumer, closed.provider),
            Effect::Frozen(frozen) => return vec![frozen.account],
            Effect::KeyRotated(rotated) => (rotated.old, rotated.new),
            Effect::Extended(_) => return Vec::new(),
        };
        if first == second {
            vec![first]
        } else {
            vec![first, second]
        }
    }
}

/// An entry that is in the journal, synced, with what it did.
///
/// Everything here follows from the journal alone, so a receipt made of it has the same bytes at any later time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Posted {
    /// The record's number in the journal; the first is 1.
    pub sequence: u64,
    /// When it was posted, Unix time in milliseconds.
    pub time_ms: u64,
    /// The RFC 6962 leaf hash of the record: of its sequence, time, salt and entry as they are in the journal.
    pub record_hash: LogHash,
    /// What it did.
    pub outcome: Outcome,
    /// Whether it had been posted before and this is the answer of then. Not part of any receipt.
    pub repeated: bool,
}
