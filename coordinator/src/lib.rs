//! Tickets, settlement, receipts and the operator's API.
//!
//! A coordinator holds consumers' credits for providers, pays vouchers out of them, and proves each payment with a
//! receipt. What it decides is in [`core`], free of I/O; `service` puts that together with the ledger; `http`
//! translates calls; [`server`] starts and ends the whole; [`cli`] is `gristmill coordinator`.
//!
//! Invariants:
//! - nothing is answered before the ledger has synced it; no receipt or ticket says what the journal does not;
//! - every call can be repeated: the answer is the same, nothing is done twice;
//! - no two coordinators share a data directory (the ledger's lock).

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

mod announcer;
pub mod cli;
pub mod clock;
pub mod core;
mod downtime;
mod hardware;
mod http;
pub mod log_keeper;
pub mod rotation;
pub mod server;
mod service;
pub mod settings;
pub mod signers;
pub mod store_verification;
mod sweeper;

pub use server::{Coordinator, RunningCoordinator, StartError, StopError};
pub use settings::{FileSection, ServeArguments, Settings};
