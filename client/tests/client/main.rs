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

mod answers;
mod commands;
mod continuation;
mod directory;
mod failover;
mod failures;
mod guard;
mod harness;
mod hedging;
mod idempotency;
mod keys;
mod lifecycle;
mod metrics;
mod misbehaviour;
mod page;
mod payment;
mod privacy;
mod provider;
mod setup;
mod usage;
mod witness;
mod writer;
