//! What the client decides, free of I/O, clocks and randomness of its own: drivers hand those in.

pub mod answer;
pub mod answer_frame;
pub mod answer_stream;
pub mod assembler;
pub mod bill;
pub mod browser_guard;
pub mod budget;
pub mod calendar;
pub mod chunk_events;
pub mod completions;
pub mod context;
pub mod continuation;
pub mod embeddings;
pub mod failure;
pub mod finished_request;
pub mod idempotency;
pub mod keys;
pub mod models;
pub mod normaliser;
pub mod overrides;
pub mod passthrough;
pub mod providers;
pub mod quote;
pub mod request;
pub mod request_rate;
pub mod router;
pub mod spans;
pub mod spending;
pub mod sse;
pub mod tokens;
pub mod tool_calls;
pub mod translation;
pub mod usage_report;
pub mod verdict;

pub use gristmill_protocol::routing::{near_names, records};
