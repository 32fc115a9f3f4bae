//! A ledger's whole folder of about a mebibyte, in which single bits flip: journal, index, snapshots, tiles and
//! checkpoints. The audit names the file of each.
//!
//! Usually bits a stride apart are tried; `GRISTMILL_FLIP_STRIDE=1` tries every one, which takes hours. Every single
//! bit of a journal, of an index and of a snapshot is tried where these are tested alone.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gristmill_ledger::audit;
use gristmill_ledger::entry::Entry;
use gristmill_ledger::log::{Log, LogSigner};
use gristmill_ledger::{EmbeddedOptions, Ledger};
use gristmill_protocol::identity::Keypair;

use crate::world::{ALICE, BOB, account, grant, open, settle};

const COORDINATOR: u8 = 9;
/// A prime, so that all bits of bytes and all places of records have their turn.
const STRIDE: u64 = 12_289;
/// In files up to this size a bit of every byte is tried.
const SMALL_FILE_BYTES: u64 = 200;

/// A ledger of about a mebibyte in several segments, with a log that was signed several times, ended in order.
async fn ledger_of_a_mebibyte(directory: &Path) {
    let options = EmbeddedOptions {
        segment_bytes: 128 * 1024,
        ..EmbeddedOptions::default()
    };
    let ledger = Ledger::open(directory, &options).unwrap();
    let signer = Keypair::from_secret(&[COORDINATOR; 32]);
    let signer = LogSigner::new(signer, account(COORDINATOR), vec![]).unwrap();
    let log = Log::open(ledger.store(), signer).await.unwrap();
    ledger.post(grant(0, ALICE, 1_000_000), 1).await.unwrap();
    ledger.post(open(1, 500_000), 2).await.unwrap();
    for number in 1..=900u32 {
        let entry = match number % 9 {
            0 => settle(1, number * 10),
            _ => with_long_reason(grant(u64::from(number), BOB, 1)),
        };
        ledger.post(entry, u64::from(number)).await.unwrap();
        if number % 150 == 0 {
            log.integrate().await.unwrap();
        }
    }
    log.integrate().await.unwrap();
    ledger.shutdown().await.unwrap();
}

fn with_long_reason(entry: Entry) -> Entry {
    match entry {
        Entry::Grant(mut grant) => {
            grant.reason = "r".repeat(1_000);
            Entry::Grant(grant)
        }
        other => other,
    }
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for item in fs::read_dir(folder).unwrap() {
        let item = item.unwrap();
        match item.file_type().unwrap().is_dir() {
            true => files.extend(files_in(&item.path())),
            false => files.push(item.path()),
        }
    }
    files.sort();
    files
}

/// Whether a problem is told of this file: as its place, or in words where a whole folder is of no use.
fn names(problem: &audit::Problem, file: &Path) -> bool {
    problem.file == file
        || file.starts_with(&problem.file) && problem.what.contains(&file.display().to_string())
}

/// Flips a bit of a file; twice is never.
fn flip(file: &Path, bit: u64) {
    let opened = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    opened.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    opened.write_all_at(&byte, bit / 8).unwrap();
}

/// The bits to try, of a file whose first bit has this place among those of all files.
fn bits(place: u64, bytes: u64, stride: u64) -> BTreeSet<u64> {
    let end = bytes * 8;
    let first = (stride - place % stride) % stride;
    let mut bits: BTreeSet<u64> = (first..end).step_by(usize::try_from(stride).unwrap()).collect();
    if bytes <= SMALL_FILE_BYTES {
        bits.extend((0..bytes).map(|byte| byte * 8 + byte % 8));
    }
    bits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_anywhere_in_the_folder_is_found_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    ledger_of_a_mebibyte(folder.path()).await;
    let clean = audit::audit(folder.path()).unwrap();
    assert!(clean.clean, "{clean:?}");
    assert!(clean.segments > 3, "{clean:?}");
    let stride = std::env::var("GRISTMILL_FLIP_STRIDE").map_or(STRIDE, |stride| stride.parse().unwrap());

    let (mut place, mut tried) = (0, 0);
    for file in files_in(folder.path()) {
        let bytes = fs::metadata(&file).unwrap().len();
        for bit in bits(place, bytes, stride) {
            flip(&file, bit);
            let report = audit::audit(folder.path()).unwrap();
            let named = report.problems.iter().find(|problem| names(problem, &file));
            let named = named.unwrap_or_else(|| panic!("bit {bit} of {}: {report:?}", file.display()));
            // A problem is told where the record, the row or the file that has it begins.
            assert!(
                named.offset.is_none_or(|offset| offset <= bit / 8),
                "{named:?}, bit {bit}"
            );
            let in_journal = file.parent().is_some_and(|parent| parent.ends_with("journal"));
            assert!(!in_journal || named.offset.is_some(), "{named:?}");
            flip(&file, bit);
            tried += 1;
        }
        place += bytes * 8;
    }
    assert!(
        place >= 8 * 1024 * 1024 - 512 * 1024,
        "{place} bits are not a mebibyte"
    );
    writeln!(std::io::stderr(), "{tried} of {place} bits flipped").unwrap();
    assert_eq!(audit::audit(folder.path()).unwrap(), clean);
}
