//! An index that is missing, behind, damaged or of another journal is made anew, and nobody notices.

use std::fs;
use std::path::Path;

use gristmill_ledger::outcome::Posted;
use gristmill_ledger::{Ledger, audit};

use crate::world::{ALICE, BOB, account, copy_folder, grant, ledger, story};

async fn history(book: &Ledger) -> Vec<Posted> {
    let mut all = book.history(&account(ALICE), None, 100).await.unwrap();
    all.extend(book.settlements(&account(BOB), None, 100).await.unwrap());
    all
}

async fn written(directory: &Path) -> Vec<Posted> {
    let book = ledger(directory);
    for entry in story() {
        book.post(entry, 1).await.unwrap();
    }
    let expected = history(&book).await;
    book.shutdown().await.unwrap();
    expected
}

async fn assert_made_anew(directory: &Path, expected: &[Posted], how: &str) {
    let book = ledger(directory);
    assert_eq!(history(&book).await, expected, "{how}");
    // And it goes on.
    book.post(grant(77, BOB, 1), 2).await.unwrap();
    book.shutdown().await.unwrap();
    let report = audit::audit(directory).unwrap();
    assert!(report.clean, "{how}: {report:?}");
    assert_eq!(
        report.index,
        audit::IndexVerdict::Agrees {
            entries: report.records
        },
        "{how}"
    );
}

#[tokio::test]
async fn a_damaged_index_is_rebuilt() {
    let original = tempfile::tempdir().unwrap();
    let expected = written(original.path()).await;
    let garbage = |file: &Path| fs::write(file, [0xa5; 4_096]).unwrap();
    let half = |file: &Path| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    let flipped = |file: &Path| {
        let inverted: Vec<u8> = fs::read(file).unwrap().iter().map(|byte| !byte).collect();
        fs::write(file, inverted).unwrap();
    };
    let empty = |file: &Path| fs::write(file, []).unwrap();
    type Damage<'way> = &'way dyn Fn(&Path);
    let ways: [(&str, Damage<'_>); 4] = [
        ("garbage", &garbage),
        ("half", &half),
        ("flipped", &flipped),
        ("empty", &empty),
    ];
    for (how, damage) in ways {
        for name in ["rows", "accounts"] {
            let folder = tempfile::tempdir().unwrap();
            copy_folder(original.path(), folder.path());
            damage(&folder.path().join("index").join(name));
            assert_made_anew(folder.path(), &expected, &format!("{how} {name}")).await;
        }
    }
}

#[tokio::test]
async fn a_missing_index_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let expected = written(folder.path()).await;
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    assert_made_anew(folder.path(), &expected, "missing").await;

    let other = tempfile::tempdir().unwrap();
    let expected = written(other.path()).await;
    fs::remove_dir_all(other.path().join("index")).unwrap();
    fs::write(other.path().join("index"), "a file where the folder should be").unwrap();
    assert_made_anew(other.path(), &expected, "a file").await;
}

#[tokio::test]
async fn an_index_that_is_behind_is_brought_up() {
    let folder = tempfile::tempdir().unwrap();
    let book = ledger(folder.path());
    for entry in story().into_iter().take(3) {
        book.post(entry, 1).await.unwrap();
    }
    book.shutdown().await.unwrap();
    let behind = tempfile::tempdir().unwrap();
    copy_folder(&folder.path().join("index"), behind.path());
    let expected = written(folder.path()).await;
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    copy_folder(behind.path(), &folder.path().join("index"));
    let report = audit::audit(folder.path()).unwrap();
    assert!(report.clean, "{report:?}");
    assert_eq!(report.index, audit::IndexVerdict::Agrees { entries: 3 });
    assert_made_anew(folder.path(), &expected, "behind").await;
    assert!(!folder.path().join("index.damaged").exists(), "it was of use");
}

#[tokio::test]
async fn an_index_of_another_journal_is_rebuilt() {
    let other = tempfile::tempdir().unwrap();
    let book = ledger(other.path());
    book.post(grant(5, BOB, 5), 5).await.unwrap();
    book.shutdown().await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let expected = written(folder.path()).await;
    fs::remove_dir_all(folder.path().join("index")).unwrap();
    copy_folder(&other.path().join("index"), &folder.path().join("index"));
    let report = audit::audit(folder.path()).unwrap();
    assert_eq!(
        (report.clean, &report.index),
        (false, &audit::IndexVerdict::Differs),
        "{report:?}"
    );
    assert_eq!(report.problems[0].sequence, Some(1));
    assert_made_anew(folder.path(), &expected, "foreign").await;
    assert!(folder.path().join("index.damaged").is_dir(), "it was moved aside");
}
