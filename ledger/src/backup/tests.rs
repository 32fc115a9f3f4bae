use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::GrantId;
use tempfile::TempDir;

use super::*;
use crate::Ledger;
use crate::entry::{Entry, Grant, GrantKind};
use crate::journal::{Journal, JournalOptions, NewRecord};
use crate::log::{Log, LogSigner};
use crate::store::{EmbeddedOptions, LEDGER_JOURNAL, journal_directory, log_directory};

const NOW_MS: u64 = 1_800_000_000_000;

fn keypair() -> Keypair {
    Keypair::from_secret(&[1; 32])
}

fn grant(id: u64) -> Entry {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&id.to_le_bytes());
    Entry::Grant(Grant {
        id: GrantId::from_bytes(name),
        account: AccountId::from_public_key([u8::try_from(id % 7).unwrap(); 32]),
        amount: Credits::micro(1 + u32::try_from(id).unwrap()),
        kind: GrantKind::Operator,
        reason: "reason ".repeat(20),
        starter_daily_budget: Credits::ZERO,
    })
}

/// A ledger with its log, as a coordinator keeps it.
struct Place {
    folder: TempDir,
    ledger: Ledger,
    log: Log,
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = open(&folder.path().join("ledger"));
        let log = log_of(&ledger).await;
        Self { folder, ledger, log }
    }

    fn ledger_directory(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    fn backup_directory(&self) -> PathBuf {
        self.folder.path().join("backup")
    }

    async fn post(&self, ids: std::ops::Range<u64>) {
        for id in ids {
            self.ledger.post(grant(id), NOW_MS + id).await.unwrap();
        }
        while self.log.integrate().await.unwrap().more {}
    }

    fn back_up(&self) -> Result<BackupReport, BackupError> {
        back_up(&self.ledger_directory(), &self.backup_directory(), None, NOW_MS)
    }

    fn note(&self) -> String {
        fs::read_to_string(log_directory(&self.ledger_directory()).join("checkpoint")).unwrap()
    }
}

fn open(directory: &Path) -> Ledger {
    let options = EmbeddedOptions {
        segment_bytes: 4_096,
        ..EmbeddedOptions::default()
    };
    Ledger::open(directory, &options).unwrap()
}

async fn log_of(ledger: &Ledger) -> Log {
    let signer = LogSigner::new(keypair(), keypair().account(), Vec::new()).unwrap();
    Log::open(ledger.store(), signer).await.unwrap()
}

fn restored_to(place: &Place, name: &str) -> PathBuf {
    place.folder.path().join(name)
}

#[tokio::test]
async fn a_backup_is_taken_while_the_ledger_runs_added_to_and_restored() {
    let place = Place::new().await;
    place.post(0..100).await;
    let first = place.back_up().unwrap();
    assert_eq!(
        (first.records, first.records_before, first.records_left_out),
        (100, 0, 0)
    );
    assert_eq!(first.checkpoint_size, Some(100));
    place.post(100..130).await;
    let second = place.back_up().unwrap();
    assert_eq!((second.records, second.records_before), (130, 100));
    assert!(second.bytes_written < first.bytes_written, "{second:?} {first:?}");
    let nothing_new = place.back_up().unwrap();
    assert_eq!((nothing_new.records, nothing_new.root), (130, second.root));

    let copy = restored_to(&place, "copy");
    let restored = restore(&place.backup_directory(), &copy, Some(&place.note())).unwrap();
    assert_eq!((restored.records, restored.checked_against), (130, Some(130)));
    assert!(restored.audit.clean);
    let ledger = open(&copy);
    assert_eq!(
        ledger.store().state_digest().await.unwrap(),
        place.ledger.store().state_digest().await.unwrap()
    );
    // Its log goes on from the checkpoint that was published, and never makes another one for the same size.
    let log = log_of(&ledger).await;
    assert_eq!(log.halted(), None);
    assert_eq!(log.newest().unwrap().size(), 130);
    let posted = ledger.post(grant(500), NOW_MS + 500).await.unwrap();
    assert_eq!(posted.sequence, 131);
    log.integrate().await.unwrap();
    assert_eq!((log.halted(), log.newest().unwrap().size()), (None, 131));
    ledger.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_backup_without_a_writer_has_every_whole_record() {
    let place = Place::new().await;
    place.post(0..10).await;
    place.ledger.post(grant(10), NOW_MS).await.unwrap();
    place.ledger.shutdown().await.unwrap();
    let report = place.back_up().unwrap();
    assert_eq!((report.records, report.checkpoint_size), (11, Some(10)));
    let copy = restored_to(&place, "copy");
    restore(&place.backup_directory(), &copy, None).unwrap();
    let ledger = open(&copy);
    let log = log_of(&ledger).await;
    log.integrate().await.unwrap();
    assert_eq!((log.halted(), log.newest().unwrap().size()), (None, 11));
}

#[tokio::test]
async fn what_is_not_known_to_be_on_the_disk_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, backup) = (folder.path().join("ledger"), folder.path().join("backup"));
    let (mut journal, _) =
        Journal::open(&journal_directory(&ledger), JournalOptions::new(LEDGER_JOURNAL)).unwrap();
    let record = |id| NewRecord {
        time_ms: NOW_MS + id,
        content: grant(id).encode_salted(&[7; 16]),
    };
    journal.append_batch(&[record(0), record(1)]).unwrap();
    journal.sync().unwrap();
    journal.append_batch(&[record(2)]).unwrap();
    journal.append_batch(&[record(3)]).unwrap();
    // The third record says that the second was synced; nothing says so of the third.
    let report = back_up(&ledger, &backup, None, NOW_MS).unwrap();
    assert_eq!((report.records, report.records_left_out), (2, 2));
    drop(journal);
    let report = back_up(&ledger, &backup, None, NOW_MS).unwrap();
    assert_eq!(
        (report.records, report.records_before, report.records_left_out),
        (4, 2, 0)
    );
    let restored = restore(&backup, &folder.path().join("copy"), None).unwrap();
    assert_eq!(restored.records, 4);
}

#[tokio::test]
async fn every_backup_taken_under_load_is_a_clean_beginning() {
    let place = Arc::new(Place::new().await);
    let writer = tokio::spawn({
        let place = Arc::clone(&place);
        async move {
            for round in 0..12 {
                place.post(round * 25..round * 25 + 25).await;
            }
        }
    });
    let mut last = 0;
    while !writer.is_finished() {
        let taken = tokio::task::spawn_blocking({
            let place = Arc::clone(&place);
            move || place.back_up()
        });
        let report = taken.await.unwrap().unwrap();
        assert!(report.records >= last);
        last = report.records;
        let copy = restored_to(&place, &format!("copy-{last}"));
        if !copy.exists() {
            let restored = restore(&place.backup_directory(), &copy, None).unwrap();
            assert_eq!((restored.records, restored.root), (last, report.root));
        }
    }
    writer.await.unwrap();
    let report = place.back_up().unwrap();
    assert_eq!(report.records, 300);
    restore(
        &place.backup_directory(),
        &restored_to(&place, "all"),
        Some(&place.note()),
    )
    .unwrap();
}

#[tokio::test]
async fn an_older_backup_and_another_history_are_refused() {
    let place = Place::new().await;
    place.post(0..20).await;
    place.back_up().unwrap();
    let old_note = place.note();
    place.post(20..30).await;
    let copy = restored_to(&place, "copy");
    let refused = restore(&place.backup_directory(), &copy, Some(&place.note())).unwrap_err();
    assert!(
        matches!(
            refused,
            BackupError::Older {
                records: 20,
                published: 30
            }
        ),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .contains("10 acknowledged records are missing"),
        "{refused}"
    );
    assert!(!copy.exists() && !copy.with_extension("restoring").exists());

    // The same key over other records.
    let other = Place::new().await;
    other.post(100..120).await;
    let refused = restore(&place.backup_directory(), &copy, Some(&other.note())).unwrap_err();
    assert!(
        matches!(refused, BackupError::OtherHistory { size: 20 }),
        "{refused}"
    );
    let forged = old_note.replace("\n20\n", "\n19\n");
    let refused = restore(&place.backup_directory(), &copy, Some(&forged)).unwrap_err();
    assert!(matches!(refused, BackupError::Checkpoint(_)), "{refused}");
    restore(&place.backup_directory(), &copy, Some(&old_note)).unwrap();
    let refused = restore(&place.backup_directory(), &copy, None).unwrap_err();
    assert!(matches!(refused, BackupError::LedgerThere(_)), "{refused}");
}

#[tokio::test]
async fn only_the_same_ledger_goes_on_in_a_folder() {
    let (place, other) = (Place::new().await, Place::new().await);
    place.post(0..20).await;
    other.post(50..90).await;
    place.back_up().unwrap();
    let into = |from: &Place, to: &Path| back_up(&from.ledger_directory(), to, None, NOW_MS);
    let refused = into(&other, &place.backup_directory()).unwrap_err();
    assert!(matches!(refused, BackupError::OtherLedger { .. }), "{refused}");
    // Restored from an old backup, the ledger does not go on from the newer one.
    let copy = restored_to(&place, "copy");
    restore(&place.backup_directory(), &copy, None).unwrap();
    place.post(20..25).await;
    place.back_up().unwrap();
    let refused = back_up(&copy, &place.backup_directory(), None, NOW_MS).unwrap_err();
    assert!(matches!(refused, BackupError::OtherLedger { .. }), "{refused}");
    let refused = into(&place, place.folder.path()).unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty(_)), "{refused}");
    let refused = into(&place, &place.ledger_directory()).unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty(_)), "{refused}");
    let nothing = tempfile::tempdir().unwrap();
    let refused = back_up(nothing.path(), &nothing.path().join("backup"), None, NOW_MS).unwrap_err();
    assert!(matches!(refused, BackupError::NotALedger(_)), "{refused}");
    let refused = restore(nothing.path(), &nothing.path().join("ledger"), None).unwrap_err();
    assert!(matches!(refused, BackupError::NotABackup(_)), "{refused}");
}

#[tokio::test]
async fn an_interrupted_backup_is_the_one_before_and_the_next_goes_on() {
    let place = Place::new().await;
    place.post(0..20).await;
    place.back_up().unwrap();
    let manifest = fs::read(place.backup_directory().join("backup.json")).unwrap();
    place.post(20..60).await;
    let whole = place.back_up().unwrap();
    // The files are newer than the manifest: the second one was interrupted before its last step.
    fs::write(place.backup_directory().join("backup.json"), &manifest).unwrap();
    let restored = restore(&place.backup_directory(), &restored_to(&place, "old"), None).unwrap();
    assert_eq!(restored.records, 20);
    let again = place.back_up().unwrap();
    assert_eq!(
        (again.records, again.records_before, again.root),
        (60, 20, whole.root)
    );
    let restored = restore(&place.backup_directory(), &restored_to(&place, "new"), None).unwrap();
    assert_eq!(restored.records, 60);
    // Before the very first manifest.
    fs::remove_file(place.backup_directory().join("backup.json")).unwrap();
    let again = place.back_up().unwrap();
    assert_eq!((again.records, again.records_before), (60, 0));
}

#[tokio::test]
async fn damage_to_a_backup_is_found_before_anything_is_restored() {
    let place = Place::new().await;
    place.post(0..40).await;
    place.back_up().unwrap();
    let copy = restored_to(&place, "copy");
    let mut files = Vec::new();
    let mut folders = vec![place.backup_directory()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.metadata().unwrap().len() > 0 {
                files.push(path);
            }
        }
    }
    assert!(files.len() >= 3, "{files:?}");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        for place_in in [0, bytes.len() / 3, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[place_in] ^= 1;
            fs::write(&file, &damaged).unwrap();
            match restore(&place.backup_directory(), &copy, None) {
                Err(_) => assert!(!copy.exists()),
                // Blanks and times of the manifest change no record.
                Ok(restored) => {
                    assert_eq!(restored.records, 40, "{} {place_in}", file.display());
                    assert!(restored.audit.clean);
                    assert_eq!(file.file_name().unwrap(), "backup.json");
                    fs::remove_dir_all(&copy).unwrap();
                }
            }
        }
        fs::write(&file, &bytes).unwrap();
    }
    restore(&place.backup_directory(), &copy, Some(&place.note())).unwrap();
}

#[tokio::test]
async fn a_changed_journal_is_not_backed_up_under_a_checkpoint_that_it_breaks() {
    let place = Place::new().await;
    place.post(0..5).await;
    place.ledger.shutdown().await.unwrap();
    let other = Place::new().await;
    other.post(60..65).await;
    other.ledger.shutdown().await.unwrap();
    // Another history under the same checkpoint, each whole in itself.
    fs::remove_dir_all(journal_directory(&place.ledger_directory())).unwrap();
    fs::rename(
        journal_directory(&other.ledger_directory()),
        journal_directory(&place.ledger_directory()),
    )
    .unwrap();
    let refused = place.back_up().unwrap_err();
    assert!(
        matches!(refused, BackupError::OtherRoot { size: 5, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn the_key_is_only_there_where_asked_for_and_for_its_owner_alone() {
    let place = Place::new().await;
    place.post(0..3).await;
    let key = place.folder.path().join("signing.key");
    fs::write(&key, "secret\n").unwrap();
    let target = place.folder.path().join("elsewhere/signing.key");
    assert!(!place.back_up().unwrap().key_included);
    assert!(!restore_key(&place.backup_directory(), &target).unwrap());
    let report = back_up(
        &place.ledger_directory(),
        &place.backup_directory(),
        Some(&key),
        NOW_MS,
    )
    .unwrap();
    assert!(report.key_included);
    assert!(restore_key(&place.backup_directory(), &target).unwrap());
    assert_eq!(fs::read_to_string(&target).unwrap(), "secret\n");
    // An own key is never replaced.
    assert!(!restore_key(&place.backup_directory(), &target).unwrap());
    #[cfg(unix)]
    for file in [&target, &place.backup_directory().join("signing.key")] {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
