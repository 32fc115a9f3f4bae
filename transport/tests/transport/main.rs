//! What crosses the border of the transport crate, over real sockets on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "tests say what went wrong by panicking"
)]

mod checkpoints;
mod coordinator_client;
mod gossip;
mod hostile;
mod job_streams;
mod liar;
mod lifecycle;
mod lying_coordinator;
mod support;
