//! The client from outside: programs speak HTTP with its endpoint, a real coordinator settles, and providers on the
//! real mesh answer, fail and lie.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub
)]

mod abuse;
mod answers;
mod commands;
mod continuation;
mod directory;
mod errors;
mod failover;
mod failures;
mod guard;
mod hardware;
mod harness;
mod hedging;
mod idempotency;
mod keys;
mod kinds;
mod lifecycle;
mod messages;
mod metrics;
mod misbehaviour;
mod page;
mod passed;
mod payment;
mod privacy;
mod provider;
mod responses;
mod setup;
mod strict_reader;
mod surface;
mod usage;
mod witness;
mod writer;
