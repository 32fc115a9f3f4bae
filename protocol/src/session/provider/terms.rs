//! What a provider agrees to, and how long it waits.

use serde::{Deserialize, Serialize};

use crate::job::{JobKind, RequestId};
use crate::usage::Price;

/// How long a provider waits, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderTimeouts {
    /// For the next part of the body.
    pub body_ms: u64,
    /// For the engine's whole work.
    pub engine_ms: u64,
    /// For a voucher that lets the next chunk go.
    pub voucher_ms: u64,
    /// For the last voucher after the answer.
    pub settlement_ms: u64,
}

impl Default for ProviderTimeouts {
    fn default() -> Self {
        Self {
            body_ms: 30_000,
            engine_ms: 900_000,
            voucher_ms: 30_000,
            settlement_ms: 10_000,
        }
    }
}

/// What a provider agreed to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderTerms {
    /// The request.
    pub request_id: RequestId,
    /// What is asked for.
    pub kind: JobKind,
    /// The price of the offer.
    pub price: Price,
    /// How many bytes of body will come.
    pub body_bytes: u64,
    /// How many jobs wait before this one.
    pub position: u32,
}
