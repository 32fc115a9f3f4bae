//! What an auditor sees.

use std::fs;
use std::process::ExitCode;

use gristmill_ledger::audit::{AuditError, IndexVerdict, audit};
use gristmill_ledger::cli;
use gristmill_ledger::entry::Entry;
use gristmill_ledger::journal::SEGMENT_BYTES;
use gristmill_ledger::log::{Log, LogSigner};
use gristmill_ledger::store::{OpenError, log_directory};
use gristmill_ledger::{EmbeddedOptions, Ledger};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Keypair;

use crate::world::{BOB, account, grant, journal_of, ledger, settle, story};

#[tokio::test]
async fn a_ledger_at_work_can_be_audited_and_is_not_disturbed() {
    let folder = tempfile::tempdir().unwrap();
    let book = ledger(folder.path());
    let mut posted = 0;
    for entry in story() {
        book.post(entry, 1).await.unwrap();
        posted += 1;
        let report = audit(folder.path()).unwrap();
        assert!(report.clean && report.in_use, "{report:?}");
        assert_eq!((report.records, &report.index), (posted, &IndexVerdict::InUse));
        assert_eq!(
            (report.state_digest, report.totals),
            (
                book.store().state_digest().await.unwrap(),
                book.head().await.unwrap().totals
            )
        );
    }
    book.shutdown().await.unwrap();
    let report = audit(folder.path()).unwrap();
    assert!(report.clean && !report.in_use, "{report:?}");
    assert_eq!(
        (report.vouchers_verified, report.totals.settled),
        (3, Credits::micro(250_001))
    );
}

#[tokio::test]
async fn a_ledger_under_load_is_clean_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let book = ledger(folder.path());
    let posting = {
        let book = book.clone();
        tokio::spawn(async move {
            for number in 0..400 {
                book.post(grant(number, BOB, 1), number).await.unwrap();
            }
        })
    };
    while !posting.is_finished() {
        let directory = folder.path().to_owned();
        let report = tokio::task::spawn_blocking(move || audit(&directory).unwrap())
            .await
            .unwrap();
        assert!(report.clean, "{report:?}");
    }
    posting.await.unwrap();
}

#[test]
fn an_audit_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal_of(folder.path(), &story(), SEGMENT_BYTES);
    let segment = journal.join("00000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes.extend_from_slice(&[1, 2, 3]);
    fs::write(&segment, &bytes).unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&journal)
            .unwrap()
            .map(|item| item.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = names();
    let report = audit(folder.path()).unwrap();
    assert_eq!(
        (report.clean, report.unfinished_bytes, report.index),
        (true, 3, IndexVerdict::Absent)
    );
    assert_eq!((names(), fs::read(&segment).unwrap()), (before, bytes));
}

/// The writer never takes such entries, so the journal is written by hand.
#[test]
fn forged_vouchers_and_broken_rules_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut forged = settle(2, 2).encode();
    *forged.last_mut().unwrap() ^= 1;
    let mut entries = story();
    entries.push(Entry::decode(&forged).unwrap());
    entries.push(grant(50, BOB, 1));
    journal_of(folder.path(), &entries, SEGMENT_BYTES);
    let report = audit(folder.path()).unwrap();
    assert_eq!(
        (report.clean, report.records, report.problems.len()),
        (false, 10, 1),
        "{report:?}"
    );
    assert_eq!(report.problems[0].sequence, Some(9));
    assert!(report.problems[0].offset.is_some());
    assert!(report.problems[0].what.contains("signature"), "{report:?}");

    let folder = tempfile::tempdir().unwrap();
    let mut entries = story();
    entries.push(settle(2, 400_000));
    entries.push(grant(50, BOB, 1));
    journal_of(folder.path(), &entries, SEGMENT_BYTES);
    let report = audit(folder.path()).unwrap();
    assert_eq!(
        (report.clean, report.records),
        (false, 8),
        "what follows has no meaning: {report:?}"
    );
    assert!(report.problems[0].what.contains("limited to"), "{report:?}");
}

#[test]
fn the_command_tells_clean_from_unclean_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let journal = journal_of(folder.path(), &story(), SEGMENT_BYTES);
    let run = |json| {
        let command = cli::Command::Audit {
            directory: folder.path().to_owned(),
        };
        format!("{:?}", cli::run(command, json).unwrap())
    };
    assert_eq!(run(true), format!("{:?}", ExitCode::SUCCESS));
    assert_eq!(run(false), format!("{:?}", ExitCode::SUCCESS));
    let segment = journal.join("00000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[100] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    assert_eq!(run(true), format!("{:?}", ExitCode::FAILURE));

    let nothing = tempfile::tempdir().unwrap();
    assert!(matches!(
        audit(nothing.path()),
        Err(AuditError::NotALedger { .. })
    ));
    let command = cli::Command::Audit {
        directory: nothing.path().to_owned(),
    };
    assert!(
        cli::run(command, true)
            .unwrap_err()
            .to_string()
            .contains("holds no ledger")
    );
}

#[test]
fn a_report_is_one_object_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    journal_of(folder.path(), &story(), SEGMENT_BYTES);
    let report = serde_json::to_value(audit(folder.path()).unwrap()).unwrap();
    assert_eq!(report["clean"], true);
    assert_eq!(report["records"], 8);
    assert_eq!(report["issued"], 1_000_000);
    assert_eq!(report["index"]["verdict"], "absent");
    assert_eq!(report["problems"], serde_json::json!([]));
}

/// A ledger whose log was signed at 8 records, and the files of the log by name.
async fn logged(directory: &std::path::Path) -> impl Fn(&str) -> std::path::PathBuf {
    let book = ledger(directory);
    for entry in story() {
        book.post(entry, 1).await.unwrap();
    }
    let keypair = Keypair::from_secret(&[9; 32]);
    let signer = LogSigner::new(keypair, account(9), vec![]).unwrap();
    let log = Log::open(book.store(), signer).await.unwrap();
    log.integrate().await.unwrap();
    drop(log);
    book.shutdown().await.unwrap();
    let log = log_directory(directory);
    move |name: &str| log.join(name)
}

#[tokio::test]
async fn the_log_is_held_against_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let file = logged(folder.path()).await;
    let report = audit(folder.path()).unwrap();
    assert!(report.clean, "{report:?}");
    assert_eq!(
        (report.log.tiles, report.log.reserved, report.log.published),
        (1, Some(8), Some(8))
    );
    assert_eq!(report.log.origin, Some(format!("gristmill/log/{}", account(9))));
    let found = |name: &str, changed: Option<Vec<u8>>| {
        let whole = fs::read(file(name)).unwrap();
        match changed {
            Some(bytes) => fs::write(file(name), bytes).unwrap(),
            None => fs::remove_file(file(name)).unwrap(),
        }
        let report = audit(folder.path()).unwrap();
        fs::write(file(name), whole).unwrap();
        assert!(audit(folder.path()).unwrap().clean);
        report
    };
    let tile = "tile/0/000.p/8";
    let mut other = fs::read(file(tile)).unwrap();
    other[70] ^= 4;
    let report = found(tile, Some(other.clone()));
    assert_eq!(
        (
            &report.problems[0].file,
            report.problems[0].offset,
            report.log.tiles
        ),
        (&file(tile), Some(70), 0)
    );
    let report = found(tile, Some(other[..32].to_vec()));
    assert_eq!(report.problems[0].offset, Some(32));
    let report = found(tile, None);
    assert!(report.problems[0].what.contains("missing"), "{report:?}");

    let note = fs::read_to_string(file("checkpoint")).unwrap();
    // The last characters of the signature.
    let end = note.trim_end().len() - 10;
    let changed = if &note[end..=end] == "A" { "B" } else { "A" };
    let forged = format!("{}{changed}{}", &note[..end], &note[end + 1..]);
    let report = found("checkpoint", Some(forged.into_bytes()));
    assert_eq!(
        (&report.problems[0].file, report.log.published, report.clean),
        (&file("checkpoint"), None, false)
    );
    let report = found("checkpoint", Some(note.replace("\n8\n", "\n9\n").into_bytes()));
    assert!(!report.clean, "{report:?}");
    let report = found("reserved", Some(b"8 0000".to_vec()));
    assert_eq!(report.problems[0].file, file("reserved"));
    // A tile of records that are not in the journal.
    let beyond = file("tile/0/001.p/3");
    fs::write(&beyond, [7; 96]).unwrap_or_else(|_| {
        fs::create_dir_all(beyond.parent().unwrap()).unwrap();
        fs::write(&beyond, [7; 96]).unwrap();
    });
    let report = audit(folder.path()).unwrap();
    assert_eq!(report.problems[0].file, beyond, "{report:?}");
}

/// The checkpoint on record says what the journal must be, at every start and in the audit.
#[tokio::test]
async fn a_journal_that_does_not_lead_to_the_reserved_root_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    drop(logged(folder.path()).await);
    for name in ["index", "snapshots", "journal"] {
        let _ = fs::remove_dir_all(folder.path().join(name));
    }
    // The same entries, but with other salts.
    journal_of(folder.path(), &story(), SEGMENT_BYTES);
    let report = audit(folder.path()).unwrap();
    assert!(
        report
            .problems
            .iter()
            .any(|problem| problem.what.contains("has root")),
        "{report:?}"
    );
    let error = Ledger::open(folder.path(), &EmbeddedOptions::default()).unwrap_err();
    assert!(matches!(error, OpenError::OtherRoot { size: 8, .. }), "{error}");

    // And with one entry less, one is lost.
    fs::remove_dir_all(folder.path().join("journal")).unwrap();
    journal_of(folder.path(), &story()[..7], SEGMENT_BYTES);
    assert!(!audit(folder.path()).unwrap().clean);
    let error = Ledger::open(folder.path(), &EmbeddedOptions::default()).unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::EntriesLost {
                journal: 7,
                known: 8,
                ..
            }
        ),
        "{error}"
    );
}
