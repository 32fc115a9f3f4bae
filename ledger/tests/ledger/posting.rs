//! What was posted stays posted, once, and is answered the same for ever.

use gristmill_ledger::entry::Entry;
use gristmill_ledger::journal::JournalError;
use gristmill_ledger::outcome::{Effect, Posted};
use gristmill_ledger::refusal::Refusal;
use gristmill_ledger::store::{OpenError, PostError};
use gristmill_ledger::{EmbeddedOptions, Ledger, audit};
use gristmill_protocol::credits::Credits;

use crate::world::{ALICE, BOB, account, channel, grant, ledger, open, settle, story};

#[tokio::test]
async fn answers_are_the_same_again_at_once_and_after_a_new_start() {
    let folder = tempfile::tempdir().unwrap();
    let book = ledger(folder.path());
    let mut first = Vec::new();
    for (entry, time_ms) in story().into_iter().zip(1..) {
        first.push(book.post(entry, time_ms).await.unwrap());
    }
    let digest = book.store().state_digest().await.unwrap();
    for round in 0..2 {
        for (entry, original) in story().into_iter().zip(&first) {
            // Settling a channel repeats its newest settlement; a start is never a repetition.
            let expected = match (&entry, original.sequence) {
                (Entry::Started(_), _) => continue,
                (_, 3) => &first[4],
                _ => original,
            };
            let again = book.post(entry, 99).await.unwrap();
            assert_eq!(
                again,
                Posted {
                    repeated: true,
                    ..expected.clone()
                },
                "round {round}"
            );
            assert_eq!(
                book.posted(original.sequence).await.unwrap().as_ref(),
                Some(original)
            );
        }
    }
    book.shutdown().await.unwrap();
    assert_eq!(book.post(grant(9, BOB, 1), 1).await, Err(PostError::Stopped));
    // What is in memory is still answered.
    assert_eq!(book.posted(3).await.unwrap().as_ref(), Some(&first[2]));

    let reopened = ledger(folder.path());
    assert_eq!(reopened.store().state_digest().await.unwrap(), digest);
    assert_eq!(reopened.head().await.unwrap().last_time_ms, first.len() as u64);
    for original in &first {
        assert_eq!(
            reopened.posted(original.sequence).await.unwrap().as_ref(),
            Some(original)
        );
        let record = reopened.record(original.sequence).await.unwrap().unwrap();
        assert_eq!(record.hash(), original.record_hash);
        assert_eq!(
            Entry::decode_salted(&record.content).unwrap(),
            story()[original.sequence as usize - 1]
        );
    }
    assert_eq!(reopened.posted(0).await.unwrap(), None);
    assert_eq!(reopened.posted(1_000).await.unwrap(), None);
    reopened.shutdown().await.unwrap();
    reopened.shutdown().await.unwrap();
}

#[tokio::test]
async fn histories_are_pages_of_what_concerns_an_account() {
    let folder = tempfile::tempdir().unwrap();
    let book = ledger(folder.path());
    for entry in story() {
        book.post(entry, 1).await.unwrap();
    }
    let sequences = |page: Vec<Posted>| page.iter().map(|posted| posted.sequence).collect::<Vec<_>>();
    assert_eq!(
        sequences(book.history(&account(ALICE), None, 100).await.unwrap()),
        [8, 7, 6, 5, 3, 2, 1]
    );
    assert_eq!(
        sequences(book.history(&account(BOB), Some(7), 2).await.unwrap()),
        [6, 5]
    );
    assert_eq!(
        sequences(book.settlements(&account(BOB), None, 100).await.unwrap()),
        [8, 5, 3]
    );
    assert_eq!(
        sequences(book.settlements(&account(BOB), Some(5), 100).await.unwrap()),
        [3]
    );
    assert_eq!(
        sequences(book.history(&account(77), None, 100).await.unwrap()),
        Vec::<u64>::new()
    );

    let paid: Vec<_> = book.settlements(&account(ALICE), None, 100).await.unwrap();
    let Effect::Settled(newest) = &paid[0].outcome.effect else {
        panic!("{paid:?}")
    };
    assert_eq!((newest.channel, newest.amount), (channel(2), Credits::micro(1)));
    let bob = book.balance(&account(BOB)).await.unwrap();
    // 250,000 less 2.5 percent, and 1 of which the fee rounds to nothing.
    assert_eq!(bob.available, Credits::micro(250_000 - 6_250 + 1));
    assert_eq!(
        book.channel(&channel(1)).await.unwrap().unwrap().settled,
        Credits::micro(250_000)
    );
}

#[tokio::test]
async fn refusals_are_answered_and_not_journaled() {
    let folder = tempfile::tempdir().unwrap();
    let book = ledger(folder.path());
    let refused = book.post(open(1, 5), 1).await;
    let nothing = Refusal::InsufficientCredits {
        available: Credits::ZERO,
        wanted: Credits::micro(5),
    };
    assert_eq!(refused, Err(PostError::Refused(nothing)));
    assert_eq!(
        book.post(grant(1, ALICE, 0), 1).await,
        Err(PostError::Refused(Refusal::ZeroAmount))
    );
    assert_eq!(book.head().await.unwrap().sequence, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_thousand_posts_at_once_conserve_every_credit() {
    const POSTS: u64 = 2_000;
    let folder = tempfile::tempdir().unwrap();
    let book = ledger(folder.path());
    book.post(grant(1, ALICE, 1_000_000), 1).await.unwrap();
    book.post(open(1, 500_000), 1).await.unwrap();
    // 1,000 channels of 700 want 700,000 of 500,000; 800 vouchers of one channel arrive in any order; 200 grants are
    // posted twice.
    let posts: Vec<_> = (0..POSTS)
        .map(|number| match number % 10 {
            0..5 => open(1_000 + number, 700),
            5..9 => settle(1, 500 + (number as u32 * 7_919) % 490_000),
            _ => grant(1_000 + number / 20, BOB, 10),
        })
        .map(|entry| {
            let book = book.clone();
            tokio::spawn(async move {
                loop {
                    match book.post(entry.clone(), 2).await {
                        // More than this machine can answer in time.
                        Err(PostError::Overloaded { .. }) => tokio::task::yield_now().await,
                        other => return other,
                    }
                }
            })
        })
        .collect();
    let (mut opened, mut refused, mut granted) = (0, 0, 0);
    for post in posts {
        match post.await.unwrap() {
            Ok(Posted {
                outcome,
                repeated: false,
                ..
            }) => match outcome.effect {
                Effect::Opened(_) => opened += 1,
                Effect::Granted(_) => granted += 1,
                _ => {}
            },
            Ok(_) => {}
            Err(PostError::Refused(Refusal::InsufficientCredits { .. })) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(
        (opened, refused, granted),
        (500_000 / 700, 1_000 - 500_000 / 700, 100)
    );
    let totals = book.head().await.unwrap().totals;
    let sum = totals
        .available
        .checked_add(totals.held)
        .unwrap()
        .checked_add(totals.fees)
        .unwrap();
    assert_eq!(
        (totals.issued, sum),
        (Credits::micro(1_001_000), Credits::micro(1_001_000))
    );
    let (digest, sequence) = (
        book.store().state_digest().await.unwrap(),
        book.head().await.unwrap().sequence,
    );
    book.shutdown().await.unwrap();

    let report = audit::audit(folder.path()).unwrap();
    assert!(report.clean, "{report:?}");
    assert_eq!((report.state_digest, report.records), (digest, sequence));
    assert_eq!(report.index, audit::IndexVerdict::Agrees { entries: sequence });
}

#[tokio::test]
async fn a_post_that_nobody_waits_for_is_written_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let book = ledger(folder.path());
    {
        let mut abandoned = Box::pin(book.post(grant(1, ALICE, 5), 1));
        // Polled once, so it is in the queue, and then dropped.
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(Future::poll(abandoned.as_mut(), context).is_ready())
        });
        let _ = polled.await;
    }
    book.shutdown().await.unwrap();
    let reopened = ledger(folder.path());
    assert_eq!(
        reopened.balance(&account(ALICE)).await.unwrap().available,
        Credits::micro(5)
    );
}

#[tokio::test]
async fn shutdown_finishes_what_is_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let book = ledger(folder.path());
    let posts: Vec<_> = (0..500)
        .map(|number| {
            let book = book.clone();
            tokio::spawn(async move { book.post(grant(number, BOB, 1), 1).await })
        })
        .collect();
    tokio::task::yield_now().await;
    book.shutdown().await.unwrap();
    let mut written = 0;
    for post in posts {
        match post.await.unwrap() {
            Ok(_) => written += 1,
            Err(PostError::Stopped | PostError::Overloaded { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let reopened = ledger(folder.path());
    assert_eq!(reopened.head().await.unwrap().sequence, written);
}

#[tokio::test]
async fn a_directory_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let first = ledger(folder.path());
    let second = Ledger::open(folder.path(), &EmbeddedOptions::default());
    assert!(
        matches!(second, Err(OpenError::Journal(JournalError::InUse { .. }))),
        "{second:?}"
    );
    first.shutdown().await.unwrap();
    // The handle still exists, but the directory is free.
    ledger(folder.path()).shutdown().await.unwrap();
}
