//! A journal in memory with entries of every kind, and what the book says about its records.

use crate::index::file_index::*;

use std::collections::BTreeMap;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::handover::{KeyHandover, SignedHandover};
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::ids::{ChannelId, EntryId, GrantId};
use gristmill_protocol::job::RequestId;
use gristmill_protocol::voucher::Voucher;

use crate::book::{Applied, Book};
use crate::disk::RealDisk;
use crate::entry::{
    CheckedEntry, CloseChannel, CloseReason, Freeze, Grant, GrantKind, OpenChannel, Settle, Started,
};

pub(super) const ALICE: u8 = 1;
pub(super) const BOB: u8 = 2;
pub(super) const CAROL: u8 = 3;

pub(super) fn account(name: u8) -> AccountId {
    Keypair::from_secret(&[name; 32]).account()
}

pub(super) fn channel(id: u8) -> ChannelId {
    ChannelId::from_bytes([id; 16])
}

pub(super) fn grant(id: u8, to: u8) -> Entry {
    Entry::Grant(Grant {
        id: GrantId::from_bytes([id; 16]),
        account: account(to),
        amount: Credits::micro(1_000_000),
        kind: GrantKind::Operator,
        reason: "test".into(),
        starter_daily_budget: Credits::ZERO,
    })
}

pub(super) fn open(id: u8, consumer: u8, provider: u8, fee_basis_points: u16) -> Entry {
    Entry::OpenChannel(OpenChannel {
        channel: channel(id),
        consumer: account(consumer),
        provider: account(provider),
        limit: Credits::micro(10_000),
        fee_basis_points,
        redeem_by_ms: 1_000,
        request_digest: [7; 32],
    })
}

pub(super) fn settle(id: u8, consumer: u8, cumulative: u32) -> Entry {
    let voucher = Voucher {
        channel: channel(id),
        cumulative: Credits::micro(cumulative),
        request_id: RequestId::from_random([5; 16]),
        transcript: [6; 32],
    };
    Entry::Settle(Settle {
        channel: channel(id),
        voucher: Keypair::from_secret(&[consumer; 32]).sign(voucher),
    })
}

pub(super) fn close(id: u8) -> Entry {
    let reason = CloseReason::Provider;
    let channel = channel(id);
    Entry::CloseChannel(CloseChannel { channel, reason })
}

pub(super) fn freeze(id: u8, name: u8) -> Freeze {
    Freeze {
        id: EntryId::from_bytes([id; 16]),
        account: account(name),
        reason: "test".into(),
    }
}

pub(super) fn handover() -> Entry {
    let (old, new) = (Keypair::from_secret(&[8; 32]), Keypair::from_secret(&[9; 32]));
    let agreed = KeyHandover {
        log: old.account(),
        old: old.account(),
        new: new.account(),
        agreed_at_ms: 1,
    };
    Entry::RotateKey(Box::new(SignedHandover {
        by_old: old.sign(agreed),
        by_new: new.sign(agreed),
    }))
}

/// Every kind of entry, with parties that are the same, fees of nothing and of everything, and amounts of nothing.
pub(super) fn story() -> Vec<Entry> {
    vec![
        grant(1, ALICE),
        Entry::Started(Started { downtime_ms: 500 }),
        grant(2, BOB),
        open(1, ALICE, BOB, 250),
        settle(1, ALICE, 100),
        open(2, BOB, BOB, 0),
        settle(1, ALICE, 5_000),
        settle(2, BOB, 7),
        Entry::Freeze(freeze(3, CAROL)),
        open(3, ALICE, BOB, 10_000),
        settle(3, ALICE, 10_000),
        close(3),
        handover(),
        Entry::Unfreeze(freeze(4, CAROL)),
        close(2),
        open(4, ALICE, CAROL, 1),
        close(4),
        settle(1, ALICE, 5_001),
        close(1),
    ]
}

/// A journal in memory, and what the book says about its records.
#[derive(Clone, Default)]
pub(super) struct Journal {
    pub(super) records: Arc<BTreeMap<u64, Record>>,
    pub(super) entries: Vec<IndexedEntry>,
}

impl Journal {
    pub(super) fn of(story: Vec<Entry>) -> Self {
        let mut book = Book::new();
        let mut journal = Self::default();
        let mut records = BTreeMap::new();
        for (entry, sequence) in story.into_iter().zip(1..) {
            let record = Record {
                sequence,
                time_ms: 10 * sequence,
                content: entry.encode_salted(&[sequence as u8; 16]),
            };
            let applied = book
                .apply(&CheckedEntry::journaled(entry), record.time_ms)
                .unwrap();
            let Applied::New { outcome, .. } = applied else {
                panic!("the story repeats itself")
            };
            let offset = 1_000 * sequence;
            journal.entries.push(IndexedEntry {
                sequence,
                time_ms: record.time_ms,
                record_hash: record.hash(),
                location: Location {
                    segment: 1,
                    offset,
                    bytes: 100,
                },
                outcome,
            });
            records.insert(offset, record);
        }
        journal.records = Arc::new(records);
        journal
    }

    pub(super) fn reader(&self) -> ReadRecord {
        let records = Arc::clone(&self.records);
        Box::new(move |location| {
            records
                .get(&location.offset)
                .cloned()
                .ok_or_else(|| JournalError::Missing {
                    file: "segment".into(),
                })
        })
    }

    pub(super) fn open(&self, directory: &Path) -> Result<FileIndex, IndexError> {
        FileIndex::open(&RealDisk::shared(), directory, self.reader())
    }

    /// What a history must be.
    pub(super) fn history(
        &self,
        of: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Vec<u64> {
        let concerns = |entry: &&IndexedEntry| {
            entry.outcome.parties().contains(of)
                && (selection == Selection::All || entry.is_settlement())
                && before.is_none_or(|before| entry.sequence < before)
        };
        let newest_first = self.entries.iter().rev().filter(concerns);
        newest_first.take(limit).map(|entry| entry.sequence).collect()
    }

    /// That an index of the first entries of this journal says what it should.
    pub(super) fn assert_told_by(&self, index: &FileIndex, how: &str) {
        let known = index.head().unwrap().map_or(0, |head| head.sequence);
        let told = Self {
            records: Arc::clone(&self.records),
            entries: self.entries[..known as usize].to_vec(),
        };
        assert_eq!(
            index.head().unwrap(),
            told.entries.last().map(IndexedEntry::head),
            "{how}"
        );
        for entry in &told.entries {
            assert_eq!(
                index.entry(entry.sequence).unwrap().as_ref(),
                Some(entry),
                "{how}"
            );
            assert_eq!(index.location(entry.sequence).unwrap(), Some(entry.location));
        }
        assert_eq!(index.entry(0).unwrap(), None);
        assert_eq!(index.entry(known + 1).unwrap(), None);
        for name in [ALICE, BOB, CAROL, 99] {
            for selection in [Selection::All, Selection::Settlements] {
                let name = account(name);
                assert_eq!(
                    index.history(&name, selection, None, 1_000).unwrap(),
                    told.history(&name, selection, None, 1_000),
                    "{how}"
                );
            }
        }
    }
}
