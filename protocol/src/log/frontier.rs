//! The right edge of a growing tree: all that a writer needs to append leaves and to know the root.

use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use thiserror::Error;

use crate::log::LOG_SIZE_MAX;
use crate::log::hash::{LogHash, node_hash};
use crate::log::range::fold;
use crate::log::tile::Tile;
use crate::log::tile_tree::{TileTree, TreeError, tiles_for};

/// The perfect subtrees of a tree, largest first: one for each binary one of its size, so never more than 63.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    hashes: Vec<LogHash>,
}

/// Why a size and hashes are no frontier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrontierError {
    /// More leaves than a log can have.
    #[error("{0} leaves are more than a log can have, which is {LOG_SIZE_MAX}")]
    Size(u64),
    /// Another number of hashes than such a tree has perfect subtrees.
    #[error("a tree of {size} leaves has {expected} perfect subtrees, not {actual}")]
    Hashes {
        /// How many leaves.
        size: u64,
        /// How many hashes there should be.
        expected: usize,
        /// How many there are.
        actual: usize,
    },
}

impl Frontier {
    /// The frontier of an empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            size: 0,
            hashes: Vec::new(),
        }
    }

    /// The frontier of a tree of `size` leaves from the hashes of its perfect subtrees, largest first.
    ///
    /// # Errors
    /// [`FrontierError`] where there can be no such tree.
    pub fn from_hashes(size: u64, hashes: Vec<LogHash>) -> Result<Self, FrontierError> {
        if size > LOG_SIZE_MAX {
            return Err(FrontierError::Size(size));
        }
        let expected = perfect_subtrees(size);
        if hashes.len() != expected {
            return Err(FrontierError::Hashes {
                size,
                expected,
                actual: hashes.len(),
            });
        }
        Ok(Self { size, hashes })
    }

    /// The frontier of a tree of `size` leaves, read from its tiles. Compare its root with a checkpoint's.
    ///
    /// # Errors
    /// [`TreeError`] where a tile can't be had.
    pub fn from_tiles<E>(
        size: u64,
        read: impl FnMut(Tile) -> Result<Vec<u8>, E>,
    ) -> Result<Self, TreeError<E>> {
        if size > LOG_SIZE_MAX {
            return Err(TreeError::OutsideTree {
                start: 0,
                end: size,
                size: LOG_SIZE_MAX,
            });
        }
        let hashes = TileTree::new(size, read).hashes(0, size)?;
        Ok(Self { size, hashes })
    }

    /// How many leaves the tree has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the perfect subtrees, largest first.
    #[must_use]
    pub fn hashes(&self) -> &[LogHash] {
        &self.hashes
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> LogHash {
        fold(&self.hashes)
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: LogHash) {
        self.push_subtree(0, leaf, |_, _| {});
    }

    /// Appends a perfect subtree of `2^height` leaves to a tree whose size is a multiple of that, and tells every
    /// perfect subtree that this completes, from the one appended upwards.
    pub(super) fn push_subtree(
        &mut self,
        height: u32,
        hash: LogHash,
        mut completed: impl FnMut(u32, LogHash),
    ) {
        let mut hash = hash;
        completed(height, hash);
        // A subtree of the same height to the left makes a pair, and so on: as carrying does in addition.
        let pairs = (self.size >> height).trailing_ones();
        for pair in 1..=pairs {
            if let Some(left) = self.hashes.pop() {
                hash = node_hash(&left, &hash);
                completed(height + pair, hash);
            }
        }
        self.hashes.push(hash);
        self.size += 1 << height;
    }
}

/// How many perfect subtrees a tree of so many leaves has.
pub(super) fn perfect_subtrees(size: u64) -> usize {
    // At most 64: fits everywhere.
    usize::try_from(size.count_ones()).unwrap_or(usize::MAX)
}

/// The tiles from which [`Frontier::from_tiles`] and [`crate::log::tile_builder::TileBuilder::from_tiles`] read.
#[must_use]
pub fn tiles_for_frontier(size: u64) -> std::collections::BTreeSet<Tile> {
    tiles_for(size, [(0, size)])
}

impl Encode for Frontier {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.size.encode(encoder)?;
        self.hashes.encode(encoder)
    }
}

bincode::impl_borrow_decode!(Frontier);

impl<Context> Decode<Context> for Frontier {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let size = u64::decode(decoder)?;
        let hashes = Vec::decode(decoder)?;
        Self::from_hashes(size, hashes).map_err(|error| DecodeError::OtherString(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::log::virtual_tree::{VirtualTree, defined_root, leaves, tiles_over};
    use proptest::prelude::*;

    #[test]
    fn the_root_is_that_of_the_definition_at_every_size() {
        let leaves = leaves(600);
        let mut frontier = Frontier::new();
        for (size, leaf) in leaves.iter().enumerate() {
            assert_eq!(frontier.root(), defined_root(&leaves[..size]), "{size}");
            assert_eq!(frontier.size(), size as u64);
            if size % 37 == 0 || (250..260).contains(&size) {
                let read = Frontier::from_tiles(size as u64, tiles_over(&leaves[..size])).unwrap();
                assert_eq!(read, frontier);
            }
            frontier.push(*leaf);
        }
    }

    #[test]
    fn only_possible_frontiers_are_read() {
        let hash = leaves(1)[0];
        for (size, hashes, good) in [
            (0, 0, true),
            (0, 1, false),
            (5, 2, true),
            (5, 1, false),
            (5, 3, false),
            (LOG_SIZE_MAX, 63, true),
            (LOG_SIZE_MAX + 1, 1, false),
        ] {
            let bytes = codec::encode(&(size, vec![hash; hashes]));
            let read = codec::decode::<Frontier, 4096>(&bytes);
            assert_eq!(read.is_ok(), good, "{size} {hashes}");
            if let Ok(read) = read {
                assert_eq!(codec::encode(&read), bytes);
            }
        }
        assert!(Frontier::from_tiles(LOG_SIZE_MAX + 1, |_| Err("unread")).is_err());
    }

    proptest! {
        #[test]
        fn large_trees_go_on_from_their_tiles(size in 0u64..1 << 40, changes_at in 0u64..1 << 40, more in 0u64..40) {
            let tree = VirtualTree { changes_at };
            let mut asked = std::collections::BTreeSet::new();
            let mut frontier = Frontier::from_tiles(size, |tile| {
                prop_assert_eq!(Tile::in_tree(tile.level(), tile.index(), size), Some(tile));
                prop_assert!(asked.insert(tile), "a tile is read once");
                tree.read(tile).map_err(TestCaseError::fail)
            }).unwrap();
            prop_assert_eq!(asked, tiles_for_frontier(size));
            prop_assert_eq!(frontier.root(), tree.root(0, size));
            for index in size..size + more {
                frontier.push(tree.leaf(index));
            }
            prop_assert_eq!(frontier.root(), tree.root(0, size + more));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = codec::decode::<Frontier, 4096>(&bytes);
        }
    }
}
