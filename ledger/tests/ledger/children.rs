//! Other processes that are killed, or whose disk is full. The test binary runs itself again as the child.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gristmill_ledger::audit;
use gristmill_ledger::store::PostError;
use gristmill_protocol::credits::Credits;

use crate::world::{BOB, account, grant, ledger, open, settle};

const DIRECTORY: &str = "GRISTMILL_LEDGER_TEST_DIRECTORY";
const ACKNOWLEDGED: &str = "acknowledged ";
const DISK_FULL: &str = "disk full";

/// The part of the child: does nothing when the tests are run as usual.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let book = ledger(Path::new(&directory));
    let first = book.head().await.unwrap().sequence * 1_000;
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let book = book.clone();
            tokio::spawn(async move {
                for number in (first + writer..).step_by(8) {
                    match book.post(grant(number, BOB, 1), number).await {
                        Ok(posted) => say(&format!(
                            "{ACKNOWLEDGED}{} {}",
                            posted.sequence, posted.record_hash
                        )),
                        Err(error) => return error,
                    }
                }
                PostError::Stopped
            })
        })
        .collect();
    for writer in writers {
        let error = writer.await.unwrap();
        assert!(matches!(error, PostError::DiskFull { .. }), "{error}");
    }
    // Readers see what was acknowledged, not what failed, and it is no reason to stop.
    assert_eq!(book.read_only_reason(), None);
    say(&format!(
        "{DISK_FULL} {} {}",
        book.head().await.unwrap().sequence,
        book.balance(&account(BOB))
            .await
            .unwrap()
            .available
            .microcredits()
    ));
    assert!(
        book.posted(book.head().await.unwrap().sequence)
            .await
            .unwrap()
            .is_some()
    );
    book.shutdown().await.unwrap();
}

/// One line in one write, so that a kill never leaves half a line that looks whole.
fn say(line: &str) {
    std::io::stdout()
        .write_all(format!("\n{line}\n").as_bytes())
        .unwrap();
}

fn spawn(directory: &Path, file_size_limit_blocks: Option<u32>) -> Child {
    let this = std::env::current_exe().unwrap();
    let arguments = ["children::child", "--exact", "--nocapture", "--test-threads=1"];
    let mut command = match file_size_limit_blocks {
        None => Command::new(this),
        Some(blocks) => {
            let mut shell = Command::new("sh");
            // Without the trap the system would kill the process instead of refusing the write.
            shell
                .arg("-c")
                .arg(format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""))
                .arg("sh")
                .arg(this);
            shell
        }
    };
    command
        .args(arguments)
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Reads what the child says until it has acknowledged `enough` or ends.
fn listen(lines: &mut impl Iterator<Item = String>, enough: usize, acknowledged: &mut BTreeMap<u64, String>) {
    let mut heard = 0;
    for line in lines.by_ref() {
        if let Some((sequence, hash)) = line
            .strip_prefix(ACKNOWLEDGED)
            .and_then(|rest| rest.split_once(' '))
        {
            // The last line may have been cut by the kill.
            if hash.len() == 64 {
                acknowledged.insert(sequence.parse().unwrap(), hash.to_owned());
                heard += 1;
            }
        }
        if heard >= enough {
            return;
        }
    }
}

async fn assert_all_there(directory: &Path, acknowledged: &BTreeMap<u64, String>) {
    let book = ledger(directory);
    for (sequence, hash) in acknowledged {
        let posted = book.posted(*sequence).await.unwrap();
        let posted = posted.unwrap_or_else(|| panic!("acknowledged entry {sequence} is lost"));
        assert_eq!(posted.record_hash.to_string(), *hash, "entry {sequence}");
    }
    assert_eq!(
        book.balance(&account(BOB))
            .await
            .unwrap()
            .available
            .microcredits(),
        book.head().await.unwrap().sequence,
        "each grant once"
    );
    book.shutdown().await.unwrap();
    let report = audit::audit(directory).unwrap();
    assert!(report.clean, "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    if std::env::var_os(DIRECTORY).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for enough in [1, 40, 9, 200, 3, 77, 120, 25] {
        let mut child = spawn(folder.path(), None);
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        listen(&mut lines, enough, &mut acknowledged);
        child.kill().unwrap();
        // What it said before it died was acknowledged too.
        listen(&mut lines, usize::MAX, &mut acknowledged);
        child.wait().unwrap();
        assert_all_there(folder.path(), &acknowledged).await;
    }
    assert!(acknowledged.len() >= 475, "{}", acknowledged.len());
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_new_entries_and_loses_nothing() {
    if std::env::var_os(DIRECTORY).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // 512-byte blocks: 96 KiB for each file.
    let mut child = spawn(folder.path(), Some(192));
    let mut acknowledged = BTreeMap::new();
    let lines: Vec<_> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .collect();
    listen(&mut lines.iter().cloned(), usize::MAX, &mut acknowledged);
    let ended = child.wait().unwrap();
    assert!(ended.success(), "{ended}: {lines:#?}");
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    let newest = *acknowledged.last_key_value().unwrap().0;
    let expected = format!("{DISK_FULL} {newest} {newest}");
    assert!(
        lines.contains(&expected),
        "{:?} is not '{expected}'",
        lines.last()
    );
    assert_all_there(folder.path(), &acknowledged).await;

    // With space again it goes on.
    let book = ledger(folder.path());
    let before = book.head().await.unwrap().sequence;
    assert!(before >= newest);
    book.post(grant(u64::MAX, crate::world::ALICE, 100), 1)
        .await
        .unwrap();
    book.post(open(1, 100), 1).await.unwrap();
    book.post(settle(1, 50), 1).await.unwrap();
    assert_eq!(
        (
            book.head().await.unwrap().sequence,
            book.head().await.unwrap().totals.settled
        ),
        (before + 3, Credits::micro(50))
    );
}
