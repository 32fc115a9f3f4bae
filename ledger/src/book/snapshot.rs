//! The state of a book as bytes: what its digest covers and what snapshots keep.
//!
//! ```text
//! state   head | accounts | channels | named entries
//! a map   number of pairs u64 | key and value of each pair, in the order of the keys
//! ```

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use bincode::{Decode, Encode};
use gristmill_protocol::codec;
use thiserror::Error;

use super::{Book, BrokenInvariant};
use crate::digest::Digest;

/// Why bytes are no state of a book.
#[derive(Debug, Error)]
pub enum StateError {
    /// They can't be read.
    #[error("the state can't be read: {0}")]
    Read(#[from] io::Error),
    /// They say something impossible.
    #[error("the state is malformed: {0}")]
    Malformed(String),
    /// They are a state, but one that no entries lead to.
    #[error(transparent)]
    Broken(#[from] BrokenInvariant),
}

impl Book {
    /// BLAKE3 over the whole state in order. The same entries give the same digest on every machine.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("gristmill/ledger/state/2");
        // Hashing does not fail.
        let _ = self.write_state(&mut hasher);
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    /// Writes the whole state, in many small writes.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write_state(&self, writer: &mut impl Write) -> io::Result<()> {
        writer.write_all(&codec::encode(&self.head))?;
        write_map(writer, &self.accounts)?;
        write_map(writer, &self.channels)?;
        write_map(writer, &self.named)
    }

    /// Reads what [`Book::write_state`] wrote, and checks every invariant of it.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn read_state(reader: &mut impl Read) -> Result<Self, StateError> {
        let mut book = Self {
            head: read(reader)?,
            accounts: read_map(reader)?,
            channels: read_map(reader)?,
            named: read_map(reader)?,
            ..Self::default()
        };
        book.deadlines = book
            .channels
            .iter()
            .filter_map(|(id, channel)| Some((channel.deadline()?, *id)))
            .collect();
        book.verify()?;
        Ok(book)
    }
}

fn write_map<K: Encode, V: Encode>(writer: &mut impl Write, map: &BTreeMap<K, V>) -> io::Result<()> {
    writer.write_all(&codec::encode(&u64::try_from(map.len()).unwrap_or(u64::MAX)))?;
    map.iter()
        .try_for_each(|pair| writer.write_all(&codec::encode(&pair)))
}

fn read<T: Decode<()>>(reader: &mut impl Read) -> Result<T, StateError> {
    codec::read(reader).map_err(|error| StateError::Malformed(error.to_string()))
}

/// Pairs are read one by one: a count that lies ends with the input, not with the memory.
fn read_map<K: Decode<()> + Ord, V: Decode<()>>(
    reader: &mut impl Read,
) -> Result<BTreeMap<K, V>, StateError> {
    let count: u64 = read(reader)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        let pair: (K, V) = read(reader)?;
        if pairs.last().is_some_and(|(last, _)| *last >= pair.0) {
            return Err(StateError::Malformed("the keys are not in order".into()));
        }
        pairs.push(pair);
    }
    // Sorted pairs make a tree without a search for each.
    Ok(pairs.into_iter().collect())
}
