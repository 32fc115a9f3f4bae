//! What holds for a store that one task uses.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::ChannelId;

use super::world::{
    ALICE, BOB, CAROL, REDEEM_BY_MS, account, channel, checked, close, freeze, grant, grant_of, open,
    open_between, rotate, settle, started, starter, story, unfreeze,
};
use super::{StoreKind, assert_consistent};
use crate::Store;
use crate::book::{Applied, Balance, Book, Head};
use crate::entry::{CloseReason, Entry, GrantKind};
use crate::index::{PAGE_MAX_ITEMS, Selection};
use crate::outcome::{Effect, Posted};
use crate::refusal::Refusal;
use crate::store::{PostError, RECORDS_MAX};

/// Posts the story, one entry each millisecond from 1 on.
async fn tell_the_story(store: &dyn Store) -> Vec<Posted> {
    let mut told = Vec::new();
    for (entry, time_ms) in story().into_iter().zip(1..) {
        told.push(store.post(checked(entry), time_ms).await.unwrap());
    }
    told
}

/// Nothing was posted, so nothing is there, and that adds up.
pub async fn an_empty_ledger_has_nothing(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    assert_eq!(store.head().await.unwrap(), Head::default());
    assert_eq!(store.balance(&account(ALICE)).await.unwrap(), Balance::default());
    assert_eq!(store.channel(&channel(1)).await.unwrap(), None);
    assert_eq!(
        store.expired_channels(u64::MAX, 10).await.unwrap(),
        Vec::<ChannelId>::new()
    );
    for sequence in [0, 1, u64::MAX] {
        assert_eq!(store.posted(sequence).await.unwrap(), None);
        assert_eq!(store.records(sequence, 10).await.unwrap(), Vec::new());
    }
    assert_eq!(store.state_digest().await.unwrap(), Book::new().digest());
    assert_eq!(store.newest_checkpoint().await.unwrap(), None);
    assert_eq!(store.published_checkpoint().await.unwrap(), None);
    assert_eq!(store.read_only_reason(), None);
    store.verify().await.unwrap();
    store.shutdown().await.unwrap();
}

/// What is posted is what the book says, at once and after a new start.
pub async fn a_story_of_every_kind_of_entry_is_kept(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    let mut book = Book::new();
    for ((entry, posted), time_ms) in story().into_iter().zip(tell_the_story(&*store).await).zip(1..) {
        let Applied::New { sequence, outcome } = book.apply(&checked(entry), time_ms).unwrap() else {
            panic!("an entry of the story repeats another one");
        };
        assert_eq!(
            (posted.sequence, &posted.outcome, posted.time_ms, posted.repeated),
            (sequence, &outcome, time_ms, false)
        );
    }
    assert_state(&*store, &book).await;
    store.shutdown().await.unwrap();
    let store = ledger.open().await;
    assert_state(&*store, &book).await;
    store.shutdown().await.unwrap();
}

async fn assert_state(store: &dyn Store, book: &Book) {
    assert_eq!(store.head().await.unwrap(), *book.head());
    for (id, balance) in book.accounts() {
        assert_eq!(store.balance(id).await.unwrap(), *balance);
    }
    for state in book.channels() {
        assert_eq!(store.channel(&state.channel).await.unwrap(), Some(state));
    }
    assert_consistent(store).await;
    let stored: Vec<Entry> = store
        .records(1, RECORDS_MAX)
        .await
        .unwrap()
        .iter()
        .map(|record| Entry::decode_salted(&record.content).unwrap())
        .collect();
    assert_eq!(stored, story());
}

/// Whoever asks twice gets the same bytes, whenever.
pub async fn the_same_entry_has_the_same_answer_for_ever(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    let told = tell_the_story(&*store).await;
    let head = store.head().await.unwrap();
    store.shutdown().await.unwrap();
    for _ in 0..2 {
        let store = ledger.open().await;
        for (entry, first) in story().into_iter().zip(&told) {
            let expected = match &entry {
                // A start is never a repetition, and a handed-over key can't hand over again.
                Entry::Started(_) | Entry::RotateKey(_) => continue,
                // Settling a channel repeats its newest settlement.
                Entry::Settle(settle) => told
                    .iter()
                    .rfind(|posted| matches!(&posted.outcome.effect, Effect::Settled(settled) if settled.channel == settle.channel))
                    .unwrap(),
                _ => first,
            };
            let again = store.post(checked(entry), 9_999).await.unwrap();
            let expected = Posted {
                repeated: true,
                ..expected.clone()
            };
            assert_eq!(again, expected);
            assert_eq!(store.posted(first.sequence).await.unwrap().as_ref(), Some(first));
        }
        assert_eq!(store.head().await.unwrap(), head);
        assert_consistent(&*store).await;
        store.shutdown().await.unwrap();
    }
}

/// An entry that is refused is not in the ledger, and says why.
pub async fn refusals_change_nothing(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    for entry in [
        grant(1, ALICE, 100),
        starter(2, CAROL, 900),
        open(1, 40),
        freeze(3, BOB),
        rotate(90, 90, 91),
    ] {
        store.post(checked(entry), 1).await.unwrap();
    }
    let before = store.head().await.unwrap();
    let refused = [
        (grant(1, ALICE, 101), "grant_conflict"),
        (grant(3, ALICE, 1), "grant_conflict"),
        (freeze(1, ALICE), "entry_conflict"),
        (starter(4, CAROL, 1), "starter_already_granted"),
        (starter(4, ALICE, 101), "starter_budget_exhausted"),
        (open_between(1, ALICE, CAROL, 40, 1), "channel_conflict"),
        (
            open_between(2, ALICE, CAROL, 61, REDEEM_BY_MS),
            "insufficient_credits",
        ),
        (open(2, 1), "account_frozen"),
        (settle(2, 1), "unknown_channel"),
        (settle(1, 41), "above_limit"),
        (super::world::settle_by(1, BOB, 1), "wrong_signer"),
        (close(1, CloseReason::Expired), "not_expired"),
        (close(2, CloseReason::Provider), "unknown_channel"),
        (freeze(5, BOB), "frozen_already"),
        (unfreeze(5, ALICE), "frozen_already"),
        (rotate(90, 90, 92), "handover_invalid"),
    ];
    for (entry, code) in refused {
        let shown = format!("{entry:?}");
        match store.post(checked(entry), 2).await {
            Err(PostError::Refused(refusal)) => assert_eq!(refusal.code(), code, "{shown}"),
            other => panic!("{shown} should be refused by {code}: {other:?}"),
        }
    }
    assert_eq!(store.head().await.unwrap(), before);
    assert_eq!(
        store
            .post(checked(open_between(9, CAROL, ALICE, 901, 1)), 2)
            .await,
        Err(PostError::Refused(Refusal::InsufficientCredits {
            available: Credits::micro(900),
            wanted: Credits::micro(901)
        }))
    );
    assert_consistent(&*store).await;
    store.shutdown().await.unwrap();
}

/// Pages give each entry that concerns an account once, the newest first.
pub async fn histories_are_pages_from_the_newest_on(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    let told = tell_the_story(&*store).await;
    for name in [ALICE, BOB, CAROL, 77, 90, 91] {
        for selection in [Selection::All, Selection::Settlements] {
            let wanted = |posted: &&Posted| {
                let is_settlement = matches!(posted.outcome.effect, Effect::Settled(_));
                posted.outcome.parties().contains(&account(name))
                    && (selection == Selection::All || is_settlement)
            };
            let expected: Vec<Posted> = told.iter().rev().filter(wanted).cloned().collect();
            let whole = store
                .history(&account(name), selection, None, usize::MAX)
                .await
                .unwrap();
            assert_eq!(whole, expected, "{name} {selection:?}");
            let mut paged: Vec<Posted> = Vec::new();
            loop {
                let before = paged.last().map(|posted| posted.sequence);
                let page = store.history(&account(name), selection, before, 2).await.unwrap();
                assert!(page.len() <= 2);
                if page.is_empty() {
                    break;
                }
                paged.extend(page);
                assert!(paged.len() <= expected.len(), "{name} {selection:?}: {paged:?}");
            }
            assert_eq!(paged, expected, "{name} {selection:?}");
            assert_eq!(
                store.history(&account(name), selection, None, 0).await.unwrap(),
                []
            );
        }
    }
    for id in 0..PAGE_MAX_ITEMS as u64 + 1 {
        let _ = store.post(checked(grant(100 + id, 55, 1)), 5).await.unwrap();
    }
    let longest = store
        .history(&account(55), Selection::All, None, usize::MAX)
        .await
        .unwrap();
    assert_eq!(longest.len(), PAGE_MAX_ITEMS);
    store.shutdown().await.unwrap();
}

/// The longest expired channel comes first, and what the coordinator was away is added to everybody's time.
pub async fn channels_expire_in_order_and_downtime_delays_them(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    store.post(checked(grant(1, ALICE, 100)), 1).await.unwrap();
    for (id, redeem_by_ms) in [(1, 300), (2, 100), (3, 200), (4, 100), (5, u64::MAX)] {
        store
            .post(checked(open_between(id, ALICE, BOB, 1, redeem_by_ms)), 1)
            .await
            .unwrap();
    }
    let expired = async |now_ms, limit| store.expired_channels(now_ms, limit).await.unwrap();
    assert_eq!(expired(100, 9).await, []);
    assert_eq!(expired(101, 9).await, [channel(2), channel(4)]);
    assert_eq!(expired(1_000, 9).await, [2, 4, 3, 1].map(channel));
    assert_eq!(expired(1_000, 3).await, [2, 4, 3].map(channel));
    store.post(checked(started(50)), 2).await.unwrap();
    assert_eq!(expired(150, 9).await, []);
    assert_eq!(expired(151, 9).await, [2, 4].map(channel));
    // One that is opened after the interruption is not delayed by it.
    store
        .post(checked(open_between(6, ALICE, BOB, 1, 100)), 3)
        .await
        .unwrap();
    assert_eq!(expired(101, 9).await, [channel(6)]);
    store
        .post(checked(close(2, CloseReason::Expired)), 200)
        .await
        .unwrap();
    assert_eq!(expired(200, 9).await, [6, 4].map(channel));
    let delayed = store.channel(&channel(1)).await.unwrap().unwrap();
    assert_eq!((delayed.redeem_by_ms, delayed.extended_redeem_by_ms), (300, 350));
    // The longest downtime there is: nothing opened before it expires any more.
    store.post(checked(started(u64::MAX)), 4).await.unwrap();
    assert_eq!(expired(u64::MAX, 9).await, []);
    store
        .post(checked(open_between(7, ALICE, BOB, 1, 0)), 5)
        .await
        .unwrap();
    assert_eq!(expired(0, 9).await, []);
    assert_eq!(expired(1, 9).await, [channel(7)]);
    assert_consistent(&*store).await;
    store.shutdown().await.unwrap();
}

/// Times, sums and deadlines at the end of their range are kept as they are.
pub async fn the_largest_numbers_come_back(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    let all = grant_of(1, ALICE, Credits::MAX, GrantKind::Operator);
    let posted = store.post(checked(all), u64::MAX).await.unwrap();
    assert_eq!(posted.time_ms, u64::MAX);
    let one_more = store.post(checked(grant(2, ALICE, 1)), 0).await;
    assert!(
        matches!(
            one_more,
            Err(PostError::Refused(Refusal::IssuanceExhausted { .. }))
        ),
        "{one_more:?}"
    );
    store.post(checked(started(u64::MAX)), u64::MAX).await.unwrap();
    store.post(checked(started(1)), 0).await.unwrap();
    store
        .post(
            checked(open_between(1, ALICE, BOB, u32::MAX, u64::MAX)),
            u64::MAX - 1,
        )
        .await
        .unwrap();
    store.post(checked(settle(1, u32::MAX)), u64::MAX).await.unwrap();
    store.shutdown().await.unwrap();
    let store = ledger.open().await;
    let opened = store.channel(&channel(1)).await.unwrap().unwrap();
    assert_eq!(
        (opened.opened_at_ms, opened.extended_redeem_by_ms),
        (u64::MAX - 1, u64::MAX)
    );
    assert_eq!(store.head().await.unwrap().downtime_ms, u64::MAX);
    assert_consistent(&*store).await;
    store.shutdown().await.unwrap();
}

/// However many are asked for, a page has its bound, and nothing is left out.
pub async fn records_are_read_in_bounded_pages(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    let number = RECORDS_MAX as u64 + 10;
    let posts = (1..=number).map(|id| store.post(checked(grant(id, BOB, 1)), id));
    for posted in futures::future::join_all(posts).await {
        posted.unwrap();
    }
    let sequences = async |first, limit| -> Vec<u64> {
        let records = store.records(first, limit).await.unwrap();
        records.iter().map(|record| record.sequence).collect()
    };
    assert!(
        sequences(1, usize::MAX)
            .await
            .into_iter()
            .eq(1..=RECORDS_MAX as u64)
    );
    assert_eq!(sequences(0, 2).await, [1, 2]);
    assert_eq!(sequences(3, 2).await, [3, 4]);
    assert!(sequences(5, 0).await.is_empty());
    assert!(
        sequences(number - 3, 100)
            .await
            .into_iter()
            .eq(number - 3..=number)
    );
    assert!(sequences(number + 1, 5).await.is_empty());
    assert_consistent(&*store).await;
    store.shutdown().await.unwrap();
}

/// Dropping the future does not take the entry back.
pub async fn a_post_that_nobody_waits_for_is_written(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    {
        let mut abandoned = store.post(checked(grant(1, ALICE, 5)), 1);
        // Polled once, so it is on its way, and then dropped.
        std::future::poll_fn(|context| {
            let _ = abandoned.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    store.shutdown().await.unwrap();
    let store = ledger.open().await;
    assert_eq!(
        store.balance(&account(ALICE)).await.unwrap().available,
        Credits::micro(5)
    );
    store.shutdown().await.unwrap();
}

/// Who was told that an entry is in the ledger was told the truth, also at the end.
pub async fn shutdown_finishes_what_waits_and_takes_no_more(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    let posts: Vec<_> = (0..500)
        .map(|id| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move { store.post(checked(grant(id, BOB, 1)), 1).await })
        })
        .collect();
    tokio::task::yield_now().await;
    store.shutdown().await.unwrap();
    store.shutdown().await.unwrap();
    let mut written = 0;
    for post in posts {
        match post.await.unwrap() {
            Ok(_) => written += 1,
            Err(error) => assert_eq!(error, PostError::Stopped),
        }
    }
    assert_eq!(
        store.post(checked(grant(9_999, BOB, 1)), 1).await,
        Err(PostError::Stopped)
    );
    let store = ledger.open().await;
    assert_eq!(store.head().await.unwrap().sequence, written);
    assert_consistent(&*store).await;
    store.shutdown().await.unwrap();
}
