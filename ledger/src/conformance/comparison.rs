//! Random entries, posted to a store and to the [`Model`], which have to agree on every answer and all that can be
//! asked afterwards.

use gristmill_protocol::credits::Credits;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::model::{Expected, Model, ModelChannel, Place};
use super::world::{
    account, channel, checked, close, freeze, grant, open_between, rotate, settle_by, started, starter,
    unfreeze,
};
use super::{StoreKind, assert_consistent};
use crate::Store;
use crate::book::{Balance, ChannelStatus};
use crate::entry::{CloseReason, Entry};
use crate::index::Selection;
use crate::outcome::{BookAccount, Posted};
use crate::store::PostError;

/// How many sequences of entries are tried.
const CASES: u32 = 24;
/// How long each of them is at most.
const ENTRIES_MAX: usize = 60;
/// Accounts are 1 up to this.
const ACCOUNTS: u8 = 4;
/// Channels are 1 up to this.
const CHANNELS: u64 = 5;
/// Names of entries are 1 up to this.
const NAMES: u64 = 8;
const DAY_MS: u64 = 86_400_000;

fn any_entry() -> impl Strategy<Value = Entry> {
    let whom = 1..=ACCOUNTS;
    let id = 1..=NAMES;
    let which = 1..=CHANNELS;
    let amount = prop_oneof![1..=20_u32, Just(1_000), Just(10_000)];
    let reason = prop_oneof![Just(CloseReason::Provider), Just(CloseReason::Expired)];
    let times = prop_oneof![0..50_u64, Just(u64::MAX)];
    prop_oneof![
        6 => (id.clone(), whom.clone(), amount.clone()).prop_map(|(id, whom, amount)| grant(id, whom, amount)),
        3 => (id.clone(), whom.clone(), amount.clone()).prop_map(|(id, whom, amount)| starter(id, whom, amount)),
        8 => (which.clone(), whom.clone(), whom.clone(), amount.clone(), times).prop_map(
            |(which, consumer, provider, limit, redeem_by_ms)| {
                open_between(which, consumer, provider, limit, redeem_by_ms)
            }
        ),
        12 => (which.clone(), whom.clone(), amount).prop_map(|(which, signer, sum)| settle_by(which, signer, sum)),
        3 => (which, reason).prop_map(|(which, reason)| close(which, reason)),
        1 => prop_oneof![0..30_u64, Just(u64::MAX)].prop_map(started),
        1 => (id.clone(), whom.clone()).prop_map(|(id, whom)| freeze(id, whom)),
        2 => (id, whom.clone()).prop_map(|(id, whom)| unfreeze(id, whom)),
        1 => (whom.clone(), whom.clone(), whom)
            .prop_filter("a key does not hand over to itself", |(_, old, new)| old != new)
            .prop_map(|(log, old, new)| rotate(log, old, new)),
    ]
}

fn any_time() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..100_u64, 1 => Just(DAY_MS), 1 => Just(2 * DAY_MS), 1 => Just(u64::MAX)]
}

/// Posts random entries, some of them again, and compares everything with the model.
pub fn random_entries_do_what_the_model_says(kind: &dyn StoreKind) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let mut runner = TestRunner::new(Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    });
    let entries = proptest::collection::vec((any_entry(), any_time(), any::<bool>()), 1..=ENTRIES_MAX);
    let result = runner.run(&entries, |entries| runtime.block_on(compare(kind, entries)));
    result.unwrap_or_else(|error| panic!("{error}"));
}

async fn compare(kind: &dyn StoreKind, entries: Vec<(Entry, u64, bool)>) -> Result<(), TestCaseError> {
    let ledger = kind.begin().await;
    let mut store = ledger.open().await;
    let mut model = Model::default();
    for (number, (entry, time_ms, twice)) in entries.into_iter().enumerate() {
        for _ in 0..=u8::from(twice) {
            let expected = model.post(&entry, time_ms);
            let answer = store.post(checked(entry.clone()), time_ms).await;
            compare_answer(&model, &expected, answer)?;
        }
        if number % 20 == 19 {
            store.shutdown().await.unwrap();
            store = ledger.open().await;
        }
    }
    compare_state(&model, &*store).await?;
    assert_consistent(&*store).await;
    store.shutdown().await.unwrap();
    Ok(())
}

fn compare_answer(
    model: &Model,
    expected: &Expected,
    answer: Result<Posted, PostError>,
) -> Result<(), TestCaseError> {
    match (expected, answer) {
        (Expected::New, Ok(posted)) => {
            prop_assert_eq!((posted.sequence, posted.repeated), (model.sequence, false));
            compare_movements(model, &posted)
        }
        (Expected::Before(sequence), Ok(posted)) => {
            prop_assert_eq!((posted.sequence, posted.repeated), (*sequence, true));
            compare_movements(model, &posted)
        }
        (Expected::Refused(code), Err(PostError::Refused(refusal))) => {
            prop_assert_eq!(*code, refusal.code());
            Ok(())
        }
        (expected, answer) => Err(TestCaseError::fail(format!(
            "expected {expected:?}, the store said {answer:?}"
        ))),
    }
}

fn compare_movements(model: &Model, posted: &Posted) -> Result<(), TestCaseError> {
    let place = |account: BookAccount| match account {
        BookAccount::Issuance => Place::Outside,
        BookAccount::Fees => Place::Fees,
        BookAccount::Available(account) => Place::Free(account),
        BookAccount::Held(channel) => Place::Aside(channel),
    };
    let transfers: Vec<_> = posted
        .outcome
        .transfers
        .iter()
        .map(|it| (place(it.from), place(it.to), i128::from(it.amount.microcredits())))
        .collect();
    let movements: Vec<_> = model
        .movements
        .iter()
        .filter(|it| it.sequence == posted.sequence)
        .map(|it| (it.from, it.to, it.amount))
        .collect();
    prop_assert_eq!(transfers, movements);
    Ok(())
}

fn credits(amount: i128) -> Credits {
    Credits::from_microcredits(u64::try_from(amount).unwrap()).unwrap()
}

async fn compare_state(model: &Model, store: &dyn Store) -> Result<(), TestCaseError> {
    for name in 1..=ACCOUNTS {
        let id = account(name);
        let expected = Balance {
            available: credits(model.at(Place::Free(id))),
            held: credits(model.aside(id)),
            granted: credits(model.granted(id)),
            earned: credits(model.earned(id)),
            spent: credits(model.spent(id)),
            starter_granted: model.started.contains(&id),
            frozen: model.frozen.contains(&id),
        };
        prop_assert_eq!(store.balance(&id).await.unwrap(), expected, "account {}", name);
        for (selection, payments_only) in [(Selection::All, false), (Selection::Settlements, true)] {
            let history = store.history(&id, selection, None, usize::MAX).await.unwrap();
            let sequences: Vec<u64> = history.iter().map(|posted| posted.sequence).collect();
            prop_assert_eq!(sequences, model.history(id, payments_only), "account {}", name);
        }
    }
    for id in 1..=CHANNELS {
        compare_channel(model, store, id).await?;
    }
    for now_ms in [0, 1, 30, 60, 100, DAY_MS, u64::MAX] {
        let expired = store.expired_channels(now_ms, usize::MAX).await.unwrap();
        prop_assert_eq!(expired, model.expired(now_ms), "at {}", now_ms);
    }
    let totals = store.head().await.unwrap().totals;
    let held: i128 = model
        .channels
        .iter()
        .map(|it| model.at(Place::Aside(it.id)))
        .sum();
    let available: i128 = model.known.iter().map(|id| model.at(Place::Free(*id))).sum();
    let open = model.channels.iter().filter(|it| it.closed_by.is_none()).count() as u64;
    prop_assert_eq!(totals.issued, credits(-model.at(Place::Outside)));
    prop_assert_eq!(totals.fees, credits(model.at(Place::Fees)));
    prop_assert_eq!(totals.held, credits(held));
    prop_assert_eq!(totals.available, credits(available));
    prop_assert_eq!(
        totals.settled,
        credits(model.channels.iter().map(|it| it.paid).sum())
    );
    prop_assert_eq!(totals.accounts, model.known.len() as u64);
    prop_assert_eq!(totals.channels_open, open);
    prop_assert_eq!(totals.channels_closed, model.channels.len() as u64 - open);
    Ok(())
}

async fn compare_channel(model: &Model, store: &dyn Store, id: u64) -> Result<(), TestCaseError> {
    let found = store.channel(&channel(id)).await.unwrap();
    let Some(expected) = model.channel(channel(id)) else {
        prop_assert_eq!(found, None);
        return Ok(());
    };
    let found = found.unwrap();
    let closed_by = match found.status {
        ChannelStatus::Open => None,
        ChannelStatus::Closed { sequence, .. } => Some(sequence),
    };
    let as_model = ModelChannel {
        id: found.channel,
        consumer: found.consumer,
        provider: found.provider,
        limit: found.limit.microcredits().into(),
        basis_points: found.fee_basis_points.into(),
        paid: found.settled.microcredits().into(),
        paid_by: found.settled_sequence,
        redeem_by_ms: found.redeem_by_ms,
        downtime_before_ms: expected.downtime_before_ms,
        request: found.request_digest,
        opened_by: found.opened_sequence,
        closed_by,
    };
    prop_assert_eq!(&as_model, expected);
    prop_assert_eq!(found.held, credits(model.at(Place::Aside(expected.id))));
    prop_assert_eq!(
        found.extended_redeem_by_ms,
        model.redeem_until_ms(expected),
        "channel {}",
        id
    );
    Ok(())
}
