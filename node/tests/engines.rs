//! The built-in engines from outside: real model files in, OpenAI's JSON out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests may"
)]

#[path = "engines/asking.rs"]
mod asking;
#[path = "engines/chat.rs"]
mod chat;
#[path = "engines/completions.rs"]
mod completions;
#[path = "engines/continuation.rs"]
mod continuation;
#[path = "engines/damaged_files.rs"]
mod damaged_files;
#[path = "engines/embeddings.rs"]
mod embeddings;
#[path = "engines/grammars.rs"]
mod grammars;
#[path = "engines/guide.rs"]
mod guide;
#[path = "engines/hub.rs"]
mod hub;
#[path = "engines/tiny_models.rs"]
mod tiny_models;
#[path = "engines/tools.rs"]
mod tools;
