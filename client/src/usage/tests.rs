use std::path::Path;
use std::sync::Arc;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::{JobKind, RequestId};
use gristmill_protocol::usage::Usage;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::core::context::RequestContext;
use crate::core::failure::ApiFailure;
use crate::core::finished_request::tests::finished;
use crate::core::keys::{Allowance, KeyDigest, Period, SpendCap};
use crate::core::request::ProgramRequest;

const NOW_MS: u64 = 1_800_000_000_000;

fn open(folder: &Path) -> (Arc<UsageBook>, UsageWriter) {
    let clock: Clock = Arc::new(|| NOW_MS);
    let (book, writer) = UsageBook::open(folder.to_owned(), DayBudget::default(), clock, None).unwrap();
    (Arc::new(book), writer)
}

fn program(cap: u32) -> Program {
    Program::Key {
        name: "ci".parse().unwrap(),
        id: KeyDigest::of(b"ci").id(),
        allowance: Allowance {
            cap: Some(SpendCap {
                amount: Credits::micro(cap),
                per: Period::Ever,
            }),
            requests_per_minute: None,
        },
    }
}

fn course(book: &Arc<UsageBook>, number: u8, cap: u32) -> Arc<Course> {
    let body = br#"{"model":"guide","messages":[{"role":"user","content":"secret words"}]}"#;
    let request = ProgramRequest::parse(JobKind::ChatCompletions, body.to_vec().into()).unwrap();
    let context = RequestContext {
        program: program(cap),
        ..RequestContext::new(RequestId::from_random([number; 16]))
    };
    Arc::new(Course::begin(book, &request, &context))
}

fn account(byte: u8) -> AccountId {
    AccountId::from_public_key([byte; 32])
}

#[tokio::test]
async fn a_request_is_noted_once_with_everybody_who_worked_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let (book, writer) = open(folder.path());
    let request = course(&book, 1, 100);
    let mut first = request.hold(Credits::micro(60)).unwrap().ask(account(1));
    let mut second = request.hold(Credits::micro(40)).unwrap().ask(account(2));
    assert_eq!(
        request.hold(Credits::micro(1)).err().unwrap().code,
        "budget_exhausted"
    );
    first.first_output();
    first.delivered(&Usage::tokens(5, 1), Credits::micro(20));
    first.delivered(&Usage::tokens(5, 2), Credits::micro(30));
    first.end(false);
    second.delivered(&Usage::tokens(5, 1), Credits::micro(9));
    second.end(true);
    assert!(!request.is_over());
    request.end(&Ok(()), false);
    request.end(&Err::<(), _>(ApiFailure::internal()), false);
    assert!(request.is_over());
    drop(request);
    let recent = book.recent(9, None);
    assert_eq!(recent.len(), 1);
    assert_eq!(
        (recent[0].status, recent[0].cost, &recent[0].usage),
        (200, Credits::micro(39), &Usage::tokens(10, 3))
    );
    assert_eq!(recent[0].providers.len(), 2);
    let report = book.report(GroupBy::Provider, None, Some("ci"));
    assert_eq!((report.rows.len(), report.total.requests), (2, 1));
    assert_eq!(book.spent_today(), Credits::micro(39));
    let ended = CancellationToken::new();
    ended.cancel();
    writer.run(ended).await;
    let written = std::fs::read_to_string(folder.path().join("2027-01.jsonl")).unwrap();
    assert!(
        written.lines().count() == 1 && !written.contains("secret"),
        "{written}"
    );
    // A start later the cap is still nearly used up.
    let (book, _writer) = open(folder.path());
    assert_eq!(book.recent(9, None), recent);
    let request = course(&book, 2, 100);
    let refused = request.hold(Credits::micro(62)).err().unwrap();
    assert_eq!(
        (refused.status, refused.code.as_ref()),
        (402, "insufficient_credits")
    );
    assert!(request.hold(Credits::micro(61)).is_ok());
}

#[tokio::test]
async fn a_request_of_which_nobody_tells_the_end_failed_and_holds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (book, _writer) = open(folder.path());
    let request = course(&book, 1, 100);
    let (held, asked) = (
        request.hold(Credits::micro(50)).unwrap(),
        request.hold(Credits::micro(50)).unwrap(),
    );
    let share = asked.ask(account(1));
    drop((held, share, request));
    let recent = book.recent(9, None);
    assert_eq!(
        (recent.len(), recent[0].status, recent[0].cost),
        (1, 500, Credits::ZERO)
    );
    assert!(course(&book, 2, 100).hold(Credits::micro(100)).is_ok());
    let gone = course(&book, 3, 100);
    gone.end(&Err::<(), _>(ApiFailure::shutting_down()), true);
    let newest = book.recent(1, None);
    assert_eq!(
        (newest[0].status, newest[0].code.as_deref()),
        (499, Some("client_closed_request"))
    );
}

/// What a provider had on its way when it was cancelled is counted though the program has long been told the end.
#[tokio::test]
async fn a_request_is_noted_when_the_last_provider_is_done_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (book, _writer) = open(folder.path());
    let request = course(&book, 1, 100);
    let mut winner = request.hold(Credits::micro(50)).unwrap().ask(account(1));
    let mut loser = request.hold(Credits::micro(50)).unwrap().ask(account(2));
    loser.delivered(&Usage::tokens(5, 0), Credits::micro(5));
    winner.delivered(&Usage::tokens(5, 1), Credits::micro(6));
    winner.end(true);
    request.end(&Ok(()), false);
    assert!(request.is_over() && request.cost() == Credits::micro(11));
    assert_eq!(book.recent(9, None).len(), 0);
    loser.delivered(&Usage::tokens(5, 2), Credits::micro(7));
    loser.end(false);
    let recent = book.recent(9, None);
    assert_eq!((recent.len(), recent[0].cost), (1, Credits::micro(13)));
    assert_eq!(recent[0].providers.len(), 2);
    assert_eq!(book.spent_today(), Credits::micro(13));
}

#[tokio::test]
async fn memory_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (book, writer) = open(folder.path());
    for number in 0..QUEUE_LINES + 3 {
        book.note(finished(number.to_le_bytes()[0], NOW_MS, 1));
    }
    assert_eq!(book.recent(usize::MAX, None).len(), RECENT_MAX);
    assert_eq!(book.recent(usize::MAX, Some("other")).len(), 0);
    let ended = CancellationToken::new();
    ended.cancel();
    writer.run(ended).await;
    let mut written = 0;
    store::read(folder.path(), |_| written += 1).unwrap();
    assert_eq!(written, QUEUE_LINES, "the others are counted as unwritten");
}

/// The disk comes back: nothing is lost, and nothing is written twice.
#[tokio::test]
async fn what_the_disk_refuses_is_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("usage");
    let (book, writer) = open(&place);
    // A file where the folder should be.
    std::fs::write(&place, "").unwrap();
    let ended = CancellationToken::new();
    let running = tokio::spawn(writer.run(ended.clone()));
    book.note(finished(1, NOW_MS, 1));
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    std::fs::remove_file(&place).unwrap();
    book.note(finished(2, NOW_MS, 1));
    ended.cancel();
    running.await.unwrap();
    let mut written = 0;
    store::read(&place, |_| written += 1).unwrap();
    assert_eq!(written, 2);
}

/// A runtime that ends in the middle of a write is no reason to panic.
#[test]
fn the_end_of_the_runtime_is_no_panic() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let (book, writer) = open(folder.path());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let running = runtime.spawn(writer.run(CancellationToken::new()));
        // Keeps the only thread busy, so that the write waits for it.
        let (go_on, told) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || told.recv());
        book.note(finished(1, NOW_MS, 1));
        std::thread::yield_now();
        runtime.shutdown_background();
        drop(go_on);
        let ended = futures::executor::block_on(running);
        assert!(ended.is_ok() || ended.is_err_and(|error| !error.is_panic()));
    }
}
