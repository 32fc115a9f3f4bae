//! Holding one receipt against the tree of a checkpoint.

use std::collections::BTreeMap;

use gristmill_protocol::log::checkpoint::{LogKeys, SignedCheckpoint};
use gristmill_protocol::log::inclusion_text::InclusionText;
use gristmill_protocol::log::receipt::{
    ReceiptCheckError, ReceiptStanding, check_receipt, tiles_for_receipt,
};
use gristmill_protocol::log::tile::Tile;

use super::receipts::{OwnReceipt, ProvedReceipt, ReceiptFound};
use super::tiles::Tiles;

/// What the log says about a receipt, from its tiles.
pub(super) async fn check(
    tiles: &Tiles,
    keys: &LogKeys,
    checkpoint: &SignedCheckpoint,
    receipt: &OwnReceipt,
) -> ReceiptFound {
    let fetched = match tiles
        .fetch(tiles_for_receipt(receipt.sequence, checkpoint.size()))
        .await
    {
        Ok(fetched) => fetched,
        Err(error) => {
            tracing::debug!(%error, sequence = receipt.sequence, "a receipt can't be proved now");
            return ReceiptFound::Unknown;
        }
    };
    match check_receipt(&receipt.token, checkpoint, keys, reader(&fetched)) {
        Ok(ReceiptStanding::InLog(proof)) => match InclusionText::new(proof, checkpoint, None) {
            Ok(text) => ReceiptFound::Proved(ProvedReceipt {
                sequence: receipt.sequence,
                proof: text.to_string(),
            }),
            Err(error) => {
                tracing::warn!(%error, "a proof can't be written down");
                ReceiptFound::Unknown
            }
        },
        Ok(ReceiptStanding::Broken(evidence)) => ReceiptFound::Broken(evidence),
        Ok(ReceiptStanding::NotYet) => ReceiptFound::Unknown,
        Err(ReceiptCheckError::Receipt(error)) => {
            tracing::warn!(%error, sequence = receipt.sequence, "a receipt is not one of this log");
            ReceiptFound::Foreign
        }
        Err(error @ (ReceiptCheckError::Tree(_) | ReceiptCheckError::Tiles(_))) => {
            tracing::debug!(%error, sequence = receipt.sequence, "a receipt can't be proved now");
            ReceiptFound::Unknown
        }
    }
}

/// A tile that was not fetched beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was not fetched")]
pub(super) struct NotFetched;

/// Reads tiles that were fetched.
pub(super) fn reader(tiles: &BTreeMap<Tile, Vec<u8>>) -> impl FnMut(Tile) -> Result<Vec<u8>, NotFetched> {
    |tile| tiles.get(&tile).cloned().ok_or(NotFetched)
}
