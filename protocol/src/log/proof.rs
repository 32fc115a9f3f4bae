//! Proofs that a leaf is in a tree, and that one tree goes on from another.
//!
//! Source: RFC 6962 section 2.1.1 and 2.1.2; verification as in RFC 9162 section 2.1.3.2 and 2.1.4.2.

use std::collections::BTreeSet;

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::log::LOG_SIZE_MAX;
use crate::log::hash::{LogHash, empty_root, node_hash};
use crate::log::tile::Tile;
use crate::log::tile_tree::{TileTree, TreeError, tiles_for};

/// Most hashes of a proof: one for each level that a tree can have, and the start of a consistency proof.
pub const PROOF_HASHES_MAX: usize = 64;

/// That the leaf `index` of the tree of `size` leaves is a certain one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InclusionProof {
    /// The number of the leaf, from zero.
    pub index: u64,
    /// How many leaves the tree has.
    pub size: u64,
    /// From the leaf's sibling up to the root's child.
    pub hashes: Vec<LogHash>,
}

/// That the tree of `new_size` leaves begins with all leaves of the tree of `old_size`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConsistencyProof {
    /// How many leaves the older tree has.
    pub old_size: u64,
    /// How many leaves the newer tree has.
    pub new_size: u64,
    /// As RFC 6962 section 2.1.2 orders them.
    pub hashes: Vec<LogHash>,
}

/// Why a proof proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProofError {
    /// The tree has no such leaf.
    #[error("a tree of {size} leaves has no leaf {index}")]
    NoSuchLeaf {
        /// The number of the leaf.
        index: u64,
        /// How many leaves the tree has.
        size: u64,
    },
    /// The older tree has more leaves than the newer one.
    #[error("a tree of {new_size} leaves can't go on from one of {old_size}")]
    SizesSwapped {
        /// How many leaves the older tree should have.
        old_size: u64,
        /// How many leaves the newer tree should have.
        new_size: u64,
    },
    /// More leaves than a log can have.
    #[error("{0} leaves are more than a log can have, which is {LOG_SIZE_MAX}")]
    Size(u64),
    /// Too many or too few hashes for these sizes.
    #[error("the proof has {actual} hashes, this one needs {expected}")]
    Length {
        /// How many such a proof has.
        expected: usize,
        /// How many this one has.
        actual: usize,
    },
    /// The hashes lead to another root than the older tree's.
    #[error("the proof leads to the older root {actual}, not to {expected}")]
    OldRoot {
        /// The root of the older tree.
        expected: LogHash,
        /// Where the hashes lead.
        actual: LogHash,
    },
    /// The hashes lead to another root than the tree's, or than the newer tree's.
    #[error("the proof leads to the root {actual}, not to {expected}")]
    Root {
        /// The root of the tree.
        expected: LogHash,
        /// Where the hashes lead.
        actual: LogHash,
    },
}

fn check_length(expected: usize, actual: usize) -> Result<(), ProofError> {
    match expected == actual {
        true => Ok(()),
        false => Err(ProofError::Length { expected, actual }),
    }
}

impl InclusionProof {
    /// The proof for a leaf of the tree of `size` leaves, from the tiles of that tree.
    ///
    /// # Errors
    /// [`TreeError`] where the tree has no such leaf or a tile can't be had.
    pub fn build<E>(
        index: u64,
        size: u64,
        read: impl FnMut(Tile) -> Result<Vec<u8>, E>,
    ) -> Result<Self, TreeError<E>> {
        if index >= size || size > LOG_SIZE_MAX {
            let end = index.saturating_add(1);
            return Err(TreeError::OutsideTree {
                start: index,
                end,
                size,
            });
        }
        let mut tree = TileTree::new(size, read);
        let hashes = inclusion_ranges(index, size)
            .into_iter()
            .map(|(start, end)| tree.subtree(start, end))
            .collect::<Result<_, _>>()?;
        Ok(Self { index, size, hashes })
    }

    /// Checks that `leaf` is the leaf `index` of the tree with this root.
    ///
    /// # Errors
    /// [`ProofError`] where that is not proved.
    pub fn verify(&self, leaf: &LogHash, root: &LogHash) -> Result<(), ProofError> {
        let actual = self.root(leaf)?;
        match actual == *root {
            true => Ok(()),
            false => Err(ProofError::Root {
                expected: *root,
                actual,
            }),
        }
    }

    /// The root of the tree that has `leaf` at `index`, if the hashes are right.
    ///
    /// # Errors
    /// [`ProofError`] where no such proof has these sizes and so many hashes.
    pub fn root(&self, leaf: &LogHash) -> Result<LogHash, ProofError> {
        let Self { index, size, .. } = *self;
        if index >= size {
            return Err(ProofError::NoSuchLeaf { index, size });
        }
        check_size(size)?;
        let ranges = inclusion_ranges(index, size);
        check_length(ranges.len(), self.hashes.len())?;
        Ok(ranges
            .iter()
            .zip(&self.hashes)
            .fold(*leaf, |hash, ((start, _), sibling)| match *start > index {
                true => node_hash(&hash, sibling),
                false => node_hash(sibling, &hash),
            }))
    }
}

impl ConsistencyProof {
    /// The proof from the tree of `old_size` leaves to that of `new_size`, from the tiles of the newer tree. It is
    /// empty where the sizes are equal or the older tree is empty: there is nothing to prove.
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
        let ConsistencyRanges { start, siblings } = consistency_ranges(old_size, new_size);
        let hashes = start
            .into_iter()
            .chain(siblings)
            .map(|(start, end)| tree.subtree(start, end))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            old_size,
            new_size,
            hashes,
        })
    }

    /// Checks that the tree with `new_root` begins with the leaves of the tree with `old_root`.
    ///
    /// # Errors
    /// [`ProofError`] where that is not proved.
    pub fn verify(&self, old_root: &LogHash, new_root: &LogHash) -> Result<(), ProofError> {
        let Self {
            old_size, new_size, ..
        } = *self;
        if old_size > new_size {
            return Err(ProofError::SizesSwapped { old_size, new_size });
        }
        check_size(new_size)?;
        let ConsistencyRanges { start, siblings } = consistency_ranges(old_size, new_size);
        check_length(usize::from(start.is_some()) + siblings.len(), self.hashes.len())?;
        let (old, new) = match old_size {
            0 => (empty_root(), if new_size == 0 { empty_root() } else { *new_root }),
            _ => self.roots(old_root, start.is_some(), &siblings),
        };
        if old != *old_root {
            return Err(ProofError::OldRoot {
                expected: *old_root,
                actual: old,
            });
        }
        if new != *new_root {
            return Err(ProofError::Root {
                expected: *new_root,
                actual: new,
            });
        }
        Ok(())
    }

    /// Where the hashes lead, from the subtree on the right edge of the older tree upwards. A sibling on the left is
    /// in both trees, one on the right in the newer tree alone.
    fn roots(&self, old_root: &LogHash, has_start: bool, siblings: &[(u64, u64)]) -> (LogHash, LogHash) {
        // Without a start, the older tree is itself a subtree of the newer one.
        let (first, rest) = match self.hashes.split_first() {
            Some((first, rest)) if has_start => (first, rest),
            _ => (old_root, self.hashes.as_slice()),
        };
        siblings
            .iter()
            .zip(rest)
            .fold((*first, *first), |(old, new), ((start, _), sibling)| {
                match *start >= self.old_size {
                    true => (old, node_hash(&new, sibling)),
                    false => (node_hash(sibling, &old), node_hash(sibling, &new)),
                }
            })
    }
}

fn check_size(size: u64) -> Result<(), ProofError> {
    match size <= LOG_SIZE_MAX {
        true => Ok(()),
        false => Err(ProofError::Size(size)),
    }
}

/// The largest power of two below a number of leaves that is at least two: where a tree is split.
fn split(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// The leaves under each hash of an inclusion proof, from the leaf's sibling to the root's child.
fn inclusion_ranges(index: u64, size: u64) -> Vec<(u64, u64)> {
    let (mut start, mut end) = (0, size);
    let mut ranges = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((start, middle));
            start = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// The leaves under each hash of a consistency proof.
struct ConsistencyRanges {
    /// The last perfect subtree of the older tree, unless that is the whole older tree.
    start: Option<(u64, u64)>,
    /// What is beside it, from the bottom up.
    siblings: Vec<(u64, u64)>,
}

fn consistency_ranges(old_size: u64, new_size: u64) -> ConsistencyRanges {
    let (mut start, mut end) = (0, new_size);
    let mut siblings = Vec::new();
    if old_size == 0 || old_size == new_size {
        return ConsistencyRanges {
            start: None,
            siblings,
        };
    }
    while end != old_size {
        let middle = start + split(end - start);
        if old_size <= middle {
            siblings.push((middle, end));
            end = middle;
        } else {
            siblings.push((start, middle));
            start = middle;
        }
    }
    siblings.reverse();
    ConsistencyRanges {
        start: (start > 0).then_some((start, end)),
        siblings,
    }
}

/// The tiles of the tree of `size` leaves that an inclusion proof of a leaf is built from.
#[must_use]
pub fn tiles_for_inclusion(index: u64, size: u64) -> BTreeSet<Tile> {
    match index < size {
        true => tiles_for(size, inclusion_ranges(index, size)),
        false => BTreeSet::new(),
    }
}

/// The tiles of the tree of `new_size` leaves that a consistency proof, and an
/// [`Extension`](crate::log::extension::Extension), are built from.
#[must_use]
pub fn tiles_for_consistency(old_size: u64, new_size: u64) -> BTreeSet<Tile> {
    tiles_for(new_size, [(0, old_size), (old_size, new_size)])
}

#[cfg(test)]
mod tests;
