//! The consumer's side of the market: an OpenAI-compatible endpoint on the developer's own machine.
//!
//! What it decides is in [`core`], free of I/O. `jobs` runs requests on the mesh, `wallet` pays for them, `proxy`
//! speaks HTTP with programs, [`server`] starts and ends the whole; [`cli`] is `gristmill client`.
//!
//! Invariants:
//! - nothing is promised to a provider but for output that arrived and whose meter can be true;
//! - a program gets a status while there is none on its way, and an error event afterwards: never a silent end;
//! - prompts and answers are neither stored nor logged.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

pub mod cli;
mod coordinator_link;
pub mod core;
mod jobs;
mod keys;
mod market;
mod metrics;
mod page;
mod private_file;
mod proxy;
pub mod server;
pub mod settings;
mod usage;
mod wallet;

pub use server::{Client, RunningClient, StartError, StopError};
pub use settings::{FileSection, ServeArguments, Settings};
