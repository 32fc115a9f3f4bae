//! The events of a streamed answer in chunks: chunks as they come, then the finish, the usage where it was asked for,
//! and `[DONE]`; or a nested error and `[DONE]`.

use serde_json::{Map, Value, json};

use crate::core::answer_frame::{AnswerFrame, NormalChunk};
use crate::core::answer_stream::JobSummary;
use crate::core::failure::ApiFailure;
use crate::core::sse::{self, TooLong};

/// The events of one answer, of a chat or of a completion.
#[derive(Clone, Debug)]
pub struct ChunkEvents {
    include_usage: bool,
    /// The chunk that ends a choice waits for the next one, or for the sum: the last chunk carries it.
    held: Option<Map<String, Value>>,
}

impl ChunkEvents {
    /// Nothing has come yet.
    #[must_use]
    pub const fn new(include_usage: bool) -> Self {
        Self {
            include_usage,
            held: None,
        }
    }

    /// Appends what programs get of a chunk now.
    ///
    /// # Errors
    /// [`TooLong`] where no program could read it.
    pub fn chunk(&mut self, chunk: NormalChunk, out: &mut Vec<u8>) -> Result<(), TooLong> {
        if let Some(held) = self.held.take() {
            sse::write_chunk(held, out)?;
        }
        if chunk.finishes {
            self.held = Some(chunk.value);
            return Ok(());
        }
        sse::write_chunk(chunk.value, out)
    }

    /// Appends the end of a complete answer.
    ///
    /// # Errors
    /// [`TooLong`] where no program could read it.
    pub fn complete(
        &mut self,
        frame: &AnswerFrame,
        summary: &JobSummary,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        let empty_chunk = || {
            let mut chunk = frame.header();
            chunk.insert("choices".into(), json!([]));
            chunk
        };
        let mut last = self.held.take().unwrap_or_else(empty_chunk);
        if self.include_usage {
            sse::write_chunk(last, out)?;
            last = empty_chunk();
            last.insert("usage".into(), summary.usage_json(frame.usage()));
        }
        last.insert("gristmill".into(), summary.to_json());
        sse::write_chunk(last, out)?;
        out.extend_from_slice(sse::DONE);
        Ok(())
    }

    /// Appends the end of an answer that broke off.
    pub fn fail(self, failure: &ApiFailure, out: &mut Vec<u8>) {
        if let Some(held) = self.held {
            // A choice that had ended has ended, whatever became of the others. One too long is lost with them.
            let _ = sse::write_chunk(held, out);
        }
        sse::write_event(&failure.to_json(), out);
        out.extend_from_slice(sse::DONE);
    }
}
