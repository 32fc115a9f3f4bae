//! One job at a time per loaded model, the others in the order of their arrival, and only so many of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::engine::refusal::{engine_failed, too_busy};
use crate::engine::{EngineError, EngineOutput};

/// Most jobs that wait for a model. Admission has a queue of its own; this bounds what slips past it.
pub(crate) const WAITING_JOBS_MAX: usize = 64;
/// How long a job waits for its turn.
const TURN_WAIT_MAX: Duration = Duration::from_secs(300);

/// The queue before one model.
pub(crate) struct Turns {
    room: Arc<Semaphore>,
    /// tokio's semaphores serve in order.
    turn: Arc<Semaphore>,
}

/// A place in the queue, or at its head. Given back when dropped.
pub(crate) struct Place {
    _room: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(WAITING_JOBS_MAX + 1)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// A place in the queue.
    ///
    /// # Errors
    /// A 429 where the queue is full.
    pub(crate) fn queue(&self) -> Result<Place, EngineError> {
        let room = Arc::clone(&self.room)
            .try_acquire_owned()
            .map_err(|_| too_busy())?;
        Ok(Place { _room: room })
    }

    /// Waits until it is this job's turn; none where nobody wants the answer any more.
    ///
    /// # Errors
    /// A 429 where that takes too long.
    pub(crate) async fn wait(
        &self,
        output: &mpsc::Sender<EngineOutput>,
        cancel: &CancellationToken,
    ) -> Result<Option<OwnedSemaphorePermit>, EngineError> {
        let turn = tokio::time::timeout(TURN_WAIT_MAX, Arc::clone(&self.turn).acquire_owned());
        tokio::select! {
            biased;
            () = cancel.cancelled() => Ok(None),
            () = output.closed() => Ok(None),
            permit = turn => match permit {
                Ok(Ok(permit)) => Ok(Some(permit)),
                Ok(Err(_)) | Err(_) => Err(too_busy()),
            },
        }
    }
}

/// Runs what computes for long away from the threads that serve connections.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(engine_failed(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_queue_has_an_end_and_waiting_can_be_given_up() {
        let turns = Turns::new();
        let places: Vec<_> = (0..=WAITING_JOBS_MAX).map(|_| turns.queue().unwrap()).collect();
        assert_eq!(turns.queue().err().map(|error| error.status), Some(429));
        drop(places);
        assert!(turns.queue().is_ok());

        let (output, mut receiver) = mpsc::channel(1);
        let cancel = CancellationToken::new();
        let first = turns.wait(&output, &cancel).await.unwrap();
        assert!(first.is_some());
        cancel.cancel();
        assert!(turns.wait(&output, &cancel).await.unwrap().is_none());
        receiver.close();
        assert!(
            turns
                .wait(&output, &CancellationToken::new())
                .await
                .unwrap()
                .is_none()
        );
        drop(first);
        let (output, _receiver) = mpsc::channel(1);
        assert!(
            turns
                .wait(&output, &CancellationToken::new())
                .await
                .unwrap()
                .is_some()
        );
    }

    #[tokio::test]
    async fn a_panic_on_the_thread_is_an_error() {
        let error = on_thread::<()>(|| panic!("broken")).await.unwrap_err();
        assert_eq!(error.status, 500);
    }
}
