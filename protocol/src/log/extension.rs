//! How a tree goes on from a smaller one, in a form that also convicts: unlike a consistency proof, which only fails
//! to verify, an extension shows what the first leaves of the newer tree hash to.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::log::LOG_SIZE_MAX;
use crate::log::frontier::Frontier;
use crate::log::hash::LogHash;
use crate::log::proof::ProofError;
use crate::log::range::{fold, nodes_of};
use crate::log::tile::Tile;
use crate::log::tile_tree::{TileTree, TreeError};

/// The tree of `new_size` leaves as perfect subtrees: those of its first `old_size` leaves, and those of the rest.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// How many leaves the older tree has.
    pub old_size: u64,
    /// How many leaves the newer tree has.
    pub new_size: u64,
    /// The perfect subtrees of the first `old_size` leaves, from left to right.
    pub before: Vec<LogHash>,
    /// The perfect subtrees of the leaves after them, from left to right.
    pub after: Vec<LogHash>,
}

/// Where an extension leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionRoots {
    /// The root over the first `old_size` leaves.
    pub old: LogHash,
    /// The root over all leaves.
    pub new: LogHash,
}

impl Extension {
    /// The extension from `old_size` to `new_size` leaves, from the tiles of the newer tree
    /// ([`tiles_for_consistency`](crate::log::proof::tiles_for_consistency)).
    ///
    /// # Errors
    /// [`TreeError`] where the newer tree is smaller or a tile can't be had.
    pub fn build<E>(
        old_size: u64,
        new_size: u64,
        read: impl FnMut(Tile) -> Result<Vec<u8>, E>,
    ) -> Result<Self, TreeError<E>> {
        if old_size > new_size || new_size > LOG_SIZE_MAX {
            return Err(TreeError::OutsideTree {
                start: 0,
                end: old_size,
                size: new_size,
            });
        }
        let mut tree = TileTree::new(new_size, read);
        Ok(Self {
            old_size,
            new_size,
            before: tree.hashes(0, old_size)?,
            after: tree.hashes(old_size, new_size)?,
        })
    }

    /// The roots of both trees. If `new` is the root of the newer tree, then `old` is what its first `old_size`
    /// leaves hash to, whoever gave the hashes.
    ///
    /// # Errors
    /// [`ProofError`] where no extension has these sizes and so many hashes.
    pub fn roots(&self) -> Result<ExtensionRoots, ProofError> {
        let Self {
            old_size, new_size, ..
        } = *self;
        if old_size > new_size {
            return Err(ProofError::SizesSwapped { old_size, new_size });
        }
        if new_size > LOG_SIZE_MAX {
            return Err(ProofError::Size(new_size));
        }
        let nodes = nodes_of(old_size, new_size);
        let length = |expected, actual| ProofError::Length { expected, actual };
        if self.after.len() != nodes.len() {
            return Err(length(nodes.len(), self.after.len()));
        }
        let expected = nodes_of(0, old_size).len();
        let mut tree = Frontier::from_hashes(old_size, self.before.clone())
            .map_err(|_| length(expected, self.before.len()))?;
        for (node, hash) in nodes.iter().zip(&self.after) {
            tree.push_subtree(node.height, *hash, |_, _| {});
        }
        Ok(ExtensionRoots {
            old: fold(&self.before),
            new: tree.root(),
        })
    }
}
