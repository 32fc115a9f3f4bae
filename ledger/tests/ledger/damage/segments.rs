//! Journals of several segments: each continues the one before it, and what is missing between them is named.

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_ledger::audit::audit;
use gristmill_ledger::journal::{check, check_from};
use gristmill_ledger::record::Tail;

use super::*;

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
