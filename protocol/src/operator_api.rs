//! What travels between a coordinator and its operator over HTTP, as JSON, besides what every account may ask
//! ([`coordinator_api`](crate::coordinator_api)).

use serde::{Deserialize, Serialize};

use crate::credits::Credits;
use crate::identity::AccountId;
use crate::ids::{ChannelId, EntryId};
use crate::job::RequestId;

/// Most entries in one page of a statement.
pub const STATEMENT_PAGE_MAX: usize = 1_000;

/// `POST /v1/freezes`: freezes an account or ends that. Only the operator's key may call it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// The name of the entry; repeating it does nothing.
    pub id: EntryId,
    /// Whose account.
    pub account: AccountId,
    /// Whether it is to be frozen, or no longer.
    pub frozen: bool,
    /// Why; kept in the journal for everybody who audits it.
    pub reason: String,
}

/// `GET /v1/statement?account=A&before=N&limit=N`: what concerned an account, newest first. Its owner and the
/// operator may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatementPage {
    /// The entries, at most [`STATEMENT_PAGE_MAX`].
    pub entries: Vec<StatementEntry>,
    /// What to give as `before` for the next page, where there is one.
    pub next: Option<u64>,
}

/// What one record of the journal did to one account.
///
/// An account owns what it can spend (available) and what its open channels hold (held).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatementEntry {
    /// The number of the record.
    pub sequence: u64,
    /// When, Unix milliseconds.
    pub time_ms: u64,
    /// What it was.
    pub kind: StatementKind,
    /// Who else was concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterparty: Option<AccountId>,
    /// The channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelId>,
    /// The name of the operator's entry: of a grant, or of a freeze.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<EntryId>,
    /// The job that was paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub request_id: Option<RequestId>,
    /// Why, where the operator said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the account owns more, in microcredits.
    pub incoming: Credits,
    /// What the account owns less, in microcredits.
    pub outgoing: Credits,
    /// What of a payment the coordinator kept, in microcredits: part of what a consumer pays, not of what its
    /// provider receives.
    pub fee: Credits,
    /// By how much more, or less, its channels hold now, in microcredits.
    pub held_change: i64,
}

/// What a record was to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StatementKind {
    /// The coordinator gave a new account its first credits.
    StarterGrant,
    /// The operator issued credits.
    Grant,
    /// A channel holds credits for a provider.
    Hold,
    /// A channel ended; what was left returned.
    Release,
    /// A provider was paid.
    Payment,
    /// A consumer paid.
    Earning,
    /// The operator froze the account.
    Freeze,
    /// The operator ended that.
    Unfreeze,
}

impl StatementKind {
    /// The name that programs know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StarterGrant => "starter_grant",
            Self::Grant => "grant",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Payment => "payment",
            Self::Earning => "earning",
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
        }
    }
}
