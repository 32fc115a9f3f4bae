//! Whatever happens to the bytes of a journal: it is noticed, or nothing that was whole is lost.

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_ledger::audit::{AuditReport, audit};
use gristmill_ledger::book::Book;
use gristmill_ledger::digest::Digest;
use gristmill_ledger::entry::Entry;
use gristmill_ledger::journal::{
    Journal, JournalError, JournalOptions, NewRecord, Records, SEGMENT_BYTES, check, check_from,
};
use gristmill_ledger::record::{JournalKind, SEGMENT_HEADER_BYTES, Tail};
use gristmill_ledger::store::{LEDGER_JOURNAL, OpenError, journal_directory};
use gristmill_ledger::{EmbeddedOptions, Ledger};

use crate::world::{BOB, grant, journal_of, ledger, story};

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

/// A journal of a few short segments whose records were all synced, and what they hold.
fn short_segments(directory: &Path) -> Vec<Vec<u8>> {
    let options = JournalOptions {
        segment_bytes: 150,
        ..options()
    };
    let (mut journal, _) = Journal::open(directory, options).unwrap();
    let contents: Vec<Vec<u8>> = (0..12_u8)
        .map(|number| vec![number; usize::from(number % 5) * 9])
        .collect();
    for batch in contents.chunks(2) {
        let new = |content: &Vec<u8>| NewRecord {
            time_ms: 3,
            content: content.clone(),
        };
        journal
            .append_batch(&batch.iter().map(new).collect::<Vec<_>>())
            .unwrap();
        journal.sync().unwrap();
    }
    // As it is when the process is killed: space that was made ahead is still there.
    std::mem::forget(journal);
    contents
}

fn segments_of(directory: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(directory).unwrap().map(|item| item.unwrap().path());
    let mut segments: Vec<_> = names
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .collect();
    segments.sort();
    segments
}

fn contents(records: Records) -> Result<Vec<Vec<u8>>, JournalError> {
    records
        .map(|found| found.map(|(_, record)| record.content))
        .collect()
}

#[test]
fn every_flipped_bit_of_a_folder_is_named_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let written = short_segments(&folder.path().join("written"));
    let directory = folder.path().join("flipped");
    crate::world::copy_folder(&folder.path().join("written"), &directory);
    let known = JournalOptions {
        known_synced: written.len() as u64,
        disk: crate::power::quick_disk(),
        ..options()
    };
    let segments = segments_of(&directory);
    assert!(segments.len() >= 4, "{segments:?}");
    let (mut named, mut harmless) = (0, 0);
    for segment in &segments {
        let whole = fs::read(segment).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(segment, &flipped).unwrap();
            let audited = Records::read_with(&directory, &known).and_then(contents);
            let opened = Journal::open(&directory, known.clone()).and_then(|(_, records)| contents(records));
            match (audited, opened) {
                (
                    Err(JournalError::Damaged { file, offset, .. }),
                    Err(JournalError::Damaged { file: other, .. }),
                ) => {
                    assert!(
                        file == other && file == *segment,
                        "bit {bit} of {segment:?}: {file:?}"
                    );
                    // The damaged record or header begins at most its own length before.
                    let distance = (bit as u64 / 8).checked_sub(offset);
                    assert!(distance.is_some_and(|bytes| bytes < 80), "bit {bit}: {offset}");
                    assert_eq!(fs::read(segment).unwrap(), flipped, "nothing is changed");
                    named += 1;
                }
                (Ok(audited), Ok(opened)) => {
                    assert!(
                        audited == written && opened == written,
                        "bit {bit} of {segment:?}"
                    );
                    harmless += 1;
                }
                other => panic!("bit {bit} of {segment:?}: {other:?}"),
            }
        }
        fs::write(segment, &whole).unwrap();
    }
    // Only space that was made ahead means nothing.
    assert!(
        named > 4_000 && harmless < 3_000,
        "{named} named, {harmless} harmless"
    );
}

#[test]
fn segments_are_checked_in_memory_as_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    short_segments(folder.path());
    for segment in segments_of(folder.path()) {
        let bytes = fs::read(&segment).unwrap();
        let whole = check(&bytes, LEDGER_JOURNAL).unwrap();
        assert_eq!(whole.tail, Tail::Clean, "{segment:?}");
        let used = usize::try_from(whole.end.offset).unwrap();
        for bit in 0..used * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(found) = check(&flipped, LEDGER_JOURNAL) else {
                assert!(bit / 8 < SEGMENT_HEADER_BYTES, "bit {bit}");
                continue;
            };
            assert!(bit / 8 >= SEGMENT_HEADER_BYTES, "bit {bit}");
            assert!(
                found.end.next_sequence < whole.end.next_sequence && found.tail != Tail::Clean,
                "bit {bit}"
            );
            // From the last place before it the answer is the same.
            assert_eq!(check_from(&flipped, found.header, found.end), found);
        }
        assert_eq!(check_from(&bytes, whole.header, whole.end), whole);
    }
}

/// What is known to have been synced and is gone, however its end looks.
#[test]
fn a_known_record_that_is_gone_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let written = short_segments(&folder.path().join("written"));
    let last_records = |segment: &Path| {
        let bytes = fs::read(segment).unwrap();
        check(&bytes, LEDGER_JOURNAL).unwrap().end
    };
    let directory = folder.path().join("lost");
    let cut_last = |bytes: &dyn Fn(u64) -> u64| {
        let _ = fs::remove_dir_all(&directory);
        crate::world::copy_folder(&folder.path().join("written"), &directory);
        let last = segments_of(&directory).pop().unwrap();
        let end = last_records(&last);
        fs::OpenOptions::new()
            .write(true)
            .open(&last)
            .unwrap()
            .set_len(bytes(end.offset))
            .unwrap();
        last
    };
    let open = |known_synced| {
        let known = JournalOptions {
            known_synced,
            ..options()
        };
        let audited = Records::read_with(&directory, &known).and_then(contents);
        let opened = Journal::open(&directory, known).and_then(|(_, records)| contents(records));
        assert_eq!(audited.is_ok(), opened.is_ok());
        opened
    };
    let count = written.len() as u64;

    // The middle of the last record is gone, or all of its segment's records.
    let last = cut_last(&|end| end - 1);
    let before = fs::read(&last).unwrap();
    assert!(matches!(open(count), Err(JournalError::Damaged { file, .. }) if file == last));
    assert_eq!(fs::read(&last).unwrap(), before, "nothing is cut");
    assert_eq!(
        open(count - 1).unwrap(),
        written[..written.len() - 1],
        "nothing known is gone"
    );

    let last = cut_last(&|_| SEGMENT_HEADER_BYTES as u64);
    assert!(matches!(open(count), Err(JournalError::Lost { file, offset: 36, .. }) if file == last));
    let last = cut_last(&|_| 10);
    assert!(matches!(open(count), Err(JournalError::Damaged { file, offset: 0, .. }) if file == last));
    fs::remove_file(&last).unwrap();
    let error = open(count).unwrap_err();
    assert!(
        matches!(error, JournalError::Lost { known_synced, .. } if known_synced == count),
        "{error}"
    );
    let error = Journal::open(
        &folder.path().join("nothing"),
        JournalOptions {
            known_synced: 1,
            ..options()
        },
    );
    assert!(matches!(error, Err(JournalError::Lost { .. })), "{error:?}");
}

#[test]
fn records_can_be_read_from_any_one_on() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("journal");
    let written = short_segments(&folder.path().join("written"));
    crate::world::copy_folder(&folder.path().join("written"), &directory);
    for first in 1..=written.len() + 2 {
        let records = Records::read(&directory, LEDGER_JOURNAL).unwrap();
        let records = records.starting_at(first as u64).unwrap();
        let expected = written.get(first - 1..).unwrap_or_default();
        assert_eq!(contents(records).unwrap(), expected, "from {first}");
        let (_, opened) = Journal::open(&directory, options()).unwrap();
        let mut records = opened.starting_at(first as u64).unwrap();
        let mut count = 0;
        while let Some(found) = records.next_view() {
            let (_, record) = found.unwrap();
            assert_eq!(record.content(), expected[count]);
            assert_eq!(record.hash(), record.to_record().hash());
            count += 1;
        }
        assert_eq!(count, expected.len(), "from {first}");
    }
}

#[test]
fn segments_of_many_windows_are_read_to_their_ends() {
    let folder = tempfile::tempdir().unwrap();
    let length = |number: usize| [64 * 1024, 0, 40_000, 17, 64 * 1024 - 1][number % 5];
    let written: Vec<Vec<u8>> = (1..=90_u8)
        .map(|number| vec![number; length(usize::from(number))])
        .collect();
    let new = |content: &Vec<u8>| NewRecord {
        time_ms: 3,
        content: content.clone(),
    };
    let (mut journal, _) = Journal::open(folder.path(), options()).unwrap();
    let mut locations = Vec::new();
    for batch in written.chunks(9) {
        locations.extend(
            journal
                .append_batch(&batch.iter().map(new).collect::<Vec<_>>())
                .unwrap(),
        );
        journal.sync().unwrap();
    }
    assert_eq!(
        Records::read(folder.path(), LEDGER_JOURNAL)
            .and_then(contents)
            .unwrap(),
        written
    );
    drop(journal);
    let (mut journal, records) = Journal::open(folder.path(), options()).unwrap();
    // What is appended meanwhile is not among what was there.
    journal.append_batch(&[new(&vec![1])]).unwrap();
    assert_eq!(contents(records).unwrap(), written);
    drop(journal);
    let (_, records) = Journal::open(folder.path(), options()).unwrap();
    assert_eq!(
        contents(records.starting_at(80).unwrap()).unwrap()[..11],
        written[79..]
    );
    let segment = folder.path().join("00000001.log");
    let whole = fs::read(&segment).unwrap();
    for index in [0, 13, 44, 80] {
        let mut damaged = whole.clone();
        damaged[usize::try_from(locations[index].offset).unwrap() + 30] ^= 1;
        fs::write(&segment, damaged).unwrap();
        let mut found = Records::read(folder.path(), LEDGER_JOURNAL).unwrap();
        assert_eq!(found.by_ref().take_while(Result::is_ok).count(), index);
        let error = Journal::open(folder.path(), options()).unwrap_err();
        assert!(
            matches!(error, JournalError::Damaged { offset, .. } if offset == locations[index].offset),
            "{error}"
        );
    }
}

#[test]
fn a_writer_may_be_faster_than_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path(), options()).unwrap();
    let mut append = || {
        let batch = [5, 6].map(|byte| NewRecord {
            time_ms: 3,
            content: vec![byte; 100],
        });
        journal.append_batch(&batch).unwrap();
        journal.sync().unwrap();
    };
    append();
    let mut records = Records::read(folder.path(), LEDGER_JOURNAL).unwrap();
    for sequence in 1..100 {
        let (_, record) = records.next_view().unwrap().unwrap();
        assert_eq!(record.sequence(), sequence);
        append();
    }
    assert_eq!(records.map(Result::unwrap).count(), 200 - 99);
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
    let opened = Ledger::open(folder.path(), &EmbeddedOptions::default());
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
