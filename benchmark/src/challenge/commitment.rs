//! The commitment to a round's unit values: BLAKE3 in keyed mode, whose tree over chunks of 1,024 bytes is the Merkle
//! tree. One chunk is 256 unit values, each four bytes little-endian. BLAKE3 itself counts the chunks and tells
//! chunks, parents and the root apart, and the key names the round, so nothing can stand in for something else.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use thiserror::Error;

use super::dimension::Dimension;

/// Unit values in one chunk.
pub const CHUNK_VALUES: usize = blake3::CHUNK_LEN / 4;

/// A round's unit values, committed to by [`root`](Self::root).
#[derive(Clone, Debug)]
pub struct Commitment {
    key: [u8; 32],
    bytes: Vec<u8>,
    root: [u8; 32],
}

/// What shows one chunk of a commitment.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Opening {
    /// The chunk's unit values.
    pub values: Vec<i32>,
    /// The neighbours on the way to the root, the chunk's own neighbour first.
    pub siblings: Vec<[u8; 32]>,
}

/// Why an opening shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpeningError {
    /// A chunk has another size.
    #[error("an opening has {0} unit values where a chunk has {CHUNK_VALUES}")]
    Values(usize),
    /// The way to the root has another length.
    #[error("an opening has {actual} neighbours where the tree is {expected} levels high")]
    Siblings {
        /// How many there are.
        actual: usize,
        /// How many the dimension asks for.
        expected: usize,
    },
    /// The chunk and its neighbours lead to another root.
    #[error("an opening doesn't belong to the commitment")]
    Root,
}

impl Commitment {
    /// Commits to the unit values of a round under the round's key.
    #[must_use]
    pub fn new(key: [u8; 32], values: &[i32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let root = *blake3::keyed_hash(&key, &bytes).as_bytes();
        Self { key, bytes, root }
    }

    /// What is sent in place of the values.
    #[must_use]
    pub const fn root(&self) -> &[u8; 32] {
        &self.root
    }

    /// The inner hashes, made once for all openings of this round.
    #[must_use]
    pub fn tree(&self) -> Tree<'_> {
        let mut levels: Vec<Vec<ChainingValue>> = Vec::new();
        let mut level: Vec<_> = (0_u64..)
            .step_by(blake3::CHUNK_LEN)
            .zip(self.bytes.chunks(blake3::CHUNK_LEN))
            .map(|(offset, chunk)| chunk_hash(&self.key, offset, chunk))
            .collect();
        while level.len() > 1 {
            let above = level
                .chunks_exact(2)
                .map(|pair| merge_subtrees_non_root(&pair[0], &pair[1], Mode::KeyedHash(&self.key)))
                .collect();
            levels.push(std::mem::replace(&mut level, above));
        }
        Tree {
            commitment: self,
            levels,
        }
    }
}

/// A commitment with its inner hashes.
#[derive(Debug)]
pub struct Tree<'commitment> {
    commitment: &'commitment Commitment,
    levels: Vec<Vec<ChainingValue>>,
}

impl Tree<'_> {
    /// Shows the chunk of a unit. `None` where there is no such unit.
    #[must_use]
    pub fn open(&self, unit: usize) -> Option<Opening> {
        let mut index = unit / CHUNK_VALUES;
        let chunk = self.commitment.bytes.chunks_exact(blake3::CHUNK_LEN).nth(index)?;
        let mut siblings = Vec::with_capacity(self.levels.len());
        for level in &self.levels {
            siblings.push(*level.get(index ^ 1)?);
            index /= 2;
        }
        let values = chunk
            .chunks_exact(4)
            .map(|value| i32::from_le_bytes([value[0], value[1], value[2], value[3]]));
        Some(Opening {
            values: values.collect(),
            siblings,
        })
    }
}

/// How high the tree over the unit values of a round is.
#[must_use]
pub const fn levels(dimension: Dimension) -> usize {
    (dimension.units() / CHUNK_VALUES).ilog2() as usize
}

impl Opening {
    /// The value of `unit`, once the opening is shown to belong to `root` under the round's key.
    ///
    /// # Errors
    /// [`OpeningError`] where it has another shape or leads elsewhere.
    pub fn value(
        &self,
        key: &[u8; 32],
        root: &[u8; 32],
        dimension: Dimension,
        unit: usize,
    ) -> Result<i32, OpeningError> {
        let &value = self
            .values
            .get(unit % CHUNK_VALUES)
            .ok_or(OpeningError::Values(self.values.len()))?;
        if self.values.len() != CHUNK_VALUES {
            return Err(OpeningError::Values(self.values.len()));
        }
        let (last, inner) = match self.siblings.split_last() {
            Some(parts) if self.siblings.len() == levels(dimension) => parts,
            _ => {
                return Err(OpeningError::Siblings {
                    actual: self.siblings.len(),
                    expected: levels(dimension),
                });
            }
        };
        let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut index = unit / CHUNK_VALUES;
        let mut hash = chunk_hash(key, (index * blake3::CHUNK_LEN) as u64, &bytes);
        let mode = Mode::KeyedHash(key);
        for sibling in inner {
            let (left, right) = in_order(index, &hash, sibling);
            hash = merge_subtrees_non_root(left, right, mode);
            index /= 2;
        }
        let (left, right) = in_order(index, &hash, last);
        if merge_subtrees_root(left, right, mode) == *root {
            Ok(value)
        } else {
            Err(OpeningError::Root)
        }
    }
}

const fn in_order<'hash>(
    index: usize,
    hash: &'hash ChainingValue,
    sibling: &'hash ChainingValue,
) -> (&'hash ChainingValue, &'hash ChainingValue) {
    if index.is_multiple_of(2) {
        (hash, sibling)
    } else {
        (sibling, hash)
    }
}

/// `offset` is a whole number of chunks, and `chunk` holds at least one byte and at most a chunk.
fn chunk_hash(key: &[u8; 32], offset: u64, chunk: &[u8]) -> ChainingValue {
    blake3::Hasher::new_keyed(key)
        .set_input_offset(offset)
        .update(chunk)
        .finalize_non_root()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn commitment(dimension: Dimension) -> Commitment {
        let values: Vec<i32> = (0..i32::try_from(dimension.units()).unwrap())
            .map(|at| at * 37 - 9000)
            .collect();
        Commitment::new([9; 32], &values)
    }

    #[test]
    fn every_unit_opens_to_its_value() {
        for rows in [256, 512, 1024] {
            let dimension = Dimension::new(rows).unwrap();
            let commitment = commitment(dimension);
            let tree = commitment.tree();
            for unit in 0..dimension.units() {
                let opening = tree.open(unit).unwrap();
                let value = opening.value(&[9; 32], commitment.root(), dimension, unit);
                assert_eq!(value, Ok(i32::try_from(unit).unwrap() * 37 - 9000));
            }
            assert_eq!(tree.open(dimension.units()), None);
        }
        assert_eq!(levels(Dimension::SMALLEST), 2);
        assert_eq!(levels(Dimension::LARGEST), 14);
    }

    #[test]
    fn an_opening_stands_only_for_its_own_place_key_and_root() {
        let dimension = Dimension::SMALLEST;
        let commitment = commitment(dimension);
        let opening = commitment.tree().open(300).unwrap();
        let value = |key, root: &[u8; 32], unit| opening.value(key, root, dimension, unit);
        assert!(value(&[9; 32], commitment.root(), 300).is_ok());
        assert_eq!(value(&[9; 32], commitment.root(), 44), Err(OpeningError::Root));
        assert_eq!(value(&[9; 32], commitment.root(), 812), Err(OpeningError::Root));
        assert_eq!(value(&[8; 32], commitment.root(), 300), Err(OpeningError::Root));
        assert_eq!(value(&[9; 32], &[0; 32], 300), Err(OpeningError::Root));
    }

    #[test]
    fn other_shapes_are_refused_by_name() {
        let dimension = Dimension::SMALLEST;
        let commitment = commitment(dimension);
        let opening = commitment.tree().open(0).unwrap();
        let check = |opening: &Opening| opening.value(&[9; 32], commitment.root(), dimension, 0);
        let mut short = opening.clone();
        short.values.pop();
        assert_eq!(check(&short), Err(OpeningError::Values(255)));
        short.values.clear();
        assert_eq!(check(&short), Err(OpeningError::Values(0)));
        let mut high = opening;
        high.siblings.push([0; 32]);
        assert_eq!(
            check(&high),
            Err(OpeningError::Siblings {
                actual: 3,
                expected: 2
            })
        );
        high.siblings.clear();
        assert_eq!(
            check(&high),
            Err(OpeningError::Siblings {
                actual: 0,
                expected: 2
            })
        );
    }

    proptest! {
        #[test]
        fn no_changed_bit_goes_unnoticed(unit in 0..1024_usize, at in 0..1088_usize, bit in 0..8_u32) {
            let dimension = Dimension::SMALLEST;
            let commitment = commitment(dimension);
            let mut opening = commitment.tree().open(unit).unwrap();
            if at < 1024 {
                opening.values[at / 4] ^= 1 << (8 * (at % 4) as u32 + bit);
            } else {
                opening.siblings[(at - 1024) / 32][at % 32] ^= 1 << bit;
            }
            let value = opening.value(&[9; 32], commitment.root(), dimension, unit);
            prop_assert_eq!(value, Err(OpeningError::Root));
        }
    }
}
