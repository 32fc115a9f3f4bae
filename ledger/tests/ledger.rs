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
#[path = "ledger/damage.rs"]
mod damage;
#[path = "ledger/indexes.rs"]
mod indexes;
#[path = "ledger/posting.rs"]
mod posting;
#[path = "ledger/world.rs"]
mod world;
