//! The market under a virtual clock: researchers ask "what if" of a whole network that runs the shipped protocol
//! code, and get the same answer for the same seed on every machine.
//!
//! [`engine`] orders events and keeps time; [`world`] is a market of nodes on a modelled [`network`] with a modelled
//! [`gossip`] mesh, in which [`people`] serve, pay and lie with the shipped machines while [`checkers`] look on;
//! [`scenario`] reads what a researcher wrote, and [`results`] keeps what came out.

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
pub mod network;
pub mod people;
pub mod results;
pub mod running;
pub mod scenario;
pub mod world;
