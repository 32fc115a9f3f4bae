//! The power is cut after every operation of a recorded run, with everything a disk may have kept: what was
//! acknowledged is there, nothing is there that was never written, and the journal goes on. And a disk that fills up
//! or fails.

use std::path::Path;
use std::sync::Arc;

use gristmill_ledger::disk::faulty::FaultyDisk;
use gristmill_ledger::disk::recording::{PowerCut, Recording, RecordingDisk, Survival};
use gristmill_ledger::disk::{Disk, RealDisk, write_file_durably};
use gristmill_ledger::journal::{Journal, JournalError, JournalOptions, NewRecord, Records};
use gristmill_ledger::record::JournalKind;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const KIND: JournalKind = *b"power\0\0\0";
const SEED: u64 = 42;
/// So short that a run has many segments.
const SEGMENT_BYTES: u64 = 2_500;
/// Marks besides the sequences: a batch is tried for which there is no space, and it was refused.
const TRYING: u64 = u64::MAX - 1;
const REFUSED: u64 = u64::MAX;
/// What such a batch consists of.
const REFUSED_BYTE: u8 = 0xee;

fn options(disk: Arc<dyn Disk>) -> JournalOptions {
    JournalOptions {
        segment_bytes: SEGMENT_BYTES,
        disk,
        ..JournalOptions::new(KIND)
    }
}

/// The machine's disk without the waiting: nothing is lost of what these tests do between two cuts.
pub(crate) fn quick_disk() -> Arc<dyn Disk> {
    let disk = FaultyDisk::over(RealDisk::shared());
    disk.leave_syncs_out(true);
    Arc::new(disk)
}

fn new(content: Vec<u8>) -> NewRecord {
    NewRecord { time_ms: 7, content }
}

/// A batch of records, some with many zeros, some larger than sectors.
fn batch(random: &mut ChaCha8Rng) -> Vec<NewRecord> {
    let record = |random: &mut ChaCha8Rng| {
        let length = [0, 1, 60, 300, 700, 1_500][random.random_range(0..6)];
        let content: Vec<u8> = (0..length).map(|_| random.random::<u8>()).collect();
        match random.random_range(0..4) {
            0 => content.iter().map(|byte| byte & 1).collect(),
            1 => vec![0; length],
            _ => content,
        }
    };
    (0..random.random_range(1..5))
        .map(|_| new(record(random)))
        .collect()
}

/// Everything that was appended, in order. The marks of a recording say how much of it was synced.
type Written = Vec<Vec<u8>>;

/// Appends and syncs, marks what is safe, and opens the journal anew in between.
fn run(disk: &RecordingDisk, faults: &FaultyDisk, root: &Path, batches: usize) -> Written {
    let directory = root.join("journal");
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut written = Written::new();
    let open = || {
        Journal::open(&directory, options(Arc::new(disk.clone())))
            .unwrap()
            .0
    };
    let mut journal = open();
    for number in 0..batches {
        let batch = batch(&mut random);
        if number % 3 == 2 {
            // The disk is full for a while. What did not fit must never come back.
            faults.set_free_bytes(Some(random.random_range(0..1_500)));
            // More than the space that was made ahead.
            let other = vec![new(vec![REFUSED_BYTE; 300]); 10];
            disk.mark(TRYING);
            let full = journal.append_batch(&other);
            assert!(matches!(full, Err(JournalError::DiskFull { .. })), "{full:?}");
            disk.mark(REFUSED);
            faults.set_free_bytes(None);
        }
        journal.append_batch(&batch).unwrap();
        written.extend(batch.into_iter().map(|record| record.content));
        // Sometimes two batches share a sync.
        if number % 3 != 1 {
            journal.sync().unwrap();
            disk.mark(journal.next_sequence() - 1);
        }
        if number % 13 == 12 {
            drop(journal);
            journal = open();
            disk.mark(journal.next_sequence() - 1);
        }
    }
    written
}

fn recorded_run(batches: usize) -> (Recording, Written) {
    let folder = tempfile::tempdir().unwrap();
    let faults = FaultyDisk::over(RealDisk::shared());
    let disk = RecordingDisk::over(Arc::new(faults.clone()), folder.path()).unwrap();
    let written = run(&disk, &faults, folder.path(), batches);
    (disk.recording(), written)
}

fn contents(records: Records) -> Result<Written, JournalError> {
    records
        .map(|found| found.map(|(_, record)| record.content))
        .collect()
}

/// The last record that had been acknowledged.
fn acknowledged(cut: &PowerCut) -> u64 {
    let synced = cut.marks.iter().filter(|mark| **mark < TRYING);
    synced.max().copied().unwrap_or(0)
}

/// What of the records counts: those of a batch that has not been refused yet may be there.
fn without_tried(cut: &PowerCut, mut found: Written) -> Written {
    if cut.marks.iter().rfind(|mark| **mark >= TRYING) == Some(&TRYING) {
        let was_tried = |content: &Vec<u8>| content.first() == Some(&REFUSED_BYTE);
        while found.pop_if(|content| was_tried(content)).is_some() {}
    }
    found
}

/// Opens the journal that a cut has left and goes on with it.
fn assert_survives(root: &Path, cut: &PowerCut, written: &Written, disk: &Arc<dyn Disk>) {
    let directory = root.join("journal");
    let acknowledged = acknowledged(cut);
    let at = format!("{:?} after {} operations", cut.survival, cut.operations);
    if !directory.exists() {
        assert_eq!(acknowledged, 0, "{at}");
        return;
    }
    let known = |known_synced| JournalOptions {
        known_synced,
        ..options(Arc::clone(disk))
    };
    // An audit changes nothing and finds the same.
    let audited = contents(Records::read_with(&directory, &known(acknowledged)).unwrap());
    let audited = audited.unwrap_or_else(|error| panic!("{at}: audit: {error}"));

    let (mut journal, records) =
        Journal::open(&directory, known(acknowledged)).unwrap_or_else(|error| panic!("{at}: {error}"));
    let found = contents(records).unwrap_or_else(|error| panic!("{at}: {error}"));
    assert_eq!(audited, found, "{at}");
    assert!(
        found.len() as u64 >= acknowledged,
        "{at}: {} of {acknowledged} are there",
        found.len()
    );
    assert!(
        written.starts_with(&without_tried(cut, found.clone())),
        "{at}: something is there that was not written"
    );

    let mut expected = found;
    expected.push(b"afterwards".to_vec());
    journal.append_batch(&[new(b"afterwards".to_vec())]).unwrap();
    journal.sync().unwrap();
    drop(journal);
    let (_, records) = Journal::open(&directory, known(expected.len() as u64)).unwrap();
    assert_eq!(contents(records).unwrap(), expected, "{at}");
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_is_cut() {
    let (recording, written) = recorded_run(40);
    let folder = tempfile::tempdir().unwrap();
    let (root, disk) = (folder.path().join("root"), quick_disk());
    let (mut cuts, mut lossy) = (0, 0);
    for cut in recording.power_cuts(SEED, 6) {
        cut.write_into(&root).unwrap();
        assert_survives(&root, &cut, &written, &disk);
        cuts += 1;
        lossy += usize::from(cut.survival != Survival::Everything);
    }
    assert!(cuts > 1_000 && lossy > 500, "{cuts} cuts, {lossy} with losses");
}

#[test]
fn the_power_may_be_cut_again_while_the_journal_is_opened() {
    let (recording, written) = recorded_run(25);
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let (mut cuts, mut repaired) = (0, 0);
    let torn = |cut: &PowerCut| matches!(cut.survival, Survival::Torn | Survival::Scattered);
    for cut in recording.power_cuts(SEED + 1, 4).filter(torn).step_by(2) {
        cut.write_into(&first).unwrap();
        let disk = RecordingDisk::over(quick_disk(), &first).unwrap();
        let directory = first.join("journal");
        if !directory.exists() {
            continue;
        }
        let (journal, _) = Journal::open(&directory, options(Arc::new(disk.clone()))).unwrap();
        repaired += usize::from(journal.cut_tail().is_some());
        // What was found is what the caller builds on from now on.
        disk.mark(journal.next_sequence() - 1);
        drop(journal);
        for mut again in disk.recording().power_cuts(SEED + 2, 4) {
            again.marks.splice(0..0, cut.marks.iter().copied());
            again.write_into(&second).unwrap();
            assert_survives(&second, &again, &written, &quick_disk());
            cuts += 1;
        }
    }
    assert!(cuts > 300 && repaired > 10, "{cuts} cuts, {repaired} repairs");
}

#[test]
fn a_file_that_is_replaced_is_the_old_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RecordingDisk::over(RealDisk::shared(), folder.path()).unwrap();
    let versions: Vec<Vec<u8>> = (1..6)
        .map(|version| vec![version; 900 * usize::from(version)])
        .collect();
    for (content, number) in versions.iter().zip(1..) {
        write_file_durably(&disk, folder.path(), "file", content).unwrap();
        disk.mark(number);
    }
    let (mut cuts, mut ahead) = (0, 0);
    for cut in disk.recording().power_cuts(SEED, 20) {
        let safe = cut.marks.last().map_or(0, |mark| usize::try_from(*mark).unwrap());
        let found = cut.files().get(Path::new("file"));
        let possible =
            [safe.checked_sub(1), Some(safe)].map(|version| version.and_then(|index| versions.get(index)));
        assert!(
            possible.contains(&found) && (found.is_some() || safe == 0),
            "{:?} after {} operations: {found:?}",
            cut.survival,
            cut.operations
        );
        ahead += usize::from(found.is_some() && found == possible[1]);
        cuts += 1;
    }
    assert!(
        cuts > 100 && ahead > 10,
        "{cuts} cuts, {ahead} ahead of what was marked"
    );
}

#[test]
fn a_batch_is_one_sync_also_where_a_segment_begins() {
    let folder = tempfile::tempdir().unwrap();
    let disk = RecordingDisk::over(RealDisk::shared(), folder.path()).unwrap();
    let (mut journal, _) =
        Journal::open(&folder.path().join("journal"), options(Arc::new(disk.clone()))).unwrap();
    let batches = 60;
    let mut one_sync = 0;
    for _ in 0..batches {
        let before = disk.recording().syncs();
        let place = journal.append_batch(&[new(vec![5; 200])]).unwrap()[0];
        journal.sync().unwrap();
        let syncs = disk.recording().syncs() - before;
        one_sync += usize::from(syncs == 1);
        // The new segment's name, and on a thread of its own the file of the one after it.
        assert!(
            syncs <= if place.offset < 100 { 3 } else { 2 },
            "{syncs} syncs at {place:?}"
        );
    }
    let segments = disk.recording().power_cuts(0, 0).last().unwrap().files().len();
    assert!(
        segments > 4 && one_sync > batches / 2,
        "{segments} files, {one_sync} batches with one sync"
    );
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::over(quick_disk());
    let directory = folder.path().join("journal");
    let with = |known_synced| JournalOptions {
        known_synced,
        ..options(Arc::new(disk.clone()))
    };
    let (mut journal, _) = Journal::open(&directory, with(0)).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut written = Written::new();
    let (mut refused, mut fitted) = (0, 0);
    for number in 0..300_u32 {
        let content = vec![number.to_le_bytes()[0]; random.random_range(300..2_000)];
        disk.set_free_bytes((number % 3 != 0).then(|| random.random_range(0..1_000)));
        match journal.append_batch(&[new(content.clone()), new(vec![1])]) {
            Ok(_) => {
                journal.sync().unwrap();
                written.extend([content, vec![1]]);
                fitted += usize::from(number % 3 != 0);
            }
            Err(error) => {
                assert!(matches!(error, JournalError::DiskFull { .. }), "{error}");
                assert_eq!(journal.next_sequence(), written.len() as u64 + 1);
                refused += 1;
            }
        }
        // Reading goes on, full or not.
        if number % 20 == 0 {
            let records = Records::read_with(&directory, &with(written.len() as u64)).unwrap();
            assert_eq!(contents(records).unwrap(), written);
        }
    }
    assert!(
        refused > 50 && fitted > 20,
        "{refused} refused, {fitted} fitted in"
    );
    drop(journal);
    let (_, records) = Journal::open(&directory, with(written.len() as u64)).unwrap();
    assert_eq!(contents(records).unwrap(), written);
}

#[test]
fn a_failed_sync_is_final() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::over(RealDisk::shared());
    let (mut journal, _) = Journal::open(folder.path(), options(Arc::new(disk.clone()))).unwrap();
    journal.append_batch(&[new(vec![1])]).unwrap();
    disk.fail_syncs(true);
    assert!(matches!(journal.sync(), Err(JournalError::Io { .. })));
    disk.fail_syncs(false);
    assert!(matches!(journal.sync(), Err(JournalError::Failed { .. })));
    let appended = journal.append_batch(&[new(vec![2])]);
    assert!(
        matches!(appended, Err(JournalError::Failed { .. })),
        "{appended:?}"
    );
}

#[test]
fn a_failed_write_is_final() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::over(RealDisk::shared());
    let (mut journal, _) = Journal::open(folder.path(), options(Arc::new(disk.clone()))).unwrap();
    journal.append_batch(&[new(vec![1])]).unwrap();
    journal.sync().unwrap();
    disk.fail_writes(true);
    let failed = journal.append_batch(&[new(vec![2; 100])]);
    assert!(matches!(failed, Err(JournalError::Io { .. })), "{failed:?}");
    disk.fail_writes(false);
    let appended = journal.append_batch(&[new(vec![2])]);
    assert!(
        matches!(appended, Err(JournalError::Failed { .. })),
        "{appended:?}"
    );
    drop(journal);
    let (_, records) = Journal::open(folder.path(), options(RealDisk::shared())).unwrap();
    assert_eq!(contents(records).unwrap(), [vec![1]]);
}

/// As where a process is killed when a new segment has its name, but the name is not safe yet.
#[test]
fn what_opening_finds_is_made_safe() {
    let folder = tempfile::tempdir().unwrap();
    let faults = FaultyDisk::over(RealDisk::shared());
    let disk = RecordingDisk::over(Arc::new(faults.clone()), folder.path()).unwrap();
    let directory = folder.path().join("journal");
    let open = || {
        Journal::open(&directory, options(Arc::new(disk.clone())))
            .unwrap()
            .0
    };
    let mut journal = open();
    let written: Written = (0..9).map(|number| vec![number; 400]).collect();
    faults.fail_directory_syncs(true);
    for content in &written {
        journal.append_batch(&[new(content.clone())]).unwrap();
        if journal.sync().is_err() {
            break;
        }
    }
    let last = journal.next_sequence() - 1;
    assert!(last < written.len() as u64, "a segment was begun");
    drop(journal);
    faults.fail_directory_syncs(false);
    let journal = open();
    assert_eq!(journal.next_sequence() - 1, last);
    disk.mark(last);
    drop(journal);
    let root = tempfile::tempdir().unwrap();
    for cut in disk.recording().power_cuts(SEED, 6) {
        cut.write_into(root.path()).unwrap();
        assert_survives(root.path(), &cut, &written, &quick_disk());
    }
}
