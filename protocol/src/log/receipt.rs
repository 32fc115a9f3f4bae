//! Holding a receipt against the log: whether the record that it promises is in it.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::log::checkpoint::{LogKeys, SignedCheckpoint};
use crate::log::evidence::{Evidence, EvidenceError, open_receipt};
use crate::log::hash::LogHash;
use crate::log::proof::{InclusionProof, ProofError, tiles_for_inclusion};
use crate::log::tile::Tile;
use crate::log::tile_tree::{TileTree, TreeError, tiles_for};

/// What the log says about a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptStanding {
    /// The record is not in the log yet, going by this checkpoint. It has to be a second after the receipt.
    NotYet,
    /// The record is in the log.
    InLog(InclusionProof),
    /// Another record is in its place.
    Broken(Box<Evidence>),
}

/// Why nothing can be said about a receipt.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ReceiptCheckError<E> {
    /// It is not a receipt of this log's coordinator.
    #[error(transparent)]
    Receipt(#[from] EvidenceError),
    /// The tiles could not be had.
    #[error("the tiles of the log could not be read")]
    Tree(#[source] TreeError<E>),
    /// The tiles are not those of the checkpoint.
    #[error("the tiles of the log do not lead to its checkpoint: {0}")]
    Tiles(#[source] ProofError),
}

/// Holds a receipt against the tree of a checkpoint, read from its tiles ([`tiles_for_receipt`]).
///
/// # Errors
/// [`ReceiptCheckError`] where the receipt or the tiles are none of this log.
pub fn check_receipt<E>(
    receipt: &str,
    checkpoint: &SignedCheckpoint,
    keys: &LogKeys,
    mut read: impl FnMut(Tile) -> Result<Vec<u8>, E>,
) -> Result<ReceiptStanding, ReceiptCheckError<E>> {
    let promise = open_receipt(receipt, keys)?;
    if promise.index >= checkpoint.size() {
        return Ok(ReceiptStanding::NotYet);
    }
    let (index, size) = (promise.index, checkpoint.size());
    let mut tree = TileTree::new(size, &mut read);
    let leaf: LogHash = tree.subtree(index, index + 1).map_err(ReceiptCheckError::Tree)?;
    let proof = InclusionProof::build(index, size, read).map_err(ReceiptCheckError::Tree)?;
    proof
        .verify(&leaf, checkpoint.root())
        .map_err(ReceiptCheckError::Tiles)?;
    if leaf == promise.record_hash {
        return Ok(ReceiptStanding::InLog(proof));
    }
    let evidence = Evidence::broken_receipt(keys, receipt.to_owned(), checkpoint, leaf, proof);
    Ok(ReceiptStanding::Broken(Box::new(evidence)))
}

/// The tiles of the tree of `size` leaves that [`check_receipt`] reads for the record of this number, from one.
#[must_use]
pub fn tiles_for_receipt(sequence: u64, size: u64) -> BTreeSet<Tile> {
    let Some(index) = sequence.checked_sub(1).filter(|index| *index < size) else {
        return BTreeSet::new();
    };
    let mut tiles = tiles_for_inclusion(index, size);
    tiles.extend(tiles_for(size, [(index, index + 1)]));
    tiles
}
