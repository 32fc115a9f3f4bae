//! The built-in embeddings engine: BERT-family sentence encoders on candle.
//!
//! It reads models as sentence-transformers writes them and gives what sentence-transformers gives, except that an
//! input over the model's length is refused where that cuts it in silence.

use std::sync::Arc;

use async_trait::async_trait;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::Usage;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::encoder::Encoder;
use self::request::{EmbeddingsRequest, Input};
use crate::engine::built_in::on_blocking_thread;
use crate::engine::model_files::{LoadError, ModelFiles, ModelSource};
use crate::engine::refusal::{context_length_exceeded, engine_failed, invalid_request, model_not_found};
use crate::engine::turns::{Turns, on_thread};
use crate::engine::{Engine, EngineError, EngineModel, EngineOutput, EngineRequest};

mod encoder;
mod pooling;
mod request;
mod response;

/// Most numbers of one batch's token ids, padding included: bounds memory, and the time until a cancel is heard.
const BATCH_TOKENS_MAX: usize = 4_096;

struct LoadedModel {
    offer: EngineModel,
    encoder: Encoder,
}

/// One embeddings model, loaded and ready.
pub struct EmbeddingsEngine {
    model: Arc<LoadedModel>,
    turns: Turns,
}

impl EmbeddingsEngine {
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
        let name = files.public_name(public_name)?;
        let encoder = Encoder::load(files)?;
        let offer = EngineModel {
            name,
            kind: JobKind::Embeddings,
            weights_digest: Some(encoder.digest()),
            quantization: encoder.quantization().to_owned(),
            context_length: u32::try_from(encoder.tokens_max()).unwrap_or(u32::MAX),
            capabilities: Vec::new(),
        };
        Ok(Self {
            model: Arc::new(LoadedModel { offer, encoder }),
            turns: Turns::new(),
        })
    }
}

#[async_trait]
impl Engine for EmbeddingsEngine {
    fn name(&self) -> &'static str {
        "built-in embeddings"
    }

    fn models(&self) -> Vec<EngineModel> {
        vec![self.model.offer.clone()]
    }

    async fn run(
        &self,
        request: EngineRequest,
        output: mpsc::Sender<EngineOutput>,
        cancel: CancellationToken,
    ) -> Result<Usage, EngineError> {
        if request.kind != JobKind::Embeddings || request.model != self.model.offer.name {
            return Err(model_not_found(&request.model));
        }
        let _place = self.turns.queue()?;
        // Dropping this future stops the threads that it started.
        let cancel = cancel.child_token();
        let _stop_when_dropped = cancel.clone().drop_guard();

        let model = Arc::clone(&self.model);
        let plan = on_thread(move || model.plan(request.body.json())).await?;
        let Some(turn) = self.turns.wait(&output, &cancel).await? else {
            return Ok(Usage::new());
        };
        let model = Arc::clone(&self.model);
        let (closed, stop) = (output.clone(), cancel.clone());
        let answer = on_thread(move || {
            let answer = model.answer(&plan, || stop.is_cancelled() || closed.is_closed());
            drop(turn);
            answer
        })
        .await?;
        if let Some(message) = answer.message {
            let piece = EngineOutput {
                message,
                meter: answer.usage.clone(),
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                _ = output.send(piece) => {}
            }
        }
        Ok(answer.usage)
    }
}

/// What is to be embedded, as tokens.
struct EmbeddingPlan {
    inputs: Vec<Vec<u32>>,
    base64: bool,
}

/// A response, where there was time for one, and what it took.
struct EmbeddingAnswer {
    message: Option<Vec<u8>>,
    usage: Usage,
}

impl LoadedModel {
    fn plan(&self, body: &Value) -> Result<EmbeddingPlan, EngineError> {
        let request = EmbeddingsRequest::parse(body)?;
        let size = self.encoder.size();
        if request
            .dimensions
            .is_some_and(|dimensions| dimensions != size as u64)
        {
            let message =
                format!("this model's embeddings have {size} dimensions, and can't be made shorter");
            return Err(invalid_request("dimensions", message));
        }
        let mut inputs = Vec::with_capacity(request.inputs.len());
        for input in request.inputs {
            let tokens = match input {
                Input::Text(text) => self.encoder.tokenize(&text).map_err(engine_failed)?,
                Input::Tokens(tokens) => {
                    let known = tokens
                        .iter()
                        .all(|token| (*token as usize) < self.encoder.vocabulary());
                    if !known {
                        let message =
                            "a token of 'input' is not in this model's vocabulary; send text instead";
                        return Err(invalid_request("input", message));
                    }
                    self.encoder.with_special_tokens(tokens)
                }
            };
            if tokens.len() > self.encoder.tokens_max() {
                return Err(context_length_exceeded(
                    "input",
                    self.encoder.tokens_max(),
                    tokens.len(),
                ));
            }
            inputs.push(tokens);
        }
        Ok(EmbeddingPlan {
            inputs,
            base64: request.base64,
        })
    }

    fn answer(
        &self,
        plan: &EmbeddingPlan,
        is_over: impl Fn() -> bool,
    ) -> Result<EmbeddingAnswer, EngineError> {
        let mut vectors = vec![Vec::new(); plan.inputs.len()];
        let mut tokens = 0u64;
        for batch in batches(&plan.inputs) {
            if is_over() {
                return Ok(EmbeddingAnswer {
                    message: None,
                    usage: Usage::tokens(tokens, 0),
                });
            }
            let inputs: Vec<_> = batch.iter().map(|index| plan.inputs[*index].as_slice()).collect();
            let embedded = self.encoder.embed(&inputs).map_err(engine_failed)?;
            for (index, vector) in batch.iter().zip(embedded) {
                vectors[*index] = vector;
            }
            tokens += inputs.iter().map(|input| input.len() as u64).sum::<u64>();
        }
        let message = response::write(&self.offer.name, vectors, plan.base64, tokens);
        Ok(EmbeddingAnswer {
            message: Some(message),
            usage: Usage::tokens(tokens, 0),
        })
    }
}

/// The inputs' positions in batches of similar length, so that little is padding.
fn batches(inputs: &[Vec<u32>]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    order.sort_by_key(|index| inputs[*index].len());
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for index in order {
        // Later inputs are longer: this one's length is the batch's.
        let fits = |batch: &Vec<usize>| (batch.len() + 1) * inputs[index].len() <= BATCH_TOKENS_MAX;
        match batches.last_mut().filter(|batch| fits(batch)) {
            Some(batch) => batch.push(index),
            None => batches.push(vec![index]),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn batches_hold_every_input_once_within_their_bound(lengths in prop::collection::vec(1usize..600, 0..100)) {
            let inputs: Vec<_> = lengths.iter().map(|length| vec![0; *length]).collect();
            let batches = batches(&inputs);
            for batch in &batches {
                let longest = batch.iter().map(|index| lengths[*index]).max().unwrap();
                prop_assert!(batch.len() * longest <= BATCH_TOKENS_MAX);
            }
            let mut all = batches.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
