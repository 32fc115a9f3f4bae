//! One entry on its way into the book: decided, moved, checked. A posting that fails is dropped without a trace.

use std::convert::Infallible;

use gristmill_protocol::credits::{Credits, CreditsError};
use gristmill_protocol::handover::{HandoverError, SignedHandover};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, EntryId};
use gristmill_protocol::planted::{self, Bug};

use super::ApplyError;
use super::draft::Draft;
use super::state::{Balance, Channel, ChannelStatus, Head, NamedEntry, Signer};
use super::touched::Touched;
use super::verify::BrokenInvariant;
use crate::digest::Digest;
use crate::entry::{
    CloseChannel, CloseReason, Entry, Freeze, Grant, GrantKind, OpenChannel, Settle, Started,
};
use crate::outcome::{
    BookAccount, Closed, Effect, Extended, Frozen, Granted, KeyRotated, Opened, Settlement, Transfer,
};
use crate::refusal::Refusal;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

/// What becomes of an entry that is not refused.
pub(super) enum Decision {
    /// It takes effect.
    Now(Effect),
    /// It, or one that went further, took effect under this sequence.
    Before(u64),
}

/// One entry on its way into the book.
pub(super) struct Posting<'draft, 'book> {
    draft: &'draft Draft<'book>,
    pub(super) head: Head,
    pub(super) accounts: Touched<AccountId, Balance>,
    pub(super) channels: Touched<ChannelId, Channel>,
    pub(super) named: Touched<EntryId, NamedEntry>,
    pub(super) transfers: Vec<Transfer>,
}

impl<'draft, 'book> Posting<'draft, 'book> {
    pub(super) fn new(draft: &'draft Draft<'book>, time_ms: u64) -> Self {
        let mut head = draft.head();
        head.sequence += 1;
        head.last_time_ms = time_ms;
        Self {
            draft,
            head,
            accounts: Touched::new(),
            channels: Touched::new(),
            named: Touched::new(),
            transfers: Vec::new(),
        }
    }

    pub(super) fn decide(&mut self, entry: &Entry) -> Result<Decision, ApplyError> {
        match entry {
            Entry::Grant(grant) => self.grant(grant),
            Entry::OpenChannel(open) => self.open(open),
            Entry::Settle(settle) => self.settle(settle),
            Entry::CloseChannel(close) => self.close(close),
            Entry::Started(started) => Ok(self.started(*started)),
            Entry::Freeze(freeze) => self.freeze(entry, freeze, true),
            Entry::Unfreeze(freeze) => self.freeze(entry, freeze, false),
            Entry::RotateKey(handover) => self.rotate_key(handover),
        }
    }

    /// The invariants of everything that the entry touched.
    pub(super) fn check(&self) -> Result<(), BrokenInvariant> {
        self.head.totals.check()?;
        self.accounts
            .iter()
            .try_for_each(|(id, balance)| balance.check(id))?;
        self.channels
            .iter()
            .try_for_each(|(id, channel)| channel.check(id))
    }

    fn grant(&mut self, grant: &Grant) -> Result<Decision, ApplyError> {
        let entry = Entry::Grant(grant.clone());
        let conflict = Refusal::GrantConflict { grant: grant.id };
        if let Some(sequence) = self.take_name(grant.id.into(), &entry, conflict)? {
            return Ok(Decision::Before(sequence));
        }
        if grant.kind == GrantKind::Starter {
            self.count_starter_grant(grant)?;
        }
        self.transfer(
            BookAccount::Issuance,
            BookAccount::Available(grant.account),
            grant.amount,
        )?;
        let account = self.account(grant.account);
        account.granted = plus(account.granted, grant.amount)?;
        let Grant {
            id,
            account,
            amount,
            kind,
            ..
        } = *grant;
        Ok(Decision::Now(Effect::Granted(Granted {
            grant: id,
            account,
            amount,
            kind,
        })))
    }

    /// Takes a name for an entry; or says which sequence had the very same entry before.
    fn take_name(&mut self, name: EntryId, entry: &Entry, conflict: Refusal) -> Result<Option<u64>, Refusal> {
        let content = Digest::of(&entry.encode());
        match self.draft.named(&name) {
            Some(before) if before.content == content => Ok(Some(before.sequence)),
            Some(_) => Err(conflict),
            None => {
                let sequence = self.head.sequence;
                self.named.add(name, NamedEntry { content, sequence });
                Ok(None)
            }
        }
    }

    /// An account gets one starter grant, and all new accounts of a day together the day's budget.
    fn count_starter_grant(&mut self, grant: &Grant) -> Result<(), Refusal> {
        let account = self.account(grant.account);
        if account.starter_granted && !planted::is(Bug::StarterGrantedAgain) {
            return Err(Refusal::StarterAlreadyGranted {
                account: grant.account,
            });
        }
        account.starter_granted = true;
        let day = self.head.last_time_ms / DAY_MS;
        // A clock that is set back does not open yesterday's budget again.
        if day > self.head.starter_day {
            (self.head.starter_day, self.head.starter_given) = (day, Credits::ZERO);
        }
        let (given, budget) = (self.head.starter_given, grant.starter_daily_budget);
        let ignored = planted::is(Bug::StarterBudgetIgnored);
        match given.checked_add(grant.amount) {
            Ok(sum) if sum <= budget || ignored => self.head.starter_given = sum,
            _ => return Err(Refusal::StarterBudgetExhausted { given, budget }),
        }
        Ok(())
    }

    fn open(&mut self, open: &OpenChannel) -> Result<Decision, ApplyError> {
        if let Some(opened) = self.draft.channel(&open.channel) {
            let same =
                opened.terms.request_digest == open.request_digest && opened.terms.consumer == open.consumer;
            if same {
                return Ok(Decision::Before(opened.opened_sequence));
            }
            return Err(Refusal::ChannelConflict {
                channel: open.channel,
            }
            .into());
        }
        // Names the provider's account as one of the book even before it earns.
        for account in [open.consumer, open.provider] {
            if self.account(account).frozen {
                return Err(Refusal::AccountFrozen { account }.into());
            }
        }
        self.channels.add(open.channel, self.new_channel(open));
        self.head.totals.channels_open += 1;
        self.transfer(
            BookAccount::Available(open.consumer),
            BookAccount::Held(open.channel),
            open.limit,
        )?;
        Ok(Decision::Now(Effect::Opened(Opened {
            channel: open.channel,
            consumer: open.consumer,
            provider: open.provider,
            limit: open.limit,
            fee_basis_points: open.fee_basis_points,
            redeem_by_ms: open.redeem_by_ms,
        })))
    }

    fn new_channel(&self, open: &OpenChannel) -> Channel {
        Channel {
            terms: open.clone(),
            settled: Credits::ZERO,
            held: Credits::ZERO,
            opened_sequence: self.head.sequence,
            opened_at_ms: self.head.last_time_ms,
            downtime_at_open_ms: self.head.downtime_ms,
            settled_sequence: None,
            status: ChannelStatus::Open,
        }
    }

    fn settle(&mut self, settle: &Settle) -> Result<Decision, ApplyError> {
        let voucher = settle.voucher.content_unchecked();
        let id = settle.channel;
        let before = self
            .draft
            .channel(&id)
            .ok_or(Refusal::UnknownChannel { channel: id })?;
        let OpenChannel {
            consumer,
            provider,
            limit,
            fee_basis_points,
            ..
        } = before.terms;
        let settled_before = before.settled;
        if *settle.voucher.signer() != consumer {
            return Err(Refusal::WrongSigner {
                channel: id,
                consumer,
            }
            .into());
        }
        if voucher.cumulative > limit && !planted::is(Bug::SettledAboveLimit) {
            return Err(Refusal::AboveLimit {
                channel: id,
                limit,
                cumulative: voucher.cumulative,
            }
            .into());
        }
        let adds_up = planted::is(Bug::VouchersAddedUp);
        let is_settled = voucher.cumulative <= settled_before && !adds_up;
        if let (Some(sequence), true) = (before.settled_sequence, is_settled) {
            return Ok(Decision::Before(sequence));
        }
        if !before.is_open() {
            return Err(Refusal::ChannelClosed {
                channel: id,
                settled: settled_before,
            }
            .into());
        }

        let settled_after = match adds_up {
            true => plus(settled_before, voucher.cumulative)?,
            false => voucher.cumulative,
        };
        let amount = minus(settled_after, settled_before)?;
        // The fee of the sum less the fee of the sum before: how vouchers are batched never changes what is kept.
        let fee = match planted::is(Bug::FeeRoundedEachTime) {
            true => amount.basis_points(fee_basis_points),
            false => minus(
                settled_after.basis_points(fee_basis_points),
                settled_before.basis_points(fee_basis_points),
            )?,
        };
        let (share, fee_from) = match planted::is(Bug::FeeFromNothing) {
            true => (amount, BookAccount::Issuance),
            false => (minus(amount, fee)?, BookAccount::Held(id)),
        };
        let settled = self.head.totals.settled;
        let exhausted = |_| Refusal::TurnoverExhausted {
            settled,
            wanted: amount,
        };
        self.head.totals.settled = settled.checked_add(amount).map_err(exhausted)?;
        self.transfer(BookAccount::Held(id), BookAccount::Available(provider), share)?;
        self.transfer(fee_from, BookAccount::Fees, fee)?;
        let sequence = self.head.sequence;
        let channel = self.channel(id)?;
        channel.settled = settled_after;
        channel.settled_sequence = Some(sequence);
        let account = self.account(consumer);
        account.spent = plus(account.spent, amount)?;
        let account = self.account(provider);
        account.earned = plus(account.earned, share)?;
        Ok(Decision::Now(Effect::Settled(Settlement {
            channel: id,
            consumer,
            provider,
            settled_before,
            settled_after,
            amount,
            fee,
            request_id: voucher.request_id.clone(),
            transcript: Digest::from_bytes(voucher.transcript),
        })))
    }

    fn close(&mut self, close: &CloseChannel) -> Result<Decision, ApplyError> {
        let id = close.channel;
        let before = self
            .draft
            .channel(&id)
            .ok_or(Refusal::UnknownChannel { channel: id })?;
        let again = planted::is(Bug::HoldReturnedAgain);
        if let ChannelStatus::Closed { sequence, .. } = before.status
            && !again
        {
            return Ok(Decision::Before(sequence));
        }
        let redeem_by_ms = before.extended_redeem_by_ms(self.head.downtime_ms);
        let is_early = self.head.last_time_ms <= redeem_by_ms && !planted::is(Bug::ExpiredTooEarly);
        if close.reason == CloseReason::Expired && is_early {
            return Err(Refusal::NotExpired {
                channel: id,
                redeem_by_ms,
            }
            .into());
        }
        let settled = before.settled;
        let returned = match again {
            true => minus(before.terms.limit, settled)?,
            false => before.held,
        };
        let OpenChannel {
            consumer, provider, ..
        } = before.terms;
        self.transfer(BookAccount::Held(id), BookAccount::Available(consumer), returned)?;
        let Head {
            sequence,
            last_time_ms: closed_at_ms,
            ..
        } = self.head;
        self.channel(id)?.status = ChannelStatus::Closed {
            reason: close.reason,
            sequence,
            closed_at_ms,
        };
        self.head.totals.channels_open -= 1;
        self.head.totals.channels_closed += 1;
        let reason = close.reason;
        Ok(Decision::Now(Effect::Closed(Closed {
            channel: id,
            consumer,
            provider,
            settled,
            returned,
            reason,
        })))
    }

    fn started(&mut self, started: Started) -> Decision {
        let Started { downtime_ms } = started;
        if !planted::is(Bug::DowntimeForgotten) {
            self.head.downtime_ms = self.head.downtime_ms.saturating_add(downtime_ms);
        }
        Decision::Now(Effect::Extended(Extended { downtime_ms }))
    }

    fn freeze(&mut self, entry: &Entry, freeze: &Freeze, frozen: bool) -> Result<Decision, ApplyError> {
        let conflict = Refusal::EntryConflict { entry: freeze.id };
        if let Some(sequence) = self.take_name(freeze.id, entry, conflict)? {
            return Ok(Decision::Before(sequence));
        }
        let account = freeze.account;
        let balance = self.account(account);
        if balance.frozen == frozen {
            return Err(Refusal::FrozenAlready { account, frozen }.into());
        }
        balance.frozen = frozen;
        Ok(Decision::Now(Effect::Frozen(Frozen {
            entry: freeze.id,
            account,
            frozen,
        })))
    }

    fn rotate_key(&mut self, handover: &SignedHandover) -> Result<Decision, ApplyError> {
        let agreed = handover.by_old.content_unchecked();
        let (log, known) = self
            .head
            .signer
            .map_or((agreed.log, agreed.log), |signer| (signer.log, signer.now));
        if agreed.log != log {
            let other = HandoverError::OtherLog {
                actual: agreed.log,
                expected: log,
            };
            return Err(Refusal::from(other).into());
        }
        if agreed.old != known {
            let old = agreed.old;
            return Err(Refusal::from(HandoverError::NotFromKnown { old, known }).into());
        }
        self.head.signer = Some(Signer { log, now: agreed.new });
        Ok(Decision::Now(Effect::KeyRotated(KeyRotated {
            log,
            old: agreed.old,
            new: agreed.new,
        })))
    }

    /// Moves credits from one account of the book to another; nothing of nothing is not written down.
    fn transfer(&mut self, from: BookAccount, to: BookAccount, amount: Credits) -> Result<(), ApplyError> {
        if amount.is_zero() {
            return Ok(());
        }
        self.debit(from, amount)?;
        self.credit(to, amount)?;
        self.transfers.push(Transfer { from, to, amount });
        Ok(())
    }

    fn debit(&mut self, from: BookAccount, amount: Credits) -> Result<(), ApplyError> {
        match from {
            BookAccount::Issuance => {
                let issued = self.head.totals.issued;
                let exhausted = |_| Refusal::IssuanceExhausted {
                    issued,
                    wanted: amount,
                };
                self.head.totals.issued = issued.checked_add(amount).map_err(exhausted)?;
            }
            BookAccount::Fees => self.head.totals.fees = minus(self.head.totals.fees, amount)?,
            BookAccount::Available(account) => {
                let balance = self.account(account);
                let available = balance.available;
                let insufficient = |_| Refusal::InsufficientCredits {
                    available,
                    wanted: amount,
                };
                balance.available = available.checked_sub(amount).map_err(insufficient)?;
                self.head.totals.available = minus(self.head.totals.available, amount)?;
            }
            BookAccount::Held(id) => {
                let channel = self.channel(id)?;
                channel.held = minus(channel.held, amount)?;
                let consumer = channel.terms.consumer;
                let balance = self.account(consumer);
                balance.held = minus(balance.held, amount)?;
                self.head.totals.held = minus(self.head.totals.held, amount)?;
            }
        }
        Ok(())
    }

    fn credit(&mut self, to: BookAccount, amount: Credits) -> Result<(), ApplyError> {
        match to {
            BookAccount::Issuance => self.head.totals.issued = minus(self.head.totals.issued, amount)?,
            BookAccount::Fees => self.head.totals.fees = plus(self.head.totals.fees, amount)?,
            BookAccount::Available(account) => {
                let balance = self.account(account);
                balance.available = plus(balance.available, amount)?;
                self.head.totals.available = plus(self.head.totals.available, amount)?;
            }
            BookAccount::Held(id) => {
                let channel = self.channel(id)?;
                channel.held = plus(channel.held, amount)?;
                let consumer = channel.terms.consumer;
                let balance = self.account(consumer);
                balance.held = plus(balance.held, amount)?;
                self.head.totals.held = plus(self.head.totals.held, amount)?;
            }
        }
        Ok(())
    }

    /// The account to change, known or new.
    fn account(&mut self, id: AccountId) -> &mut Balance {
        let totals = &mut self.head.totals;
        let draft = self.draft;
        let known_or_new = || {
            let known = draft.account(&id);
            totals.accounts += u64::from(known.is_none());
            Ok::<_, Infallible>(known.unwrap_or_default())
        };
        match self.accounts.get_or_add(id, known_or_new) {
            Ok(balance) => balance,
            Err(never) => match never {},
        }
    }

    /// The channel to change, which the caller knows to exist.
    fn channel(&mut self, id: ChannelId) -> Result<&mut Channel, BrokenInvariant> {
        let draft = self.draft;
        let known = || draft.channel(&id).cloned().ok_or(BrokenInvariant::Channel(id));
        self.channels.get_or_add(id, known)
    }
}

/// A sum that cannot leave its range: what accounts hold is within what was issued, what they earned and spent
/// within what was settled, and those two are refused before they leave it.
fn plus(amount: Credits, more: Credits) -> Result<Credits, BrokenInvariant> {
    amount.checked_add(more).map_err(out_of_range)
}

/// A difference that cannot be negative by the rules above.
fn minus(amount: Credits, less: Credits) -> Result<Credits, BrokenInvariant> {
    amount.checked_sub(less).map_err(out_of_range)
}

fn out_of_range(_: CreditsError) -> BrokenInvariant {
    BrokenInvariant::OutOfRange
}
