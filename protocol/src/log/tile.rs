//! Tiles: the Merkle tree cut into files of up to 256 hashes, each of which never changes once written.
//!
//! Source: [C2SP tlog-tiles](https://c2sp.org/tlog-tiles).

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::log::hash::{HASH_BYTES, LogHash};

/// Hashes of a full tile, and entries of a full bundle.
pub const TILE_WIDTH: u16 = 256;
/// Heights of the tree between one level of tiles and the next.
pub const TILE_HEIGHT: u32 = 8;
/// Highest level that a path may name.
pub const TILE_LEVEL_MAX: u8 = 63;
/// Most bytes of a tile.
pub const TILE_MAX_BYTES: usize = TILE_WIDTH as usize * HASH_BYTES;
/// Most bytes of a path: every number at its longest.
const PATH_MAX_BYTES: usize = 64;

/// The place of a tile: hashes of nodes that have `256^level` leaves each, from the `256 · index`-th on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

/// The place of an entry bundle: the entries of the level-0 tile with the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryBundle {
    index: u64,
    width: u16,
}

/// Why there is no such tile, or its bytes are none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TileError {
    /// A level over 63, or a width that is not 1 to 256.
    #[error("no tile has level {level} and width {width}; levels are 0 to 63, widths 1 to 256")]
    OutOfRange {
        /// The level asked for.
        level: u8,
        /// The width asked for.
        width: u16,
    },
    /// Not a path in its only spelling.
    #[error(
        "'{0}' is not the path of a tile; paths are tile/<level>/<index>[.p/<width>] as in C2SP tlog-tiles"
    )]
    Path(String),
    /// Not the bytes of so many hashes.
    #[error("{tile} should have {expected} bytes, it has {actual}")]
    Length {
        /// The tile.
        tile: Tile,
        /// Its bytes by its width.
        expected: usize,
        /// The bytes given.
        actual: usize,
    },
}

impl Tile {
    /// The tile of this level, index and width.
    ///
    /// # Errors
    /// [`TileError::OutOfRange`] for levels over 63 and widths other than 1 to 256.
    pub const fn new(level: u8, index: u64, width: u16) -> Result<Self, TileError> {
        if level > TILE_LEVEL_MAX || width == 0 || width > TILE_WIDTH {
            return Err(TileError::OutOfRange { level, width });
        }
        Ok(Self { level, index, width })
    }

    /// The tile at this place in the tree of `size` leaves, as wide as it is there; `None` where it has no hash.
    #[must_use]
    pub fn in_tree(level: u8, index: u64, size: u64) -> Option<Self> {
        let first = index.checked_mul(u64::from(TILE_WIDTH))?;
        let width = nodes_at(level, size)
            .checked_sub(first)?
            .min(u64::from(TILE_WIDTH));
        Self::new(level, index, u16::try_from(width).ok()?).ok()
    }

    /// How many tile heights above the leaves its hashes are.
    #[must_use]
    pub const fn level(&self) -> u8 {
        self.level
    }

    /// Its number among the tiles of its level, from zero.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes it has, 1 to 256.
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Whether it has fewer hashes than it will have once the tree has grown.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.width < TILE_WIDTH
    }

    /// The full tile at the same place.
    #[must_use]
    pub const fn full(&self) -> Self {
        Self {
            width: TILE_WIDTH,
            ..*self
        }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::from(self.width) * HASH_BYTES
    }

    /// Its path without a leading slash, such as `tile/0/x001/x234/067.p/8`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("tile/{}/{}", self.level, Numbered(self.index, self.width))
    }

    /// The tile of a path. Every tile has one spelling; all others are refused.
    ///
    /// # Errors
    /// [`TileError::Path`] where the path is not that of a tile of hashes.
    pub fn parse(path: &str) -> Result<Self, TileError> {
        let parsed = || {
            let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
            let (index, width) = parse_numbered(rest)?;
            Self::new(parse_decimal(level)?, index, width).ok()
        };
        one_spelling(path, parsed, Self::path)
    }

    /// The hashes in its bytes.
    ///
    /// # Errors
    /// [`TileError::Length`] where the bytes are not exactly as many as the tile has.
    pub fn hashes(&self, bytes: &[u8]) -> Result<Vec<LogHash>, TileError> {
        if bytes.len() != self.bytes() {
            return Err(TileError::Length {
                tile: *self,
                expected: self.bytes(),
                actual: bytes.len(),
            });
        }
        let (hashes, _) = bytes.as_chunks::<HASH_BYTES>();
        Ok(hashes.iter().copied().map(LogHash::from_bytes).collect())
    }
}

impl EntryBundle {
    /// The bundle of this index and width.
    ///
    /// # Errors
    /// [`TileError::OutOfRange`] for widths other than 1 to 256.
    pub fn new(index: u64, width: u16) -> Result<Self, TileError> {
        Tile::new(0, index, width).map(Self::from)
    }

    /// The bundle at this place in the tree of `size` leaves; `None` where it has no entry.
    #[must_use]
    pub fn in_tree(index: u64, size: u64) -> Option<Self> {
        Tile::in_tree(0, index, size).map(Self::from)
    }

    /// Its number, from zero: the one of its first entry divided by 256.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many entries it has, 1 to 256.
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// The level-0 tile that has the leaf hashes of these entries.
    #[must_use]
    pub const fn tile(&self) -> Tile {
        Tile {
            level: 0,
            index: self.index,
            width: self.width,
        }
    }

    /// Its path without a leading slash, such as `tile/entries/x001/x234/067.p/8`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("tile/entries/{}", Numbered(self.index, self.width))
    }

    /// The bundle of a path. Every bundle has one spelling; all others are refused.
    ///
    /// # Errors
    /// [`TileError::Path`] where the path is not that of an entry bundle.
    pub fn parse(path: &str) -> Result<Self, TileError> {
        let parsed = || {
            let (index, width) = parse_numbered(path.strip_prefix("tile/entries/")?)?;
            Self::new(index, width).ok()
        };
        one_spelling(path, parsed, Self::path)
    }
}

impl From<Tile> for EntryBundle {
    /// The bundle with the tile's index and width.
    fn from(tile: Tile) -> Self {
        Self {
            index: tile.index,
            width: tile.width,
        }
    }
}

impl fmt::Display for Tile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.path())
    }
}

impl fmt::Display for EntryBundle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.path())
    }
}

impl FromStr for Tile {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        Self::parse(path)
    }
}

impl FromStr for EntryBundle {
    type Err = TileError;

    fn from_str(path: &str) -> Result<Self, TileError> {
        Self::parse(path)
    }
}

/// An index in groups of three digits, all but the last with an `x`, and the width where it is partial.
struct Numbered(u64, u16);

impl fmt::Display for Numbered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let digits = format!("{}{digits}", "0".repeat((3 - digits.len() % 3) % 3));
        for start in (0..digits.len()).step_by(3) {
            let last = start + 3 == digits.len();
            let (before, after) = if last { ("", "") } else { ("x", "/") };
            write!(formatter, "{before}{}{after}", &digits[start..start + 3])?;
        }
        if self.1 < TILE_WIDTH {
            write!(formatter, ".p/{}", self.1)?;
        }
        Ok(())
    }
}

/// Reads what [`Numbered`] writes, and spellings near it that [`one_spelling`] refuses.
fn parse_numbered(text: &str) -> Option<(u64, u16)> {
    let (groups, width) = match text.split_once(".p/") {
        Some((groups, width)) => (groups, parse_decimal(width)?),
        None => (text, TILE_WIDTH),
    };
    let digits: String = groups
        .split('/')
        .map(|group| group.strip_prefix('x').unwrap_or(group))
        .collect();
    Some((parse_decimal(&digits)?, width))
}

fn parse_decimal<N: FromStr>(text: &str) -> Option<N> {
    // `parse` alone would take a sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Accepts a path only if what it was read as is written in exactly this way.
fn one_spelling<T>(
    path: &str,
    parsed: impl FnOnce() -> Option<T>,
    write: impl FnOnce(&T) -> String,
) -> Result<T, TileError> {
    let read = if path.len() <= PATH_MAX_BYTES {
        parsed()
    } else {
        None
    };
    match read {
        Some(place) if write(&place) == path => Ok(place),
        _ => Err(TileError::Path(path.chars().take(PATH_MAX_BYTES).collect())),
    }
}

/// How many full nodes of `256^level` leaves a tree of `size` leaves has.
fn nodes_at(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level) * TILE_HEIGHT).unwrap_or(0)
}

/// The tiles that are new, or wider than before, when a tree grows from `old_size` to `new_size` leaves: what a
/// writer has to write. Lowest level first, in order of index; partial tiles are as wide as the grown tree has them.
pub fn tiles_between(old_size: u64, new_size: u64) -> impl Iterator<Item = Tile> {
    let levels = u8::try_from(u64::BITS / TILE_HEIGHT).unwrap_or(u8::MAX);
    (0..levels).flat_map(move |level| {
        let (old, new) = (nodes_at(level, old_size), nodes_at(level, new_size));
        let width = u64::from(TILE_WIDTH);
        let indices = if new > old {
            old / width..new.div_ceil(width)
        } else {
            0..0
        };
        indices.filter_map(move |index| Tile::in_tree(level, index, new_size))
    })
}

/// All tiles of a tree of `size` leaves.
pub fn tiles_of(size: u64) -> impl Iterator<Item = Tile> {
    tiles_between(0, size)
}

/// The entry bundles that are new or wider when a tree grows from `old_size` to `new_size` leaves.
pub fn bundles_between(old_size: u64, new_size: u64) -> impl Iterator<Item = EntryBundle> {
    tiles_between(old_size, new_size)
        .take_while(|tile| tile.level() == 0)
        .map(EntryBundle::from)
}

#[cfg(test)]
mod tests;
