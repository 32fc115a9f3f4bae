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
//!   journal/*.log.torn-*    bytes of unfinished writes that were cut off at a start; nothing reads them
//!   index.damaged/          the last index that was of no use; nothing reads it
//!   index/                  sled; only what follows from the journal, rebuilt from it whenever in doubt
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
pub mod book;
#[cfg(feature = "driver")]
pub mod cli;
pub mod digest;
pub mod entry;
#[cfg(feature = "driver")]
pub mod index;
#[cfg(feature = "driver")]
pub mod journal;
#[cfg(feature = "driver")]
pub mod ledger;
pub mod outcome;
pub mod record;
pub mod refusal;

#[cfg(feature = "driver")]
pub use ledger::{Ledger, LedgerOptions};
