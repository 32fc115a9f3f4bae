//! Accounts: opening one, balances, and grants.

use gristmill_ledger::entry::{Entry, Grant, GrantKind};
use gristmill_ledger::ledger::PostError;
use gristmill_ledger::refusal::Refusal;
use gristmill_protocol::coordinator_api::{AccountView, GrantRequest};
use gristmill_protocol::identity::AccountId;

use super::{Service, lock};
use crate::core::rejection::Rejection;
use crate::core::starter_budget::{StarterDecision, starter_grant_id};

impl Service {
    /// Opens an account: gives it the starter grant where there is one that it has not had. An account without
    /// credits needs no record.
    pub(crate) async fn open_account(&self, account: AccountId) -> Result<AccountView, Rejection> {
        if !self.ledger.balance(&account).starter_granted {
            self.give_starter_grant(account).await?;
        }
        Ok(self.view(account))
    }

    async fn give_starter_grant(&self, account: AccountId) -> Result<(), Rejection> {
        let decision = lock(&self.starter).decide(self.clock.now_ms());
        let amount = match decision {
            StarterDecision::Give(amount) => amount,
            StarterDecision::Off => return Ok(()),
            StarterDecision::Exhausted => {
                tracing::debug!(%account, "today's budget for starter grants is used up");
                return Ok(());
            }
        };
        let id = starter_grant_id(&account);
        let grant = Grant {
            id,
            account,
            amount,
            kind: GrantKind::Starter,
            reason: "starter grant".into(),
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
            )) => {
                lock(&self.starter).give_back();
                Ok(())
            }
            Err(PostError::Refused(refusal)) => {
                lock(&self.starter).give_back();
                Err(refusal.into())
            }
            // It may have been given: the budget keeps counting it.
            Err(error) => Err(error.into()),
        }
    }

    /// An account as its owner or the operator sees it.
    pub(crate) fn account(&self, caller: AccountId, account: AccountId) -> Result<AccountView, Rejection> {
        if caller != account && !self.is_operator(&caller) {
            return Err(Rejection::forbidden(
                "only the operator can ask for another's account",
            ));
        }
        Ok(self.view(account))
    }

    fn view(&self, account: AccountId) -> AccountView {
        let balance = self.ledger.balance(&account);
        AccountView {
            account,
            available: balance.available,
            held: balance.held,
            starter_granted: balance.starter_granted,
        }
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
        };
        let posted = self.post(Entry::Grant(grant)).await?;
        tracing::info!(%account, %amount, grant = %id, repeated = posted.repeated, "credits granted");
        Ok(self.view(account))
    }
}
