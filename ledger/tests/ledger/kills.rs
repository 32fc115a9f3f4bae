//! A coordinator's ledger that is killed two hundred times while it grants, settles and signs checkpoints. Nothing that
//! was acknowledged is lost, nothing happened twice, no size was signed with two roots, and the audit is clean each
//! time. The test binary runs itself again as the process that is killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use gristmill_ledger::audit;
use gristmill_ledger::log::{Log, LogSigner};
use gristmill_ledger::store::PostError;
use gristmill_protocol::identity::Keypair;

use crate::world::{ALICE, BOB, account, grant, ledger, open, settle};

const DIRECTORY: &str = "GRISTMILL_LEDGER_TEST_KILLS";
const ACKNOWLEDGED: &str = "acknowledged ";
const SIGNED: &str = "signed ";
const COORDINATOR: u8 = 9;
const FOLDERS: usize = 10;
const KILLS_PER_FOLDER: usize = 20;
/// Every tenth entry is a settlement of this channel, to the amount that is its number.
const CHANNEL: u64 = 1;
const CHANNEL_LIMIT: u32 = 1_000_000;
const WRITERS: u64 = 8;

/// The part of the process that is killed: does nothing when the tests are run as usual.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let book = ledger(Path::new(&directory));
    let signer = Keypair::from_secret(&[COORDINATOR; 32]);
    let log = LogSigner::new(signer, account(COORDINATOR), vec![]).unwrap();
    let log = Log::open(book.store(), log).await.unwrap();
    tokio::spawn(async move {
        loop {
            log.integrate().await.unwrap();
            if let Some(newest) = log.newest() {
                say(&format!("{SIGNED}{} {}", newest.size(), newest.root()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    // What may have been acknowledged to somebody who died is posted again, and gives the answer of then.
    post(&book, 0).await;
    let again = book.head().await.unwrap().sequence.saturating_sub(30).max(1);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let book = book.clone();
        writers.spawn(async move {
            for number in (again + writer..).step_by(usize::try_from(WRITERS).unwrap()) {
                post(&book, number).await;
            }
        });
    }
    writers.join_all().await;
}

/// Posts the entry with this number: the same number is always the same entry.
async fn post(book: &gristmill_ledger::Ledger, number: u64) {
    let entries = match number {
        0 => vec![grant(0, ALICE, CHANNEL_LIMIT), open(CHANNEL, CHANNEL_LIMIT)],
        _ if number.is_multiple_of(10) => vec![settle(CHANNEL, u32::try_from(number).unwrap())],
        _ => vec![grant(number, BOB, 1)],
    };
    for entry in entries {
        loop {
            match book.post(entry.clone(), number).await {
                Ok(posted) => {
                    say(&format!(
                        "{ACKNOWLEDGED}{} {}",
                        posted.sequence, posted.record_hash
                    ));
                    break;
                }
                Err(PostError::Overloaded { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// One line in one write, so that a kill never leaves half a line that looks whole.
fn say(line: &str) {
    std::io::stdout()
        .write_all(format!("\n{line}\n").as_bytes())
        .unwrap();
}

/// What was said by all processes of a folder.
#[derive(Default)]
struct Heard {
    acknowledged: BTreeMap<u64, String>,
    signed: BTreeMap<u64, String>,
}

impl Heard {
    /// Takes one line, and says whether it was an acknowledgement. Whatever was said before must be said again.
    fn hear(&mut self, line: &str) -> bool {
        let whole = |rest: &str| {
            let (number, hash) = rest.split_once(' ')?;
            // The last line may have been cut by the kill.
            (hash.len() == 64).then(|| (number.parse().unwrap(), hash.to_owned()))
        };
        let (told, rest, is_acknowledgement) =
            match (line.strip_prefix(ACKNOWLEDGED), line.strip_prefix(SIGNED)) {
                (Some(rest), _) => (&mut self.acknowledged, rest, true),
                (_, Some(rest)) => (&mut self.signed, rest, false),
                _ => return false,
            };
        let Some((number, hash)) = whole(rest) else {
            return false;
        };
        let before = told.insert(number, hash.clone());
        assert!(
            before.is_none_or(|before| before == hash),
            "{number} was told with another hash"
        );
        is_acknowledgement
    }
}

fn spawn(directory: &Path) -> (Child, impl Iterator<Item = String> + use<>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["kills::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::<ChildStdout>::new(child.stdout.take().unwrap());
    (child, lines.lines().map_while(Result::ok))
}

async fn check(directory: &Path, heard: &Heard) {
    let book = ledger(directory);
    for (sequence, hash) in &heard.acknowledged {
        let posted = book.posted(*sequence).await.unwrap();
        let posted = posted.unwrap_or_else(|| panic!("acknowledged entry {sequence} is lost"));
        assert_eq!(posted.record_hash.to_string(), *hash, "entry {sequence}");
    }
    let head = book.head().await.unwrap();
    // Each grant gave one, however often it was posted; settlements only moved what was there.
    let (alice, bob) = (
        book.balance(&account(ALICE)).await.unwrap(),
        book.balance(&account(BOB)).await.unwrap(),
    );
    let settlements = book.settlements(&account(BOB), None, 1_000).await.unwrap().len();
    let openings = head.sequence.min(2);
    let grants = head.sequence - openings - u64::try_from(settlements).unwrap();
    assert_eq!(bob.granted.microcredits(), grants, "each grant once");
    assert_eq!(alice.spent, head.totals.settled);
    book.shutdown().await.unwrap();
    let report = audit::audit(directory).unwrap();
    assert!(report.clean, "{report:?}");
}

async fn kill_again_and_again(folder: usize) -> usize {
    let place = tempfile::tempdir().unwrap();
    let mut heard = Heard::default();
    for kill in 0..KILLS_PER_FOLDER {
        let (mut child, mut lines) = spawn(place.path());
        // From the very first acknowledgement on, at ever other moments, every other time after a checkpoint.
        let enough = 1 + (folder * 7 + kill * 13) % 90;
        let signed = usize::from(kill % 2 == 1);
        let (mut acknowledgements, mut checkpoints) = (0, 0);
        while acknowledgements < enough || checkpoints < signed {
            let line = lines.next().expect("it ended by itself");
            acknowledgements += usize::from(heard.hear(&line));
            checkpoints += usize::from(line.starts_with(SIGNED));
        }
        child.kill().unwrap();
        // What it said before it died counts too.
        lines.for_each(|line| {
            heard.hear(&line);
        });
        child.wait().unwrap();
        check(place.path(), &heard).await;
    }
    assert!(!heard.signed.is_empty());
    heard.acknowledged.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_kills_under_load_lose_nothing_and_double_nothing() {
    if std::env::var_os(DIRECTORY).is_some() {
        return;
    }
    let mut acknowledged = 0;
    for folder in 0..FOLDERS {
        acknowledged += kill_again_and_again(folder).await;
    }
    assert!(acknowledged >= FOLDERS * KILLS_PER_FOLDER, "{acknowledged}");
}
