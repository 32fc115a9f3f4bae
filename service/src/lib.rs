//! What the roles have in common as programs: how amounts are read from the configuration file, the machine's clock, the
//! identity of an installation, the bounded listener of HTTP servers, how a service runs until it is told to end, and
//! what commands show.
//!
//! `client`, `node` and `coordinator` call this crate. What the market is belongs elsewhere: nothing here decides
//! about jobs, vouchers or credits.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

pub mod amount;
pub mod cli;
pub mod clock;
pub mod installation;
pub mod listener;
