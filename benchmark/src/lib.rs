//! What hardware a machine has. The node asks it at the start, owners ask it by `gristmill benchmark devices`.
//!
//! What decides is pure: [`readings`] turns raw readings into [`inventory::Device`]s and [`visibility`] applies
//! `CUDA_VISIBLE_DEVICES`; [`score`] makes one comparable number of what a device has shown, and [`fingerprint`] says
//! whether it still is the same device. The feature `driver` adds what reads the machine and prints: `probe` and `cli`.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

pub mod challenge;
#[cfg(feature = "driver")]
pub mod cli;
pub mod fingerprint;
pub mod health;
pub mod inventory;
#[cfg(feature = "driver")]
pub mod probe;
#[cfg(feature = "driver")]
pub mod prover;
pub mod readings;
pub mod score;
pub mod selftest;
pub mod session;
pub mod upkeep;
pub mod visibility;
