//! The provider's side of the market: engines that turn jobs into answers, and the daemon around them.
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
pub mod core;
pub mod daemon;
pub mod doctor;
pub mod engine;
pub mod settings;

mod channels;
mod hardware;
mod hardware_metrics;
mod job_driver;
mod known_coordinator;
mod local_api;
mod metrics;
mod offering;
mod proof_file;
mod prover;
mod publisher;
mod receipt_file;
mod redeemer;
mod slots;
mod tally;
mod upstreams;
mod voucher_file;

pub use daemon::{Node, RedeemError, Redemption, RunningNode, StartError, StopError};
pub use settings::{FileSection, ServeArguments, Settings, SettingsError};
