//! Whatever happens to the bytes of a journal: it is noticed, or nothing that was whole is lost.

use std::fs;
use std::path::Path;

use gristmill_ledger::audit::{AuditReport, audit};
use gristmill_ledger::book::Book;
use gristmill_ledger::digest::Digest;
use gristmill_ledger::entry::Entry;
use gristmill_ledger::journal::{Journal, JournalError, JournalOptions, NewRecord, Records, SEGMENT_BYTES};
use gristmill_ledger::ledger::{LEDGER_JOURNAL, OpenError, journal_directory};
use gristmill_ledger::record::{JournalKind, SEGMENT_HEADER_BYTES};
use gristmill_ledger::{Ledger, LedgerOptions};

use crate::world::{BOB, grant, journal_of, ledger, story};

const OPTIONS: JournalOptions = JournalOptions {
    kind: LEDGER_JOURNAL,
    segment_bytes: SEGMENT_BYTES,
};

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
    let (opened, records) = Journal::open(journal, OPTIONS)?;
    let mut book = Book::new();
    for found in records {
        let (_, record) = found?;
        book.apply(
            &Entry::decode(&record.content).unwrap().check().unwrap(),
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
        let at_the_end_of_a_record = length == SEGMENT_HEADER_BYTES || ends.contains(&(length as u64));

        let report = audit(folder.path()).unwrap();
        assert!(report.clean, "cut at {length}: {report:?}");
        assert_eq!(
            (report.records, report.state_digest),
            (kept as u64, states[kept]),
            "cut at {length}"
        );
        assert_eq!(
            report.unfinished_bytes == 0,
            at_the_end_of_a_record || length == 0,
            "cut at {length}"
        );

        let (state, was_cut) = reopened(&journal).unwrap();
        assert_eq!(state, states[kept], "cut at {length}");
        assert_eq!(was_cut, !at_the_end_of_a_record && length > 0, "cut at {length}");
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
    let segment = journal_directory(folder.path()).join("00000001.log");
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, &whole[..whole.len() - 1]).unwrap();

    let report = audit(folder.path()).unwrap();
    assert!(!report.clean, "{report:?}");
    // Also the second time, when the tail has been cut off.
    for _ in 0..2 {
        let error = Ledger::open(folder.path(), &LedgerOptions::default()).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::EntriesLost {
                    journal: 7,
                    index: 8,
                    ..
                }
            ),
            "{error}"
        );
        assert!(
            error.to_string().contains("to accept the loss, remove"),
            "{error}"
        );
    }
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let accepted = ledger(folder.path());
    assert_eq!(accepted.sequence(), 7);
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
    let (mut journal, _) = Journal::open(&path, OPTIONS).unwrap();
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

    let (mut journal, records) = Journal::open(&path, OPTIONS).unwrap();
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
    journal.append_batch(&[new(b"next")]).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let records = Records::read(&path, LEDGER_JOURNAL).unwrap();
    assert_eq!(
        records.map(|found| found.unwrap().1.sequence).collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn segments_continue_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal_of(folder.path(), &story(), 300);
    let names = |path: &Path| {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|item| item.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".log"))
            .collect();
        names.sort();
        names
    };
    assert!(names(&journal).len() >= 3, "{:?}", names(&journal));
    let report = audit(folder.path()).unwrap();
    assert!(report.clean, "{report:?}");
    assert_eq!(
        (report.state_digest, report.segments as usize),
        (states()[story().len()], names(&journal).len())
    );

    // A damaged record at the end of a segment that is not the last is never a torn tail.
    let first = journal.join("00000001.log");
    let whole = fs::read(&first).unwrap();
    fs::write(&first, &whole[..whole.len() - 1]).unwrap();
    let problem = &audit(folder.path()).unwrap().problems[0];
    assert_eq!(problem.file, first);
    assert!(matches!(reopened(&journal), Err(JournalError::Damaged { .. })));
    let opened = Ledger::open(folder.path(), &LedgerOptions::default());
    assert!(
        matches!(opened, Err(OpenError::Journal(JournalError::Damaged { .. }))),
        "{opened:?}"
    );

    fs::remove_file(&first).unwrap();
    let error = reopened(&journal).unwrap_err();
    assert!(
        matches!(&error, JournalError::Missing { file } if *file == first),
        "{error}"
    );
    assert!(!audit(folder.path()).unwrap().clean);

    fs::write(&first, &whole).unwrap();
    fs::copy(journal.join("00000003.log"), journal.join("00000002.log")).unwrap();
    let problem = &audit(folder.path()).unwrap().problems[0];
    assert_eq!(
        (problem.file.clone(), problem.offset),
        (journal.join("00000002.log"), Some(0))
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
                ..OPTIONS
            },
        )
        .unwrap(),
    );
    let error = Journal::open(folder.path(), OPTIONS).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("of kind 'vouchers', expected 'ledger'"),
        "{error}"
    );
}

#[test]
fn records_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), OPTIONS).unwrap();
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
    let error = Ledger::open(folder.path(), &LedgerOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::Replay(_)), "{error}");
    assert!(error.to_string().starts_with("entry 9 (byte"), "{error}");
}
