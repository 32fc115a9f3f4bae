//! Who takes part in the market, and why each does what it does: demand, devices, prices, and liars.
//!
//! What people decide is here, in small files that a researcher can copy; what they say to each other is the shipped
//! protocol's business. A provider or consumer asks its [`conduct`] at every place where a liar could depart from what
//! is agreed, and one without a lie gets the honest answer.

pub mod conduct;
pub(crate) mod consumer;
pub(crate) mod coordinator;
pub mod demand;
pub mod devices;
pub mod hardware;
pub(crate) mod job_text;
pub mod liars;
pub mod popularity;
pub mod pricing;
pub(crate) mod provider;
pub(crate) mod publisher;
pub mod quality;

/// Scenarios bound their numbers far below the largest one.
pub(crate) fn whole(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
