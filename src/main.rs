//! Gristmill.
fn main() {}
