//! Credits are other people's money: a double-entry book, a journal that is synced before anybody is told, and an
//! audit that recomputes everything without trusting anything but the journal.
//!
//! Without features this crate is pure (no files, no clock, no randomness): [`book`], [`entry`], [`outcome`],
//! [`refusal`] and [`digest`]. The simulator runs that part. The feature `driver` adds files and threads.
//!
//! # The ledger directory
//!
//! ```text
//! <ledger directory>/
//!   journal/lock            held by the one process that writes
//!   journal/00000001.log    the truth: records in order, see `journal`
//!   journal/00000002.log    ... a new segment when the one before is full
//!   journal/next            space for the segment after the last one; nothing reads it
//!   journal/*.log.torn-*    bytes of unfinished writes that were cut off at a start; nothing reads them
//!   index.damaged/          the last index that was of no use; nothing reads it
//!   snapshots/              states of the book, so that a start is short; verified against the journal
//!   log/                    tiles and checkpoints of the Merkle log, as C2SP tlog-tiles lays them out
//!   index/                  only what follows from the journal, rebuilt from it whenever in doubt
//! ```
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

#[cfg(feature = "driver")]
pub mod audit;
#[cfg(feature = "driver")]
pub mod backup;
pub mod book;
#[cfg(feature = "driver")]
pub mod cli;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod digest;
#[cfg(feature = "driver")]
pub mod disk;
pub mod entry;
#[cfg(feature = "driver")]
pub mod index;
#[cfg(feature = "driver")]
pub mod journal;
#[cfg(feature = "driver")]
pub mod ledger;
#[cfg(feature = "driver")]
pub mod log;
pub mod outcome;
pub mod record;
pub mod refusal;
#[cfg(feature = "driver")]
pub mod snapshot;
#[cfg(feature = "driver")]
pub mod statement;
#[cfg(feature = "driver")]
pub mod store;

#[cfg(feature = "driver")]
pub use ledger::Ledger;
#[cfg(feature = "driver")]
pub use store::{EmbeddedOptions, Store};
