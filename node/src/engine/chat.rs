//! The built-in chat engine: Llama- and Qwen-family models on candle.
//!
//! A model is loaded once and never changes; each job has a memory of its own, so nothing of one consumer can
//! reach another's answer. One job runs at a time, the others wait in order.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use candle_core::quantized::gguf_file::Content;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::Usage;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::answer::{Answer, AnswerPlan, Step};
use self::chunk::ChunkWriter;
use self::configuration::Configuration;
use self::decoder::Decoder;
use self::request::ChatRequest;
use self::sampling::Sampling;
use self::text::ModelText;
use self::weights::{Weights, first_line};
use crate::engine::built_in::on_blocking_thread;
use crate::engine::model_files::{LoadError, ModelFiles, ModelSource, device};
use crate::engine::refusal::{context_length_exceeded, engine_failed, invalid_request, model_not_found};
use crate::engine::turns::{Turns, on_thread};
use crate::engine::{Engine, EngineError, EngineModel, EngineOutput, EngineRequest};

mod answer;
mod chunk;
mod civil_time;
mod configuration;
mod decoder;
mod detokenizer;
mod request;
mod rotary;
mod sampling;
mod stop;
mod template;
mod text;
#[cfg(test)]
#[path = "../../tests/engines/tiny_models.rs"]
mod tiny_models;
mod weights;

/// The temperature where neither program nor model says one, as OpenAI has it.
const TEMPERATURE_DEFAULT: f64 = 1.0;

struct LoadedModel {
    offer: EngineModel,
    decoder: Decoder,
    text: ModelText,
    context_length: usize,
}

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
        vec![self.model.offer.clone()]
    }

    async fn run(
        &self,
        request: EngineRequest,
        output: mpsc::Sender<EngineOutput>,
        cancel: CancellationToken,
    ) -> Result<Usage, EngineError> {
        if request.kind != JobKind::ChatCompletions || request.model != self.model.offer.name {
            return Err(model_not_found(&request.model));
        }
        let _place = self.turns.queue()?;
        // Dropping this future stops the threads that it started.
        let cancel = cancel.child_token();
        let _stop_when_dropped = cancel.clone().drop_guard();

        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let chunks = ChunkWriter::new(&request.request_id, now_s, &request.model);
        let seed = random_seed()?;
        let model = Arc::clone(&self.model);
        let plan = on_thread(move || model.plan(&request.body, now_s, seed)).await?;

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
            let usage = model.write_answer(plan, &chunks, &delivery);
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

impl LoadedModel {
    fn load(files: &ModelFiles, public_name: Option<&str>) -> Result<Self, LoadError> {
        let name = files.public_name(public_name)?;
        let device = device::choose()?;
        let (configuration, text, mut weights) = match files.gguf() {
            None => {
                let configuration = Configuration::from_files(files)?;
                let text = ModelText::from_files(files)?;
                (configuration, text, Weights::from_safetensors(files, device)?)
            }
            Some(file) => {
                let mut reader = files.weights_reader(file)?;
                let mut content = read_gguf_header(&mut reader, files, file)?;
                let configuration = Configuration::from_gguf(&content, files)?;
                let text = ModelText::from_gguf(&mut content, files)?;
                (
                    configuration,
                    text,
                    Weights::from_gguf(files, content, reader, device)?,
                )
            }
        };
        let decoder = Decoder::new(&configuration, &mut weights)?;
        let offer = EngineModel {
            name,
            kind: JobKind::ChatCompletions,
            weights_digest: Some(weights.digest()),
            quantization: weights.quantization().to_owned(),
            context_length: u32::try_from(configuration.context_length).unwrap_or(u32::MAX),
            capabilities: Vec::new(),
        };
        Ok(Self {
            offer,
            decoder,
            text,
            context_length: configuration.context_length,
        })
    }

    /// Reads the request and lays the prompt out.
    fn plan(&self, body: &serde_json::Value, now_s: u64, seed: u64) -> Result<AnswerPlan, EngineError> {
        let request = ChatRequest::parse(body)?;
        let prompt = self
            .text
            .template
            .render(&request.messages, &request.template_arguments, now_s)?;
        let encoding = self
            .text
            .tokenizer
            .encode_fast(prompt, false)
            .map_err(|error| engine_failed(first_line(&error)))?;
        let prompt = encoding.get_ids().to_vec();
        if prompt.is_empty() {
            return Err(invalid_request("messages", "the messages are empty"));
        }
        if prompt
            .iter()
            .any(|token| *token as usize >= self.decoder.vocabulary())
        {
            return Err(engine_failed("its tokenizer has tokens that its weights do not"));
        }
        // A prompt that leaves no room for a token can't be answered; an answer that would not fit is cut.
        let room = self.context_length.saturating_sub(prompt.len());
        if room == 0 {
            return Err(context_length_exceeded(
                "messages",
                self.context_length - 1,
                prompt.len(),
            ));
        }
        let asked = request
            .max_tokens
            .map_or(room, |limit| usize::try_from(limit).unwrap_or(room));
        let defaults = self.text.sampling;
        let sampling = Sampling {
            temperature: request
                .temperature
                .or(defaults.temperature)
                .unwrap_or(TEMPERATURE_DEFAULT),
            top_p: request.top_p.or(defaults.top_p).unwrap_or(1.0),
            frequency_penalty: request.frequency_penalty.unwrap_or(0.0),
            presence_penalty: request.presence_penalty.unwrap_or(0.0),
        };
        let seed = request.seed.unwrap_or(seed);
        Ok(AnswerPlan {
            prompt,
            sampling,
            seed,
            stops: request.stops,
            tokens_max: asked.min(room),
        })
    }

    /// Writes the answer to its end, or until nobody wants it, and returns what was used.
    fn write_answer(
        &self,
        plan: AnswerPlan,
        chunks: &ChunkWriter,
        delivery: &Delivery,
    ) -> Result<Usage, EngineError> {
        let prompt_tokens = plan.prompt.len() as u64;
        let mut answer = Answer::new(&self.decoder, &self.text.tokenizer, &self.text.end_tokens, plan);
        let mut began = false;
        loop {
            let step = answer.step(|| delivery.is_over())?;
            let (text, finished) = match step {
                Step::Abandoned => return Ok(used(prompt_tokens, &answer, began)),
                Step::Text(text) => (text, None),
                Step::Finished(text, reason) => (text, Some(reason)),
            };
            // The first chunk waits for the prompt to be read, so that a failure until then has a status.
            let opening = (!began).then(|| chunks.role());
            began = true;
            let content = (!text.is_empty()).then(|| chunks.content(&text));
            let closing = finished.map(|reason| chunks.finish(reason));
            let usage = used(prompt_tokens, &answer, began);
            for message in [opening, content, closing].into_iter().flatten() {
                if !delivery.send(message, usage.clone()) {
                    return Ok(usage);
                }
            }
            if finished.is_some() {
                return Ok(usage);
            }
        }
    }
}

/// The prompt counts from when it was read whole.
fn used(prompt_tokens: u64, answer: &Answer<'_>, prompt_was_read: bool) -> Usage {
    if prompt_was_read {
        Usage::tokens(prompt_tokens, answer.written() as u64)
    } else {
        Usage::new()
    }
}

fn read_gguf_header(
    reader: &mut Box<dyn crate::engine::model_files::WeightsReader>,
    files: &ModelFiles,
    file: &str,
) -> Result<Content, LoadError> {
    // candle divides by the alignment that the file claims, which may be zero.
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Content::read(reader)));
    match read {
        Ok(read) => read.map_err(|error| files.damaged(file, first_line(&error))),
        Err(_) => Err(files.damaged(file, "its header makes no sense")),
    }
}
