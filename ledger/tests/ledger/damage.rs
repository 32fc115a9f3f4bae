//! Whatever happens to the bytes of a journal: it is noticed, or nothing that was whole is lost.

use std::fs;
use std::path::Path;

use gristmill_ledger::audit::{AuditReport, audit};
use gristmill_ledger::book::Book;
use gristmill_ledger::digest::Digest;
use gristmill_ledger::entry::Entry;
use gristmill_ledger::journal::{Journal, JournalError, JournalOptions, NewRecord, Records, SEGMENT_BYTES};
use gristmill_ledger::record::{JournalKind, SEGMENT_HEADER_BYTES};
use gristmill_ledger::store::{LEDGER_JOURNAL, OpenError, journal_directory};
use gristmill_ledger::{EmbeddedOptions, Ledger};

use crate::world::{BOB, grant, journal_of, ledger, story};

#[path = "damage/segments.rs"]
mod segments;

fn options() -> JournalOptions {
    JournalOptions::new(LEDGER_JOURNAL)
}

/// The state after each number of entries of the story.
fn states() -> Vec<Digest> {
    let mut book = Book::new();
    let mut states = vec![book.digest()];
    for (entry, time_ms) in story().into_iter().zip(1..) {
        book.apply(&entry.check().unwrap(), time_ms).unwrap();
        states.push(book.digest());
    }
    states
}

/// Where each record of the only segment ends.
fn ends(journal: &Path) -> Vec<u64> {
    let records = Records::read(journal, LEDGER_JOURNAL).unwrap();
    records
        .map(|found| found.unwrap().0)
        .map(|place| place.offset + u64::from(place.bytes))
        .collect()
}

/// Opens the journal as the writer does and gives the state that its records lead to.
fn reopened(journal: &Path) -> Result<(Digest, bool), JournalError> {
    let (opened, records) = Journal::open(journal, options())?;
    let mut book = Book::new();
    for found in records {
        let (_, record) = found?;
        book.apply(
            &Entry::decode_salted(&record.content).unwrap().check().unwrap(),
            record.time_ms,
        )
        .unwrap();
    }
    Ok((book.digest(), opened.cut_tail().is_some()))
}

#[test]
fn a_journal_cut_at_any_byte_is_the_records_before_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal_of(folder.path(), &story(), SEGMENT_BYTES);
    let segment = journal.join("00000001.log");
    let whole = fs::read(&segment).unwrap();
    let (states, ends) = (states(), ends(&journal));
    for length in 0..=whole.len() {
        fs::write(&segment, &whole[..length]).unwrap();
        let kept = ends.iter().filter(|end| **end <= length as u64).count();
        let end = ends.iter().rev().find(|end| **end <= length as u64);
        let end = end.map_or(SEGMENT_HEADER_BYTES, |end| usize::try_from(*end).unwrap());
        // Zeros mean nothing, also where a record would have begun with some.
        let nothing_follows = length >= end && whole[end..length].iter().all(|byte| *byte == 0);

        let report = audit(folder.path()).unwrap();
        assert!(report.clean, "cut at {length}: {report:?}");
        assert_eq!(
            (report.records, report.state_digest),
            (kept as u64, states[kept]),
            "cut at {length}"
        );
        assert_eq!(
            report.unfinished_bytes == 0,
            nothing_follows || length == 0,
            "cut at {length}"
        );

        let (state, was_cut) = reopened(&journal).unwrap();
        assert_eq!(state, states[kept], "cut at {length}");
        assert_eq!(was_cut, !nothing_follows && length > 0, "cut at {length}");
        // Once cut, it is whole again and goes on.
        assert_eq!(
            reopened(&journal).unwrap(),
            (states[kept], false),
            "cut at {length}"
        );
    }
    let kept: u64 = fs::read_dir(&journal)
        .unwrap()
        .map(|item| item.unwrap())
        .filter(|item| item.file_name().to_string_lossy().contains("torn"))
        .map(|item| item.metadata().unwrap().len())
        .sum();
    assert!(kept > 0, "the bytes that were cut off are kept");
}

/// Nothing is told, or the records before the change and a note of what follows them.
fn assert_noticed(report: &AuditReport, intact: usize, states: &[Digest], position: usize) {
    let noticed = !report.clean || report.unfinished_bytes > 0;
    assert!(noticed, "byte {position}: {report:?}");
    assert_eq!(report.records, intact as u64, "byte {position}");
    assert_eq!(report.state_digest, states[intact], "byte {position}");
}

#[test]
fn any_changed_byte_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal_of(folder.path(), &story(), SEGMENT_BYTES);
    let segment = journal.join("00000001.log");
    let whole = fs::read(&segment).unwrap();
    let (states, ends) = (states(), ends(&journal));
    for position in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[position] ^= [0x01, 0x80, 0xff][position % 3];
        fs::write(&segment, &damaged).unwrap();
        let intact = ends.iter().filter(|end| **end <= position as u64).count();
        assert_noticed(&audit(folder.path()).unwrap(), intact, &states, position);

        match reopened(&journal) {
            Err(JournalError::Damaged { file, offset, .. }) => {
                assert_eq!(file, segment);
                let start = if intact == 0 {
                    SEGMENT_HEADER_BYTES as u64
                } else {
                    ends[intact - 1]
                };
                let expected = if position < SEGMENT_HEADER_BYTES { 0 } else { start };
                assert_eq!(offset, expected, "byte {position}");
                assert_eq!(fs::read(&segment).unwrap(), damaged, "nothing is changed");
            }
            // Only the last record can be taken for one that was being written.
            Ok((state, was_cut)) => {
                assert!(was_cut && intact == story().len() - 1, "byte {position}");
                assert_eq!(state, states[intact]);
            }
            Err(other) => panic!("byte {position}: {other}"),
        }
    }
}

#[tokio::test]
async fn acknowledged_entries_that_are_gone_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let book = ledger(folder.path());
    for entry in story() {
        book.post(entry, 1).await.unwrap();
    }
    book.shutdown().await.unwrap();
    let journal = journal_directory(folder.path());
    let segment = journal.join("00000001.log");
    let whole = fs::read(&segment).unwrap();
    let ends = ends(&journal);
    let end_of_seventh = ends[6];
    let open = || Ledger::open(folder.path(), &EmbeddedOptions::default()).unwrap_err();

    // The last record is torn: with an index that has it, that can't be a write that was interrupted.
    fs::write(&segment, &whole[..usize::try_from(ends[7]).unwrap() - 1]).unwrap();
    let torn = fs::read(&segment).unwrap();
    assert!(!audit(folder.path()).unwrap().clean);
    let error = open();
    assert!(
        matches!(
            &error,
            OpenError::Journal(JournalError::Damaged { file, offset, .. })
                if *file == segment && *offset == end_of_seventh
        ),
        "{error}"
    );
    assert_eq!(fs::read(&segment).unwrap(), torn, "nothing is changed");

    // It is gone altogether.
    fs::write(&segment, &whole[..usize::try_from(end_of_seventh).unwrap()]).unwrap();
    assert!(!audit(folder.path()).unwrap().clean);
    let error = open();
    assert!(
        matches!(
            &error,
            OpenError::EntriesLost { file, offset, journal: 7, known: 8, known_by: "the index" }
                if *file == segment && *offset == end_of_seventh
        ),
        "{error}"
    );
    // Nobody else knows of the last one.
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let accepted = ledger(folder.path());
    assert_eq!(accepted.head().await.unwrap().sequence, 7);
    accepted.shutdown().await.unwrap();
}

#[test]
fn a_torn_batch_is_cut_even_where_its_end_reached_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let new = |content: &[u8]| NewRecord {
        time_ms: 1,
        content: content.to_vec(),
    };
    let (mut journal, _) = Journal::open(&path, options()).unwrap();
    journal.append_batch(&[new(b"synced")]).unwrap();
    journal.sync().unwrap();
    let torn = journal
        .append_batch(&[new(b"first of the batch"), new(b"second of the batch")])
        .unwrap();
    drop(journal);
    let segment = path.join("00000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[usize::try_from(torn[0].offset).unwrap() + 20] ^= 1;
    fs::write(&segment, &bytes).unwrap();

    let (mut journal, records) = Journal::open(&path, options()).unwrap();
    assert_eq!(
        records.map(|found| found.unwrap().1.content).collect::<Vec<_>>(),
        [b"synced"]
    );
    let cut = journal.cut_tail().unwrap().clone();
    assert_eq!(
        (cut.offset, cut.bytes),
        (torn[0].offset, u64::from(torn[0].bytes + torn[1].bytes))
    );
    assert_eq!(
        fs::read(&cut.kept_in).unwrap(),
        bytes[usize::try_from(cut.offset).unwrap()..]
    );

    // The journal goes on behind the cut.
    // The record has the length of the one that was torn, and what stood behind that one does not come back.
    journal.append_batch(&[new(b"next, of the batch")]).unwrap();
    journal.sync().unwrap();
    assert_eq!(Records::read(&path, LEDGER_JOURNAL).unwrap().count(), 2);
    drop(journal);
    let records = Records::read(&path, LEDGER_JOURNAL).unwrap();
    assert_eq!(
        records.map(|found| found.unwrap().1.sequence).collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn a_journal_of_another_kind_is_not_taken() {
    const VOUCHERS: JournalKind = *b"vouchers";
    let folder = tempfile::tempdir().unwrap();
    drop(
        Journal::open(
            folder.path(),
            JournalOptions {
                kind: VOUCHERS,
                ..options()
            },
        )
        .unwrap(),
    );
    let error = Journal::open(folder.path(), options()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("of kind 'vouchers', expected 'ledger-2'"),
        "{error}"
    );
}

#[test]
fn records_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), options()).unwrap();
    let of = |bytes| NewRecord {
        time_ms: 1,
        content: vec![1; bytes],
    };
    journal.append_batch(&[of(64 * 1024)]).unwrap();
    let refused = journal.append_batch(&[of(1), of(64 * 1024 + 1)]);
    assert!(matches!(
        refused,
        Err(JournalError::RecordTooLarge { actual_bytes: 65_537 })
    ));
    journal.append_batch(&[of(0)]).unwrap();
    journal.sync().unwrap();
    assert_eq!(Records::read(folder.path(), LEDGER_JOURNAL).unwrap().count(), 2);
}

#[test]
fn an_unreadable_entry_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut entries = story();
    // A grant that is there twice can't have been journaled by the writer.
    entries.push(grant(1, BOB, 1));
    journal_of(folder.path(), &entries, SEGMENT_BYTES);
    let error = Ledger::open(folder.path(), &EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Replay(_)), "{error}");
    assert!(error.to_string().starts_with("entry 9 (byte"), "{error}");
}
