//! The directory of living listings, for peers that have just joined.

use std::time::Duration;

use axum::body::Bytes;
use gristmill_protocol::coordinator_api::ListingsAnswer;
use tokio::time::Instant;

use super::{Service, lock};
use crate::core::directory::{DIRECTORY_MAX_BYTES, directory};
use crate::core::rejection::Rejection;

/// How long an answer is given again. Anyone may ask without a token: however many do at once, they share one
/// answer of some megabytes.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// An answer that is shared.
pub(super) struct SharedAnswer {
    made_at: Instant,
    json: Bytes,
}

impl Service {
    /// The directory as JSON, at most a second old.
    pub(crate) fn listings(&self) -> Result<Bytes, Rejection> {
        let mut shared = lock(&self.listings);
        if let Some(answer) = shared
            .as_ref()
            .filter(|answer| answer.made_at.elapsed() < SHARED_FOR)
        {
            return Ok(answer.json.clone());
        }
        let json = serde_json::to_vec(&self.fresh_listings())
            .map(Bytes::from)
            .map_err(|error| {
                tracing::error!(%error, "the directory of listings can't be written");
                Rejection::internal()
            })?;
        *shared = Some(SharedAnswer {
            made_at: Instant::now(),
            json: json.clone(),
        });
        Ok(json)
    }

    fn fresh_listings(&self) -> ListingsAnswer {
        let now_ms = self.clock.now_ms();
        let sealed = self
            .mesh
            .with_board(|board| board.sealed_listings(now_ms).collect::<Vec<_>>());
        let mut random = [0; 8];
        if getrandom::fill(&mut random).is_err() {
            random = now_ms.to_le_bytes();
        }
        ListingsAnswer {
            listings: directory(sealed, u64::from_le_bytes(random), DIRECTORY_MAX_BYTES),
        }
    }
}
