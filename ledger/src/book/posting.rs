//! One entry on its way into the book: decided, moved, checked. A posting that fails is dropped without a trace.

use std::collections::BTreeMap;

use gristmill_protocol::credits::{Credits, CreditsError};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, GrantId};

use super::ApplyError;
use super::draft::Draft;
use super::state::{Balance, Channel, ChannelStatus, GrantState, Head};
use super::verify::BrokenInvariant;
use crate::digest::Digest;
use crate::entry::{CloseChannel, CloseReason, Entry, Grant, GrantKind, OpenChannel, Settle, Started};
use crate::outcome::{BookAccount, Closed, Effect, Extended, Granted, Opened, Settlement, Transfer};
use crate::refusal::Refusal;

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
    pub(super) accounts: BTreeMap<AccountId, Balance>,
    pub(super) channels: BTreeMap<ChannelId, Channel>,
    pub(super) grants: BTreeMap<GrantId, GrantState>,
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
            accounts: BTreeMap::new(),
            channels: BTreeMap::new(),
            grants: BTreeMap::new(),
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
        let content = Digest::of(&Entry::Grant(grant.clone()).encode());
        if let Some(given) = self.draft.grant(&grant.id) {
            if given.content == content {
                return Ok(Decision::Before(given.sequence));
            }
            return Err(Refusal::GrantConflict { grant: grant.id }.into());
        }
        let account = self.account(grant.account);
        if grant.kind == GrantKind::Starter {
            if account.starter_granted {
                return Err(Refusal::StarterAlreadyGranted {
                    account: grant.account,
                }
                .into());
            }
            account.starter_granted = true;
        }
        self.transfer(
            BookAccount::Issuance,
            BookAccount::Available(grant.account),
            grant.amount,
        )?;
        let account = self.account(grant.account);
        account.granted = plus(account.granted, grant.amount)?;
        self.grants.insert(
            grant.id,
            GrantState {
                content,
                sequence: self.head.sequence,
            },
        );
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
        self.account(open.provider);
        self.channels.insert(open.channel, self.new_channel(open));
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
        if voucher.cumulative > limit {
            return Err(Refusal::AboveLimit {
                channel: id,
                limit,
                cumulative: voucher.cumulative,
            }
            .into());
        }
        if let (Some(sequence), true) = (before.settled_sequence, voucher.cumulative <= settled_before) {
            return Ok(Decision::Before(sequence));
        }
        if !before.is_open() {
            return Err(Refusal::ChannelClosed {
                channel: id,
                settled: settled_before,
            }
            .into());
        }

        let settled_after = voucher.cumulative;
        let amount = minus(settled_after, settled_before)?;
        // The fee of the sum less the fee of the sum before: how vouchers are batched never changes what is kept.
        let fee = minus(
            settled_after.basis_points(fee_basis_points),
            settled_before.basis_points(fee_basis_points),
        )?;
        let share = minus(amount, fee)?;
        let settled = self.head.totals.settled;
        let exhausted = |_| Refusal::TurnoverExhausted {
            settled,
            wanted: amount,
        };
        self.head.totals.settled = settled.checked_add(amount).map_err(exhausted)?;
        self.transfer(BookAccount::Held(id), BookAccount::Available(provider), share)?;
        self.transfer(BookAccount::Held(id), BookAccount::Fees, fee)?;
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
        if let ChannelStatus::Closed { sequence, .. } = before.status {
            return Ok(Decision::Before(sequence));
        }
        let redeem_by_ms = before.extended_redeem_by_ms(self.head.downtime_ms);
        if close.reason == CloseReason::Expired && self.head.last_time_ms <= redeem_by_ms {
            return Err(Refusal::NotExpired {
                channel: id,
                redeem_by_ms,
            }
            .into());
        }
        let (returned, settled) = (before.held, before.settled);
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

    const fn started(&mut self, started: Started) -> Decision {
        let Started { downtime_ms } = started;
        self.head.downtime_ms = self.head.downtime_ms.saturating_add(downtime_ms);
        Decision::Now(Effect::Extended(Extended { downtime_ms }))
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
        self.accounts.entry(id).or_insert_with(|| {
            draft.account(&id).unwrap_or_else(|| {
                totals.accounts += 1;
                Balance::default()
            })
        })
    }

    /// The channel to change, which the caller knows to exist.
    fn channel(&mut self, id: ChannelId) -> Result<&mut Channel, BrokenInvariant> {
        if !self.channels.contains_key(&id) {
            let channel = self.draft.channel(&id).ok_or(BrokenInvariant::Channel(id))?;
            self.channels.insert(id, channel.clone());
        }
        self.channels.get_mut(&id).ok_or(BrokenInvariant::Channel(id))
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
