//! What holds for the part of a store that keeps the Merkle log.

use std::sync::Arc;

use gristmill_protocol::log::frontier::Frontier;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::tile::Tile;
use gristmill_protocol::log::tile_builder::TileBuilder;

use super::StoreKind;
use super::world::{BOB, checked, grant};
use crate::Store;
use crate::store::{LogWriteError, StoredCheckpoint};

/// A note as a store has to tell it from another one; only its first lines matter here.
fn note(size: u64, root: LogHash, signatures: &str) -> String {
    format!(
        "gristmill/log/test\n{size}\n{}\n\n{signatures}\n",
        root.to_base64()
    )
}

fn root(number: u8) -> LogHash {
    LogHash::from_bytes([number; 32])
}

/// The root over the first `size` records. A store may refuse to open with another one.
fn root_of(leaves: &[LogHash], size: usize) -> LogHash {
    let mut frontier = Frontier::new();
    leaves[..size].iter().for_each(|leaf| frontier.push(*leaf));
    frontier.root()
}

async fn post(store: &dyn Store, ids: std::ops::Range<u64>) -> Vec<LogHash> {
    let posts = ids.map(|id| store.post(checked(grant(id, BOB, 1)), 1));
    let mut hashes: Vec<(u64, LogHash)> = futures::future::join_all(posts)
        .await
        .into_iter()
        .map(|posted| posted.unwrap())
        .map(|posted| (posted.sequence, posted.record_hash))
        .collect();
    hashes.sort_unstable_by_key(|(sequence, _)| *sequence);
    hashes.into_iter().map(|(_, hash)| hash).collect()
}

/// Tiles of records come back exactly as they were written, at once and after a new start; others in their place are
/// refused.
pub async fn tiles_are_kept_and_never_change(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    let mut builder = TileBuilder::new();
    let mut written: Vec<(Tile, Vec<u8>)> = Vec::new();
    for ids in [0..3, 3..256, 256..300, 300..1_030] {
        let hashes = post(&*store, ids).await;
        let tiles: Vec<(Tile, Vec<u8>)> = builder
            .append(hashes)
            .into_iter()
            .map(|content| (content.tile, content.bytes))
            .collect();
        store.write_tiles(tiles.clone()).await.unwrap();
        // Once more, as after an interruption.
        store.write_tiles(tiles.clone()).await.unwrap();
        written.extend(tiles);
    }
    for _ in 0..2 {
        for (tile, bytes) in &written {
            assert_eq!(
                store.read_tile(*tile).await.unwrap().as_ref(),
                Some(bytes),
                "{tile}"
            );
        }
        let beyond = [(0, 5, 1), (1, 0, 5), (2, 0, 1), (9, 1 << 40, 256), (63, 0, 1)];
        for (level, index, width) in beyond {
            let tile = Tile::new(level, index, width).unwrap();
            assert_eq!(store.read_tile(tile).await.unwrap(), None, "{tile}");
        }
    }
    for (tile, bytes) in &written {
        for position in [0, bytes.len() - 1] {
            let mut other = bytes.clone();
            other[position] ^= 1;
            assert_eq!(
                store.write_tiles(vec![(*tile, other)]).await,
                Err(LogWriteError::OtherTile { path: tile.path() })
            );
        }
    }
    store.shutdown().await.unwrap();
    let store = ledger.open().await;
    for (tile, bytes) in &written {
        assert_eq!(
            store.read_tile(*tile).await.unwrap().as_ref(),
            Some(bytes),
            "{tile}"
        );
    }
    store.shutdown().await.unwrap();
}

/// A root that is reserved for a size is the only one for it, also after a new start.
pub async fn one_size_has_one_root(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let mut leaves = Vec::new();
    for opening in 0..2 {
        let store = ledger.open().await;
        if opening == 0 {
            leaves = post(&*store, 1..10).await;
        }
        let fifth = root_of(&leaves, 5);
        store.reserve_checkpoint(5, fifth).await.unwrap();
        store.reserve_checkpoint(5, fifth).await.unwrap();
        assert_eq!(
            store.reserve_checkpoint(5, root(6)).await,
            Err(LogWriteError::OtherRoot {
                size: 5,
                reserved: fifth
            })
        );
        // A size below one that is reserved was reserved long ago, or never will be.
        assert!(matches!(
            store.reserve_checkpoint(4, root(4)).await,
            Err(LogWriteError::OtherRoot { size: 5, .. })
        ));
        let newest = StoredCheckpoint {
            size: 5,
            root: fifth,
            note: None,
        };
        assert_eq!(
            store.newest_checkpoint().await.unwrap(),
            Some(newest),
            "{opening}"
        );
        assert_eq!(store.published_checkpoint().await.unwrap(), None);
        store.shutdown().await.unwrap();
    }
    let store = ledger.open().await;
    let seventh = root_of(&leaves, 7);
    store.reserve_checkpoint(7, seventh).await.unwrap();
    let newest = store.newest_checkpoint().await.unwrap().unwrap();
    assert_eq!((newest.size, newest.root), (7, seventh));
    store.shutdown().await.unwrap();
}

/// However many ask for one size at once, one root is given, and everybody else hears which.
pub async fn racing_for_a_size_gives_one_root(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    for size in 1..=20 {
        let tasks: Vec<_> = (0..8_u8)
            .map(|number| {
                let store = Arc::clone(&store);
                tokio::spawn(async move { (number, store.reserve_checkpoint(size, root(number)).await) })
            })
            .collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.push(task.await.unwrap());
        }
        let winners: Vec<u8> = answers
            .iter()
            .filter(|(_, answer)| answer.is_ok())
            .map(|(number, _)| *number)
            .collect();
        let [winner] = winners[..] else {
            panic!("{winners:?} all have size {size}");
        };
        for (number, answer) in answers {
            if number != winner {
                let reserved = root(winner);
                assert_eq!(answer, Err(LogWriteError::OtherRoot { size, reserved }));
            }
        }
        assert_eq!(
            store.newest_checkpoint().await.unwrap().unwrap().root,
            root(winner)
        );
    }
    store.shutdown().await.unwrap();
}

/// Everybody is shown the published checkpoint of the largest size, in its newest version.
pub async fn the_published_checkpoint_is_the_largest_one(kind: &dyn StoreKind) {
    let ledger = kind.begin().await;
    let store = ledger.open().await;
    let shown = async |store: &dyn Store| store.published_checkpoint().await.unwrap();
    let leaves = post(&*store, 1..10).await;
    let root = |size: u8| root_of(&leaves, usize::from(size));
    let published = |size: u64, note: String| {
        Some(StoredCheckpoint {
            size,
            root: root(u8::try_from(size).unwrap()),
            note: Some(note),
        })
    };
    store.reserve_checkpoint(5, root(5)).await.unwrap();
    let first = note(5, root(5), "one signature");
    store.publish_checkpoint(5, &first).await.unwrap();
    assert_eq!(shown(&*store).await, published(5, first));
    let second = note(5, root(5), "one signature\nand another");
    store.publish_checkpoint(5, &second).await.unwrap();
    assert_eq!(shown(&*store).await, published(5, second.clone()));

    store.reserve_checkpoint(9, root(9)).await.unwrap();
    assert_eq!(shown(&*store).await, published(5, second.clone()));
    let newest = store.newest_checkpoint().await.unwrap().unwrap();
    assert_eq!((newest.size, newest.note), (9, None));
    let third = note(9, root(9), "one signature");
    store.publish_checkpoint(9, &third).await.unwrap();
    // Signatures of an older one that come late do not bring it back.
    store.publish_checkpoint(5, &second).await.unwrap();
    store.shutdown().await.unwrap();
    let store = ledger.open().await;
    assert_eq!(shown(&*store).await, published(9, third.clone()));
    assert_eq!(store.newest_checkpoint().await.unwrap(), published(9, third));
    store.shutdown().await.unwrap();
}
