//! The model of gossip, held against the real one: the same graphs, run with the shipped parameters by libp2p's gossipsub in this
//! process and by the model.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::float_cmp,
    reason = "tests say what went wrong by panicking"
)]

mod comparison;
mod mesh;
mod model;
mod observed;
mod real;
