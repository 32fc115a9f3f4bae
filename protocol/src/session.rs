//! The job session: what each side of a job stream does, as state machines of `(event, now) -> effects`.
//!
//! A session borrows the channel that pays for it, since many jobs share one channel. Drivers own clocks, streams
//! and engines; the simulator drives the same code.

pub mod consumer;
pub mod provider;
pub mod restore;

#[cfg(test)]
mod interleavings;
