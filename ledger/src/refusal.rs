//! Why the book refuses an entry. A refusal changes nothing and is not journaled.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::handover::HandoverError;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, EntryId, GrantId};
use thiserror::Error;

use crate::entry::{BASIS_POINTS_MAX, REASON_MAX_BYTES};

/// Why the book refuses an entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The consumer has less than the channel is to hold.
    #[error(
        "the account has {available} credits available, {wanted} are wanted; ask for a smaller limit or more credits"
    )]
    InsufficientCredits {
        /// What the account can spend.
        available: Credits,
        /// What the channel was to hold.
        wanted: Credits,
    },
    /// The name is taken by another request.
    #[error("channel {channel} was opened by another request; draw a new id")]
    ChannelConflict {
        /// The name.
        channel: ChannelId,
    },
    /// No channel has this name.
    #[error("channel {channel} does not exist; open it first")]
    UnknownChannel {
        /// The name.
        channel: ChannelId,
    },
    /// The channel has ended and this voucher asks for more than was settled.
    #[error("channel {channel} is closed with {settled} credits settled; nothing more can be paid from it")]
    ChannelClosed {
        /// The channel.
        channel: ChannelId,
        /// What was paid before it ended.
        settled: Credits,
    },
    /// The channel can still be redeemed.
    #[error("channel {channel} has not expired, it can be redeemed until {redeem_by_ms} ms (Unix time)")]
    NotExpired {
        /// The channel.
        channel: ChannelId,
        /// Until when, Unix time in milliseconds, downtime included.
        redeem_by_ms: u64,
    },
    /// The voucher's signature does not hold.
    #[error("the signature of the voucher for channel {channel} is not valid")]
    InvalidSignature {
        /// The channel.
        channel: ChannelId,
    },
    /// Somebody other than the consumer signed the voucher.
    #[error("vouchers of channel {channel} are signed by {consumer}, this one by somebody else")]
    WrongSigner {
        /// The channel.
        channel: ChannelId,
        /// Who has to sign.
        consumer: AccountId,
    },
    /// The voucher names another channel than the one it was handed in for.
    #[error("the voucher is for channel {voucher_channel}, not for {channel}")]
    OtherChannel {
        /// The channel it was handed in for.
        channel: ChannelId,
        /// The channel it names.
        voucher_channel: ChannelId,
    },
    /// The voucher promises more than the channel holds.
    #[error(
        "the voucher promises {cumulative} credits, channel {channel} is limited to {limit}; hand in an earlier voucher"
    )]
    AboveLimit {
        /// The channel.
        channel: ChannelId,
        /// What it can pay in all.
        limit: Credits,
        /// What was promised.
        cumulative: Credits,
    },
    /// The account had its starter grant.
    #[error("account {account} had its starter grant; an account gets one")]
    StarterAlreadyGranted {
        /// The account.
        account: AccountId,
    },
    /// The name is taken by another grant.
    #[error("grant {grant} was made with other content; draw a new id")]
    GrantConflict {
        /// The name.
        grant: GrantId,
    },
    /// No more credits can exist.
    #[error("{issued} credits are issued, {wanted} more would be above the largest possible amount")]
    IssuanceExhausted {
        /// What exists.
        issued: Credits,
        /// What was to be added.
        wanted: Credits,
    },
    /// No more can change hands.
    #[error(
        "{settled} credits have changed hands, {wanted} more would be above the largest amount that is counted"
    )]
    TurnoverExhausted {
        /// What was ever settled.
        settled: Credits,
        /// What was to be added.
        wanted: Credits,
    },
    /// An entry about nothing.
    #[error("the amount is zero; nothing to do")]
    ZeroAmount,
    /// A fee above the whole.
    #[error("a fee of {basis_points} basis points is above the whole ({BASIS_POINTS_MAX})")]
    FeeTooHigh {
        /// The fee in 1/10,000.
        basis_points: u16,
    },
    /// A reason that is too long.
    #[error("the reason has {actual_bytes} bytes, at most {REASON_MAX_BYTES} are kept; shorten it")]
    ReasonTooLong {
        /// How long it is.
        actual_bytes: usize,
    },
    /// A freeze without a reason.
    #[error("the reason is empty; say why, it is kept in the journal")]
    NoReason,
    /// Today's starter grants have used up their budget.
    #[error("{given} credits of today's {budget} for new accounts are given; try again tomorrow (UTC)")]
    StarterBudgetExhausted {
        /// What was given today.
        given: Credits,
        /// What may be given in one day.
        budget: Credits,
    },
    /// The account is frozen.
    #[error("account {account} is frozen by the operator; no channel can be opened by it or for it")]
    AccountFrozen {
        /// The account.
        account: AccountId,
    },
    /// There is nothing to freeze or unfreeze.
    #[error("account {account} is {} already", if *.frozen { "frozen" } else { "not frozen" })]
    FrozenAlready {
        /// The account.
        account: AccountId,
        /// Whether it is frozen.
        frozen: bool,
    },
    /// The name is taken by another entry.
    #[error("entry {entry} was made with other content; draw a new id")]
    EntryConflict {
        /// The name.
        entry: EntryId,
    },
    /// The hand-over of the signing key does not count.
    #[error(transparent)]
    Handover(#[from] HandoverError),
}

impl Refusal {
    /// A stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InsufficientCredits { .. } => "insufficient_credits",
            Self::ChannelConflict { .. } => "channel_conflict",
            Self::UnknownChannel { .. } => "unknown_channel",
            Self::ChannelClosed { .. } => "channel_closed",
            Self::NotExpired { .. } => "not_expired",
            Self::InvalidSignature { .. } => "invalid_signature",
            Self::WrongSigner { .. } => "wrong_signer",
            Self::OtherChannel { .. } => "other_channel",
            Self::AboveLimit { .. } => "above_limit",
            Self::StarterAlreadyGranted { .. } => "starter_already_granted",
            Self::GrantConflict { .. } => "grant_conflict",
            Self::IssuanceExhausted { .. } => "issuance_exhausted",
            Self::TurnoverExhausted { .. } => "turnover_exhausted",
            Self::ZeroAmount => "zero_amount",
            Self::FeeTooHigh { .. } => "fee_too_high",
            Self::ReasonTooLong { .. } => "reason_too_long",
            Self::NoReason => "no_reason",
            Self::StarterBudgetExhausted { .. } => "starter_budget_exhausted",
            Self::AccountFrozen { .. } => "account_frozen",
            Self::FrozenAlready { .. } => "frozen_already",
            Self::EntryConflict { .. } => "entry_conflict",
            Self::Handover(_) => "handover_invalid",
        }
    }
}
