//! The built-in engine for chat and completions: Llama- and Qwen-family models on candle.
//!
//! A model is loaded once and never changes; each job has a memory of its own, so nothing of one consumer can
//! reach another's answer. One job runs at a time, the others wait in order.

use std::sync::Arc;

use async_trait::async_trait;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::Usage;
use gristmill_service::clock::unix_ms;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::chunk::{ChunkKind, ChunkWriter};
use self::model::LoadedModel;
use self::writing::Writing;
use crate::engine::built_in::on_blocking_thread;
use crate::engine::model_files::{LoadError, ModelFiles, ModelSource};
use crate::engine::refusal::{engine_failed, model_not_found};
use crate::engine::turns::{Turns, on_thread};
use crate::engine::{Engine, EngineError, EngineModel, EngineOutput, EngineRequest};

mod answer;
mod chunk;
mod civil_time;
mod completion_request;
mod configuration;
mod decoder;
mod detokenizer;
mod fields;
mod grammar;
mod logprobs;
mod messages;
mod model;
mod options;
mod plan;
mod request;
mod rotary;
mod sampling;
mod stop;
mod template;
mod text;
#[cfg(test)]
#[path = "../../tests/engines/tiny_models.rs"]
mod tiny_models;
mod tool_calls;
mod tool_request;
mod tool_syntax;
mod vocabulary;
mod weights;
mod writing;

/// One chat model, loaded and ready.
pub struct ChatEngine {
    model: Arc<LoadedModel>,
    turns: Turns,
}

impl ChatEngine {
    /// Loads a model from disk or the hub, under its own name or another one.
    ///
    /// # Errors
    /// [`LoadError`] saying what is wrong with the model and what to do.
    pub async fn load(source: &ModelSource, public_name: Option<&str>) -> Result<Self, LoadError> {
        let files = source.fetch().await?;
        let name = files.public_name(public_name)?;
        on_blocking_thread(move || Self::from_files(&files, Some(&name))).await
    }

    /// Loads a model from its files. Reads and computes for long: not for threads that serve connections.
    ///
    /// # Errors
    /// [`LoadError`] saying what is wrong with the model and what to do.
    pub fn from_files(files: &ModelFiles, public_name: Option<&str>) -> Result<Self, LoadError> {
        let model = LoadedModel::load(files, public_name)?;
        Ok(Self {
            model: Arc::new(model),
            turns: Turns::new(),
        })
    }
}

#[async_trait]
impl Engine for ChatEngine {
    fn name(&self) -> &'static str {
        "built-in chat"
    }

    fn models(&self) -> Vec<EngineModel> {
        self.model.offers()
    }

    async fn run(
        &self,
        request: EngineRequest,
        output: mpsc::Sender<EngineOutput>,
        cancel: CancellationToken,
    ) -> Result<Usage, EngineError> {
        let kind = match request.kind {
            JobKind::ChatCompletions => ChunkKind::Chat,
            JobKind::Completions => ChunkKind::Text,
            _ => return Err(model_not_found(&request.model)),
        };
        if request.model != self.model.name {
            return Err(model_not_found(&request.model));
        }
        let _place = self.turns.queue()?;
        // Dropping this future stops the threads that it started.
        let cancel = cancel.child_token();
        let _stop_when_dropped = cancel.clone().drop_guard();

        let now_s = unix_ms() / 1_000;
        let chunks = ChunkWriter::new(kind, &request.request_id, now_s, &request.model);
        let seed = random_seed()?;
        let model = Arc::clone(&self.model);
        let plan = on_thread(move || match kind {
            ChunkKind::Chat => model.plan_chat(request.body.json(), now_s, seed),
            ChunkKind::Text => model.plan_completion(request.body.json(), seed),
        })
        .await?;

        let Some(turn) = self.turns.wait(&output, &cancel).await? else {
            return Ok(Usage::new());
        };
        let model = Arc::clone(&self.model);
        let delivery = Delivery {
            output,
            cancel,
            runtime: Handle::current(),
        };
        on_thread(move || {
            let usage = Writing::new(&model, &plan, &chunks, &delivery).run();
            drop(turn);
            usage
        })
        .await
    }
}

fn random_seed() -> Result<u64, EngineError> {
    getrandom::u64().map_err(|error| engine_failed(format!("the system gave no random numbers: {error}")))
}

/// Where the pieces of an answer go, from a thread that may block.
struct Delivery {
    output: mpsc::Sender<EngineOutput>,
    cancel: CancellationToken,
    runtime: Handle,
}

impl Delivery {
    /// Hands a piece over, waiting where the consumer is behind. False where nobody wants it any more.
    fn send(&self, message: Vec<u8>, meter: Usage) -> bool {
        if self.cancel.is_cancelled() {
            return false;
        }
        match self.output.try_send(EngineOutput { message, meter }) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(piece)) => self.runtime.block_on(async {
                tokio::select! {
                    () = self.cancel.cancelled() => false,
                    sent = self.output.send(piece) => sent.is_ok(),
                }
            }),
        }
    }

    fn is_over(&self) -> bool {
        self.cancel.is_cancelled() || self.output.is_closed()
    }
}
