//! For serde: a book as the ledger's snapshots have it.

use gristmill_ledger::book::Book;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer>(book: &Book, serializer: S) -> Result<S::Ok, S::Error> {
    let mut bytes = Vec::new();
    book.write_state(&mut bytes).map_err(S::Error::custom)?;
    bytes.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Book, D::Error> {
    let bytes = Vec::<u8>::deserialize(deserializer)?;
    Book::read_state(&mut bytes.as_slice()).map_err(D::Error::custom)
}
