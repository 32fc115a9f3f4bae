//! Writing tiles: what has to be written when leaves are appended.

use crate::log::frontier::Frontier;
use crate::log::hash::{HASH_BYTES, LogHash};
use crate::log::tile::{TILE_HEIGHT, TILE_WIDTH, Tile};
use crate::log::tile_tree::{TileTree, TreeError};

/// A tile and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TileContent {
    /// Where it belongs.
    pub tile: Tile,
    /// Its hashes, one after another.
    pub bytes: Vec<u8>,
}

/// The state of a writer: the frontier, and the hashes of the partial tiles on the right edge, at most 255 of each
/// of 8 levels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TileBuilder {
    frontier: Frontier,
    /// The hashes of the partial tile of each level, lowest level first; empty where the last tile is full.
    edges: Vec<Vec<LogHash>>,
}

impl TileBuilder {
    /// The builder of an empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            frontier: Frontier::new(),
            edges: Vec::new(),
        }
    }

    /// The builder that goes on from a tree of `size` leaves, read from its tiles. Compare its root with what is
    /// known of that tree.
    ///
    /// # Errors
    /// [`TreeError`] where a tile can't be had.
    pub fn from_tiles<E>(
        size: u64,
        mut read: impl FnMut(Tile) -> Result<Vec<u8>, E>,
    ) -> Result<Self, TreeError<E>> {
        let frontier = Frontier::from_tiles(size, &mut read)?;
        let mut tree = TileTree::new(size, read);
        let mut edges = Vec::new();
        let mut nodes = size;
        while nodes > 0 {
            let level = u8::try_from(edges.len()).unwrap_or(u8::MAX);
            let edge = match Tile::in_tree(level, nodes / u64::from(TILE_WIDTH), size) {
                Some(tile) if tile.is_partial() => tree.tile(tile)?.to_vec(),
                _ => Vec::new(),
            };
            edges.push(edge);
            nodes >>= TILE_HEIGHT;
        }
        Ok(Self { frontier, edges })
    }

    /// How many leaves the tree has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> LogHash {
        self.frontier.root()
    }

    /// The right edge of the tree.
    #[must_use]
    pub const fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Appends leaves and tells the tiles to write: those that filled up, then the partial ones on the right edge
    /// that changed. Together they are [`crate::log::tile::tiles_between`] of the two sizes.
    #[must_use = "the tiles are told once"]
    pub fn append(&mut self, leaves: impl IntoIterator<Item = LogHash>) -> Vec<TileContent> {
        let mut written = Vec::new();
        let mut changed_levels = 0;
        for leaf in leaves {
            let edges = &mut self.edges;
            let size = self.frontier.size() + 1;
            self.frontier.push_subtree(0, leaf, |height, hash| {
                if height.is_multiple_of(TILE_HEIGHT) {
                    let level = height / TILE_HEIGHT;
                    changed_levels = changed_levels.max(level + 1);
                    written.extend(add(edges, level, hash, size));
                }
            });
        }
        let changed = self.edges.iter().zip(0..changed_levels);
        written.extend(changed.filter_map(|(edge, level)| partial(edge, level, self.frontier.size())));
        written
    }
}

/// Adds a hash to the edge of a level, and tells the tile that this fills.
fn add(edges: &mut Vec<Vec<LogHash>>, level: u32, hash: LogHash, size: u64) -> Option<TileContent> {
    let place = usize::try_from(level).ok()?;
    if edges.len() <= place {
        edges.resize_with(place + 1, Vec::new);
    }
    let edge = edges.get_mut(place)?;
    edge.push(hash);
    if edge.len() < usize::from(TILE_WIDTH) {
        return None;
    }
    let index = full_tiles(level, size).checked_sub(1)?;
    let tile = Tile::new(u8::try_from(level).ok()?, index, TILE_WIDTH).ok()?;
    Some(content(tile, &std::mem::take(edge)))
}

fn partial(edge: &[LogHash], level: u32, size: u64) -> Option<TileContent> {
    let width = u16::try_from(edge.len()).ok()?;
    let tile = Tile::new(u8::try_from(level).ok()?, full_tiles(level, size), width).ok()?;
    Some(content(tile, edge))
}

/// How many tiles of a level are full.
fn full_tiles(level: u32, size: u64) -> u64 {
    size.checked_shr(TILE_HEIGHT * (level + 1)).unwrap_or(0)
}

fn content(tile: Tile, hashes: &[LogHash]) -> TileContent {
    let mut bytes = Vec::with_capacity(hashes.len() * HASH_BYTES);
    for hash in hashes {
        bytes.extend_from_slice(hash.bytes());
    }
    TileContent { tile, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tile::tiles_between;
    use crate::log::virtual_tree::{VirtualTree, defined_root, leaves, tiles_over};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn small_batches_write_every_tile_by_definition() {
        let leaves = leaves(1200);
        let mut builder = TileBuilder::new();
        let mut store: BTreeMap<Tile, Vec<u8>> = BTreeMap::new();
        let mut read = tiles_over(&leaves);
        for batch in [0usize, 1, 1, 3, 250, 1, 1, 300, 0, 512, 100] {
            let old = usize::try_from(builder.size()).unwrap();
            let written = builder.append(leaves[old..old + batch].iter().copied());
            let mut tiles: Vec<_> = written.iter().map(|content| content.tile).collect();
            tiles.sort();
            assert_eq!(
                tiles,
                tiles_between(old as u64, builder.size()).collect::<Vec<_>>()
            );
            for TileContent { tile, bytes } in written {
                assert_eq!(bytes, read(tile).unwrap(), "{tile}");
                store.insert(tile, bytes);
            }
            assert_eq!(builder.root(), defined_root(&leaves[..old + batch]));
            let stored = |tile| store.get(&tile).cloned().ok_or(tile.path());
            assert_eq!(TileBuilder::from_tiles(builder.size(), stored).unwrap(), builder);
        }
    }

    /// Logs may drop partial tiles once the full one is there.
    #[test]
    fn full_tiles_stand_in_for_partial_ones() {
        let leaves = leaves(512);
        let mut full = tiles_over(&leaves);
        let from_full = TileBuilder::from_tiles(300, |tile| match tile.level() {
            0 => full(tile.full()),
            _ => full(tile),
        });
        let from_partial = TileBuilder::from_tiles(300, tiles_over(&leaves[..300]));
        assert_eq!(from_full.unwrap(), from_partial.unwrap());
    }

    fn check_growth(tree: VirtualTree, size: u64, more: u64) {
        let mut builder = TileBuilder::from_tiles(size, |tile| tree.read(tile)).unwrap();
        assert_eq!(builder.root(), tree.root(0, size));
        let mut written = builder.append((size..size + more).map(|index| tree.leaf(index)));
        written.sort_by_key(|content| content.tile);
        let expected: Vec<_> = tiles_between(size, size + more)
            .map(|tile| TileContent {
                tile,
                bytes: tree.read(tile).unwrap(),
            })
            .collect();
        assert_eq!(written, expected, "{size} + {more}");
        assert_eq!(builder.root(), tree.root(0, size + more));
        assert_eq!(
            builder,
            TileBuilder::from_tiles(size + more, |tile| tree.read(tile)).unwrap()
        );
    }

    #[test]
    fn every_level_fills_up() {
        for height in [8, 16, 24, 32, 40, 48, 56] {
            let size = 1 << height;
            let tree = VirtualTree {
                changes_at: size - 300 % size,
            };
            for (before, more) in [(0, 1), (1, 1), (1, 2), (5, 300), (255, 256), (256, 1)] {
                check_growth(tree, size - before, more);
            }
            let last = if height == 56 { 127 } else { 255 };
            check_growth(tree, last << height, 1);
            check_growth(tree, (last << height) - 1, 1);
        }
    }

    proptest! {
        #[test]
        fn large_trees_grow(size in 0u64..1 << 40, changes_at in 0u64..1 << 40, more in 0u64..700) {
            check_growth(VirtualTree { changes_at }, size, more);
        }
    }
}
