//! The coordinator as its callers see it: real sockets, a real ledger on a real disk, a clock that the test sets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub
)]

mod accounts;
mod authentication;
mod channels;
mod gossip;
mod hardware;
mod hardware_prover;
mod harness;
mod lifecycle;
mod log;
mod operator;
mod public_log;
mod robustness;
mod rotation;
mod settlements;
mod shared;
