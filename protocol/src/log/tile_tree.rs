//! Reading a tree of a given size from its tiles. Each tile is asked for once.
//!
//! A driver that can't block finds out with the functions `tiles_for_…` what is needed, fetches it, and hands in a
//! closure over what it fetched.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::log::hash::LogHash;
use crate::log::range::{Node, fold, nodes_of, perfect_root};
use crate::log::tile::{TILE_HEIGHT, TILE_WIDTH, Tile, TileError};

/// Why a tree could not be read from its tiles.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum TreeError<E> {
    /// A tile could not be had.
    #[error("{tile} could not be read")]
    Read {
        /// The tile.
        tile: Tile,
        /// Why.
        #[source]
        source: E,
    },
    /// What was read is not that tile.
    #[error(transparent)]
    Tile(TileError),
    /// Asked for what such a tree does not have.
    #[error("a tree of {size} leaves has nothing from leaf {start} to leaf {end}")]
    OutsideTree {
        /// First leaf asked for.
        start: u64,
        /// The leaf after the last asked for.
        end: u64,
        /// How many leaves the tree has.
        size: u64,
    },
}

/// The tree of `size` leaves behind its tiles. The closure gives the bytes of a tile; where the tree has a partial
/// tile it may give the full one, since logs may drop partial tiles that have filled up.
pub struct TileTree<R> {
    size: u64,
    read: R,
    tiles: BTreeMap<Tile, Vec<LogHash>>,
}

impl<R, E> TileTree<R>
where
    R: FnMut(Tile) -> Result<Vec<u8>, E>,
{
    /// A tree of so many leaves, read through `read`.
    pub const fn new(size: u64, read: R) -> Self {
        Self {
            size,
            read,
            tiles: BTreeMap::new(),
        }
    }

    /// How many leaves it has.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root of the subtree over the leaves `[start, end)`; of nothing where the range is empty.
    ///
    /// # Errors
    /// [`TreeError`] where the range is not in the tree or a tile can't be had.
    pub fn subtree(&mut self, start: u64, end: u64) -> Result<LogHash, TreeError<E>> {
        self.hashes(start, end).map(|hashes| fold(&hashes))
    }

    /// The hashes of the fewest perfect subtrees over the leaves `[start, end)`, from left to right.
    ///
    /// # Errors
    /// [`TreeError`] where the range is not in the tree or a tile can't be had.
    pub fn hashes(&mut self, start: u64, end: u64) -> Result<Vec<LogHash>, TreeError<E>> {
        nodes_of(start, end)
            .into_iter()
            .map(|node| self.node(node, start, end))
            .collect()
    }

    /// The hashes of one tile of the tree.
    ///
    /// # Errors
    /// [`TreeError`] where the tile can't be had.
    pub fn tile(&mut self, tile: Tile) -> Result<&[LogHash], TreeError<E>> {
        if !self.tiles.contains_key(&tile) {
            let bytes = (self.read)(tile).map_err(|source| TreeError::Read { tile, source })?;
            let full = tile.full();
            let mut hashes = match bytes.len() == full.bytes() {
                true => full.hashes(&bytes),
                false => tile.hashes(&bytes),
            }
            .map_err(TreeError::Tile)?;
            hashes.truncate(usize::from(tile.width()));
            self.tiles.insert(tile, hashes);
        }
        Ok(self.tiles.get(&tile).map(Vec::as_slice).unwrap_or_default())
    }

    fn node(&mut self, node: Node, start: u64, end: u64) -> Result<LogHash, TreeError<E>> {
        let outside = TreeError::OutsideTree {
            start,
            end,
            size: self.size,
        };
        let Some((tile, first, count)) = place_of(node, self.size) else {
            return Err(outside);
        };
        let hashes = self.tile(tile)?.get(first..first + count);
        hashes.map(perfect_root).ok_or(outside)
    }
}

/// Where the hashes below a node stand: the tile of this tree, the first hash in it and how many.
fn place_of(node: Node, size: u64) -> Option<(Tile, usize, usize)> {
    let level = u8::try_from(node.height / TILE_HEIGHT).ok()?;
    let above = node.height % TILE_HEIGHT;
    let first = node.index << above;
    let tile = Tile::in_tree(level, first / u64::from(TILE_WIDTH), size)?;
    let first = usize::try_from(first % u64::from(TILE_WIDTH)).ok()?;
    Some((tile, first, 1 << above))
}

/// The tiles of the tree of `size` leaves that tell the hashes over these ranges of leaves.
pub(super) fn tiles_for(size: u64, ranges: impl IntoIterator<Item = (u64, u64)>) -> BTreeSet<Tile> {
    ranges
        .into_iter()
        .flat_map(|(start, end)| nodes_of(start, end))
        .filter_map(|node| place_of(node, size).map(|(tile, _, _)| tile))
        .collect()
}
