//! What an entry did, told again from its record and its row. Pure.
//!
//! Most of an outcome is in the record already. A row keeps the rest: who the parties are, and of a payment or an
//! ending two amounts. That this gives exactly what the book said is tested with everything the book can say.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;

use crate::digest::Digest;
use crate::entry::{CloseChannel, Entry, Freeze, Grant, OpenChannel, Settle};
use crate::outcome::{
    BookAccount, Closed, Effect, Extended, Frozen, Granted, KeyRotated, Opened, Outcome, Settlement, Transfer,
};

/// What of an outcome can't be told from the entry and the parties.
pub(super) const fn amounts(outcome: &Outcome) -> [Credits; 2] {
    match &outcome.effect {
        Effect::Settled(settled) => [settled.settled_before, settled.fee],
        Effect::Closed(closed) => [closed.settled, closed.returned],
        Effect::Granted(_)
        | Effect::Opened(_)
        | Effect::Extended(_)
        | Effect::Frozen(_)
        | Effect::KeyRotated(_) => [Credits::ZERO; 2],
    }
}

/// What the entry did to these parties; `None` where that can't be.
pub(super) fn outcome(entry: &Entry, parties: &[AccountId], amounts: [Credits; 2]) -> Option<Outcome> {
    let outcome = match entry {
        Entry::Grant(grant) => granted(grant),
        Entry::OpenChannel(open) => opened(open),
        Entry::Settle(settle) => settled(settle, parties, amounts)?,
        Entry::CloseChannel(close) => closed(close, parties, amounts)?,
        Entry::Started(started) => without_transfers(Effect::Extended(Extended {
            downtime_ms: started.downtime_ms,
        })),
        Entry::Freeze(freeze) => frozen(freeze, true),
        Entry::Unfreeze(freeze) => frozen(freeze, false),
        Entry::RotateKey(handover) => {
            let agreed = handover.by_old.content_unchecked();
            without_transfers(Effect::KeyRotated(KeyRotated {
                log: agreed.log,
                old: agreed.old,
                new: agreed.new,
            }))
        }
    };
    (outcome.parties() == parties).then_some(outcome)
}

fn granted(grant: &Grant) -> Outcome {
    let Grant {
        id,
        account,
        amount,
        kind,
        ..
    } = *grant;
    Outcome {
        transfers: transfers([(BookAccount::Issuance, BookAccount::Available(account), amount)]),
        effect: Effect::Granted(Granted {
            grant: id,
            account,
            amount,
            kind,
        }),
    }
}

fn opened(open: &OpenChannel) -> Outcome {
    let OpenChannel {
        channel,
        consumer,
        provider,
        limit,
        fee_basis_points,
        redeem_by_ms,
        ..
    } = *open;
    let held = (
        BookAccount::Available(consumer),
        BookAccount::Held(channel),
        limit,
    );
    Outcome {
        transfers: transfers([held]),
        effect: Effect::Opened(Opened {
            channel,
            consumer,
            provider,
            limit,
            fee_basis_points,
            redeem_by_ms,
        }),
    }
}

fn settled(settle: &Settle, parties: &[AccountId], [settled_before, fee]: [Credits; 2]) -> Option<Outcome> {
    let (consumer, provider) = both(parties)?;
    let voucher = settle.voucher.content_unchecked();
    let channel = settle.channel;
    let amount = voucher.cumulative.checked_sub(settled_before).ok()?;
    let share = amount.checked_sub(fee).ok()?;
    let held = BookAccount::Held(channel);
    Some(Outcome {
        transfers: transfers([
            (held, BookAccount::Available(provider), share),
            (held, BookAccount::Fees, fee),
        ]),
        effect: Effect::Settled(Settlement {
            channel,
            consumer,
            provider,
            settled_before,
            settled_after: voucher.cumulative,
            amount,
            fee,
            request_id: voucher.request_id.clone(),
            transcript: Digest::from_bytes(voucher.transcript),
        }),
    })
}

fn closed(close: &CloseChannel, parties: &[AccountId], [settled, returned]: [Credits; 2]) -> Option<Outcome> {
    let (consumer, provider) = both(parties)?;
    let CloseChannel { channel, reason } = *close;
    let back = (
        BookAccount::Held(channel),
        BookAccount::Available(consumer),
        returned,
    );
    Some(Outcome {
        transfers: transfers([back]),
        effect: Effect::Closed(Closed {
            channel,
            consumer,
            provider,
            settled,
            returned,
            reason,
        }),
    })
}

fn frozen(freeze: &Freeze, frozen: bool) -> Outcome {
    without_transfers(Effect::Frozen(Frozen {
        entry: freeze.id,
        account: freeze.account,
        frozen,
    }))
}

const fn without_transfers(effect: Effect) -> Outcome {
    Outcome {
        transfers: Vec::new(),
        effect,
    }
}

/// Consumer and provider, who may be the same.
fn both(parties: &[AccountId]) -> Option<(AccountId, AccountId)> {
    Some((*parties.first()?, *parties.last()?))
}

/// Nothing of nothing is not written down.
fn transfers<const COUNT: usize>(moved: [(BookAccount, BookAccount, Credits); COUNT]) -> Vec<Transfer> {
    moved
        .into_iter()
        .filter(|(_, _, amount)| !amount.is_zero())
        .map(|(from, to, amount)| Transfer { from, to, amount })
        .collect()
}
