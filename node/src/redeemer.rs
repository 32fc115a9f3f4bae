//! Hands vouchers in as [`RedemptionPlan`] says, and keeps the receipts.

use std::sync::Arc;
use std::time::Duration;

use gristmill_ledger::journal::JournalError;
use gristmill_protocol::coordinator_api::{RECEIPTS_PER_PAGE_MAX, SettlementResult};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Signed};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::jws::TokenError;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_protocol::tokens::ReceiptClaims;
use gristmill_protocol::voucher::Voucher;
use gristmill_transport::coordinator_client::verify_by_any;
use gristmill_transport::witness::Witness;
use gristmill_transport::{Clock, CoordinatorCallError, CoordinatorClient};
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::core::earnings::KeptReceipt;
use crate::core::redemption::{RedemptionPlan, batch};
use crate::known_coordinator::KnownCoordinator;
use crate::prover::own_receipt;
use crate::receipt_file::ReceiptFile;
use crate::voucher_file::{VoucherFile, VoucherFileError};

/// How often the plan is asked: a voucher that makes it urgent may have come.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Most pages of receipts fetched at once to find missing ones.
const PAGES_MAX: usize = 10;
/// Most calls of one round: what comes meanwhile is for the next one.
const CALLS_MAX: usize = 100;

/// What a hand-in brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Redemption {
    /// How many vouchers were handed in.
    pub vouchers: usize,
    /// What consumers paid with them, in microcredits.
    pub paid: Credits,
    /// The part of it that went to the coordinator, in microcredits.
    pub fee: Credits,
    /// How many were refused for good.
    pub refused: usize,
}

/// Why vouchers were not handed in. They are kept, and handed in later.
#[derive(Clone, Debug, Error)]
pub enum RedeemError {
    /// The coordinator has not been reached since the start.
    #[error("the coordinator has not been reached yet; vouchers are kept until it is")]
    NoCoordinator,
    /// The call failed.
    #[error("vouchers could not be handed in: {0}")]
    Call(#[from] CoordinatorCallError),
    /// A receipt is not what it should be.
    #[error("the coordinator's receipt for channel {channel} is not valid: {reason}")]
    InvalidReceipt {
        /// The channel.
        channel: ChannelId,
        /// What is wrong with it.
        reason: String,
    },
    /// The answer is about other channels than the vouchers.
    #[error("the coordinator's answer is about another channel than {0}")]
    OtherChannel(ChannelId),
    /// The disk failed.
    #[error("receipts can't be kept on disk: {0}")]
    Disk(Arc<JournalError>),
    /// The disk failed earlier.
    #[error("{0}")]
    Vouchers(String),
    /// The node is stopping.
    #[error("the node has stopped")]
    Stopped,
}

impl From<VoucherFileError> for RedeemError {
    fn from(error: VoucherFileError) -> Self {
        Self::Vouchers(error.to_string())
    }
}

/// A request to hand in everything now.
pub(crate) type RedeemNow = oneshot::Sender<Result<Redemption, RedeemError>>;

/// Hands vouchers in.
pub(crate) struct Redeemer {
    pub(crate) client: Arc<CoordinatorClient>,
    pub(crate) clock: Clock,
    pub(crate) vouchers: Arc<VoucherFile>,
    pub(crate) receipts: ReceiptFile,
    pub(crate) coordinator: KnownCoordinator,
    pub(crate) witness: Witness,
    pub(crate) interval: Duration,
}

impl Redeemer {
    /// Hands in until told to stop.
    pub(crate) async fn run(self, mut requests: mpsc::Receiver<RedeemNow>, stop: CancellationToken) {
        let interval_ms = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX);
        let mut plan = RedemptionPlan::new(interval_ms, (self.clock)());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                Some(answer) = requests.recv() => {
                    // Whoever asked may have gone.
                    let _ = answer.send(self.redeem(&mut plan).await);
                }
                () = self.due(&plan) => {
                    if let Err(error) = self.redeem(&mut plan).await {
                        tracing::warn!(%error, "vouchers are kept and handed in later");
                    }
                }
            }
        }
    }

    /// Returns when it is time to hand in.
    async fn due(&self, plan: &RedemptionPlan) {
        loop {
            let coordinator = self.coordinator.borrow().clone();
            let wake_ms =
                coordinator.and_then(|keys| self.vouchers.with_book(|book| plan.wake_ms(book, keys.first())));
            let left_ms = wake_ms.map(|wake_ms| wake_ms.saturating_sub((self.clock)()));
            match left_ms {
                Some(0) => return,
                Some(left_ms) => tokio::time::sleep(Duration::from_millis(left_ms).min(LOOK_AGAIN)).await,
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    async fn redeem(&self, plan: &mut RedemptionPlan) -> Result<Redemption, RedeemError> {
        let result = self.hand_in_everything().await;
        match &result {
            Ok(_) => plan.succeeded((self.clock)()),
            Err(_) => plan.failed((self.clock)(), rand::random()),
        }
        result
    }

    /// Hands in everything pending, batch by batch, and syncs what came of it.
    async fn hand_in_everything(&self) -> Result<Redemption, RedeemError> {
        let known = self.coordinator.borrow().clone();
        let keys = known.ok_or(RedeemError::NoCoordinator)?;
        let mut redemption = Redemption::default();
        for _ in 0..CALLS_MAX {
            let batch = self.vouchers.with_book(|book| batch(book, keys.first()));
            if batch.is_empty() {
                break;
            }
            self.hand_in(&batch, &keys, &mut redemption).await?;
        }
        self.vouchers.sync().await?;
        if redemption.vouchers > 0 {
            tracing::info!(
                vouchers = redemption.vouchers,
                paid = %redemption.paid,
                fee = %redemption.fee,
                refused = redemption.refused,
                "vouchers handed in"
            );
        }
        Ok(redemption)
    }

    async fn hand_in(
        &self,
        batch: &[Signed<Voucher>],
        keys: &LogKeys,
        redemption: &mut Redemption,
    ) -> Result<(), RedeemError> {
        let answer = self.client.settle(batch).await?;
        let (mut receipts, mut settled, mut receipts_missing) = (Vec::new(), Vec::new(), false);
        for (voucher, result) in batch.iter().zip(answer.results) {
            let voucher = voucher.content_unchecked();
            match result {
                SettlementResult::Settled {
                    channel,
                    settled: amount,
                    receipt,
                } => {
                    let receipt = self.check(receipt, voucher, keys).await?;
                    redemption.paid = redemption.paid.saturating_add(receipt.paid);
                    redemption.fee = redemption.fee.saturating_add(receipt.fee);
                    settled.push((same(channel, voucher)?, amount));
                    receipts.push(receipt);
                }
                SettlementResult::Unchanged {
                    channel,
                    settled: amount,
                } => {
                    let channel = same(channel, voucher)?;
                    let receipted = self
                        .receipts
                        .with_earnings(|earnings| earnings.receipted(&channel));
                    receipts_missing = receipts_missing || receipted < amount;
                    settled.push((channel, amount));
                }
                SettlementResult::Refused { code, message } => {
                    tracing::warn!(
                        channel = %voucher.channel,
                        promised = %voucher.cumulative,
                        code,
                        message,
                        "the coordinator refused a voucher for good; it is written off"
                    );
                    redemption.refused += 1;
                    self.vouchers.note_refused(voucher.channel, message);
                }
            }
        }
        redemption.vouchers += batch.len();
        if receipts_missing {
            receipts.extend(self.missing_receipts(keys).await?);
        }
        // The receipt before the note that makes the voucher be handed in no more: were it lost, it would be fetched.
        self.keep(receipts).await?;
        for (channel, amount) in settled {
            self.vouchers.note_settled(channel, amount);
        }
        Ok(())
    }

    /// What a receipt says. Where it is signed by an unknown key, the coordinator is asked for its keys first.
    async fn check(
        &self,
        token: String,
        voucher: &Voucher,
        keys: &LogKeys,
    ) -> Result<KeptReceipt, RedeemError> {
        let invalid = |reason: String| RedeemError::InvalidReceipt {
            channel: voucher.channel,
            reason,
        };
        let account = self.client.account();
        let verify = |key: &AccountId| ReceiptClaims::verify(&token, key, &account, (self.clock)());
        let verified = match verify_by_any(keys, verify) {
            Err(TokenError::Signature) if self.client.refresh_keys().await => {
                let keys = self.client.log_keys().await?;
                verify_by_any(&keys, verify)
            }
            verified => verified,
        };
        let mut claims = verified.map_err(|error| invalid(error.to_string()))?;
        claims.iss = *keys.first();
        if claims.channel != voucher.channel || claims.sub != account {
            return Err(invalid("it is for another channel or provider".to_owned()));
        }
        Ok(KeptReceipt::new(&claims, token))
    }

    /// Receipts of settlements whose answers were lost on the way, the newest first, until they are known.
    async fn missing_receipts(&self, keys: &LogKeys) -> Result<Vec<KeptReceipt>, RedeemError> {
        let (account, now_ms) = (self.client.account(), (self.clock)());
        let (mut missing, mut before) = (Vec::new(), None);
        for _ in 0..PAGES_MAX {
            let page = self.client.receipts(before, RECEIPTS_PER_PAGE_MAX).await?;
            let mut found_new = false;
            for token in page.receipts {
                // Receipts over what this account has spent are on the same pages.
                let verify = |key: &AccountId| ReceiptClaims::verify(&token, key, &account, now_ms);
                let is_kept = |sequence| {
                    self.receipts
                        .with_earnings(|earnings| earnings.has(keys.first(), sequence))
                };
                if let Ok(mut claims) = verify_by_any(keys, verify)
                    && claims.sub == account
                    && !is_kept(claims.sequence)
                {
                    claims.iss = *keys.first();
                    missing.push(KeptReceipt::new(&claims, token));
                    found_new = true;
                }
            }
            before = page.next;
            if before.is_none() || !found_new {
                break;
            }
        }
        Ok(missing)
    }

    async fn keep(&self, receipts: Vec<KeptReceipt>) -> Result<(), RedeemError> {
        let (file, now_ms) = (self.receipts.clone(), (self.clock)());
        let to_prove = receipts.iter().map(own_receipt).collect();
        let kept = tokio::task::spawn_blocking(move || file.keep(receipts, now_ms)).await;
        match kept {
            Ok(kept) => kept.map_err(|error| RedeemError::Disk(Arc::new(error)))?,
            Err(_) => return Err(RedeemError::Stopped),
        }
        self.witness.prove(to_prove).await;
        Ok(())
    }
}

fn same(channel: ChannelId, voucher: &Voucher) -> Result<ChannelId, RedeemError> {
    if channel == voucher.channel {
        Ok(channel)
    } else {
        Err(RedeemError::OtherChannel(voucher.channel))
    }
}
