//! A provider's session on disk, without its key and without what was asked and answered.

use serde::{Deserialize, Serialize};

use super::slices::Slice;
use super::{Ending, ProviderSession, ProviderTerms, ProviderTimeouts, State};
use crate::credits::Credits;
use crate::identity::{AccountId, Keypair};
use crate::session::restore::{RestoreError, Seen, same_key};
use crate::usage::Usage;

/// A [`ProviderSession`] without its key, the request's body and the engine's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderSnapshot {
    provider: AccountId,
    terms: ProviderTerms,
    timeouts: ProviderTimeouts,
    state: State,
    /// The body so far, while it is read.
    body: Seen,
    reservation: Credits,
    metered: Usage,
    delivered: Usage,
    delivered_cost: Credits,
    waiting: Vec<WaitingSlice>,
    ending: Option<Ending>,
    /// What was delivered, and behind it what waits.
    output: Seen,
    engine_deadline_ms: u64,
    deadline_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WaitingSlice {
    bytes: u64,
    ends_message: bool,
    meter: Usage,
    total: Credits,
}

impl ProviderSnapshot {
    /// What the provider agreed to.
    #[must_use]
    pub const fn terms(&self) -> &ProviderTerms {
        &self.terms
    }

    /// How much of the body it takes to restore the session: none once the engine has it.
    #[must_use]
    pub const fn body_bytes(&self) -> u64 {
        self.body.bytes()
    }

    /// How much of the engine's output it takes to restore the session.
    #[must_use]
    pub const fn output_bytes(&self) -> u64 {
        self.output.bytes()
    }
}

impl ProviderSession {
    /// The session as it stands, without its key, the body and the output. The channel that pays is not part of it.
    #[must_use]
    pub fn snapshot(&self) -> ProviderSnapshot {
        let mut output = self.transcript.clone();
        let mut slice = |slice: &Slice| {
            output.update(&slice.payload);
            WaitingSlice {
                bytes: slice.payload.len() as u64,
                ends_message: slice.ends_message,
                meter: slice.meter.clone(),
                total: slice.total,
            }
        };
        let waiting = self.waiting.iter().map(&mut slice).collect();
        ProviderSnapshot {
            provider: self.keypair.account(),
            terms: self.terms.clone(),
            timeouts: self.timeouts,
            state: self.state,
            body: Seen::of(&self.body),
            reservation: self.reservation,
            metered: self.metered.clone(),
            delivered: self.delivered.clone(),
            delivered_cost: self.delivered_cost,
            waiting,
            ending: self.ending.clone(),
            output: Seen::by(&output),
            engine_deadline_ms: self.engine_deadline_ms,
            deadline_ms: self.deadline_ms,
        }
    }

    /// Goes on where a snapshot was taken, with the same key. `body` begins with what had been read of the request
    /// while the body was not whole; `output` with the messages of the engine that the session had taken, in order.
    /// What they have beyond that is not looked at.
    ///
    /// # Errors
    /// [`RestoreError`] where the key, the body or the output is another one, or the snapshot was altered.
    pub fn restore(
        snapshot: ProviderSnapshot,
        keypair: Keypair,
        body: &[u8],
        output: &[u8],
    ) -> Result<Self, RestoreError> {
        same_key(snapshot.provider, keypair.account())?;
        let request_id = &snapshot.terms.request_id;
        let body = snapshot.body.again(body, "body", request_id)?;
        let mut rest = snapshot.output.again(output, "output", request_id)?;
        let contradiction = || RestoreError::Contradiction {
            request_id: request_id.clone(),
        };
        let waiting_bytes = snapshot
            .waiting
            .iter()
            .try_fold(0u64, |sum, slice| sum.checked_add(slice.bytes));
        let delivered_bytes = waiting_bytes
            .and_then(|waiting| usize::try_from(snapshot.output.bytes().checked_sub(waiting)?).ok())
            .ok_or_else(contradiction)?;
        let mut transcript = blake3::Hasher::new();
        transcript.update(rest.split_off(..delivered_bytes).ok_or_else(contradiction)?);
        let mut slice = |slice: WaitingSlice| {
            let bytes = usize::try_from(slice.bytes).ok()?;
            Some(Slice {
                payload: rest.split_off(..bytes)?.to_vec(),
                ends_message: slice.ends_message,
                meter: slice.meter,
                total: slice.total,
            })
        };
        let waiting: Option<_> = snapshot.waiting.iter().cloned().map(&mut slice).collect();
        Ok(Self {
            keypair,
            body: body.to_vec(),
            waiting: waiting.ok_or_else(contradiction)?,
            transcript,
            terms: snapshot.terms,
            timeouts: snapshot.timeouts,
            state: snapshot.state,
            reservation: snapshot.reservation,
            metered: snapshot.metered,
            delivered: snapshot.delivered,
            delivered_cost: snapshot.delivered_cost,
            ending: snapshot.ending,
            engine_deadline_ms: snapshot.engine_deadline_ms,
            deadline_ms: snapshot.deadline_ms,
        })
    }
}
