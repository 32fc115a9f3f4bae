//! Accounts, channels and entries that the suite uses, small enough to meet one another.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::handover::{KeyHandover, SignedHandover};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::{ChannelId, EntryId, GrantId};
use gristmill_protocol::job::RequestId;
use gristmill_protocol::voucher::Voucher;

use crate::entry::{
    CheckedEntry, CloseChannel, CloseReason, Entry, Freeze, Grant, GrantKind, OpenChannel, Settle, Started,
};

/// A consumer, mostly.
pub const ALICE: u8 = 1;
/// A provider, mostly.
pub const BOB: u8 = 2;
/// Somebody else.
pub const CAROL: u8 = 3;
/// Until when the channels here can be redeemed, Unix time in milliseconds.
pub const REDEEM_BY_MS: u64 = 1_000_000;
/// What may be given to new accounts in a day.
pub const STARTER_BUDGET: u32 = 1_000;

/// The key of somebody.
#[must_use]
pub fn keypair(name: u8) -> Keypair {
    Keypair::from_secret(&[name; 32])
}

/// The account of somebody.
#[must_use]
pub fn account(name: u8) -> AccountId {
    keypair(name).account()
}

/// The channel of this number.
#[must_use]
pub fn channel(id: u64) -> ChannelId {
    ChannelId::from_bytes(u128::from(id).to_le_bytes())
}

/// The entry's name of this number.
#[must_use]
pub fn name(id: u64) -> EntryId {
    EntryId::from_bytes(u128::from(id).to_le_bytes())
}

/// A grant by the operator.
#[must_use]
pub fn grant(id: u64, to: u8, amount: u32) -> Entry {
    grant_of(id, to, Credits::micro(amount), GrantKind::Operator)
}

/// A grant to a new account.
#[must_use]
pub fn starter(id: u64, to: u8, amount: u32) -> Entry {
    grant_of(id, to, Credits::micro(amount), GrantKind::Starter)
}

/// A grant.
#[must_use]
pub fn grant_of(id: u64, to: u8, amount: Credits, kind: GrantKind) -> Entry {
    Entry::Grant(Grant {
        id: GrantId::from_bytes(u128::from(id).to_le_bytes()),
        account: account(to),
        amount,
        kind,
        reason: "test".into(),
        starter_daily_budget: Credits::micro(STARTER_BUDGET),
    })
}

/// A channel from Alice to Bob.
#[must_use]
pub fn open(id: u64, limit: u32) -> Entry {
    open_between(id, ALICE, BOB, limit, REDEEM_BY_MS)
}

/// A channel.
#[must_use]
pub fn open_between(id: u64, consumer: u8, provider: u8, limit: u32, redeem_by_ms: u64) -> Entry {
    let mut request_digest = [7; 32];
    request_digest[..2].copy_from_slice(&[consumer, provider]);
    Entry::OpenChannel(OpenChannel {
        channel: channel(id),
        consumer: account(consumer),
        provider: account(provider),
        limit: Credits::micro(limit),
        fee_basis_points: 250,
        redeem_by_ms,
        request_digest,
    })
}

/// A voucher of Alice.
#[must_use]
pub fn settle(id: u64, cumulative: u32) -> Entry {
    settle_by(id, ALICE, cumulative)
}

/// A voucher.
#[must_use]
pub fn settle_by(id: u64, signer: u8, cumulative: u32) -> Entry {
    let voucher = Voucher {
        channel: channel(id),
        cumulative: Credits::micro(cumulative),
        request_id: RequestId::from_random([5; 16]),
        transcript: [6; 32],
    };
    Entry::Settle(Settle {
        channel: channel(id),
        voucher: keypair(signer).sign(voucher),
    })
}

/// The end of a channel.
#[must_use]
pub fn close(id: u64, reason: CloseReason) -> Entry {
    Entry::CloseChannel(CloseChannel {
        channel: channel(id),
        reason,
    })
}

/// A start after an interruption.
#[must_use]
pub const fn started(downtime_ms: u64) -> Entry {
    Entry::Started(Started { downtime_ms })
}

/// A freeze.
#[must_use]
pub fn freeze(id: u64, whom: u8) -> Entry {
    Entry::Freeze(reason_for(id, whom))
}

/// The end of a freeze.
#[must_use]
pub fn unfreeze(id: u64, whom: u8) -> Entry {
    Entry::Unfreeze(reason_for(id, whom))
}

fn reason_for(id: u64, whom: u8) -> Freeze {
    Freeze {
        id: name(id),
        account: account(whom),
        reason: "a reason".into(),
    }
}

/// The hand-over of the signing key of the log that `log` began.
#[must_use]
pub fn rotate(log: u8, old: u8, new: u8) -> Entry {
    let handover = KeyHandover {
        log: account(log),
        old: account(old),
        new: account(new),
        agreed_at_ms: 9,
    };
    Entry::RotateKey(Box::new(SignedHandover {
        by_old: keypair(old).sign(handover),
        by_new: keypair(new).sign(handover),
    }))
}

/// The entry, which is valid in itself.
#[must_use]
pub fn checked(entry: Entry) -> CheckedEntry {
    entry.check().unwrap()
}

/// Every kind of entry, each of which takes effect after those before it.
#[must_use]
pub fn story() -> Vec<Entry> {
    vec![
        grant(1, ALICE, 1_000_000),
        starter(2, CAROL, 700),
        open(1, 400_000),
        settle(1, 100_000),
        started(500),
        settle(1, 250_000),
        freeze(3, BOB),
        settle(1, 250_001),
        unfreeze(4, BOB),
        open(2, 300_000),
        close(1, CloseReason::Provider),
        settle(2, 1),
        rotate(90, 90, 91),
        rotate(90, 91, 92),
        open_between(3, CAROL, CAROL, 100, REDEEM_BY_MS),
        settle_by(3, CAROL, 60),
        close(3, CloseReason::Provider),
        started(0),
    ]
}
