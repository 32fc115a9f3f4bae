//! What the roles tell monitoring systems: metrics for Prometheus and spans for OpenTelemetry, both in the names of
//! the OpenTelemetry conventions for generative AI (<https://opentelemetry.io/docs/specs/semconv/gen-ai/>).
//!
//! `client` and `node` call this crate. Labels and attributes are bounded in number and never hold keys, prompts or
//! answers.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

pub mod exposition;
pub mod genai;
pub mod otlp;
pub mod trace_position;

pub use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram};
pub use prometheus_client::registry::Registry;
