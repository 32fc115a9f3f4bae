//! Entries and folders that the tests share.

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_ledger::entry::{
    CloseChannel, CloseReason, Entry, Grant, GrantKind, OpenChannel, Settle, Started,
};
use gristmill_ledger::journal::{Journal, JournalOptions, NewRecord};
use gristmill_ledger::store::{LEDGER_JOURNAL, journal_directory};
use gristmill_ledger::{EmbeddedOptions, Ledger};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::{ChannelId, GrantId};
use gristmill_protocol::job::RequestId;
use gristmill_protocol::voucher::Voucher;

pub(crate) const ALICE: u8 = 1;
pub(crate) const BOB: u8 = 2;
pub(crate) const REDEEM_BY_MS: u64 = 1_000_000;

pub(crate) fn account(name: u8) -> AccountId {
    Keypair::from_secret(&[name; 32]).account()
}

pub(crate) fn channel(id: u64) -> ChannelId {
    ChannelId::from_bytes(u128::from(id).to_le_bytes())
}

pub(crate) fn grant(id: u64, to: u8, amount: u32) -> Entry {
    Entry::Grant(Grant {
        id: GrantId::from_bytes(u128::from(id).to_le_bytes()),
        account: account(to),
        amount: Credits::micro(amount),
        kind: GrantKind::Operator,
        reason: "test".into(),
        starter_daily_budget: Credits::MAX,
    })
}

pub(crate) fn open(id: u64, limit: u32) -> Entry {
    Entry::OpenChannel(OpenChannel {
        channel: channel(id),
        consumer: account(ALICE),
        provider: account(BOB),
        limit: Credits::micro(limit),
        fee_basis_points: 250,
        redeem_by_ms: REDEEM_BY_MS,
        request_digest: [7; 32],
    })
}

pub(crate) fn settle(id: u64, cumulative: u32) -> Entry {
    let voucher = Voucher {
        channel: channel(id),
        cumulative: Credits::micro(cumulative),
        request_id: RequestId::from_random([5; 16]),
        transcript: [6; 32],
    };
    Entry::Settle(Settle {
        channel: channel(id),
        voucher: Keypair::from_secret(&[ALICE; 32]).sign(voucher),
    })
}

pub(crate) fn close(id: u64) -> Entry {
    Entry::CloseChannel(CloseChannel {
        channel: channel(id),
        reason: CloseReason::Provider,
    })
}

/// One entry of every kind and a few more.
pub(crate) fn story() -> Vec<Entry> {
    vec![
        grant(1, ALICE, 1_000_000),
        open(1, 400_000),
        settle(1, 100_000),
        Entry::Started(Started { downtime_ms: 500 }),
        settle(1, 250_000),
        open(2, 300_000),
        close(1),
        settle(2, 1),
    ]
}

/// A ledger directory with these entries, each synced by itself, and no index.
pub(crate) fn journal_of(directory: &Path, entries: &[Entry], segment_bytes: u64) -> PathBuf {
    let path = journal_directory(directory);
    let (mut journal, _) = Journal::open(
        &path,
        JournalOptions {
            segment_bytes,
            ..JournalOptions::new(LEDGER_JOURNAL)
        },
    )
    .unwrap();
    for (entry, time_ms) in entries.iter().zip(1..) {
        journal
            .append_batch(&[NewRecord {
                time_ms,
                content: entry.encode_salted(&[9; 16]),
            }])
            .unwrap();
        journal.sync().unwrap();
    }
    path
}

pub(crate) fn ledger(directory: &Path) -> Ledger {
    Ledger::open(directory, &EmbeddedOptions::default()).unwrap()
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_folder(&item.path(), &target);
        } else {
            fs::copy(item.path(), &target).unwrap();
        }
    }
}
