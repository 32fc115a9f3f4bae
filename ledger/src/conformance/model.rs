//! A book that is too simple to be wrong: lists that are searched from the front, sums that are added up anew each
//! time. Written from what the entries promise, without a line of [`Book`](crate::book::Book).

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, EntryId};

use crate::entry::{CloseReason, Entry, GrantKind};

const MAX: i128 = (1 << 53) - 1;
const DAY_MS: u64 = 86_400_000;

/// Where microcredits can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere yet.
    Outside,
    /// With the coordinator.
    Fees,
    /// Free to be spent by this account.
    Free(AccountId),
    /// Put aside in this channel.
    Aside(ChannelId),
}

/// So many microcredits went from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movement {
    /// By which entry.
    pub sequence: u64,
    /// Where they were.
    pub from: Place,
    /// Where they are.
    pub to: Place,
    /// How many.
    pub amount: i128,
}

/// A channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelChannel {
    /// Its name.
    pub id: ChannelId,
    /// Who pays.
    pub consumer: AccountId,
    /// Who is paid.
    pub provider: AccountId,
    /// Most that is paid.
    pub limit: i128,
    /// The coordinator's share in 1/10,000.
    pub basis_points: i128,
    /// What was paid.
    pub paid: i128,
    /// By which entry last.
    pub paid_by: Option<u64>,
    /// Until when, as agreed.
    pub redeem_by_ms: u64,
    /// All interruptions before it.
    pub downtime_before_ms: u64,
    /// Tells the request that opened it.
    pub request: [u8; 32],
    /// Which entry opened it.
    pub opened_by: u64,
    /// Which entry closed it.
    pub closed_by: Option<u64>,
}

/// What becomes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It is the next one.
    New,
    /// It was there before, under this sequence.
    Before(u64),
    /// It is refused with this code.
    Refused(&'static str),
}

/// The book.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// How many entries it has.
    pub sequence: u64,
    /// All that ever moved.
    pub movements: Vec<Movement>,
    /// All channels, in the order in which they were opened.
    pub channels: Vec<ModelChannel>,
    /// All interruptions together.
    pub downtime_ms: u64,
    /// Everybody who was ever named.
    pub known: Vec<AccountId>,
    /// Who is frozen.
    pub frozen: Vec<AccountId>,
    /// Who had a starter grant.
    pub started: Vec<AccountId>,
    /// Which entries concern whom, and whether they are payments.
    pub concerns: Vec<(u64, AccountId, bool)>,
    names: Vec<(EntryId, Vec<u8>, u64)>,
    starter_days: Vec<(u64, i128)>,
    signer: Option<(AccountId, AccountId)>,
}

impl Model {
    /// What is at a place.
    #[must_use]
    pub fn at(&self, place: Place) -> i128 {
        let into: i128 = self
            .movements
            .iter()
            .filter(|it| it.to == place)
            .map(|it| it.amount)
            .sum();
        let out: i128 = self
            .movements
            .iter()
            .filter(|it| it.from == place)
            .map(|it| it.amount)
            .sum();
        into - out
    }

    /// What all channels of a consumer hold.
    #[must_use]
    pub fn aside(&self, consumer: AccountId) -> i128 {
        let own = self
            .channels
            .iter()
            .filter(|channel| channel.consumer == consumer);
        own.map(|channel| self.at(Place::Aside(channel.id))).sum()
    }

    /// What an account was granted.
    #[must_use]
    pub fn granted(&self, account: AccountId) -> i128 {
        self.moved(|it| it.from == Place::Outside && it.to == Place::Free(account))
    }

    /// What an account earned as a provider.
    #[must_use]
    pub fn earned(&self, account: AccountId) -> i128 {
        let payment = |it: &Movement| matches!(it.from, Place::Aside(_)) && !self.gave_back(it);
        self.moved(|it| it.to == Place::Free(account) && payment(it))
    }

    /// What an account paid as a consumer.
    #[must_use]
    pub fn spent(&self, account: AccountId) -> i128 {
        let own = self.channels.iter().filter(|channel| channel.consumer == account);
        own.map(|channel| channel.paid).sum()
    }

    fn moved(&self, which: impl Fn(&Movement) -> bool) -> i128 {
        self.movements
            .iter()
            .filter(|it| which(it))
            .map(|it| it.amount)
            .sum()
    }

    /// Whether this was what was left of a channel at its end.
    fn gave_back(&self, movement: &Movement) -> bool {
        self.channels
            .iter()
            .any(|channel| channel.closed_by == Some(movement.sequence))
    }

    /// A channel.
    #[must_use]
    pub fn channel(&self, id: ChannelId) -> Option<&ModelChannel> {
        self.channels.iter().find(|channel| channel.id == id)
    }

    /// Until when a channel can be redeemed.
    #[must_use]
    pub fn redeem_until_ms(&self, channel: &ModelChannel) -> u64 {
        channel
            .redeem_by_ms
            .saturating_add(self.downtime_ms - channel.downtime_before_ms)
    }

    /// Open channels whose time is over, the longest expired first.
    #[must_use]
    pub fn expired(&self, now_ms: u64) -> Vec<ChannelId> {
        let when = |channel: &ModelChannel| {
            i128::from(channel.redeem_by_ms) - i128::from(channel.downtime_before_ms)
        };
        let mut late: Vec<&ModelChannel> = self
            .channels
            .iter()
            .filter(|channel| channel.closed_by.is_none())
            .filter(|channel| when(channel) + i128::from(self.downtime_ms) < i128::from(now_ms))
            .collect();
        late.sort_by_key(|channel| (when(channel), channel.id));
        late.into_iter().map(|channel| channel.id).collect()
    }

    /// Which entries concern an account, the newest first.
    #[must_use]
    pub fn history(&self, account: AccountId, payments_only: bool) -> Vec<u64> {
        let mut own: Vec<u64> = self
            .concerns
            .iter()
            .filter(|(_, whom, payment)| *whom == account && (*payment || !payments_only))
            .map(|(sequence, _, _)| *sequence)
            .collect();
        own.dedup();
        own.reverse();
        own
    }

    /// Posts an entry that is valid in itself.
    pub fn post(&mut self, entry: &Entry, time_ms: u64) -> Expected {
        let before = self.clone();
        self.sequence += 1;
        let expected = self.decide(entry, time_ms);
        if expected != Expected::New {
            *self = before;
        }
        expected
    }

    fn decide(&mut self, entry: &Entry, time_ms: u64) -> Expected {
        match entry {
            Entry::Grant(grant) => {
                let amount = i128::from(grant.amount.microcredits());
                if let Some(answer) = self.name(grant.id.into(), entry, "grant_conflict") {
                    return answer;
                }
                if grant.kind == GrantKind::Starter {
                    if self.started.contains(&grant.account) {
                        return Expected::Refused("starter_already_granted");
                    }
                    // The latest day that was seen counts, also for who comes with an earlier time.
                    let latest = self.starter_days.iter().map(|(day, _)| *day).max().unwrap_or(0);
                    let day = latest.max(time_ms / DAY_MS);
                    let given: i128 = self
                        .starter_days
                        .iter()
                        .filter(|(when, _)| *when == day)
                        .map(|(_, amount)| amount)
                        .sum();
                    if given + amount > i128::from(grant.starter_daily_budget.microcredits()) {
                        return Expected::Refused("starter_budget_exhausted");
                    }
                    self.starter_days.push((day, amount));
                    self.started.push(grant.account);
                }
                if -self.at(Place::Outside) + amount > MAX {
                    return Expected::Refused("issuance_exhausted");
                }
                self.go(Place::Outside, Place::Free(grant.account), amount);
                self.concern(&[grant.account], false);
            }
            Entry::OpenChannel(open) => {
                if let Some(there) = self.channel(open.channel) {
                    if there.consumer == open.consumer && there.request == open.request_digest {
                        return Expected::Before(there.opened_by);
                    }
                    return Expected::Refused("channel_conflict");
                }
                if [open.consumer, open.provider]
                    .iter()
                    .any(|one| self.frozen.contains(one))
                {
                    return Expected::Refused("account_frozen");
                }
                let limit = i128::from(open.limit.microcredits());
                if self.at(Place::Free(open.consumer)) < limit {
                    return Expected::Refused("insufficient_credits");
                }
                self.go(Place::Free(open.consumer), Place::Aside(open.channel), limit);
                self.channels.push(ModelChannel {
                    id: open.channel,
                    consumer: open.consumer,
                    provider: open.provider,
                    limit,
                    basis_points: open.fee_basis_points.into(),
                    paid: 0,
                    paid_by: None,
                    redeem_by_ms: open.redeem_by_ms,
                    downtime_before_ms: self.downtime_ms,
                    request: open.request_digest,
                    opened_by: self.sequence,
                    closed_by: None,
                });
                self.concern(&[open.consumer, open.provider], false);
            }
            Entry::Settle(settle) => {
                let Some(position) = self.channels.iter().position(|one| one.id == settle.channel) else {
                    return Expected::Refused("unknown_channel");
                };
                let channel = self.channels[position];
                let promised = i128::from(settle.voucher.content_unchecked().cumulative.microcredits());
                if *settle.voucher.signer() != channel.consumer {
                    return Expected::Refused("wrong_signer");
                }
                if promised > channel.limit {
                    return Expected::Refused("above_limit");
                }
                if let Some(sequence) = channel.paid_by.filter(|_| promised <= channel.paid) {
                    return Expected::Before(sequence);
                }
                if channel.closed_by.is_some() {
                    return Expected::Refused("channel_closed");
                }
                let fee_of = |sum: i128| sum * channel.basis_points / 10_000;
                let fee = fee_of(promised) - fee_of(channel.paid);
                let amount = promised - channel.paid;
                let turnover: i128 = self.channels.iter().map(|one| one.paid).sum();
                if turnover + amount > MAX {
                    return Expected::Refused("turnover_exhausted");
                }
                let aside = Place::Aside(channel.id);
                self.go(aside, Place::Free(channel.provider), amount - fee);
                self.go(aside, Place::Fees, fee);
                self.channels[position].paid = promised;
                self.channels[position].paid_by = Some(self.sequence);
                self.concern(&[channel.consumer, channel.provider], true);
            }
            Entry::CloseChannel(close) => {
                let Some(position) = self.channels.iter().position(|one| one.id == close.channel) else {
                    return Expected::Refused("unknown_channel");
                };
                let channel = self.channels[position];
                if let Some(sequence) = channel.closed_by {
                    return Expected::Before(sequence);
                }
                if close.reason == CloseReason::Expired && time_ms <= self.redeem_until_ms(&channel) {
                    return Expected::Refused("not_expired");
                }
                let left = channel.limit - channel.paid;
                self.go(Place::Aside(channel.id), Place::Free(channel.consumer), left);
                self.channels[position].closed_by = Some(self.sequence);
                self.concern(&[channel.consumer, channel.provider], false);
            }
            Entry::Started(started) => {
                self.downtime_ms = self.downtime_ms.saturating_add(started.downtime_ms);
            }
            Entry::Freeze(freeze) => {
                if let Some(answer) = self.name(freeze.id, entry, "entry_conflict") {
                    return answer;
                }
                if self.frozen.contains(&freeze.account) {
                    return Expected::Refused("frozen_already");
                }
                self.frozen.push(freeze.account);
                self.concern(&[freeze.account], false);
            }
            Entry::Unfreeze(freeze) => {
                if let Some(answer) = self.name(freeze.id, entry, "entry_conflict") {
                    return answer;
                }
                if !self.frozen.contains(&freeze.account) {
                    return Expected::Refused("frozen_already");
                }
                self.frozen.retain(|frozen| *frozen != freeze.account);
                self.concern(&[freeze.account], false);
            }
            Entry::RotateKey(handover) => {
                let agreed = handover.by_old.content_unchecked();
                let (log, signs) = self.signer.unwrap_or((agreed.log, agreed.log));
                if agreed.log != log || agreed.old != signs {
                    return Expected::Refused("handover_invalid");
                }
                self.signer = Some((log, agreed.new));
                // Keys of the coordinator are no accounts for having signed.
                self.concerns.push((self.sequence, agreed.old, false));
                self.concerns.push((self.sequence, agreed.new, false));
            }
        }
        Expected::New
    }

    fn name(&mut self, name: EntryId, entry: &Entry, conflict: &'static str) -> Option<Expected> {
        let content = entry.encode();
        match self.names.iter().find(|(taken, _, _)| *taken == name) {
            Some((_, before, sequence)) if *before == content => Some(Expected::Before(*sequence)),
            Some(_) => Some(Expected::Refused(conflict)),
            None => {
                self.names.push((name, content, self.sequence));
                None
            }
        }
    }

    fn go(&mut self, from: Place, to: Place, amount: i128) {
        if amount > 0 {
            self.movements.push(Movement {
                sequence: self.sequence,
                from,
                to,
                amount,
            });
        }
    }

    fn concern(&mut self, accounts: &[AccountId], payment: bool) {
        for account in accounts {
            self.concerns.push((self.sequence, *account, payment));
            if !self.known.contains(account) {
                self.known.push(*account);
            }
        }
    }
}
