//! Whatever is damaged: nothing is signed that is not what was acknowledged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gristmill_ledger::conformance::StoreKind;
use gristmill_ledger::log::{Log, LogError};
use gristmill_ledger::record::Record;
use gristmill_ledger::store::{ReadError, Store, journal_directory, log_directory};
use gristmill_protocol::log::frontier::Frontier;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::tile::Tile;

use super::spy::{Seen, Spy};
use super::{EmbeddedKind, embedded, integrate_all, open_log, post, signer, true_roots};
use crate::world::copy_folder;

#[derive(Clone, Copy, Debug)]
enum Lie {
    Record(usize),
    Tile(usize),
}

/// A store that gives one read another bit is found out, whichever read that is: while the records are hashed, while
/// they are read again, and for every tile that is read; and nothing of it stays.
#[tokio::test]
async fn one_bit_read_wrongly_and_nothing_is_signed() {
    let ledger = EmbeddedKind.begin().await;
    let store = ledger.open().await;
    let seen = Arc::new(Seen::default());
    post(&store, 0..250).await;
    integrate_all(&open_log(&store).await).await;
    let before = store.published_checkpoint().await.unwrap();
    post(&store, 250..520).await;

    let mut tile_reads = 1;
    // The first read of records is that of the last one in the log, at the opening.
    let mut lies: Vec<Lie> = vec![Lie::Record(3), Lie::Record(1)];
    while let Some(lie) = lies.pop() {
        let mut spy = Spy::new(&store, &seen);
        let first_in_step = Arc::new(std::sync::atomic::AtomicUsize::new(usize::MAX));
        let from = Arc::clone(&first_in_step);
        match lie {
            Lie::Record(at) => {
                spy.record_lie = Some(Box::new(move |read, record: &mut Record| {
                    if read == at && record.sequence == 400 {
                        *record.content.last_mut().unwrap() ^= 0x80;
                    }
                }));
            }
            Lie::Tile(at) => {
                spy.tile_lie = Some(Box::new(move |read, _: Tile, bytes: &mut Vec<u8>| {
                    let from = from.load(std::sync::atomic::Ordering::SeqCst);
                    if read.checked_sub(from) == Some(at) {
                        bytes[3] ^= 4;
                    }
                }));
            }
        }
        let spy = Arc::new(spy);
        let log = Log::open(spy.clone(), signer()).await.unwrap();
        assert_eq!(log.halted(), None);
        first_in_step.store(spy.tile_reads(), std::sync::atomic::Ordering::SeqCst);
        let refused = log.integrate().await;
        assert!(
            matches!(refused, Err(LogError::Halted { .. })),
            "{lie:?}: {refused:?}"
        );
        // For good, although the next reads would be right.
        assert_eq!(log.integrate().await, refused);
        assert_eq!(store.newest_checkpoint().await.unwrap(), before, "{lie:?}");
        let reads = spy.tile_reads() - first_in_step.load(std::sync::atomic::Ordering::SeqCst);
        if matches!(lie, Lie::Record(_)) {
            tile_reads = tile_reads.max(reads);
            if lies.is_empty() {
                // Those at the start of a step, and those of the four tiles that are written.
                lies.extend((0..tile_reads + 4).map(Lie::Tile));
            }
        }
    }
    assert_eq!(tile_reads, 1);
    assert_eq!((seen.published(), seen.reserved().len()), (0, 0));

    // And without a lie it goes on.
    integrate_all(&open_log(&store).await).await;
    assert_eq!(store.published_checkpoint().await.unwrap().unwrap().size, 520);
    store.shutdown().await.unwrap();
}

/// A ledger with 300 records in the log and 20 that are not, closed; and the true root of all.
async fn prepared(folder: &Path) -> LogHash {
    let store = embedded(folder);
    post(&store, 0..300).await;
    integrate_all(&open_log(&store).await).await;
    post(&store, 300..320).await;
    let roots = true_roots(&*store).await;
    store.shutdown().await.unwrap();
    roots[320]
}

fn files_under(directory: &Path, found: &mut Vec<PathBuf>) {
    for item in fs::read_dir(directory).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            files_under(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Flips one bit of every file of the log, in many places.
#[tokio::test]
async fn a_flipped_bit_in_the_log_is_found_or_changes_nothing_that_is_signed() {
    let origin = tempfile::tempdir().unwrap();
    let root = prepared(origin.path()).await;
    let mut files = Vec::new();
    files_under(&log_directory(origin.path()), &mut files);
    assert!(files.len() >= 5, "{files:?}");
    let mut found = 0;
    for file in files {
        let name = file.strip_prefix(origin.path()).unwrap();
        let length = fs::metadata(&file).unwrap().len();
        let step = (length / 12).max(1) | 1;
        for position in (0..length).step_by(usize::try_from(step).unwrap()) {
            let folder = tempfile::tempdir().unwrap();
            copy_folder(origin.path(), folder.path());
            let place = usize::try_from(position).unwrap();
            let mut bytes = fs::read(folder.path().join(name)).unwrap();
            bytes[place] ^= 1 << (place % 7);
            fs::write(folder.path().join(name), bytes).unwrap();

            let signed = signed_next(folder.path()).await;
            let edge = name.to_string_lossy().contains(".p");
            let what = format!("{} at {position}", name.display());
            match signed {
                // A full tile is no part of what is signed next, and a hexadecimal digit may change its case.
                Some(signed) => assert!(!edge && signed == root, "{what}"),
                None => found += 1,
            }
        }
    }
    assert!(found >= 40, "{found}");
}

/// What is signed next, if anything still is.
async fn signed_next(directory: &Path) -> Option<LogHash> {
    let store = try_embedded(directory)?;
    let mut signed = None;
    if let Ok(log) = Log::open(Arc::clone(&store), signer()).await
        && log.integrate().await.is_ok()
    {
        signed = log.newest().map(|newest| *newest.root());
    }
    store.shutdown().await.unwrap();
    signed
}

/// The journal is damaged after the entries were acknowledged and before they are in the log.
#[tokio::test]
async fn a_flipped_bit_in_the_journal_is_not_signed() {
    let mut refused = 0;
    for position in (0..4_000).step_by(53) {
        let folder = tempfile::tempdir().unwrap();
        let store = embedded(folder.path());
        let log = open_log(&store).await;
        let mut acknowledged = Frontier::new();
        for (_, leaf) in post(&store, 0..20).await {
            acknowledged.push(leaf);
        }
        let mut files = Vec::new();
        files_under(&journal_directory(folder.path()), &mut files);
        let segment = files
            .iter()
            .find(|file| file.to_string_lossy().ends_with("1.log"))
            .unwrap();
        let mut bytes = fs::read(segment).unwrap();
        let place = bytes.len().min(position);
        if let Some(byte) = bytes.get_mut(place) {
            *byte ^= 1 << (position % 8);
        }
        overwrite(segment, &bytes);
        let mut result = log.integrate().await;
        while matches!(&result, Err(LogError::Read(ReadError::Journal { .. }))) {
            result = log.integrate().await;
        }
        match result {
            Ok(_) => assert_eq!(*log.newest().unwrap().root(), acknowledged.root(), "{position}"),
            Err(LogError::Halted { .. }) => {
                refused += 1;
                assert!(log.halted().is_some());
                assert_eq!(store.newest_checkpoint().await.unwrap(), None);
            }
            Err(other) => panic!("{position}: {other}"),
        }
        // The index notices too, or not; the log is what counts here.
        let _ = store.shutdown().await;
    }
    assert!(refused >= 20, "{refused}");
}

/// Changes a file in place, as a disk does; whoever has it open sees it.
fn overwrite(file: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    let mut opened = fs::OpenOptions::new().write(true).open(file).unwrap();
    opened.write_all(bytes).unwrap();
}

/// A backup that is older than what was signed would fork the log.
#[tokio::test]
async fn a_ledger_that_lost_signed_records_signs_nothing() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = embedded(old.path());
    post(&store, 0..5).await;
    store.shutdown().await.unwrap();
    copy_folder(old.path(), new.path());
    let store = embedded(new.path());
    post(&store, 5..9).await;
    integrate_all(&open_log(&store).await).await;
    store.shutdown().await.unwrap();

    copy_folder(&log_directory(new.path()), &log_directory(old.path()));
    let Some(store) = try_embedded(old.path()) else {
        // The store itself has found out.
        return;
    };
    // Others that took their places are not signed either.
    for ids in [100..100, 100..103, 103..104, 104..120] {
        post(&store, ids).await;
        let log = Log::open(Arc::clone(&store), signer()).await.unwrap();
        assert!(log.halted().unwrap().contains("records are lost"));
        assert!(matches!(log.integrate().await, Err(LogError::Halted { .. })));
    }
    store.shutdown().await.unwrap();
}

/// The same where the store has not noticed.
#[tokio::test]
async fn a_log_that_is_ahead_of_its_ledger_signs_nothing() {
    let ledger = EmbeddedKind.begin().await;
    let store = ledger.open().await;
    post(&store, 0..10).await;
    let running = open_log(&store).await;
    integrate_all(&running).await;
    let before = store.published_checkpoint().await.unwrap();
    post(&store, 10..12).await;

    let seen = Arc::new(Seen::default());
    let mut other_record = Spy::new(&store, &seen);
    other_record.record_lie = Some(Box::new(|_, record: &mut Record| {
        if record.sequence == 10 {
            record.time_ms += 1;
        }
    }));
    let mut no_record = Spy::new(&store, &seen);
    no_record.sequence_max = Some(9);
    for spy in [other_record, no_record] {
        let log = Log::open(Arc::new(spy), signer()).await.unwrap();
        let halted = log.halted().unwrap();
        assert!(halted.contains("records are lost"), "{halted}");
        assert!(matches!(log.integrate().await, Err(LogError::Halted { .. })));
        assert_eq!(log.newest().unwrap().size(), 10, "what was signed is still shown");
    }
    assert_eq!(store.newest_checkpoint().await.unwrap(), before);

    // A checkpoint that was reserved further on than the records go.
    store
        .reserve_checkpoint(40, LogHash::from_bytes([4; 32]))
        .await
        .unwrap();
    let Err(LogError::Halted { reason }) = running.integrate().await else {
        panic!("it signed");
    };
    assert!(reason.contains("12 records") && reason.contains("40"), "{reason}");
    store.shutdown().await.unwrap();
}

fn try_embedded(directory: &Path) -> Option<Arc<dyn Store>> {
    use gristmill_ledger::store::{EmbeddedOptions, EmbeddedStore};
    let opened = EmbeddedStore::open(directory, &EmbeddedOptions::default());
    opened.ok().map(|store| -> Arc<dyn Store> { Arc::new(store) })
}
