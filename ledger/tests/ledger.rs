//! The ledger from outside: files, processes, kills, damage. Each module is one promise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

#[path = "ledger/audits.rs"]
mod audits;
#[path = "ledger/children.rs"]
mod children;
#[path = "ledger/conformance.rs"]
mod conformance;
#[path = "ledger/damage.rs"]
mod damage;
#[path = "ledger/flips.rs"]
mod flips;
#[path = "ledger/foreign.rs"]
mod foreign;
#[path = "ledger/indexes.rs"]
mod indexes;
#[path = "ledger/kills.rs"]
mod kills;
#[path = "ledger/log.rs"]
mod log;
#[path = "ledger/postgres.rs"]
mod postgres;
#[path = "ledger/posting.rs"]
mod posting;
#[path = "ledger/power.rs"]
mod power;
#[path = "ledger/power_ledger.rs"]
mod power_ledger;
#[path = "ledger/snapshots.rs"]
mod snapshots;
#[path = "ledger/world.rs"]
mod world;
