//! The files of the Merkle log beside the journal: tiles and checkpoints in the layout of C2SP tlog-tiles, so that a
//! plain file server could show them.
//!
//! ```text
//! log/tile/<L>/<N>[.p/<W>]   hashes; written once, synced, never changed; partial tiles go when the full one is there
//! log/reserved               the newest size, its root and a checksum, synced before anybody signs them
//! log/checkpoint             the newest signed note
//! ```

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::note::NOTE_MAX_BYTES;
use gristmill_protocol::log::tile::{TILE_MAX_BYTES, Tile};

use crate::disk::{Disk, write_file_durably};
use crate::store::{LogWriteError, ReadError, StoredCheckpoint};

/// The size and root that may be signed.
pub(crate) const RESERVED_FILE: &str = "reserved";
/// What everybody is shown.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";
const FILE_MAX_BYTES: usize = if NOTE_MAX_BYTES > TILE_MAX_BYTES {
    NOTE_MAX_BYTES
} else {
    TILE_MAX_BYTES
};

/// The files of the log.
#[derive(Debug)]
pub(crate) struct LogFiles {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// One writer at a time: what is reserved is compared before it is replaced.
    writing: Mutex<()>,
}

impl LogFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, directory: PathBuf) -> Self {
        Self {
            disk,
            directory,
            writing: Mutex::new(()),
        }
    }

    pub(crate) fn read_tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, ReadError> {
        if let Some(bytes) = self.read(&tile.path())? {
            return Ok(Some(bytes));
        }
        // A partial tile is gone once the full one is there, which begins with the same hashes.
        let full = self.read(&tile.full().path())?;
        Ok(full.and_then(|bytes| bytes.get(..tile.bytes()).map(<[u8]>::to_vec)))
    }

    pub(crate) fn write_tiles(&self, tiles: &[(Tile, Vec<u8>)]) -> Result<(), LogWriteError> {
        let _writing = self.lock();
        let mut missing = Vec::new();
        let mut filled = Vec::new();
        for (tile, bytes) in tiles {
            let path = tile.path();
            match self.read_tile(tile).map_err(unreadable)? {
                Some(there) if there == *bytes => {}
                Some(_) => return Err(LogWriteError::OtherTile { path }),
                None => {
                    if *tile == tile.full() {
                        filled.push(self.directory.join(format!("{path}.p")));
                    }
                    missing.push((self.directory.join(path), bytes));
                }
            }
        }
        self.write_new(&missing)
            .map_err(|(path, error)| not_written(&path, &error))?;
        for partial in filled {
            self.remove_partial(&partial);
        }
        Ok(())
    }

    /// Removes the partial tiles that a full one has made needless: without that, a checkpoint every second would
    /// leave gigabytes of them. Where it does not succeed nothing is wrong but the space.
    fn remove_partial(&self, directory: &Path) {
        let removed = self.disk.list(directory).and_then(|names| {
            names
                .iter()
                .try_for_each(|name| self.disk.remove(&directory.join(name)))
                .and_then(|()| self.disk.remove(directory))
        });
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(directory = %directory.display(), %error, "needless tiles are left");
            }
            _ => {}
        }
    }

    /// Writes files that are not there yet, each as a whole or not at all, and syncs each directory once.
    fn write_new(&self, files: &[(PathBuf, &Vec<u8>)]) -> Result<(), (PathBuf, io::Error)> {
        let mut directories = BTreeSet::new();
        for (path, bytes) in files {
            let directory = path.parent().unwrap_or(&self.directory);
            let is_first = directories.insert(directory);
            self.write_one(directory, is_first, path, bytes)
                .map_err(|error| (path.clone(), error))?;
        }
        directories.into_iter().try_for_each(|directory| {
            let synced = self.disk.sync_directory(directory);
            synced.map_err(|error| (directory.to_owned(), error))
        })
    }

    fn write_one(&self, directory: &Path, is_first: bool, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if is_first {
            self.disk.create_directory(directory)?;
        }
        let unfinished = path.with_extension("new");
        let file = self.disk.create(&unfinished)?;
        file.write_at(0, bytes)?;
        file.sync_all()?;
        self.disk.rename(&unfinished, path)
    }

    pub(crate) fn newest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        let Some((size, root)) = self.reserved()? else {
            return Ok(None);
        };
        let published = self.published_checkpoint()?;
        let note = published
            .filter(|published| (published.size, published.root) == (size, root))
            .and_then(|published| published.note);
        Ok(Some(StoredCheckpoint { size, root, note }))
    }

    pub(crate) fn published_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        let Some(bytes) = self.read(CHECKPOINT_FILE)? else {
            return Ok(None);
        };
        let parsed = String::from_utf8(bytes).ok().and_then(|note| {
            let mut lines = note.lines().skip(1);
            let size = lines.next()?.parse().ok()?;
            let root = LogHash::from_base64(lines.next()?).ok()?;
            Some(StoredCheckpoint {
                size,
                root,
                note: Some(note),
            })
        });
        parsed.ok_or_else(|| self.damaged(CHECKPOINT_FILE)).map(Some)
    }

    pub(crate) fn reserve(&self, size: u64, root: LogHash) -> Result<(), LogWriteError> {
        let _writing = self.lock();
        match self.reserved().map_err(unreadable)? {
            Some(reserved) if reserved == (size, root) => Ok(()),
            Some((reserved_size, reserved)) if reserved_size >= size => Err(LogWriteError::OtherRoot {
                size: reserved_size,
                reserved,
            }),
            _ => self.write(RESERVED_FILE, reservation(size, root).as_bytes()),
        }
    }

    pub(crate) fn publish(&self, size: u64, note: &str) -> Result<(), LogWriteError> {
        let _writing = self.lock();
        let published = self.published_checkpoint().map_err(unreadable)?;
        if published.is_some_and(|published| published.size > size) {
            return Ok(());
        }
        self.write(CHECKPOINT_FILE, note.as_bytes())
    }

    /// What is reserved, without what is published of it.
    pub(crate) fn reserved_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        let reserved = self.reserved()?;
        Ok(reserved.map(|(size, root)| StoredCheckpoint {
            size,
            root,
            note: None,
        }))
    }

    fn reserved(&self) -> Result<Option<(u64, LogHash)>, ReadError> {
        let Some(bytes) = self.read(RESERVED_FILE)? else {
            return Ok(None);
        };
        let parsed = std::str::from_utf8(&bytes).ok().and_then(|text| {
            let mut words = text.split(' ');
            let (size, root) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            (reservation(size, root) == text).then_some((size, root))
        });
        parsed.ok_or_else(|| self.damaged(RESERVED_FILE)).map(Some)
    }

    fn damaged(&self, name: &str) -> ReadError {
        ReadError::Damaged {
            reason: format!("{} is malformed", self.directory.join(name).display()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // Nothing is half done in memory when a writer panics: the files are replaced as a whole.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let path = self.directory.join(name);
        let most = u64::try_from(FILE_MAX_BYTES).unwrap_or(u64::MAX);
        match self.disk.read(&path, most) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ReadError::Damaged {
                reason: format!("cannot read {}: {error}", path.display()),
            }),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), LogWriteError> {
        let written = self
            .disk
            .create_directory(&self.directory)
            .and_then(|()| write_file_durably(&*self.disk, &self.directory, name, bytes));
        written.map_err(|error| not_written(&self.directory.join(name), &error))
    }
}

/// The line that keeps a size and its root. The checksum tells a changed byte from another log.
fn reservation(size: u64, root: LogHash) -> String {
    let line = format!("{size} {root}");
    let checksum = crc32c::crc32c(line.as_bytes());
    format!("{line} {checksum:08x}\n")
}

fn unreadable(error: ReadError) -> LogWriteError {
    LogWriteError::Unavailable {
        reason: error.to_string(),
    }
}

fn not_written(path: &Path, error: &io::Error) -> LogWriteError {
    LogWriteError::Unavailable {
        reason: format!("cannot write {}: {error}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use gristmill_protocol::log::hash::leaf_hash;
    use gristmill_protocol::log::tile_builder::TileBuilder;

    #[test]
    fn partial_tiles_go_when_the_full_one_is_there_and_can_still_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let files = LogFiles::new(RealDisk::shared(), folder.path().to_owned());
        let mut builder = TileBuilder::new();
        let mut partial = Vec::new();
        for end in [3u64, 200, 255, 300] {
            let begin = builder.frontier().size();
            let contents = builder.append((begin..end).map(|leaf| leaf_hash(&leaf.to_le_bytes())));
            let tiles: Vec<_> = contents
                .into_iter()
                .map(|content| (content.tile, content.bytes))
                .collect();
            files.write_tiles(&tiles).unwrap();
            // Written again they are the same.
            files.write_tiles(&tiles).unwrap();
            partial.extend(tiles);
        }
        for (tile, bytes) in &partial {
            assert_eq!(files.read_tile(tile).unwrap().as_ref(), Some(bytes), "{tile:?}");
        }
        assert!(folder.path().join("tile/0/000").is_file());
        assert!(!folder.path().join("tile/0/000.p").exists());
        assert!(folder.path().join("tile/0/001.p/44").is_file());
        let (tile, bytes) = &partial[0];
        let mut other = bytes.clone();
        other[0] ^= 1;
        assert!(matches!(
            files.write_tiles(&[(*tile, other)]),
            Err(LogWriteError::OtherTile { .. })
        ));
    }
}
