//! Settlement of vouchers, and receipts.

use std::sync::Arc;

use futures::future::join_all;
use gristmill_ledger::entry::{Entry, Settle};
use gristmill_ledger::ledger::PostError;
use gristmill_ledger::outcome::{Effect, Posted};
use gristmill_ledger::refusal::Refusal;
use gristmill_protocol::coordinator_api::{
    RECEIPTS_PER_PAGE_MAX, ReceiptsPage, SettleAnswer, SettleRequest, SettlementResult,
    VOUCHERS_PER_CALL_MAX, voucher_from_text,
};
use gristmill_protocol::identity::AccountId;
use tokio::runtime::Handle;
use tracing::Instrument as _;

use super::Service;
use crate::core::documents::receipt;
use crate::core::rejection::Rejection;

/// Receipts of a page unless the caller says how many.
const RECEIPTS_PER_PAGE: usize = 100;

impl Service {
    /// Settles a batch. All its entries are handed to the ledger at once, so that they share its group commits.
    pub(crate) async fn settle(self: &Arc<Self>, request: SettleRequest) -> Result<SettleAnswer, Rejection> {
        let count = request.vouchers.len();
        if count > VOUCHERS_PER_CALL_MAX {
            return Err(Rejection::invalid_request(format!(
                "{count} vouchers are over the limit of {VOUCHERS_PER_CALL_MAX}; split the call"
            )));
        }
        let service = Arc::clone(self);
        // A thousand signatures take tens of milliseconds of computing, which would keep other calls waiting.
        let span = tracing::Span::current();
        let results = tokio::task::spawn_blocking(move || {
            let settle_all = join_all(request.vouchers.iter().map(|text| service.settle_one(text)));
            Handle::current().block_on(settle_all.instrument(span))
        })
        .await
        .map_err(|error| {
            tracing::error!(%error, "settling failed");
            Rejection::internal()
        })?;
        let results = results.into_iter().collect::<Result<Vec<_>, _>>()?;
        let settled = results
            .iter()
            .filter(|result| matches!(result, SettlementResult::Settled { .. }))
            .count();
        tracing::info!(vouchers = count, settled, "vouchers handed in");
        Ok(SettleAnswer { results })
    }

    /// The result of one voucher. Only a ledger that takes nothing fails the whole call: then the caller repeats it,
    /// and finds the receipts of what was settled all the same among its receipts.
    async fn settle_one(&self, text: &str) -> Result<SettlementResult, Rejection> {
        let voucher = match voucher_from_text(text) {
            Ok(voucher) => voucher,
            Err(error) => return Ok(refused("invalid_voucher", error.to_string())),
        };
        let channel = voucher.content_unchecked().channel;
        // Signatures cost a thousand times as much as these: garbage is refused without checking any.
        let consumer = self.ledger.channel(&channel).map(|state| state.consumer);
        let posted = match consumer {
            None => Err(Refusal::UnknownChannel { channel }.into()),
            Some(consumer) if *voucher.signer() != consumer => {
                Err(Refusal::WrongSigner { channel, consumer }.into())
            }
            Some(_) => self.post(Entry::Settle(Settle { channel, voucher })).await,
        };
        match posted {
            Ok(posted) => self.settlement_result(&posted),
            Err(PostError::Refused(refusal)) => Ok(refused(refusal.code(), refusal.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn settlement_result(&self, posted: &Posted) -> Result<SettlementResult, Rejection> {
        let Effect::Settled(settlement) = &posted.outcome.effect else {
            return Err(Self::contradiction("a settlement", posted.sequence));
        };
        let (channel, settled) = (settlement.channel, settlement.settled_after);
        Ok(if posted.repeated {
            SettlementResult::Unchanged { channel, settled }
        } else {
            SettlementResult::Settled {
                channel,
                settled,
                receipt: receipt(posted, settlement, &self.keypair),
            }
        })
    }

    /// A page of an account's receipts, newest first.
    pub(crate) async fn receipts(
        &self,
        account: AccountId,
        before: Option<u64>,
        limit: Option<usize>,
    ) -> Result<ReceiptsPage, Rejection> {
        let limit = limit.unwrap_or(RECEIPTS_PER_PAGE);
        if !(1..=RECEIPTS_PER_PAGE_MAX).contains(&limit) {
            return Err(Rejection::invalid_request(format!(
                "limit must be 1 to {RECEIPTS_PER_PAGE_MAX}"
            )));
        }
        let page = self.ledger.settlements(account, before, limit).await?;
        let last = page
            .last()
            .filter(|_| page.len() == limit)
            .map(|posted| posted.sequence);
        let next = match last {
            Some(last) if !self.ledger.settlements(account, Some(last), 1).await?.is_empty() => Some(last),
            _ => None,
        };
        let receipt_of = |posted: &Posted| match &posted.outcome.effect {
            Effect::Settled(settlement) => Ok(receipt(posted, settlement, &self.keypair)),
            _ => Err(Self::contradiction("a settlement", posted.sequence)),
        };
        Ok(ReceiptsPage {
            receipts: page.iter().map(receipt_of).collect::<Result<_, _>>()?,
            next,
        })
    }
}

fn refused(code: &str, message: String) -> SettlementResult {
    SettlementResult::Refused {
        code: code.to_owned(),
        message,
    }
}
