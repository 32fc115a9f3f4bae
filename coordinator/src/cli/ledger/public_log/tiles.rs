//! The tiles of a log that its coordinator serves.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use gristmill_protocol::log::tile::Tile;
use gristmill_transport::coordinator_client::{CoordinatorCallError, CoordinatorClient};
use thiserror::Error;

/// How many tiles are fetched at once.
pub(super) const FETCHES_AT_ONCE: usize = 8;

/// A tile that was not fetched before it was needed.
#[derive(Debug, Error)]
#[error("the tile was not fetched")]
pub(super) struct NotFetched;

/// Tiles of one log, each fetched once.
pub(super) struct Tiles<'a> {
    client: &'a CoordinatorClient,
    kept: BTreeMap<Tile, Vec<u8>>,
    pub(super) fetched: u64,
}

impl<'a> Tiles<'a> {
    pub(super) const fn new(client: &'a CoordinatorClient) -> Self {
        Self {
            client,
            kept: BTreeMap::new(),
            fetched: 0,
        }
    }

    pub(super) async fn fetch(&mut self, wanted: BTreeSet<Tile>) -> anyhow::Result<()> {
        let missing: Vec<Tile> = wanted
            .into_iter()
            .filter(|tile| !self.kept.contains_key(tile))
            .collect();
        let client = self.client;
        let fetch = |tile| async move { Ok::<_, CoordinatorCallError>((tile, client.tile(tile).await?)) };
        let fetched: Vec<(Tile, Vec<u8>)> = stream::iter(missing.into_iter().map(fetch))
            .buffered(FETCHES_AT_ONCE)
            .try_collect()
            .await?;
        self.fetched += u64::try_from(fetched.len()).unwrap_or(u64::MAX);
        self.kept.extend(fetched);
        Ok(())
    }

    pub(super) fn get(&self, tile: Tile) -> Result<Vec<u8>, NotFetched> {
        self.kept.get(&tile).cloned().ok_or(NotFetched)
    }

    /// Gives the memory of a tile free that will not be needed again.
    pub(super) fn forget(&mut self, tile: Tile) {
        self.kept.remove(&tile);
    }
}
