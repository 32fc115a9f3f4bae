//! Errors are planted into the protocol and the ledger one by one: `cargo test -p gristmill-simulations --features
//! planted-bugs --test planted`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation
)]

mod planted {
    mod places;
    mod runs;
}
