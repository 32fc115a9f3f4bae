//! The provider's side of the market: engines that turn jobs into answers, and the daemon around them.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

pub mod core;
pub mod engine;
pub mod settings;
