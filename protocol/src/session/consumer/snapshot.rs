//! A consumer's session on disk, without what was answered.

use serde::{Deserialize, Serialize};

use super::{ConsumerFailure, ConsumerSession, ConsumerTerms, ConsumerTimeouts, State};
use crate::credits::Credits;
use crate::session::restore::{RestoreError, Seen};
use crate::usage::Usage;

/// A [`ConsumerSession`] without the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerSnapshot {
    terms: ConsumerTerms,
    timeouts: ConsumerTimeouts,
    state: State,
    reserved: Credits,
    meter: Usage,
    cost: Credits,
    message_bytes: usize,
    text_bytes: u64,
    /// Every payload so far.
    answer: Seen,
    deadline_ms: u64,
    leaving: Option<ConsumerFailure>,
    since_cancel: Credits,
    leave_by_ms: u64,
}

impl ConsumerSnapshot {
    /// What was asked for.
    #[must_use]
    pub const fn terms(&self) -> &ConsumerTerms {
        &self.terms
    }

    /// How many payload bytes had arrived: so many of the answer it takes to restore the session.
    #[must_use]
    pub const fn answer_bytes(&self) -> u64 {
        self.answer.bytes()
    }
}

impl ConsumerSession {
    /// The session as it stands, without the answer. The channel that pays is not part of it.
    #[must_use]
    pub fn snapshot(&self) -> ConsumerSnapshot {
        ConsumerSnapshot {
            terms: self.terms.clone(),
            timeouts: self.timeouts,
            state: self.state.clone(),
            reserved: self.reserved,
            meter: self.meter.clone(),
            cost: self.cost,
            message_bytes: self.message.len(),
            text_bytes: self.text_bytes,
            answer: Seen::by(&self.transcript),
            deadline_ms: self.deadline_ms,
            leaving: self.leaving.clone(),
            since_cancel: self.since_cancel,
            leave_by_ms: self.leave_by_ms,
        }
    }

    /// Goes on where a snapshot was taken. `answer` begins with the payload bytes that had arrived by then; what it
    /// has beyond them is not looked at.
    ///
    /// # Errors
    /// [`RestoreError::OtherContent`] where it begins otherwise, [`RestoreError::Contradiction`] where the snapshot
    /// was altered.
    pub fn restore(snapshot: ConsumerSnapshot, answer: &[u8]) -> Result<Self, RestoreError> {
        let request_id = &snapshot.terms.request_id;
        let payload = snapshot.answer.again(answer, "answer", request_id)?;
        let message = payload
            .len()
            .checked_sub(snapshot.message_bytes)
            .and_then(|begins| payload.get(begins..))
            .ok_or_else(|| RestoreError::Contradiction {
                request_id: request_id.clone(),
            })?;
        let mut transcript = blake3::Hasher::new();
        transcript.update(payload);
        Ok(Self {
            message: message.to_vec(),
            payload_bytes: snapshot.answer.bytes(),
            transcript,
            terms: snapshot.terms,
            timeouts: snapshot.timeouts,
            state: snapshot.state,
            reserved: snapshot.reserved,
            meter: snapshot.meter,
            cost: snapshot.cost,
            text_bytes: snapshot.text_bytes,
            deadline_ms: snapshot.deadline_ms,
            leaving: snapshot.leaving,
            since_cancel: snapshot.since_cancel,
            leave_by_ms: snapshot.leave_by_ms,
        })
    }
}
