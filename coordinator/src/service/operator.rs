//! What the operator does to accounts besides granting, and statements of account.

use gristmill_ledger::entry::{Entry, Freeze};
use gristmill_ledger::outcome::Posted;
use gristmill_ledger::statement::{has_reason, statement_entry};
use gristmill_protocol::coordinator_api::{AccountView, Jwk, JwkSet};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::operator_api::{FreezeRequest, STATEMENT_PAGE_MAX, StatementEntry, StatementPage};

use super::Service;
use crate::core::rejection::Rejection;

/// Entries of a page unless the caller says how many.
const ENTRIES_PER_PAGE: usize = 100;

impl Service {
    /// Freezes an account or ends that, in the operator's name.
    pub(crate) async fn freeze(
        &self,
        caller: AccountId,
        request: FreezeRequest,
    ) -> Result<AccountView, Rejection> {
        if !self.is_operator(&caller) {
            return Err(Rejection::forbidden(
                "only the operator's key can freeze and unfreeze accounts",
            ));
        }
        let FreezeRequest {
            id,
            account,
            frozen,
            reason,
        } = request;
        let freeze = Freeze { id, account, reason };
        let entry = match frozen {
            true => Entry::Freeze(freeze),
            false => Entry::Unfreeze(freeze),
        };
        let posted = self.post(entry).await?;
        tracing::info!(%account, frozen, entry = %id, repeated = posted.repeated, "account frozen or unfrozen");
        self.view(account).await
    }

    /// A page of what concerned an account, newest first, as its owner or the operator may see it.
    pub(crate) async fn statement(
        &self,
        caller: AccountId,
        account: AccountId,
        before: Option<u64>,
        limit: Option<usize>,
    ) -> Result<StatementPage, Rejection> {
        if caller != account && !self.is_operator(&caller) {
            return Err(Rejection::forbidden(
                "only the operator can ask for another's statement",
            ));
        }
        let limit = limit.unwrap_or(ENTRIES_PER_PAGE);
        if !(1..=STATEMENT_PAGE_MAX).contains(&limit) {
            return Err(Rejection::invalid_request(format!(
                "limit must be 1 to {STATEMENT_PAGE_MAX}"
            )));
        }
        let page = self.ledger.history(&account, before, limit).await?;
        let next = page
            .last()
            .filter(|_| page.len() == limit)
            .map(|posted| posted.sequence);
        let mut entries = Vec::with_capacity(page.len());
        for posted in &page {
            entries.extend(self.statement_entry(&account, posted).await?);
        }
        Ok(StatementPage { entries, next })
    }

    async fn statement_entry(
        &self,
        account: &AccountId,
        posted: &Posted,
    ) -> Result<Option<StatementEntry>, Rejection> {
        if !has_reason(posted) {
            return Ok(statement_entry(account, posted, None));
        }
        let record = self.ledger.record(posted.sequence).await?;
        let entry = record.map(|record| Entry::decode_salted(&record.content));
        let Some(Ok(entry)) = entry else {
            return Err(Self::contradiction("an entry with a reason", posted.sequence));
        };
        Ok(statement_entry(account, posted, Some(&entry)))
    }

    /// The key that signs, and those that did: what they signed can be checked for ever.
    pub(crate) fn jwks(&self) -> JwkSet {
        let retired = self.signers.retired().rev();
        let keys = std::iter::once(self.operator()).chain(retired);
        JwkSet {
            keys: keys.map(|account| Jwk::of(&account)).collect(),
        }
    }
}
