//! The market under a virtual clock: researchers ask "what if" of a whole network that runs the shipped protocol
//! code, and get the same answer for the same seed on every machine.
//!
//! [`engine`] orders events and keeps time, [`topology`] says who is connected to whom, [`scenario`] reads what a
//! researcher wrote. There are two worlds: [`listing_gossip`], of how listings travel, and [`routing_herd`], of how
//! consumers choose.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

pub mod checkers;
pub mod cli;
pub mod engine;
pub mod gossip;
pub mod heap_engine;
pub mod listing_gossip;
pub mod network;
pub mod people;
pub mod results;
pub mod routing_herd;
pub mod running;
pub mod scenario;
pub mod topology;
pub mod world;
