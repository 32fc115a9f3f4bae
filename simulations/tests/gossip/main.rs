//! The model of gossip, held against the real one: the same graphs, run with the shipped parameters by libp2p's gossipsub in this
//! process and by the model.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::float_cmp,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests say what went wrong by panicking and what they measured by printing; libp2p has the machine's clock"
)]

mod comparison;
mod mesh;
mod model;
mod observed;
mod real;
