//! The prover: shows with candle what a device can do, on CPU, CUDA and Metal.
//!
//! [`Prover`] holds one device within its owner's [`Budget`]. It measures what it may claim, takes the challenge of a
//! coordinator, and answers it; [`show`] drives one challenge against a [`Challenger`], and [`offline`] is one without a
//! coordinator. What is computed is specified in `docs/PROOF.md`; the integer reference is [`crate::challenge`].

mod attempts;
mod budget;
mod challenge;
mod claiming;
mod control;
mod cost;
mod fold;
mod host_fold;
mod measure;
mod offered;
pub mod offline;
mod operands;
mod precision;
mod self_check;
mod show;
mod strips;
mod workload;

use gristmill_protocol::hardware::Precision;
use thiserror::Error;

pub use attempts::{ATTEMPTS_MAX, Again, show_within_attempts};
pub use budget::{Budget, BudgetError, PowerReading, PowerRule};
pub use challenge::RunningChallenge;
pub use claiming::{ClaimPercent, ClaimPercentError};
pub use control::{AlwaysOpen, Control, Gate, Interruption, Listener, Phase, Progress, StopToken};
pub use cost::CostedRounds;
pub use measure::{MeasuredRate, Measurement, Prover};
pub use offered::LeftOut;
pub use show::{Challenger, ChallengerError, ShowError, show};
pub use workload::Profile;

/// What kept a device from showing what it can do.
#[derive(Debug, Error)]
pub enum ProverError {
    /// The owner stopped it, or a job came.
    #[error(transparent)]
    Interrupted(#[from] Interruption),
    /// The device or its driver.
    #[error("the device did not compute: {0}")]
    Device(#[from] candle_core::Error),
    /// The driver's library gave up in a way that Rust code can't answer.
    #[error("the driver's library gave up while it was used; see whether its files are installed: {0}")]
    DriverGaveUp(String),
    /// This build can't compute on the device.
    #[error("this build of gristmill can't compute on {0}; take one that was built for it")]
    NotInThisBuild(String),
    /// What the owner allows is not enough, or can't be kept.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// A product of the device is not the exact one.
    #[error(
        "products of {dimension} rows in {precision} are not exact on this device; it can't be shown in that precision"
    )]
    Inexact {
        /// In which numbers.
        precision: Precision,
        /// How many rows the matrices had.
        dimension: u32,
    },
    /// A challenge that no verifier of this method poses.
    #[error("the challenge makes no sense: {0}")]
    Challenge(String),
}
