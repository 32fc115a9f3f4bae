//! What a consumer asks for, and how long it waits.

use serde::{Deserialize, Serialize};

use crate::credits::Credits;
use crate::identity::AccountId;
use crate::job::{JobKind, RequestId};
use crate::usage::Price;

/// How long a consumer waits, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerTimeouts {
    /// For the provider's yes or no.
    pub answer_ms: u64,
    /// From the yes to the first chunk.
    pub first_chunk_ms: u64,
    /// From one chunk to the next.
    pub next_chunk_ms: u64,
    /// From a cancel to the provider's last word, or to the next of the frames that were on their way; for all of them
    /// together no longer than for the next chunk.
    pub last_word_ms: u64,
}

impl Default for ConsumerTimeouts {
    fn default() -> Self {
        Self {
            answer_ms: 3_000,
            first_chunk_ms: 120_000,
            next_chunk_ms: 60_000,
            last_word_ms: 5_000,
        }
    }
}

/// What a consumer asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerTerms {
    /// The request.
    pub request_id: RequestId,
    /// What is asked for.
    pub kind: JobKind,
    /// Who is asked.
    pub provider: AccountId,
    /// The highest price, coefficient by coefficient.
    pub price_cap: Price,
    /// How many bytes the body has.
    pub body_bytes: u64,
    /// The most that the job may cost; reserved on the channel.
    pub cost_max: Credits,
    /// Most bytes of one message of the answer.
    pub message_max_bytes: usize,
}
