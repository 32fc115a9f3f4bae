//! A running engine, as a job sees it.

use std::sync::Arc;

use gristmill_protocol::usage::Usage;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::engine::{Engine, EngineError, EngineOutput, EngineRequest, OUTPUT_QUEUE_MESSAGES};
use crate::slots::JobPlace;

/// What an engine says.
pub(super) enum EngineNews {
    /// A piece of the answer.
    Output(EngineOutput),
    /// It is done.
    Finished(Usage),
    /// It broke off.
    Failed(EngineError),
}

/// An engine at work on one job. Stops when dropped.
pub(super) struct EngineTask {
    output: mpsc::Receiver<EngineOutput>,
    task: AbortOnDropHandle<Result<Usage, EngineError>>,
    cancel: CancellationToken,
    _cancel_on_drop: DropGuard,
    has_ended: bool,
}

impl EngineTask {
    /// Waits for the job's turn and runs it. The place is free again when the engine is done.
    pub(super) fn start(engine: Arc<dyn Engine>, request: EngineRequest, place: JobPlace) -> Self {
        let (sender, output) = mpsc::channel(OUTPUT_QUEUE_MESSAGES);
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        let run = async move {
            let turn = tokio::select! {
                () = cancelled.cancelled() => return Ok(Usage::new()),
                turn = place.turn() => turn,
            };
            let result = engine.run(request, sender, cancelled).await;
            drop((turn, place));
            result
        };
        let task = AbortOnDropHandle::new(tokio::spawn(run.in_current_span()));
        Self {
            output,
            task,
            _cancel_on_drop: cancel.clone().drop_guard(),
            cancel,
            has_ended: false,
        }
    }

    /// Whether nothing more comes.
    pub(super) const fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// What comes next. May be dropped and called again, as in `select!`: nothing is lost.
    pub(super) async fn next(&mut self) -> EngineNews {
        if let Some(output) = self.output.recv().await {
            return EngineNews::Output(output);
        }
        let result = (&mut self.task).await;
        self.has_ended = true;
        match result {
            Ok(Ok(usage)) => EngineNews::Finished(usage),
            Ok(Err(error)) => EngineNews::Failed(error),
            Err(error) => {
                tracing::error!(%error, "the engine panicked");
                EngineNews::Failed(EngineError {
                    status: 500,
                    code: "engine_failed".to_owned(),
                    message: "the engine broke; the owner's log says how".to_owned(),
                    param: None,
                })
            }
        }
    }

    /// Tells the engine to stop. What it still says is of no interest.
    pub(super) fn stop(&mut self) {
        self.cancel.cancel();
        self.output.close();
    }

    /// Waits until the engine has stopped.
    pub(super) async fn stopped(mut self) {
        self.stop();
        while self.output.recv().await.is_some() {}
        if !self.has_ended
            && let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            tracing::error!(%error, "the engine panicked while it was being stopped");
        }
    }
}
