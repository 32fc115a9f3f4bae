//! What the client decides, free of I/O, clocks and randomness of its own: drivers hand those in.

pub mod answer;
pub mod answer_stream;
pub mod assembler;
pub mod browser_guard;
pub mod budget;
pub mod context;
pub mod embeddings;
pub mod failure;
pub mod idempotency;
pub mod models;
pub mod near_names;
pub mod normaliser;
pub mod records;
pub mod request;
pub mod router;
pub mod sse;
pub mod tool_calls;
pub mod verdict;
