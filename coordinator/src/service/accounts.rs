//! Accounts: opening one, balances, and grants.

use gristmill_ledger::entry::{Entry, Grant, GrantKind};
use gristmill_ledger::refusal::Refusal;
use gristmill_ledger::store::PostError;
use gristmill_protocol::coordinator_api::{AccountView, GrantRequest};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;

use super::Service;
use crate::core::rejection::Rejection;
use crate::core::starter_grant::starter_grant_id;

impl Service {
    /// Opens an account: gives it the starter grant where there is one that it has not had. An account without
    /// credits needs no record.
    pub(crate) async fn open_account(&self, account: AccountId) -> Result<AccountView, Rejection> {
        if !self.ledger.balance(&account).await?.starter_granted {
            self.give_starter_grant(account).await?;
        }
        self.view(account).await
    }

    /// The ledger counts what new accounts were given today, so that any number of coordinators together stay within
    /// the budget.
    async fn give_starter_grant(&self, account: AccountId) -> Result<(), Rejection> {
        let amount = self.settings.starter_grant;
        if amount.is_zero() {
            return Ok(());
        }
        let grant = Grant {
            id: starter_grant_id(&account),
            account,
            amount,
            kind: GrantKind::Starter,
            reason: "starter grant".into(),
            starter_daily_budget: self.settings.starter_daily_budget,
        };
        match self.post(Entry::Grant(grant)).await {
            Ok(posted) if !posted.repeated => {
                tracing::info!(%account, %amount, sequence = posted.sequence, "starter grant given");
                Ok(())
            }
            // Another call of the same account came first, maybe when the grant was of another amount.
            Ok(_)
            | Err(PostError::Refused(
                Refusal::StarterAlreadyGranted { .. } | Refusal::GrantConflict { .. },
            )) => Ok(()),
            Err(PostError::Refused(Refusal::StarterBudgetExhausted { .. })) => {
                tracing::debug!(%account, "today's budget for starter grants is used up");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An account as its owner or the operator sees it.
    pub(crate) async fn account(
        &self,
        caller: AccountId,
        account: AccountId,
    ) -> Result<AccountView, Rejection> {
        if caller != account && !self.is_operator(&caller) {
            return Err(Rejection::forbidden(
                "only the operator can ask for another's account",
            ));
        }
        self.view(account).await
    }

    pub(super) async fn view(&self, account: AccountId) -> Result<AccountView, Rejection> {
        let balance = self.ledger.balance(&account).await?;
        Ok(AccountView {
            account,
            available: balance.available,
            held: balance.held,
            starter_granted: balance.starter_granted,
            frozen: balance.frozen,
        })
    }

    /// Issues credits in the operator's name.
    pub(crate) async fn grant(
        &self,
        caller: AccountId,
        request: GrantRequest,
    ) -> Result<AccountView, Rejection> {
        if !self.is_operator(&caller) {
            return Err(Rejection::forbidden("only the operator's key can grant credits"));
        }
        let GrantRequest {
            grant: id,
            account,
            amount,
            reason,
        } = request;
        let grant = Grant {
            id,
            account,
            amount,
            kind: GrantKind::Operator,
            reason,
            starter_daily_budget: Credits::ZERO,
        };
        let posted = self.post(Entry::Grant(grant)).await?;
        tracing::info!(%account, %amount, grant = %id, repeated = posted.repeated, "credits granted");
        self.view(account).await
    }
}
