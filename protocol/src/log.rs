//! The transparency log: what makes the ledger's history one that nobody can change unseen. Pure: hashing, tiles,
//! proofs, signed checkpoints, cosignatures of witnesses, and evidence against a log that lied.
//!
//! Everything is in the formats of [C2SP](https://c2sp.org) over the Merkle tree of RFC 6962, so that tools from
//! elsewhere can check it. The coordinator writes with [`tile_builder`] and [`checkpoint`], auditors read with
//! [`tile`] and [`proof`], every node and client watches with [`witness`], and [`evidence`] convinces anybody.

pub mod checkpoint;
pub mod cosignature;
pub mod entry_bundle;
pub mod evidence;
pub mod extension;
pub mod frontier;
pub mod hash;
pub mod inclusion_text;
pub mod note;
pub mod proof;
mod range;
pub mod receipt;
pub mod tile;
pub mod tile_builder;
pub mod tile_tree;
pub mod witness;

#[cfg(test)]
mod test_log;
#[cfg(test)]
mod virtual_tree;

/// Most leaves of a log: what programs with signed 64-bit integers can count.
pub const LOG_SIZE_MAX: u64 = i64::MAX.unsigned_abs();
