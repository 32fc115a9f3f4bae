//! What the book remembers of accounts, channels and grants.

use bincode::{Decode, Encode};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use serde::Serialize;

use super::Totals;
use crate::entry::{CloseReason, OpenChannel};

/// What an account has, and how it came to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Balance {
    /// What it can spend.
    pub available: Credits,
    /// What its open channels hold.
    pub held: Credits,
    /// What it was granted in all.
    pub granted: Credits,
    /// What it was paid as a provider in all, after fees.
    pub earned: Credits,
    /// What it has paid as a consumer in all, fees included.
    pub spent: Credits,
    /// Whether it had its starter grant.
    pub starter_granted: bool,
    /// Whether the operator froze it.
    pub frozen: bool,
}

/// A channel as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelState {
    /// Its name.
    pub channel: ChannelId,
    /// Who pays.
    pub consumer: AccountId,
    /// Who can be paid.
    pub provider: AccountId,
    /// Most that can be paid.
    pub limit: Credits,
    /// What was paid.
    pub settled: Credits,
    /// What it still holds.
    pub held: Credits,
    /// The coordinator's share in 1/10,000.
    pub fee_basis_points: u16,
    /// Until when the provider can redeem, Unix time in milliseconds, as first agreed: what the ticket says.
    pub redeem_by_ms: u64,
    /// Until when the provider can redeem, Unix time in milliseconds, with the coordinator's downtime since added.
    pub extended_redeem_by_ms: u64,
    /// BLAKE3 of the request that opened it.
    #[serde(skip)]
    pub request_digest: [u8; 32],
    /// The sequence of the entry that opened it.
    pub opened_sequence: u64,
    /// When it was opened, Unix time in milliseconds.
    pub opened_at_ms: u64,
    /// The sequence of the newest settlement.
    pub settled_sequence: Option<u64>,
    /// Whether it can still pay.
    pub status: ChannelStatus,
}

/// Whether a channel can still pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ChannelStatus {
    /// It can.
    Open,
    /// It has ended.
    Closed {
        /// Why.
        reason: CloseReason,
        /// The sequence of the entry that ended it.
        sequence: u64,
        /// When, Unix time in milliseconds.
        closed_at_ms: u64,
    },
}

/// What is one for the whole book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// The sequence of the newest entry.
    pub sequence: u64,
    /// When it was posted, Unix time in milliseconds.
    pub last_time_ms: u64,
    /// All the coordinator's downtime so far.
    pub downtime_ms: u64,
    /// What the accounts hold together.
    pub totals: Totals,
    /// The UTC day, counted from 1970, of the newest starter grant.
    pub starter_day: u64,
    /// What starter grants came to on that day.
    pub starter_given: Credits,
    /// The log's first key and the one that signs now, once a key was handed over.
    pub signer: Option<Signer>,
}

/// Whose key signs for the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Signer {
    /// The first key, which names the log.
    pub log: AccountId,
    /// The key that signs now.
    pub now: AccountId,
}

/// All that the book keeps of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Channel {
    /// As it was opened.
    pub terms: OpenChannel,
    /// What was paid.
    pub settled: Credits,
    /// What it still holds.
    pub held: Credits,
    /// The sequence of the entry that opened it.
    pub opened_sequence: u64,
    /// When it was opened, Unix time in milliseconds.
    pub opened_at_ms: u64,
    /// The coordinator's downtime before the channel was opened, which does not extend it.
    pub downtime_at_open_ms: u64,
    /// The sequence of the newest settlement.
    pub settled_sequence: Option<u64>,
    /// Whether it can still pay.
    pub status: ChannelStatus,
}

/// An entry with a name that took effect: enough to know its repetition from another one under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NamedEntry {
    /// The digest of the entry.
    pub content: crate::digest::Digest,
    /// Its sequence.
    pub sequence: u64,
}

impl Channel {
    pub(super) fn is_open(&self) -> bool {
        self.status == ChannelStatus::Open
    }

    /// When the channel would expire had the coordinator never been down; `None` once it is closed.
    pub(super) fn deadline(&self) -> Option<i128> {
        self.is_open().then(|| self.deadline_when_open())
    }

    pub(super) fn deadline_when_open(&self) -> i128 {
        i128::from(self.terms.redeem_by_ms) - i128::from(self.downtime_at_open_ms)
    }

    /// Until when the channel can be redeemed, given all downtime so far.
    pub(super) const fn extended_redeem_by_ms(&self, downtime_ms: u64) -> u64 {
        self.terms
            .redeem_by_ms
            .saturating_add(downtime_ms.saturating_sub(self.downtime_at_open_ms))
    }

    /// The channel as others see it.
    #[must_use]
    pub const fn state(&self, channel: ChannelId, downtime_ms: u64) -> ChannelState {
        ChannelState {
            channel,
            consumer: self.terms.consumer,
            provider: self.terms.provider,
            limit: self.terms.limit,
            settled: self.settled,
            held: self.held,
            fee_basis_points: self.terms.fee_basis_points,
            redeem_by_ms: self.terms.redeem_by_ms,
            extended_redeem_by_ms: self.extended_redeem_by_ms(downtime_ms),
            request_digest: self.terms.request_digest,
            opened_sequence: self.opened_sequence,
            opened_at_ms: self.opened_at_ms,
            settled_sequence: self.settled_sequence,
            status: self.status,
        }
    }
}
