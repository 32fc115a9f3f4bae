//! Holding the tiles against those that the journal's records lead to.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gristmill_protocol::log::tile::{TILE_MAX_BYTES, Tile, tiles_of};
use gristmill_protocol::log::tile_builder::TileContent;

use super::super::{Problem, Problems};
use crate::disk::Disk;

/// Folders in a tile's path, at most: the level, and groups of three digits of its index.
const DEPTH_MAX: usize = 10;

/// The tiles that were found, until the replay has come by them.
pub(super) struct TileCheck {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// By level and index.
    there: BTreeMap<(u8, u64), Vec<Tile>>,
    /// Tiles of the published tree that nobody could read.
    missing: BTreeMap<(u8, u64), Tile>,
    /// What the tiles at the right edge should be, by level.
    edge: BTreeMap<u8, TileContent>,
    agree: u64,
}

impl TileCheck {
    /// Lists the tiles of a log whose published checkpoint has this size.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        directory: &Path,
        published: u64,
        problems: &mut Problems,
    ) -> Self {
        let mut check = Self {
            disk,
            directory: directory.to_owned(),
            there: BTreeMap::new(),
            missing: BTreeMap::new(),
            edge: BTreeMap::new(),
            agree: 0,
        };
        if let Err((folder, error)) = check.list("tile", DEPTH_MAX) {
            problems.add(problem(folder, None, format!("it can't be listed: {error}")));
        }
        for tile in tiles_of(published) {
            let place = (tile.level(), tile.index());
            let found = check.there.get(&place);
            if !found.is_some_and(|found| found.iter().any(|there| there.width() >= tile.width())) {
                check.missing.insert(place, tile);
            }
        }
        check
    }

    fn list(&mut self, folder: &str, depth: usize) -> Result<(), (PathBuf, io::Error)> {
        let path = self.directory.join(folder);
        let names = match self.disk.list(&path) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err((path, error)),
        };
        for name in names.iter().filter_map(|name| name.to_str()) {
            let name = format!("{folder}/{name}");
            let is_folder = !matches!(
                self.disk.list(&self.directory.join(&name)),
                Err(error) if error.kind() == io::ErrorKind::NotADirectory
            );
            if is_folder && depth > 0 {
                self.list(&name, depth - 1)?;
            } else if let Ok(tile) = Tile::parse(&name) {
                self.there
                    .entry((tile.level(), tile.index()))
                    .or_default()
                    .push(tile);
            }
        }
        Ok(())
    }

    /// Compares the tiles that are full now with all that are kept of them; those that are not full come again.
    pub(super) fn compare(&mut self, written: Vec<TileContent>, problems: &mut Problems) {
        for content in written {
            let level = content.tile.level();
            if content.tile.is_partial() {
                self.edge.insert(level, content);
            } else {
                self.edge.remove(&level);
                self.compare_one(&content, problems);
            }
        }
    }

    fn compare_one(&mut self, expected: &TileContent, problems: &mut Problems) {
        let place = (expected.tile.level(), expected.tile.index());
        for tile in self.there.remove(&place).unwrap_or_default() {
            let path = self.directory.join(tile.path());
            let most = u64::try_from(TILE_MAX_BYTES).unwrap_or(u64::MAX);
            let bytes = match self.disk.read(&path, most) {
                Ok(bytes) => bytes,
                // A wider one has replaced it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    problems.add(problem(path, None, format!("it can't be read: {error}")));
                    continue;
                }
            };
            // One that is wider than what the journal has is different where the journal ends.
            let wanted = expected.bytes.get(..tile.bytes()).unwrap_or(&expected.bytes);
            match difference(&bytes, wanted) {
                None => self.agree += 1,
                Some(offset) => {
                    let what = "the tile has other hashes than the journal's records".to_owned();
                    problems.add(problem(path, Some(offset), what));
                }
            }
        }
    }

    /// Compares the tiles at the right edge, and says what is there too much or too little. Gives how many agree.
    pub(super) fn finish(mut self, size: u64, problems: &mut Problems) -> u64 {
        for content in std::mem::take(&mut self.edge).into_values() {
            self.compare_one(&content, problems);
        }
        for tile in std::mem::take(&mut self.there).into_values().flatten() {
            let what = format!("the tile has hashes of records that the journal of {size} does not have");
            problems.add(problem(self.directory.join(tile.path()), None, what));
        }
        for tile in self.missing.values() {
            let what = "the tile is missing, although the published checkpoint needs it".to_owned();
            problems.add(problem(self.directory.join(tile.path()), None, what));
        }
        self.agree
    }
}

/// Where the bytes differ first.
fn difference(actual: &[u8], expected: &[u8]) -> Option<u64> {
    let place = actual.iter().zip(expected).position(|(one, other)| one != other);
    let shorter = actual.len().min(expected.len());
    let place = place.or((actual.len() != expected.len()).then_some(shorter))?;
    u64::try_from(place).ok()
}

const fn problem(file: PathBuf, offset: Option<u64>, what: String) -> Problem {
    Problem {
        file,
        offset,
        sequence: None,
        what,
    }
}
