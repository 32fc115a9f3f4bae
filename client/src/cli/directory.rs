//! What the coordinator has heard of, for commands that run while no client serves.

use std::sync::Arc;

use anyhow::Context as _;
use gristmill_protocol::board::Board;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_service::clock::unix_ms;
use gristmill_transport::CoordinatorClient;

use crate::settings::Settings;

/// The coordinator's listings, each one verified, as are the certificates in them; and its account. For this no
/// account is needed.
pub(super) async fn read(settings: &Settings) -> anyhow::Result<(Board, AccountId)> {
    let nobody = Keypair::from_secret(&rand::random());
    let client = CoordinatorClient::new(&settings.coordinator, None, nobody, Arc::new(unix_ms))?;
    let coordinator = client
        .coordinator()
        .await
        .context("no client serves here, and the network can't be asked")?;
    let mut board = Board::default();
    board.trust(client.log_keys().await?);
    for sealed in client.listings().await? {
        if let Err(error) = board.insert(&sealed, unix_ms()) {
            tracing::debug!(%error, "a listing of the coordinator's directory is invalid");
        }
    }
    Ok((board, coordinator))
}
