//! Trees for tests: small ones from the definition of RFC 6962, and ones of any size whose leaves repeat.

use std::sync::LazyLock;

use crate::log::hash::{LogHash, empty_root, leaf_hash, node_hash};
use crate::log::tile::{TILE_HEIGHT, Tile};

/// The root over leaves, word for word as RFC 6962 section 2.1 defines it.
pub(super) fn defined_root(leaves: &[LogHash]) -> LogHash {
    match leaves {
        [] => empty_root(),
        [leaf] => *leaf,
        _ => {
            let middle = leaves.len().next_power_of_two() / 2;
            let (left, right) = leaves.split_at(middle);
            node_hash(&defined_root(left), &defined_root(right))
        }
    }
}

/// The hashes of small, different leaves.
pub(super) fn leaves(count: u64) -> Vec<LogHash> {
    (0..count).map(|index| leaf_hash(&index.to_be_bytes())).collect()
}

/// A closure that reads tiles of the tree over these leaves, by definition.
pub(super) fn tiles_over(leaves: &[LogHash]) -> impl FnMut(Tile) -> Result<Vec<u8>, String> + '_ {
    move |tile| {
        let leaves_each = 1usize << (u32::from(tile.level()) * TILE_HEIGHT);
        let mut bytes = Vec::new();
        for position in 0..usize::from(tile.width()) {
            let start = (usize::try_from(tile.index()).unwrap() * 256 + position) * leaves_each;
            let node = leaves
                .get(start..start + leaves_each)
                .ok_or(format!("no {tile}"))?;
            bytes.extend_from_slice(defined_root(node).bytes());
        }
        Ok(bytes)
    }
}

/// A tree of any size: the leaves before `changes_at` are of one kind, those from there on of another.
#[derive(Clone, Copy)]
pub(super) struct VirtualTree {
    pub(super) changes_at: u64,
}

impl VirtualTree {
    /// The leaf at an index.
    pub(super) fn leaf(self, index: u64) -> LogHash {
        if index < self.changes_at {
            leaf_hash(b"before")
        } else {
            leaf_hash(b"after")
        }
    }

    /// The root over the leaves `[start, end)`, by the definition of RFC 6962.
    pub(super) fn root(self, start: u64, end: u64) -> LogHash {
        let leaves = end - start;
        if leaves == 0 {
            return empty_root();
        }
        let mixed = start < self.changes_at && self.changes_at < end;
        if leaves.is_power_of_two() && !mixed {
            return uniform_root(start < self.changes_at, leaves.ilog2());
        }
        let middle = start + (1 << (leaves - 1).ilog2());
        node_hash(&self.root(start, middle), &self.root(middle, end))
    }

    /// The bytes of a tile.
    pub(super) fn read(self, tile: Tile) -> Result<Vec<u8>, String> {
        let height = u32::from(tile.level()) * TILE_HEIGHT;
        let mut bytes = Vec::new();
        for position in 0..u64::from(tile.width()) {
            let index = tile.index() * 256 + position;
            bytes.extend_from_slice(self.root(index << height, (index + 1) << height).bytes());
        }
        Ok(bytes)
    }
}

/// The root over `2^height` leaves of one kind.
fn uniform_root(before: bool, height: u32) -> LogHash {
    static ROOTS: LazyLock<[Vec<LogHash>; 2]> = LazyLock::new(|| {
        [b"after".as_slice(), b"before"].map(|leaf| {
            let grow = |root: &LogHash| Some(node_hash(root, root));
            std::iter::successors(Some(leaf_hash(leaf)), grow)
                .take(64)
                .collect()
        })
    });
    ROOTS[usize::from(before)][height as usize]
}
