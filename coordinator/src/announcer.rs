//! Tells the mesh the newest checkpoints of the ledger's Merkle log.

use gristmill_ledger::log::Log;
use gristmill_protocol::handover::HandoverError;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_transport::{Mesh, witness};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::signers::Signers;

/// Starts to tell.
///
/// # Errors
/// [`HandoverError`] where the hand-overs in the ledger do not hold.
pub(crate) fn start(
    mesh: &Mesh,
    log: &Log,
    signers: &Signers,
    stopping: CancellationToken,
) -> Result<JoinHandle<()>, HandoverError> {
    let mut keys = LogKeys::new(signers.log());
    for handover in signers.handovers() {
        keys.follow(handover)?;
    }
    let announcing = witness::announce(mesh.clone(), keys, log.watch_notes(), stopping.cancelled_owned());
    Ok(tokio::spawn(announcing))
}
