//! The power is cut after every operation of a whole ledger at work: journal, index, snapshots, tiles and checkpoints.
//! Whatever the disk has kept, the ledger opens, has everything it acknowledged, and its log goes on without a fork.

use std::path::Path;
use std::sync::Arc;

use gristmill_ledger::disk::recording::{PowerCut, Recording, RecordingDisk, Survival};
use gristmill_ledger::disk::{Disk, RealDisk};
use gristmill_ledger::log::{Log, LogSigner};
use gristmill_ledger::outcome::Posted;
use gristmill_ledger::{EmbeddedOptions, Ledger, audit};
use gristmill_protocol::identity::Keypair;

use crate::power::quick_disk;
use crate::world::{ALICE, BOB, account, grant, open, settle};

const SEED: u64 = 7;
const COORDINATOR: u8 = 9;
/// So short that a run has many segments, and snapshots of them.
const SEGMENT_BYTES: u64 = 3_000;
const ROUNDS: u32 = 24;
/// Marks from here on are sizes that were published.
const PUBLISHED: u64 = 1 << 32;

fn options(disk: Arc<dyn Disk>) -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: SEGMENT_BYTES,
        disk,
        ..EmbeddedOptions::default()
    }
}

async fn log_of(ledger: &Ledger) -> Log {
    let keypair = Keypair::from_secret(&[COORDINATOR; 32]);
    let signer = LogSigner::new(keypair, account(COORDINATOR), vec![]).unwrap();
    Log::open(ledger.store(), signer).await.unwrap()
}

/// Posts some at once, again and again, and marks what is acknowledged and published. Stops and starts in between.
async fn run(disk: &RecordingDisk, root: &Path) -> Vec<Posted> {
    let opened = || Ledger::open(root, &options(Arc::new(disk.clone()))).unwrap();
    let mut ledger = opened();
    let mut log = log_of(&ledger).await;
    let mut answers = Vec::new();
    let mut acknowledged = async |ledger: &Ledger, entries: Vec<_>| {
        let posts = entries.into_iter().map(|entry| ledger.post(entry, 5));
        for posted in futures::future::join_all(posts).await {
            let posted = posted.unwrap();
            disk.mark(posted.sequence);
            answers.push(posted);
        }
    };
    acknowledged(&ledger, vec![grant(1, ALICE, 1_000_000)]).await;
    acknowledged(&ledger, vec![open(1, 500_000)]).await;
    for round in 0..ROUNDS {
        let first = 100 + u64::from(round) * 10;
        let mut entries: Vec<_> = (first..first + 4).map(|id| grant(id, BOB, 1)).collect();
        entries.push(settle(1, 10 + round));
        acknowledged(&ledger, entries).await;
        if round % 3 == 2 {
            log.integrate().await.unwrap();
            let published = ledger.store().published_checkpoint().await.unwrap().unwrap();
            disk.mark(PUBLISHED + published.size);
        }
        if round % 10 == 9 {
            drop(log);
            ledger.shutdown().await.unwrap();
            ledger = opened();
            log = log_of(&ledger).await;
        }
    }
    ledger.shutdown().await.unwrap();
    answers
}

async fn recorded_run() -> (Recording, Vec<Posted>) {
    let folder = tempfile::tempdir().unwrap();
    let disk = RecordingDisk::over(RealDisk::shared(), folder.path()).unwrap();
    let answers = run(&disk, folder.path()).await;
    let report = audit::audit(folder.path()).unwrap();
    assert!(
        report.clean && report.snapshots > 0 && report.log.tiles > 0,
        "{report:?}"
    );
    (disk.recording(), answers)
}

/// Opens what a cut has left, compares it with what was acknowledged, and goes on.
async fn assert_survives(root: &Path, cut: &PowerCut, answers: &[Posted]) {
    let at = format!("{:?} after {} operations", cut.survival, cut.operations);
    let newest = |marks: &mut dyn Iterator<Item = &u64>| marks.max().copied().unwrap_or(0);
    let acknowledged = newest(&mut cut.marks.iter().filter(|mark| **mark < PUBLISHED));
    let published =
        newest(&mut cut.marks.iter().filter(|mark| **mark >= PUBLISHED)).saturating_sub(PUBLISHED);

    let ledger = Ledger::open(root, &options(quick_disk())).unwrap_or_else(|error| panic!("{at}: {error}"));
    let store = ledger.store();
    let last = ledger.head().await.unwrap().sequence;
    assert!(last >= acknowledged, "{at}: {last} of {acknowledged} are there");
    for answer in answers.iter().filter(|answer| answer.sequence <= last) {
        let again = loop {
            // The index may be on its way.
            match ledger.posted(answer.sequence).await {
                Ok(posted) => break posted,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let expected = Posted {
            repeated: false,
            ..answer.clone()
        };
        assert_eq!(again, Some(expected), "{at}");
    }
    let shown = store
        .published_checkpoint()
        .await
        .unwrap()
        .map_or(0, |shown| shown.size);
    assert!(
        shown >= published && shown <= last,
        "{at}: {shown} of {published} are shown"
    );
    store
        .verify()
        .await
        .unwrap_or_else(|error| panic!("{at}: {error}"));

    // It goes on, and the log signs the next size.
    ledger.post(grant(9_999, BOB, 1), 6).await.unwrap();
    let log = log_of(&ledger).await;
    // First what was reserved before the cut, then the rest.
    for _ in 0..2 {
        log.integrate()
            .await
            .unwrap_or_else(|error| panic!("{at}: {error}"));
    }
    let shown = store.published_checkpoint().await.unwrap().unwrap();
    assert_eq!(shown.size, last + 1, "{at}");
    drop(log);
    ledger.shutdown().await.unwrap();
    let report = audit::audit(root).unwrap();
    assert!(report.clean, "{at}: {report:?}");
    assert_eq!(
        (report.records, report.log.published),
        (last + 1, Some(last + 1)),
        "{at}"
    );
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_no_log_forks_wherever_the_power_is_cut() {
    let (recording, answers) = recorded_run().await;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let (mut cuts, mut lossy) = (0, 0);
    // A prime step, so that every kind of operation and of survival has its turn.
    for cut in recording.power_cuts(SEED, 2).step_by(7) {
        cut.write_into(&root).unwrap();
        assert_survives(&root, &cut, &answers).await;
        cuts += 1;
        lossy += usize::from(cut.survival != Survival::Everything);
    }
    assert!(cuts > 200 && lossy > 100, "{cuts} cuts, {lossy} with losses");
}
