//! What the writer does while the disk is slow, full or gone. Nothing here depends on how fast the machine is.

mod gated_disk;

use std::pin::Pin;
use std::task::Poll;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::GrantId;

use super::*;
use crate::entry::{Entry, Grant, GrantKind};
use gated_disk::GatedDisk;
use writer::POSTS_WORTH_WAKING;

const ACCOUNT: AccountId = AccountId::from_public_key([1; 32]);

fn grant(id: u32) -> CheckedEntry {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&id.to_le_bytes());
    let grant = Entry::Grant(Grant {
        id: GrantId::from_bytes(bytes),
        account: ACCOUNT,
        amount: Credits::micro(1),
        kind: GrantKind::Operator,
        reason: String::new(),
        starter_daily_budget: Credits::MAX,
    });
    grant.check().unwrap()
}

fn options(disk: &GatedDisk) -> EmbeddedOptions {
    EmbeddedOptions {
        disk: Arc::new(disk.clone()),
        clock: Arc::new(disk.clone()),
        ..EmbeddedOptions::default()
    }
}

async fn is_answered<F: Future>(mut future: Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

/// Whether so many posts wait that the writer wakes for them, however late it gets a processor; nothing when it has
/// taken all. To post more where enough wait would be refused in the end as more than may wait.
fn wakes_the_writer(store: &EmbeddedStore) -> Option<bool> {
    match store.shared.inbox.waiting_posts() {
        0 => None,
        waiting => Some(waiting >= POSTS_WORTH_WAKING),
    }
}

async fn available(store: &EmbeddedStore) -> Credits {
    store.balance(&ACCOUNT).await.unwrap().available
}

#[tokio::test]
async fn nothing_is_answered_or_seen_before_it_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    let disk = GatedDisk::default();
    let store = EmbeddedStore::open(folder.path(), &options(&disk)).unwrap();
    let before = disk.came();
    disk.close();
    let mut first = Box::pin(store.post(grant(1), 1));
    assert!(!is_answered(first.as_mut()).await);
    disk.wait_for(before + 1);
    // Decided about while the first is at the disk: new ones, and repetitions of the first, as many as the writer
    // wakes up for.
    let mut others: Vec<_> = [grant(2), grant(1), grant(3)]
        .into_iter()
        .chain(std::iter::repeat_n(grant(1), POSTS_WORTH_WAKING))
        .map(|entry| Box::pin(store.post(entry, 2)))
        .collect();
    for other in &mut others {
        assert!(!is_answered(other.as_mut()).await);
    }
    // A writer that was not asleep yet has taken some of them, and does not wake up for the few that are left.
    while let Some(enough) = wakes_the_writer(&store) {
        if enough {
            std::thread::yield_now();
            continue;
        }
        let mut another = Box::pin(store.post(grant(1), 2));
        assert!(!is_answered(another.as_mut()).await);
        others.push(another);
    }
    for post in others.iter_mut().chain([&mut first]) {
        assert!(!is_answered(post.as_mut()).await, "answered before the sync");
    }
    assert_eq!(store.head().await.unwrap().sequence, 0);
    assert_eq!(available(&store).await, Credits::ZERO);
    assert_eq!(store.posted(1).await.unwrap(), None);
    assert!(store.records(1, 10).await.unwrap().is_empty());
    assert!(
        store
            .history(&ACCOUNT, Selection::All, None, 10)
            .await
            .unwrap()
            .is_empty()
    );

    disk.open_gate();
    assert_eq!(first.await.unwrap().sequence, 1);
    let mut answers = Vec::new();
    for other in others {
        let posted = other.await.unwrap();
        answers.push((posted.sequence, posted.repeated));
    }
    assert_eq!(answers[..3], [(2, false), (1, true), (3, false)]);
    assert!(answers[3..].iter().all(|answer| *answer == (1, true)));
    assert_eq!(available(&store).await, Credits::micro(3));
    // One sync for the first, one for all others.
    assert_eq!(disk.came(), before + 2);

    // What needs no sync itself waits for that of what it rests on.
    disk.close();
    let mut fourth = Box::pin(store.post(grant(4), 3));
    assert!(!is_answered(fourth.as_mut()).await);
    disk.wait_for(before + 3);
    let mut repetitions = Vec::new();
    for _ in 0..3 {
        for _ in 0..POSTS_WORTH_WAKING {
            let mut again = Box::pin(store.post(grant(4), 3));
            assert!(!is_answered(again.as_mut()).await);
            repetitions.push(again);
        }
        while let Some(enough) = wakes_the_writer(&store) {
            if enough {
                std::thread::yield_now();
                continue;
            }
            let mut another = Box::pin(store.post(grant(4), 3));
            assert!(!is_answered(another.as_mut()).await);
            repetitions.push(another);
        }
    }
    for again in &mut repetitions {
        assert!(!is_answered(again.as_mut()).await, "answered before the sync");
    }
    disk.open_gate();
    for again in repetitions {
        assert!(again.await.unwrap().repeated);
    }
    assert_eq!(fourth.await.unwrap().sequence, 4);
    assert_eq!(disk.came(), before + 3);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn one_more_than_may_wait_is_overload() {
    let folder = tempfile::tempdir().unwrap();
    let disk = GatedDisk::default();
    let options = EmbeddedOptions {
        queue_entries: 3,
        batch_entries: 1,
        ..options(&disk)
    };
    let store = EmbeddedStore::open(folder.path(), &options).unwrap();
    disk.close();
    let mut waiting: Vec<_> = (0..3).map(|id| Box::pin(store.post(grant(id), 1))).collect();
    for post in &mut waiting {
        assert!(!is_answered(post.as_mut()).await);
    }
    assert_eq!(
        store.post(grant(9), 1).await,
        Err(PostError::Overloaded { waiting: 3 })
    );
    disk.open_gate();
    for post in waiting {
        post.await.unwrap();
    }
    assert_eq!(store.post(grant(9), 1).await.unwrap().sequence, 4);
}

/// The disk is slow on the store's clock alone.
#[tokio::test]
async fn on_a_slow_disk_one_batch_may_wait() {
    let folder = tempfile::tempdir().unwrap();
    let disk = GatedDisk::default();
    disk.syncs_take(Duration::from_millis(20));
    let options = EmbeddedOptions {
        batch_entries: 300,
        ..options(&disk)
    };
    let store = EmbeddedStore::open(folder.path(), &options).unwrap();
    for id in 0..20 {
        store.post(grant(id), 1).await.unwrap();
    }
    disk.close();
    let mut waiting: Vec<_> = (100..400).map(|id| Box::pin(store.post(grant(id), 1))).collect();
    for post in &mut waiting {
        assert!(!is_answered(post.as_mut()).await);
    }
    let refused = store.post(grant(999), 1).await;
    assert_eq!(refused, Err(PostError::Overloaded { waiting: 300 }));
    disk.open_gate();
    for post in waiting {
        post.await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_is_dropped_gives_its_folder_free() {
    let folder = tempfile::tempdir().unwrap();
    let disk = GatedDisk::default();
    let store = EmbeddedStore::open(folder.path(), &options(&disk)).unwrap();
    let clone = store.clone();
    drop(store);
    clone.post(grant(1), 1).await.unwrap();
    drop(clone);
    // The writer ends by itself.
    let reopened = loop {
        match EmbeddedStore::open(folder.path(), &EmbeddedOptions::default()) {
            Err(OpenError::Journal(JournalError::InUse { .. })) => {}
            opened => break opened.unwrap(),
        }
    };
    assert_eq!(available(&reopened).await, Credits::micro(1));
}

#[cfg(feature = "simulated-disk")]
mod full_disk {
    use super::*;
    use crate::disk::faulty::FaultyDisk;
    use crate::{audit, journal};

    fn on(disk: &FaultyDisk) -> EmbeddedOptions {
        EmbeddedOptions {
            disk: Arc::new(disk.clone()),
            segment_bytes: 64 * 1024,
            ..EmbeddedOptions::default()
        }
    }

    #[tokio::test]
    async fn a_full_disk_refuses_entries_and_goes_on_by_itself_when_there_is_space() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::over(RealDisk::shared());
        let store = EmbeddedStore::open(folder.path(), &on(&disk)).unwrap();
        let mut acknowledged = 0;
        let mut refused = 0;
        for round in 0..6 {
            disk.set_free_bytes((round % 2 == 1).then_some(2_000));
            for id in 0..2_000 {
                // A refused one is posted again later, under the same name.
                match store.post(grant(acknowledged), 1).await {
                    Ok(posted) => {
                        acknowledged += 1;
                        assert_eq!(
                            (posted.sequence, posted.repeated),
                            (u64::from(acknowledged), false)
                        );
                    }
                    Err(PostError::DiskFull { .. }) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
                // Reading goes on.
                if id % 500 == 0 {
                    assert_eq!(available(&store).await, Credits::micro(acknowledged));
                    assert_eq!(store.read_only_reason(), None);
                    let records = store.records(1, 10).await.unwrap();
                    assert_eq!(records.len(), 10.min(acknowledged as usize));
                }
            }
        }
        assert!(
            acknowledged > 6_000 && refused > 1_000,
            "{acknowledged} {refused}"
        );
        store.shutdown().await.unwrap();
        let report = audit::audit(folder.path()).unwrap();
        assert!(report.clean, "{report:?}");
        // The index has what it could not take while the disk was full.
        let entries = u64::from(acknowledged);
        assert_eq!(
            (report.records, report.index),
            (entries, audit::IndexVerdict::Agrees { entries })
        );
        assert_eq!(
            journal::Records::read(&journal_directory(folder.path()), LEDGER_JOURNAL)
                .unwrap()
                .count(),
            acknowledged as usize
        );
    }

    /// Nobody knows what is on a disk after a failed sync: nothing is acknowledged any more, what was is still read.
    #[tokio::test]
    async fn a_failed_sync_ends_writing_and_not_reading() {
        let folder = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::over(RealDisk::shared());
        let store = EmbeddedStore::open(folder.path(), &on(&disk)).unwrap();
        store.post(grant(1), 1).await.unwrap();
        disk.fail_syncs(true);
        let failed = store.post(grant(2), 1).await;
        assert!(matches!(failed, Err(PostError::ReadOnly { .. })), "{failed:?}");
        disk.fail_syncs(false);
        let failed = store.post(grant(3), 1).await;
        assert!(matches!(failed, Err(PostError::ReadOnly { .. })), "{failed:?}");
        assert_eq!(available(&store).await, Credits::micro(1));
        assert_eq!(store.posted(1).await.unwrap().unwrap().sequence, 1);
        assert!(matches!(
            store.shutdown().await,
            Err(ShutdownError::ReadOnly { .. })
        ));
        // Posted again after a new start, it takes effect once, whether it had reached the disk or not.
        let store = EmbeddedStore::open(folder.path(), &EmbeddedOptions::default()).unwrap();
        store.post(grant(2), 1).await.unwrap();
        assert_eq!(available(&store).await, Credits::micro(2));
    }
}
