//! The Merkle log in the database. Leaves are the entries' record hashes and bundles their contents, so only hashes
//! above the leaves have a table, each of them once: a tile of any width is a range of one table.

use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::tile::{TILE_WIDTH, Tile};
use tokio_postgres::Row;

use super::failure::Failure;
use super::reading::Reader;
use super::rows::{self, stored};
use crate::store::{LogWriteError, ReadError, StoredCheckpoint};

const LEAVES: &str = "SELECT record_hash AS hash FROM gristmill.entries WHERE sequence > $1 AND sequence <= $2 \
    ORDER BY sequence";
const HASHES: &str = "SELECT hash FROM gristmill.tile_hashes WHERE level = $1 AND position >= $2 AND position < $3 \
    ORDER BY position";
const ADD_HASHES: &str = "INSERT INTO gristmill.tile_hashes (level, position, hash) \
    SELECT $1::SMALLINT, added.position, added.hash FROM unnest($2::BIGINT[], $3::BYTEA[]) AS added (position, hash) \
    ON CONFLICT (level, position) DO NOTHING";
const RESERVE: &str = "INSERT INTO gristmill.checkpoints (size, root) SELECT $1::BIGINT, $2::BYTEA \
    WHERE NOT EXISTS (SELECT 1 FROM gristmill.checkpoints WHERE size > $1::BIGINT) \
    ON CONFLICT (size) DO NOTHING";
const RESERVED: &str = "SELECT size, root FROM gristmill.checkpoints WHERE size = $1";
const NEWEST: &str = "SELECT checkpoints.size, root, note FROM gristmill.checkpoints AS checkpoints \
    LEFT JOIN gristmill.checkpoint_notes AS notes ON notes.size = checkpoints.size \
    ORDER BY checkpoints.size DESC LIMIT 1";
const PUBLISHED: &str = "SELECT checkpoints.size, root, note FROM gristmill.checkpoint_notes AS notes \
    JOIN gristmill.checkpoints AS checkpoints ON checkpoints.size = notes.size \
    ORDER BY notes.size DESC LIMIT 1";
const PUBLISH: &str = "INSERT INTO gristmill.checkpoint_notes (size, note) \
    SELECT size, $2::TEXT FROM gristmill.checkpoints WHERE size = $1 \
    ON CONFLICT (size) DO UPDATE SET note = excluded.note RETURNING size";

impl From<ReadError> for LogWriteError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable {
            reason: error.to_string(),
        }
    }
}

impl Reader {
    pub(super) async fn read_tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, ReadError> {
        let hashes = self.hashes(tile).await?;
        let whole = hashes.len() == usize::from(tile.width());
        Ok(whole.then(|| hashes.iter().flat_map(|hash| *hash.bytes()).collect()))
    }

    /// What is there of a tile.
    async fn hashes(&self, tile: Tile) -> Result<Vec<LogHash>, ReadError> {
        let Some((first, end)) = range(tile) else {
            return Ok(Vec::new());
        };
        let found = match stored_level(tile) {
            0 => self.rows(LEAVES, &[&first, &end]).await?,
            level => self.rows(HASHES, &[&level, &first, &end]).await?,
        };
        let hashes = found.iter().map(|row| rows::log_hash(row, "hash"));
        Ok(hashes.collect::<Result<_, _>>()?)
    }

    pub(super) async fn write_tiles(&self, tiles: &[(Tile, Vec<u8>)]) -> Result<(), LogWriteError> {
        for (tile, bytes) in tiles {
            let unavailable = |reason: String| LogWriteError::Unavailable { reason };
            let hashes = tile
                .hashes(bytes)
                .map_err(|error| unavailable(error.to_string()))?;
            if tile.level() > 0 {
                self.add_hashes(*tile, &hashes).await?;
            }
            let there = self.hashes(*tile).await?;
            if there.iter().zip(&hashes).any(|(there, written)| there != written) {
                return Err(LogWriteError::OtherTile { path: tile.path() });
            }
            if there.len() < hashes.len() {
                return Err(unavailable(format!(
                    "{tile} is of entries that are not in the ledger"
                )));
            }
        }
        Ok(())
    }

    async fn add_hashes(&self, tile: Tile, hashes: &[LogHash]) -> Result<(), ReadError> {
        let Some((first, _)) = range(tile) else {
            return Ok(());
        };
        let positions: Vec<i64> = (first..).take(hashes.len()).collect();
        let hashes: Vec<&[u8]> = hashes.iter().map(|hash| &hash.bytes()[..]).collect();
        self.rows(ADD_HASHES, &[&stored_level(tile), &positions, &hashes])
            .await?;
        Ok(())
    }

    pub(super) async fn newest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        let newest = self.row(NEWEST, &[]).await?;
        Ok(newest.as_ref().map(checkpoint).transpose()?)
    }

    pub(super) async fn published_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        let published = self.row(PUBLISHED, &[]).await?;
        Ok(published.as_ref().map(checkpoint).transpose()?)
    }

    pub(super) async fn reserve_checkpoint(&self, size: u64, root: LogHash) -> Result<(), LogWriteError> {
        let stored_size = stored(size).map_err(ReadError::from)?;
        self.rows(RESERVE, &[&stored_size, &&root.bytes()[..]]).await?;
        let there = match self.row(RESERVED, &[&stored_size]).await? {
            Some(there) => Some(there),
            // A larger one was reserved before, and this one never.
            None => self.row(NEWEST, &[]).await?,
        };
        let there = there.ok_or_else(|| LogWriteError::Unavailable {
            reason: "the checkpoint that was just reserved is gone".into(),
        })?;
        let there_size = rows::number(&there, "size").map_err(ReadError::from)?;
        let reserved = rows::log_hash(&there, "root").map_err(ReadError::from)?;
        if (there_size, reserved) == (size, root) {
            return Ok(());
        }
        Err(LogWriteError::OtherRoot {
            size: there_size,
            reserved,
        })
    }

    pub(super) async fn publish_checkpoint(&self, size: u64, note: &str) -> Result<(), LogWriteError> {
        let stored_size = stored(size).map_err(ReadError::from)?;
        match self.row(PUBLISH, &[&stored_size, &note]).await? {
            Some(_) => Ok(()),
            None => Err(LogWriteError::Unavailable {
                reason: format!("no checkpoint of size {size} was reserved"),
            }),
        }
    }
}

/// The positions of a tile's hashes on its level, from the first to before the last; `None` beyond what can be stored.
fn range(tile: Tile) -> Option<(i64, i64)> {
    let first = i64::try_from(tile.index())
        .ok()?
        .checked_mul(i64::from(TILE_WIDTH))?;
    Some((first, first.checked_add(i64::from(tile.width()))?))
}

fn stored_level(tile: Tile) -> i16 {
    i16::from(tile.level())
}

fn checkpoint(row: &Row) -> Result<StoredCheckpoint, Failure> {
    Ok(StoredCheckpoint {
        size: rows::number(row, "size")?,
        root: rows::log_hash(row, "root")?,
        note: rows::value(row, "note")?,
    })
}
