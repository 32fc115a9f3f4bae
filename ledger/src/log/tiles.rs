//! Reading tiles: those used last are kept in memory, and a tile that was superseded by a wider one is cut from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gristmill_protocol::log::tile::Tile;
use gristmill_protocol::log::tile_builder::TileContent;

use crate::store::{ReadError, Store};

/// Most tiles that are kept: 8 MiB where all of them are full.
const KEPT_MAX: usize = 1_024;

/// The place of a tile of any width.
pub(super) type Place = (u8, u64);

/// The place of this tile.
pub(super) const fn place(tile: Tile) -> Place {
    (tile.level(), tile.index())
}

/// Bytes of tiles, each as wide as it was read.
#[derive(Debug, Default)]
pub(super) struct TileMap(BTreeMap<Place, Vec<u8>>);

impl TileMap {
    pub(super) fn insert(&mut self, tile: Tile, bytes: Vec<u8>) {
        self.0.insert(place(tile), bytes);
    }

    /// A tile, cut from the wider one that was read at its place.
    ///
    /// # Errors
    /// In words, where it was not read.
    pub(super) fn bytes(&self, tile: Tile) -> Result<Vec<u8>, &'static str> {
        let bytes = self.0.get(&place(tile)).and_then(|bytes| cut(tile, bytes));
        bytes.ok_or("it is missing")
    }
}

/// A tile as a store has it: with this width, or full, since a store may remove a partial tile once it has the full
/// one.
pub(super) async fn read_stored(store: &dyn Store, tile: Tile) -> Result<Option<(Tile, Vec<u8>)>, ReadError> {
    for stored in BTreeSet::from([tile, tile.full()]) {
        if let Some(bytes) = store.read_tile(stored).await? {
            return Ok(Some((stored, bytes)));
        }
    }
    Ok(None)
}

/// The first hashes of a tile as a narrower one.
fn cut(tile: Tile, bytes: &[u8]) -> Option<Vec<u8>> {
    bytes.get(..tile.bytes()).map(<[u8]>::to_vec)
}

/// Reads the tiles of one store.
#[derive(Debug)]
pub(super) struct TileReader {
    store: Arc<dyn Store>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tiles: BTreeMap<Place, KeptTile>,
    uses: u64,
}

#[derive(Debug)]
struct KeptTile {
    bytes: Vec<u8>,
    last_use: u64,
}

impl TileReader {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            kept: Mutex::default(),
        }
    }

    /// A tile, exactly of its width; `None` where the log does not have it.
    pub(super) async fn read(&self, tile: Tile) -> Result<Option<Vec<u8>>, ReadError> {
        if let Some(bytes) = self.kept().bytes(tile) {
            return Ok(Some(bytes));
        }
        let stored = read_stored(&*self.store, tile).await?;
        Ok(stored.and_then(|(stored, bytes)| {
            let wanted = cut(tile, &bytes);
            self.kept().insert(stored, bytes);
            wanted
        }))
    }

    /// All of these tiles.
    ///
    /// # Errors
    /// [`ReadError`], [`ReadError::Damaged`] where one is missing.
    pub(super) async fn read_all(&self, tiles: BTreeSet<Tile>) -> Result<TileMap, ReadError> {
        let mut map = TileMap::default();
        for tile in tiles {
            let bytes = self.read(tile).await?.ok_or_else(|| ReadError::Damaged {
                reason: format!("{tile} of the log is missing"),
            })?;
            map.insert(tile, bytes);
        }
        Ok(map)
    }

    /// Keeps tiles that were just written.
    pub(super) fn keep(&self, written: Vec<TileContent>) {
        let mut kept = self.kept();
        for TileContent { tile, bytes } in written {
            kept.insert(tile, bytes);
        }
    }

    /// Forgets tiles in which something was wrong, so that the store is asked again.
    pub(super) fn forget(&self, tiles: impl IntoIterator<Item = Tile>) {
        let mut kept = self.kept();
        for tile in tiles {
            kept.tiles.remove(&place(tile));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Whole tiles are put in and taken out: nothing is half done when somebody panics.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn bytes(&mut self, tile: Tile) -> Option<Vec<u8>> {
        self.uses += 1;
        let kept = self.tiles.get_mut(&place(tile))?;
        kept.last_use = self.uses;
        cut(tile, &kept.bytes)
    }

    fn insert(&mut self, tile: Tile, bytes: Vec<u8>) {
        self.uses += 1;
        let last_use = self.uses;
        let there = self.tiles.get(&place(tile));
        if there.is_none_or(|there| there.bytes.len() < bytes.len()) {
            self.tiles.insert(place(tile), KeptTile { bytes, last_use });
        }
        if self.tiles.len() > KEPT_MAX {
            self.drop_half();
        }
    }

    /// Drops those that were not used for longest.
    fn drop_half(&mut self) {
        let mut uses: Vec<u64> = self.tiles.values().map(|kept| kept.last_use).collect();
        let middle = uses.len() / 2;
        let (_, median, _) = uses.select_nth_unstable(middle);
        let oldest = *median;
        self.tiles.retain(|_, kept| kept.last_use >= oldest);
    }
}
