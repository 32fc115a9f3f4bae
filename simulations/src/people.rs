//! Who takes part in the market, and why each does what it does: demand, devices, prices, and liars.
//!
//! What people decide is here, in small files that a researcher can copy; what they say to each other is the shipped
//! protocol's business. A provider or consumer asks its [`conduct`] at every place where a liar could depart from what
//! is agreed, and one without a lie gets the honest answer.

pub mod conduct;
pub mod demand;
pub mod devices;
pub mod liars;
pub mod popularity;
pub mod pricing;
