//! What others wrote agrees with what is written here: our log is checked with their code, and our code with their
//! vectors.

#[path = "foreign/signatures.rs"]
mod signatures;
#[path = "foreign/tiled_log.rs"]
mod tiled_log;
