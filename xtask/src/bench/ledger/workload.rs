//! Settlements to measure with: channels of many consumers, and vouchers that were signed beforehand, because signing
//! them is the consumers' work.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use gristmill_coordinator::core::documents::receipt;
use gristmill_ledger::Ledger;
use gristmill_ledger::entry::{CheckedEntry, Entry, Grant, GrantKind, OpenChannel, Settle};
use gristmill_ledger::outcome::{Effect, Posted};
use gristmill_ledger::store::PostError;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair, Signed};
use gristmill_protocol::ids::{ChannelId, GrantId};
use gristmill_protocol::job::RequestId;
use gristmill_protocol::voucher::Voucher;

/// Consumers, and as many providers.
pub(super) const ACCOUNTS: u8 = 100;
/// Channels. Each consumer has as many as any other.
pub(super) const CHANNELS: u64 = 1_000;
const CHANNEL_LIMIT: Credits = Credits::micro(u32::MAX);
const FEE_BASIS_POINTS: u16 = 200;

/// Everybody who takes part.
pub(super) struct Market {
    pub(super) coordinator: Keypair,
    consumers: Vec<Keypair>,
}

/// Vouchers of some channels, in the order in which they have to be settled.
pub(super) type Queue = Vec<Signed<Voucher>>;

impl Market {
    pub(super) fn new() -> Self {
        let consumers = (0..ACCOUNTS).map(|name| keypair(1, name)).collect();
        Self {
            coordinator: keypair(0, 0),
            consumers,
        }
    }

    fn consumer(&self, channel: u64) -> &Keypair {
        let names = u64::from(ACCOUNTS);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "smaller than the number of accounts"
        )]
        let name = (channel % names) as usize;
        &self.consumers[name]
    }

    pub(super) fn consumer_account(&self, channel: u64) -> AccountId {
        self.consumer(channel).account()
    }

    /// The entries before the first settlement: a grant for each consumer, and every channel.
    pub(super) fn opening(&self) -> Vec<Entry> {
        let grants = self.consumers.iter().zip(0u128..).map(|(consumer, id)| {
            Entry::Grant(Grant {
                id: GrantId::from_bytes(id.to_le_bytes()),
                account: consumer.account(),
                amount: microcredits(CHANNEL_LIMIT.microcredits() * (CHANNELS / u64::from(ACCOUNTS))),
                kind: GrantKind::Operator,
                reason: "benchmark".into(),
                starter_daily_budget: Credits::ZERO,
            })
        });
        let channels = (0..CHANNELS).map(|channel| Entry::OpenChannel(self.terms(channel)));
        grants.chain(channels).collect()
    }

    pub(super) fn terms(&self, channel: u64) -> OpenChannel {
        OpenChannel {
            channel: channel_id(channel),
            consumer: self.consumer_account(channel),
            provider: provider(channel),
            limit: CHANNEL_LIMIT,
            fee_basis_points: FEE_BASIS_POINTS,
            redeem_by_ms: u64::MAX / 2,
            request_digest: [7; 32],
        }
    }

    /// The voucher number `round` of a channel.
    pub(super) fn voucher(&self, channel: u64, round: u32) -> Signed<Voucher> {
        self.consumer(channel).sign(voucher(channel, round))
    }

    /// Vouchers for so many rounds over all channels from round `first` on, spread over so many queues, signed on all
    /// cores.
    pub(super) fn queues(&self, queues: usize, first: u32, rounds: u32) -> Vec<Queue> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut all: Vec<Queue> = vec![Vec::new(); queues];
        let mut parts: Vec<Vec<(usize, &mut Queue)>> = (0..cores).map(|_| Vec::new()).collect();
        for (number, queue) in all.iter_mut().enumerate() {
            parts[number % cores].push((number, queue));
        }
        std::thread::scope(|scope| {
            for part in parts {
                scope.spawn(move || {
                    for (number, queue) in part {
                        let channels = (0..CHANNELS).skip(number).step_by(queues);
                        for round in first..first + rounds {
                            queue.extend(channels.clone().map(|channel| self.voucher(channel, round)));
                        }
                    }
                });
            }
        });
        all
    }

    /// What a coordinator does for one voucher: verified and journaled by the ledger, then the receipt is signed.
    /// Gives how long the ledger took to acknowledge the verified entry.
    pub(super) async fn settle(&self, ledger: &Ledger, voucher: Signed<Voucher>) -> anyhow::Result<Duration> {
        let entry = checked(voucher)?;
        let started = Instant::now();
        let posted = post(ledger, entry).await?;
        let took = started.elapsed();
        self.receipt_bytes(&posted)?;
        Ok(took)
    }

    /// Signs the receipt of a settlement, and says how long it is.
    pub(super) fn receipt_bytes(&self, posted: &Posted) -> anyhow::Result<usize> {
        match &posted.outcome.effect {
            Effect::Settled(settlement) => Ok(receipt(posted, settlement, &self.coordinator).len()),
            other => anyhow::bail!("a settlement was answered by {other:?}"),
        }
    }

    /// Brings a new ledger to where settlements begin.
    pub(super) async fn open(&self, ledger: &Ledger) -> anyhow::Result<()> {
        for entries in self.opening().chunks(128) {
            let posts = entries.iter().map(|entry| ledger.post(entry.clone(), now_ms()));
            for posted in futures::future::join_all(posts).await {
                posted.context("the market can't be opened")?;
            }
        }
        Ok(())
    }
}

/// The entry for a voucher, its signature verified.
pub(super) fn checked(voucher: Signed<Voucher>) -> anyhow::Result<CheckedEntry> {
    let channel = voucher.content_unchecked().channel;
    Ok(Entry::Settle(Settle { channel, voucher }).check()?)
}

/// Posts an entry, again and again where the ledger has no room: what a caller is told to do.
pub(super) async fn post(ledger: &Ledger, entry: CheckedEntry) -> anyhow::Result<Posted> {
    let store = ledger.store();
    loop {
        match store.post(entry.clone(), now_ms()).await {
            Err(PostError::Overloaded { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            posted => return Ok(posted?),
        }
    }
}

pub(super) fn voucher(channel: u64, round: u32) -> Voucher {
    Voucher {
        channel: channel_id(channel),
        cumulative: microcredits(u64::from(round) * 100),
        request_id: RequestId::from_random(u128::from(round).to_le_bytes()),
        transcript: [5; 32],
    }
}

pub(super) fn channel_id(channel: u64) -> ChannelId {
    ChannelId::from_bytes(u128::from(channel).to_be_bytes())
}

pub(super) fn provider(channel: u64) -> AccountId {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "smaller than the number of accounts"
    )]
    let name = (channel / u64::from(ACCOUNTS) % u64::from(ACCOUNTS)) as u8;
    keypair(2, name).account()
}

pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn microcredits(amount: u64) -> Credits {
    Credits::from_microcredits(amount).unwrap_or(Credits::MAX)
}

fn keypair(role: u8, name: u8) -> Keypair {
    let mut secret = [9; 32];
    secret[0] = role;
    secret[1] = name;
    Keypair::from_secret(&secret)
}
