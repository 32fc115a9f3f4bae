//! What holds when many tasks use a store at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use gristmill_protocol::credits::Credits;

use super::world::{
    ALICE, BOB, CAROL, account, channel, checked, close, freeze, grant, open, settle, starter, unfreeze,
};
use super::{StoreKind, assert_consistent};
use crate::Store;
use crate::entry::{CloseReason, Entry};
use crate::outcome::{Effect, Posted};
use crate::refusal::Refusal;
use crate::store::PostError;

/// Posts, trying again as long as the store has no room.
async fn post(store: &dyn Store, entry: Entry, time_ms: u64) -> Result<Posted, Refusal> {
    loop {
        match store.post(checked(entry.clone()), time_ms).await {
            Ok(posted) => return Ok(posted),
            Err(PostError::Refused(refusal)) => return Err(refusal),
            Err(PostError::Overloaded { .. }) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
}

/// Posts each of these from a task of its own, in an order that has nothing to do with theirs.
async fn race(
    store: &Arc<dyn Store>,
    entries: &[Entry],
    copies: usize,
) -> Vec<(usize, Result<Posted, Refusal>)> {
    const STEP: usize = 7_919;
    let number = entries.len() * copies;
    let tasks: Vec<_> = (0..number)
        .map(|turn| turn * STEP % number % entries.len())
        .map(|position| {
            let (store, entry) = (Arc::clone(store), entries[position].clone());
            tokio::spawn(async move { (position, post(&*store, entry, 7).await) })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

/// Two thousand posts at once: nobody gets more than there is.
pub async fn two_thousand_posts_at_once_conserve_every_credit(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    post(&*store, grant(1, ALICE, 1_000_000), 1).await.unwrap();
    post(&*store, open(1, 500_000), 1).await.unwrap();
    // 1,000 channels of 700 want 700,000 of 500,000; 800 vouchers of one channel arrive in any order; 100 grants are
    // posted twice.
    let entries: Vec<Entry> = (0..2_000_u32)
        .map(|number| match number % 10 {
            0..5 => open(1_000 + u64::from(number), 700),
            5..9 => settle(1, 500 + number * 7_919 % 490_000),
            _ => grant(1_000 + u64::from(number / 20), BOB, 10),
        })
        .collect();
    let (mut opened, mut refused, mut granted) = (0, 0, 0);
    for (_, answer) in race(&store, &entries, 1).await {
        match answer {
            Ok(Posted { repeated: true, .. }) => {}
            Ok(posted) => match posted.outcome.effect {
                Effect::Opened(_) => opened += 1,
                Effect::Granted(_) => granted += 1,
                _ => {}
            },
            Err(Refusal::InsufficientCredits { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(
        (opened, refused, granted),
        (500_000 / 700, 1_000 - 500_000 / 700, 100)
    );
    assert_eq!(
        store.head().await.unwrap().totals.issued,
        Credits::micro(1_001_000)
    );
    assert_consistent(&*store).await;
    store.shutdown().await.unwrap();
}

/// Every kind of call three times, in any order and at once: each takes effect once, and all copies get the same bytes.
pub async fn every_call_doubled_reordered_and_raced_has_one_effect(kind: &dyn StoreKind) {
    const COPIES: usize = 3;
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    post(&*store, grant(1, ALICE, 1_000_000), 1).await.unwrap();
    for id in 1..=20 {
        post(&*store, open(id, 1_000), 1).await.unwrap();
    }
    let entries: Vec<Entry> = (0..40)
        .map(|id| grant(1_000 + id, CAROL, 3))
        .chain((0..40).map(|id| open(1_000 + id, 100)))
        .chain((1..=10).flat_map(|id| (1..=8).map(move |part| settle(id, part * 100))))
        .chain((11..=20).map(|id| close(id, CloseReason::Provider)))
        .chain([starter(2_000, BOB, 5), freeze(2_001, 60), freeze(2_002, 61)])
        .collect();
    let answers = race(&store, &entries, COPIES).await;
    let mut first: BTreeMap<usize, Posted> = BTreeMap::new();
    let mut newly = BTreeMap::new();
    for (position, answer) in answers {
        let posted = answer.unwrap_or_else(|refusal| panic!("{:?}: {refusal}", entries[position]));
        *newly.entry(posted.sequence).or_insert(0) += usize::from(!posted.repeated);
        let told = Posted {
            repeated: false,
            ..posted
        };
        // A voucher that comes after a higher one is answered with the newest settlement; all others by themselves.
        if !matches!(entries[position], Entry::Settle(_)) {
            let same = first.entry(position).or_insert_with(|| told.clone());
            assert_eq!(*same, told);
        }
        assert_eq!(store.posted(told.sequence).await.unwrap(), Some(told));
    }
    assert!(newly.values().all(|times| *times == 1), "{newly:?}");
    for id in 1..=10 {
        let paid = store.channel(&channel(id)).await.unwrap().unwrap();
        assert_eq!(paid.settled, Credits::micro(800), "channel {id}");
    }
    assert_eq!(
        store.balance(&account(CAROL)).await.unwrap().granted,
        Credits::micro(120)
    );
    store.shutdown().await.unwrap();

    // Once more after a new start: nothing takes effect any more.
    let store = ledger.open().await;
    let before = store.head().await.unwrap();
    for (position, answer) in race(&store, &entries, 1).await {
        let posted = answer.unwrap();
        assert!(posted.repeated);
        if let Some(first) = first.get(&position) {
            assert_eq!(posted.sequence, first.sequence);
            assert_eq!(posted.record_hash, first.record_hash);
        }
    }
    assert_eq!(store.head().await.unwrap(), before);
    assert_consistent(&*store).await;
    store.shutdown().await.unwrap();
}

/// Many ask for one name, one channel, one freeze with different content: one of each is taken, the others hear so.
pub async fn a_name_that_many_race_for_is_given_once(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    post(&*store, grant(1, ALICE, 1_000_000), 1).await.unwrap();
    let grants: Vec<Entry> = (1..=50).map(|amount| grant(7, BOB, amount)).collect();
    let channels: Vec<Entry> = (10..60)
        .map(|consumer| super::world::open_between(5, consumer, BOB, 1, 9))
        .chain([open(5, 10)])
        .collect();
    let freezes: Vec<Entry> = (0..25)
        .flat_map(|id| [freeze(100 + id, CAROL), unfreeze(200 + id, CAROL)])
        .collect();
    let mut new = Vec::new();
    for entries in [&grants, &channels] {
        let answers = race(&store, entries, 2).await;
        let winners = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        let mut sequences: Vec<u64> = winners.map(|posted| posted.sequence).collect();
        sequences.dedup();
        assert_eq!(sequences.len(), 1, "{sequences:?}");
        new.extend(sequences);
        for (_, answer) in answers {
            assert!(
                matches!(
                    answer,
                    Ok(_)
                        | Err(Refusal::GrantConflict { .. }
                            | Refusal::ChannelConflict { .. }
                            | Refusal::InsufficientCredits { .. })
                ),
                "{answer:?}"
            );
        }
    }
    let mut changes = Vec::new();
    for (_, answer) in race(&store, &freezes, 1).await {
        match answer {
            Ok(posted) => changes.push(posted),
            Err(Refusal::FrozenAlready { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    changes.sort_unstable_by_key(|posted| posted.sequence);
    for (change, expected) in changes.iter().zip([true, false].into_iter().cycle()) {
        assert!(matches!(&change.outcome.effect, Effect::Frozen(frozen) if frozen.frozen == expected));
    }
    let frozen = store.balance(&account(CAROL)).await.unwrap().frozen;
    assert_eq!(frozen, changes.len() % 2 == 1);
    assert_eq!(
        store.head().await.unwrap().sequence,
        1 + (new.len() + changes.len()) as u64
    );
    assert_consistent(&*store).await;
    store.shutdown().await.unwrap();
}
