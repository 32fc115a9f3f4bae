//! Settlement of vouchers, and receipts.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use gristmill_ledger::entry::{Entry, Settle};
use gristmill_ledger::outcome::{Effect, Posted};
use gristmill_ledger::refusal::Refusal;
use gristmill_ledger::store::PostError;
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

/// Vouchers of one call that are with the ledger at once.
const SETTLED_AT_ONCE: usize = 64;
/// How often, and how long each time, a settlement waits for room in the ledger: a second in all.
const OVERLOADED_ATTEMPTS: u32 = 100;
const OVERLOADED_WAIT: Duration = Duration::from_millis(10);
/// Receipts of a page unless the caller says how many.
const RECEIPTS_PER_PAGE: usize = 100;

impl Service {
    /// Settles a batch. So many of its entries are with the ledger at once that they share group commits, and so few
    /// that other calls find room.
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
            let settlements = request.vouchers.iter().map(|text| service.settle_one(text));
            let settle_all = stream::iter(settlements)
                .buffered(SETTLED_AT_ONCE)
                .collect::<Vec<_>>();
            Handle::current().block_on(settle_all.instrument(span))
        })
        .await
        .map_err(|error| {
            tracing::error!(%error, "settling failed");
            Rejection::internal()
        })?;
        let (results, log_indices): (Vec<_>, Vec<_>) = results
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .unzip();
        let settled = results
            .iter()
            .filter(|result| matches!(result, SettlementResult::Settled { .. }))
            .count();
        tracing::info!(vouchers = count, settled, "vouchers handed in");
        Ok(SettleAnswer { results, log_indices })
    }

    /// The result of one voucher, and the leaf of the settlement that paid it. Only a ledger that takes nothing fails
    /// the whole call: then the caller repeats it, and finds the receipts of what was settled all the same among its
    /// receipts.
    async fn settle_one(&self, text: &str) -> Result<(SettlementResult, Option<u64>), Rejection> {
        let voucher = match voucher_from_text(text) {
            Ok(voucher) => voucher,
            Err(error) => return Ok(refused("invalid_voucher", error.to_string())),
        };
        let channel = voucher.content_unchecked().channel;
        // Signatures cost a thousand times as much as these: garbage is refused without checking any.
        let consumer = self.ledger.channel(&channel).await?.map(|state| state.consumer);
        let posted = match consumer {
            None => Err(Refusal::UnknownChannel { channel }.into()),
            Some(consumer) if *voucher.signer() != consumer => {
                Err(Refusal::WrongSigner { channel, consumer }.into())
            }
            Some(_) => self.post_patiently(Settle { channel, voucher }).await,
        };
        match posted {
            Ok(posted) => Ok((self.settlement_result(&posted)?, posted.sequence.checked_sub(1))),
            Err(PostError::Refused(refusal)) => Ok(refused(refusal.code(), refusal.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Posts a settlement, and waits a while for room where the ledger has none: the caller has waited in the queue
    /// for it already, and would only come again with the same batch.
    async fn post_patiently(&self, settle: Settle) -> Result<Posted, PostError> {
        for _ in 0..OVERLOADED_ATTEMPTS {
            match self.post(Entry::Settle(settle.clone())).await {
                Err(PostError::Overloaded { .. }) => tokio::time::sleep(OVERLOADED_WAIT).await,
                posted => return posted,
            }
        }
        self.post(Entry::Settle(settle)).await
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
        let page = self.ledger.settlements(&account, before, limit).await?;
        let last = page
            .last()
            .filter(|_| page.len() == limit)
            .map(|posted| posted.sequence);
        let next = match last {
            Some(last) if !self.ledger.settlements(&account, Some(last), 1).await?.is_empty() => Some(last),
            _ => None,
        };
        let receipt_of = |posted: &Posted| match &posted.outcome.effect {
            Effect::Settled(settlement) => Ok(receipt(posted, settlement, &self.keypair)),
            _ => Err(Self::contradiction("a settlement", posted.sequence)),
        };
        Ok(ReceiptsPage {
            receipts: page.iter().map(receipt_of).collect::<Result<_, _>>()?,
            proofs: self.proofs(&page).await,
            next,
        })
    }
}

fn refused(code: &str, message: String) -> (SettlementResult, Option<u64>) {
    let code = code.to_owned();
    (SettlementResult::Refused { code, message }, None)
}
