//! The pieces of an answer on their way out.

use std::sync::{Mutex, PoisonError};

use gristmill_protocol::usage::Usage;
use tokio::sync::mpsc;

use super::chunks::ChunkReader;
use super::errors;
use crate::engine::{EngineError, EngineOutput};

/// Hands pieces on and remembers what they say was used.
pub(super) struct Pieces {
    output: mpsc::Sender<EngineOutput>,
    used: Mutex<Usage>,
}

impl Pieces {
    pub(super) const fn new(output: mpsc::Sender<EngineOutput>) -> Self {
        Self {
            output,
            used: Mutex::new(Usage::new()),
        }
    }

    /// What was used up to the last piece.
    pub(super) fn used(&self) -> Usage {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until nobody takes pieces any more.
    pub(super) async fn closed(&self) {
        self.output.closed().await;
    }

    /// Hands a piece on.
    ///
    /// # Errors
    /// [`EngineError`] where nobody takes it.
    pub(super) async fn send(&self, piece: EngineOutput) -> Result<(), EngineError> {
        let meter = piece.meter.clone();
        let sent = self.output.send(piece).await;
        sent.map_err(|_| errors::provider_failed("the job was cancelled"))?;
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = meter;
        Ok(())
    }

    /// Hands one event of a stream on. Returns whether it was the last.
    ///
    /// # Errors
    /// [`EngineError`] where the event reports one, or nobody takes it.
    pub(super) async fn deliver(&self, chunks: &mut ChunkReader, data: &[u8]) -> Result<bool, EngineError> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(true);
        }
        if let Some(piece) = chunks.take(data)? {
            self.send(piece).await?;
        }
        Ok(false)
    }
}
