//! Gristmill tasks.
fn main() {}
