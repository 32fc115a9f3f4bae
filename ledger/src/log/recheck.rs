//! Computes what is about to be signed once more from nothing but what can be read back: the right edge of the tree
//! that was signed before, and the new records; and reads back what was written.

use gristmill_protocol::log::frontier::tiles_for_frontier;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::tile::{TILE_WIDTH, Tile};
use gristmill_protocol::log::tile_builder::{TileBuilder, TileContent};

use super::failure::StepError;
use super::integration::read_leaves;
use super::tiles::{TileMap, read_stored};
use super::tree_error;
use crate::record::Record;
use crate::store::Store;

/// Checks that what lies in the store grows from the same root to the same root through the same tiles. Nothing is
/// written before this has been found, so that a record that was misread once leaves no wrong tile.
///
/// # Errors
/// [`StepError::Damaged`] where it does not, others where it can't be read.
pub(super) async fn recheck(
    store: &dyn Store,
    before: &TileBuilder,
    grown: &TileBuilder,
    tiles: &[TileContent],
) -> Result<(), StepError> {
    let mut again = stored_builder(store, before.size(), &before.root()).await?;
    let leaves = read_leaves(store, before.size(), grown.size()).await?;
    if again.append(leaves) == tiles && again.root() == grown.root() {
        return Ok(());
    }
    let (first, last) = (before.size() + 1, grown.size());
    Err(StepError::Damaged(format!(
        "the records {first} to {last} were read twice and came out differently; disk or memory are failing"
    )))
}

/// The state of a writer, from the store alone.
///
/// # Errors
/// [`StepError::Damaged`] where the tiles do not lead to this root, or the last record is not the one in the log.
pub(super) async fn stored_builder(
    store: &dyn Store,
    size: u64,
    root: &LogHash,
) -> Result<TileBuilder, StepError> {
    let mut tiles = TileMap::default();
    let last = last_leaf(size);
    let mut wanted = tiles_for_frontier(size);
    wanted.extend(last.map(|(tile, _)| tile));
    for tile in wanted {
        match read_stored(store, tile).await? {
            Some((stored, bytes)) => tiles.insert(stored, bytes),
            None => return Err(StepError::Damaged(format!("{tile} of the log is missing"))),
        }
    }
    let builder = TileBuilder::from_tiles(size, |tile| tiles.bytes(tile)).map_err(|error| {
        let error = tree_error(&error);
        StepError::Damaged(format!("the tiles of the log for size {size}: {error}"))
    })?;
    if builder.root() != *root {
        let actual = builder.root();
        return Err(StepError::Damaged(format!(
            "the tiles of the log lead to the root {actual} for size {size}, but it was {root}"
        )));
    }
    if let Some(last) = last {
        check_last_record(store, size, last, &tiles).await?;
    }
    Ok(builder)
}

/// The tile with the hash of the last leaf of a tree, and its place there.
fn last_leaf(size: u64) -> Option<(Tile, usize)> {
    let index = size.checked_sub(1)?;
    let width = u64::from(TILE_WIDTH);
    let place = usize::try_from(index % width).ok()?;
    Some((Tile::in_tree(0, index / width, size)?, place))
}

/// Checks that the last record in the log is still the one in the ledger. If records were lost, and others have taken
/// their places since, then this one is another too: no two records have the same salt.
async fn check_last_record(
    store: &dyn Store,
    size: u64,
    (tile, place): (Tile, usize),
    tiles: &TileMap,
) -> Result<(), StepError> {
    let signed = tiles.bytes(tile).ok().and_then(|bytes| {
        let hashes = tile.hashes(&bytes).ok()?;
        hashes.get(place).copied()
    });
    let kept = store.records(size, 1).await?.first().map(Record::hash);
    match kept.is_some() && kept == signed {
        true => Ok(()),
        false => Err(StepError::Damaged(format!(
            "record {size} is in the log and not in the ledger: records are lost, or the store was restored from an \
             old copy"
        ))),
    }
}

/// Checks that tiles are in the store as they were written.
///
/// # Errors
/// [`StepError::Damaged`] where they are not, others where they can't be read.
pub(super) async fn read_back(store: &dyn Store, written: &[TileContent]) -> Result<(), StepError> {
    for TileContent { tile, bytes } in written {
        if store.read_tile(*tile).await?.as_ref() != Some(bytes) {
            return Err(StepError::Damaged(format!(
                "{tile} of the log is not as it was written a moment ago"
            )));
        }
    }
    Ok(())
}
