//! The bytes of an entry bundle: up to 256 log entries, each after its length in two bytes, big-endian.
//!
//! Source: [C2SP tlog-tiles](https://c2sp.org/tlog-tiles), "Log entries".

use thiserror::Error;

use crate::log::tile::{EntryBundle, TILE_WIDTH};

/// Most bytes of one log entry: what its length can say.
pub const ENTRY_MAX_BYTES: usize = u16::MAX as usize;
/// Most bytes of an entry bundle.
pub const ENTRY_BUNDLE_MAX_BYTES: usize = TILE_WIDTH as usize * (LENGTH_BYTES + ENTRY_MAX_BYTES);

const LENGTH_BYTES: usize = 2;

/// Why entries are no bundle, or bytes are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EntryBundleError {
    /// An entry that its length can't tell.
    #[error("entry {position} of the bundle has {actual} bytes; log entries have at most {ENTRY_MAX_BYTES}")]
    EntryTooLong {
        /// The entry's place in the bundle, from zero.
        position: usize,
        /// How many bytes it has.
        actual: usize,
    },
    /// More or fewer entries than the bundle is wide.
    #[error("{bundle} should have {} entries, it has {actual}", bundle.width())]
    Count {
        /// The bundle.
        bundle: EntryBundle,
        /// How many entries were given.
        actual: usize,
    },
    /// The bytes end inside an entry.
    #[error("{bundle} ends inside entry {position}")]
    CutOff {
        /// The bundle.
        bundle: EntryBundle,
        /// The entry's place in the bundle, from zero.
        position: usize,
    },
    /// Bytes are left after the last entry.
    #[error("{count} bytes follow the last entry of {bundle}")]
    TrailingBytes {
        /// The bundle.
        bundle: EntryBundle,
        /// How many.
        count: usize,
    },
}

/// The bytes of a bundle with these entries.
///
/// # Errors
/// [`EntryBundleError`] where an entry is too long, or they are not as many as the bundle is wide.
pub fn encode<E: AsRef<[u8]>>(bundle: EntryBundle, entries: &[E]) -> Result<Vec<u8>, EntryBundleError> {
    if entries.len() != usize::from(bundle.width()) {
        return Err(EntryBundleError::Count {
            bundle,
            actual: entries.len(),
        });
    }
    let mut bytes = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        let entry = entry.as_ref();
        let length = u16::try_from(entry.len()).map_err(|_| EntryBundleError::EntryTooLong {
            position,
            actual: entry.len(),
        })?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(entry);
    }
    Ok(bytes)
}

/// The entries in the bytes of a bundle. Nothing is copied.
///
/// # Errors
/// [`EntryBundleError`] where the bytes are not exactly as many entries as the bundle is wide.
pub fn decode(bundle: EntryBundle, bytes: &[u8]) -> Result<Vec<&[u8]>, EntryBundleError> {
    let mut entries = Vec::with_capacity(usize::from(bundle.width()));
    let mut rest = bytes;
    for position in 0..usize::from(bundle.width()) {
        if rest.is_empty() {
            return Err(EntryBundleError::Count {
                bundle,
                actual: position,
            });
        }
        let (entry, after) = split_entry(rest).ok_or(EntryBundleError::CutOff { bundle, position })?;
        entries.push(entry);
        rest = after;
    }
    match rest.len() {
        0 => Ok(entries),
        count => Err(EntryBundleError::TrailingBytes { bundle, count }),
    }
}

fn split_entry(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bundle(width: u16) -> EntryBundle {
        EntryBundle::new(7, width).unwrap()
    }

    #[test]
    fn the_bytes_are_length_and_entry() {
        let bytes = encode(bundle(3), &[b"ab".as_slice(), b"", b"c"]).unwrap();
        assert_eq!(bytes, b"\0\x02ab\0\0\0\x01c");
        assert_eq!(decode(bundle(3), &bytes).unwrap(), [b"ab".as_slice(), b"", b"c"]);
    }

    #[test]
    fn other_bytes_are_refused() {
        let bytes = encode(bundle(2), &[b"ab", b"cd"]).unwrap();
        let (two, three, one) = (bundle(2), bundle(3), bundle(1));
        for (bundle, bytes, error) in [
            (
                two,
                &bytes[..7],
                EntryBundleError::CutOff {
                    bundle: two,
                    position: 1,
                },
            ),
            (
                two,
                &bytes[..5],
                EntryBundleError::CutOff {
                    bundle: two,
                    position: 1,
                },
            ),
            (
                two,
                &bytes[..4],
                EntryBundleError::Count {
                    bundle: two,
                    actual: 1,
                },
            ),
            (
                two,
                &bytes[..0],
                EntryBundleError::Count {
                    bundle: two,
                    actual: 0,
                },
            ),
            (
                three,
                &bytes,
                EntryBundleError::Count {
                    bundle: three,
                    actual: 2,
                },
            ),
            (
                one,
                &bytes,
                EntryBundleError::TrailingBytes {
                    bundle: one,
                    count: 4,
                },
            ),
        ] {
            assert_eq!(decode(bundle, bytes), Err(error));
        }
    }

    #[test]
    fn entries_end_where_their_length_does() {
        let longest = vec![1; ENTRY_MAX_BYTES];
        let bytes = encode(bundle(1), std::slice::from_ref(&longest)).unwrap();
        assert_eq!(decode(bundle(1), &bytes).unwrap(), [&longest]);
        let (position, actual) = (0, ENTRY_MAX_BYTES + 1);
        assert_eq!(
            encode(bundle(1), &[vec![1; actual]]),
            Err(EntryBundleError::EntryTooLong { position, actual })
        );
        let full = vec![longest; 256];
        assert_eq!(encode(bundle(256), &full).unwrap().len(), ENTRY_BUNDLE_MAX_BYTES);
        let bundle = bundle(255);
        assert_eq!(
            encode(bundle, &full),
            Err(EntryBundleError::Count { bundle, actual: 256 })
        );
    }

    proptest! {
        #[test]
        fn entries_come_back(entries in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..=256)) {
            let bundle = bundle(u16::try_from(entries.len()).unwrap());
            let bytes = encode(bundle, &entries).unwrap();
            prop_assert_eq!(decode(bundle, &bytes).unwrap(), entries);
        }

        #[test]
        fn arbitrary_bytes_never_panic(width in 1u16..=256, bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(entries) = decode(bundle(width), &bytes) {
                prop_assert_eq!(encode(bundle(width), &entries).unwrap(), bytes);
            }
        }
    }
}
