//! A start uses a snapshot where it can be trusted, and does without where it can't.

use std::fs;
use std::path::{Path, PathBuf};

use gristmill_ledger::book::Book;
use gristmill_ledger::digest::Digest;
use gristmill_ledger::disk::RealDisk;
use gristmill_ledger::journal::{JournalError, Records};
use gristmill_ledger::snapshot;
use gristmill_ledger::store::{LEDGER_JOURNAL, OpenError, journal_directory, snapshot_directory};
use gristmill_ledger::{EmbeddedOptions, Ledger, audit};

use crate::world::{BOB, copy_folder, grant};

const ENTRIES: u64 = 400;

/// So short that there are many segments.
fn options() -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: 8 * 1024,
        ..EmbeddedOptions::default()
    }
}

fn opened(directory: &Path) -> Result<Ledger, OpenError> {
    Ledger::open(directory, &options())
}

fn snapshots(directory: &Path) -> Vec<u64> {
    snapshot::list(&RealDisk, &snapshot_directory(directory)).unwrap()
}

fn snapshot_path(directory: &Path, sequence: u64) -> PathBuf {
    snapshot::path(&snapshot_directory(directory), sequence)
}

/// A ledger with two snapshots, ended in order; and the digest of its state.
async fn written(directory: &Path, first: u64) -> Digest {
    let ledger = opened(directory).unwrap();
    let mut next = first;
    // The keeper makes them in its own time.
    while snapshots(directory).len() < 2 || next < first + ENTRIES {
        ledger.post(grant(next, BOB, 1), next).await.unwrap();
        next += 1;
    }
    let digest = ledger.store().state_digest().await.unwrap();
    ledger.shutdown().await.unwrap();
    assert_eq!(snapshots(directory).len(), 2);
    digest
}

fn flip(file: &Path, place: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[place] ^= 1;
    fs::write(file, bytes).unwrap();
}

async fn digest_of(directory: &Path) -> Result<Digest, OpenError> {
    let ledger = opened(directory)?;
    let digest = ledger.store().state_digest().await.unwrap();
    ledger.shutdown().await.unwrap();
    Ok(digest)
}

#[tokio::test]
async fn a_start_replays_only_what_follows_the_newest_usable_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let expected = written(folder.path(), 1).await;
    assert_eq!(digest_of(folder.path()).await.unwrap(), expected);

    // What is before the snapshots is damaged: a start does not read it, an audit does.
    let first = journal_directory(folder.path()).join("00000001.log");
    flip(&first, 100);
    assert_eq!(digest_of(folder.path()).await.unwrap(), expected);
    let report = audit::audit(folder.path()).unwrap();
    assert_eq!((report.clean, &report.problems[0].file), (false, &first));

    // The newest snapshot is damaged too: the one before it will do. What that start replays is enough for a new one.
    let newest = snapshots(folder.path())[0];
    flip(&snapshot_path(folder.path(), newest), 300);
    assert_eq!(digest_of(folder.path()).await.unwrap(), expected);

    // Without any, all is replayed, and the damage stops the start.
    for sequence in snapshots(folder.path()) {
        flip(&snapshot_path(folder.path(), sequence), 300);
    }
    let error = digest_of(folder.path()).await.unwrap_err();
    assert!(
        matches!(&error, OpenError::Journal(JournalError::Damaged { file, .. }) if *file == first),
        "{error}"
    );
    flip(&first, 100);
    assert_eq!(digest_of(folder.path()).await.unwrap(), expected);
    let report = audit::audit(folder.path()).unwrap();
    assert!(report.snapshots > 0, "{report:?}");
}

#[tokio::test]
async fn snapshots_of_another_ledger_are_of_no_use() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    written(other.path(), 50_000).await;
    let ledger = opened(folder.path()).unwrap();
    for id in 1..=snapshots(other.path())[0] + 50 {
        ledger.post(grant(id, BOB, 1), id).await.unwrap();
    }
    let expected = ledger.store().state_digest().await.unwrap();
    ledger.shutdown().await.unwrap();
    fs::remove_dir_all(snapshot_directory(folder.path())).unwrap();
    copy_folder(
        &snapshot_directory(other.path()),
        &snapshot_directory(folder.path()),
    );
    assert!(!audit::audit(folder.path()).unwrap().clean);
    assert_eq!(digest_of(folder.path()).await.unwrap(), expected);
}

/// Whoever can write the folder can make a snapshot that is whole. The audit knows.
#[tokio::test]
async fn the_audit_finds_a_state_that_the_journal_does_not_lead_to() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), 1).await;
    assert_eq!(audit::audit(folder.path()).unwrap().snapshots, 2);
    let sequence = snapshots(folder.path())[0];
    let directory = snapshot_directory(folder.path());
    let mut header = snapshot::read_header(&RealDisk, &directory, sequence).unwrap();
    let mut book = Book::new();
    for id in 1..=sequence {
        // One microcredit more for the last.
        let amount = if id == sequence { 2 } else { 1 };
        book.apply(&grant(id, BOB, amount).check().unwrap(), id).unwrap();
    }
    header.state_digest = book.digest();
    snapshot::write(&RealDisk, &directory, &header, &book).unwrap();
    let report = audit::audit(folder.path()).unwrap();
    let problem = &report.problems[0];
    assert_eq!(
        (report.snapshots, &problem.file, problem.sequence),
        (1, &snapshot::path(&directory, sequence), Some(sequence))
    );
    assert!(problem.what.contains("digest"), "{report:?}");
}

#[tokio::test]
async fn a_journal_that_ends_before_a_snapshot_has_lost_entries() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), 1).await;
    let newest = snapshots(folder.path())[0];
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let journal = journal_directory(folder.path());
    let places: Vec<_> = Records::read(&journal, LEDGER_JOURNAL)
        .unwrap()
        .map(|found| found.unwrap().0)
        .collect();
    // Everything from the snapshot's own record on is gone.
    let cut = places[usize::try_from(newest).unwrap() - 1];
    for name in fs::read_dir(&journal).unwrap() {
        let path = name.unwrap().path();
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse::<u32>().ok());
        match number {
            Some(number) if number > cut.segment => fs::remove_file(&path).unwrap(),
            Some(number) if number == cut.segment => {
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len(cut.offset).unwrap();
            }
            _ => {}
        }
    }
    // The older snapshot still says so.
    let error = opened(folder.path()).unwrap_err();
    let older = snapshots(folder.path())[1];
    if older < newest {
        fs::remove_file(snapshot_path(folder.path(), older)).unwrap();
    }
    assert!(!audit::audit(folder.path()).unwrap().clean, "{error}");
    let error = opened(folder.path()).unwrap_err();
    assert!(
        matches!(error, OpenError::EntriesLost { journal, known, known_by: "a snapshot", .. }
            if journal == newest - 1 && known == newest),
        "{error}"
    );
}

/// The index is brought up in the background; until then the answer is that it is.
#[tokio::test]
async fn a_lost_index_is_brought_up_while_the_ledger_is_at_work() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), 1).await;
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    let ledger = opened(folder.path()).unwrap();
    let last = ledger.head().await.unwrap().sequence;
    ledger.post(grant(99_999, BOB, 1), 1).await.unwrap();
    for sequence in [1, last / 2, last, last + 1] {
        let posted = loop {
            match ledger.posted(sequence).await {
                Ok(posted) => break posted.unwrap(),
                Err(error) => assert!(error.to_string().contains("Try again"), "{error}"),
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(posted.sequence, sequence);
    }
    ledger.shutdown().await.unwrap();
    let report = audit::audit(folder.path()).unwrap();
    assert!(report.clean, "{report:?}");
    assert_eq!(report.index, audit::IndexVerdict::Agrees { entries: last + 1 });
}
