//! Tiles of a log, fetched and remembered within bounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use gristmill_protocol::log::tile::Tile;
use thiserror::Error;
use tokio::time::timeout;

use crate::coordinator_client::{CoordinatorCallError, CoordinatorClient};

/// Most tiles that are remembered: 2 MiB of hashes, which is the way to the root for any few places.
const REMEMBERED_MAX: usize = 256;
/// Most tiles that are fetched for one purpose.
const FETCHED_MAX: usize = 512;
/// How many are fetched at once.
const AT_ONCE: usize = 4;
/// The longest that fetching for one purpose may take: less than a witness waits for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// Why tiles are not there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum TilesError {
    /// One could not be had.
    #[error("{tile} could not be had: {source}")]
    Call {
        tile: Tile,
        source: CoordinatorCallError,
    },
    /// They did not come in time.
    #[error("the log did not give its tiles within {} s", FETCH_TIMEOUT.as_secs())]
    TimedOut,
    /// More than are ever needed for an honest question.
    #[error("{0} tiles are more than are fetched at once")]
    TooMany(usize),
}

/// The tiles of one log that are known. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Tiles {
    client: Arc<CoordinatorClient>,
    remembered: Arc<Mutex<Remembered>>,
}

/// The last tiles that were used.
#[derive(Debug, Default)]
struct Remembered {
    tiles: BTreeMap<Tile, (u64, Vec<u8>)>,
    uses: u64,
}

impl Remembered {
    /// The hashes of a tile, or of the full one at its place, which has them too.
    fn find(&mut self, tile: Tile) -> Option<Vec<u8>> {
        self.get(tile).or_else(|| self.get(tile.full()))
    }

    fn get(&mut self, tile: Tile) -> Option<Vec<u8>> {
        self.uses += 1;
        let (used_at, hashes) = self.tiles.get_mut(&tile)?;
        *used_at = self.uses;
        Some(hashes.clone())
    }

    fn insert(&mut self, tile: Tile, hashes: Vec<u8>) {
        self.uses += 1;
        self.tiles.insert(tile, (self.uses, hashes));
        if self.tiles.len() > REMEMBERED_MAX {
            let oldest = self.tiles.iter().min_by_key(|(_, (used_at, _))| *used_at);
            if let Some(oldest) = oldest.map(|(tile, _)| *tile) {
                self.tiles.remove(&oldest);
            }
        }
    }
}

impl Tiles {
    pub(super) fn new(client: Arc<CoordinatorClient>) -> Self {
        Self {
            client,
            remembered: Arc::default(),
        }
    }

    /// Forgets all of them, since one is not what it should be.
    pub(super) fn forget(&self) {
        self.lock().tiles.clear();
    }

    /// These tiles, fetched where they are not remembered.
    pub(super) async fn fetch(&self, wanted: BTreeSet<Tile>) -> Result<BTreeMap<Tile, Vec<u8>>, TilesError> {
        if wanted.len() > FETCHED_MAX {
            return Err(TilesError::TooMany(wanted.len()));
        }
        let mut tiles = BTreeMap::new();
        let mut missing = Vec::new();
        for tile in wanted {
            let known = self.lock().find(tile);
            match known {
                Some(hashes) => {
                    tiles.insert(tile, hashes);
                }
                None => missing.push(tile),
            }
        }
        let fetching = stream::iter(missing)
            .map(|tile| async move {
                let fetched = self.client.tile(tile).await;
                fetched
                    .map(|hashes| (tile, hashes))
                    .map_err(|source| TilesError::Call { tile, source })
            })
            .buffer_unordered(AT_ONCE);
        let all = async {
            futures::pin_mut!(fetching);
            while let Some(fetched) = fetching.next().await {
                let (tile, hashes) = fetched?;
                let got = match hashes.len() == tile.bytes() {
                    true => tile,
                    false => tile.full(),
                };
                self.lock().insert(got, hashes.clone());
                tiles.insert(tile, hashes);
            }
            Ok(())
        };
        timeout(FETCH_TIMEOUT, all)
            .await
            .map_err(|_| TilesError::TimedOut)??;
        Ok(tiles)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tiles_used_last_are_remembered() {
        let mut remembered = Remembered::default();
        let tile = |index: usize| Tile::new(0, index as u64, 256).unwrap();
        for index in 0..REMEMBERED_MAX {
            remembered.insert(tile(index), vec![index as u8]);
        }
        assert_eq!(remembered.get(tile(0)), Some(vec![0]));
        remembered.insert(tile(REMEMBERED_MAX), vec![]);
        assert_eq!(remembered.tiles.len(), REMEMBERED_MAX);
        assert_eq!(remembered.get(tile(0)), Some(vec![0]));
        assert_eq!(remembered.get(tile(1)), None);
        assert_eq!(remembered.find(Tile::new(0, 0, 7).unwrap()), Some(vec![0]));
        assert_eq!(remembered.find(Tile::new(0, 1, 7).unwrap()), None);
    }
}
