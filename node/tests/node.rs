//! A whole node from outside: a real coordinator, real sockets, a consumer that speaks the protocol, and an
//! OpenAI-compatible server that does what a test tells it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "tests may"
)]

#[path = "node/consumer.rs"]
mod consumer;
#[path = "node/daemon.rs"]
mod daemon;
#[path = "node/doctor.rs"]
mod doctor;
#[path = "node/jobs.rs"]
mod jobs;
#[path = "node/kinds.rs"]
mod kinds;
#[path = "node/market.rs"]
mod market;
#[path = "node/payment.rs"]
mod payment;
#[path = "node/refusals.rs"]
mod refusals;
#[path = "node/server.rs"]
mod server;
#[path = "node/upstream_facts.rs"]
mod upstream_facts;
#[path = "node/upstream_servers.rs"]
mod upstream_servers;
#[path = "node/upstream_trials.rs"]
mod upstream_trials;
#[path = "node/witness.rs"]
mod witness;
