//! Sells what an OpenAI-compatible server on the owner's machine can run: Ollama, vLLM, llama.cpp, LM Studio, or any
//! other.
//!
//! Requests are passed through as they are, except that they always stream and always ask for usage. The server is
//! on loopback or where its owner allowed; whoever sends a request has no say about its address.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::Usage;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, Response, Url};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::system_clock;
use crate::engine::refusal::model_not_found;
use crate::engine::{Engine, EngineError, EngineModel, EngineOutput, EngineRequest};

mod chunks;
mod errors;
mod models;
mod probe;
mod reach;
mod sse;

pub use models::{CONTEXT_LENGTH, UpstreamKind};
pub use reach::{AllowedHosts, UpstreamNotAllowed};

use chunks::ChunkReader;
use models::UpstreamModel;
use probe::{ProbeError, endpoint, innermost, read_body};
use sse::EventStream;

/// Longest silence of an upstream. Loading a large model from a slow disk takes minutes.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How long the end of an answer is waited for after its last event. It comes with it, as a rule.
const LINGER: Duration = Duration::from_millis(5);
/// Most bytes of an error that are read.
const ERROR_MAX_BYTES: usize = 64 * 1024;
/// Most bytes of an answer that is not streamed.
const ANSWER_MAX_BYTES: usize = 32 * 1024 * 1024;
/// The fewest tokens there can be in natural text are one per so many bytes. Ollama cuts a prompt that is too long
/// without a word, so what is too long for certain is refused beforehand.
const BYTES_PER_TOKEN_MAX: u64 = 8;

/// Why an upstream can't be used.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// It is where none may be.
    #[error(transparent)]
    NotAllowed(#[from] UpstreamNotAllowed),
    /// The system has no HTTP client for it.
    #[error("an HTTP client can't be set up: {0}")]
    Client(String),
}

/// One upstream server.
#[derive(Debug)]
pub struct UpstreamEngine {
    name: String,
    base: Url,
    client: Client,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    kind: UpstreamKind,
    models: Vec<Arc<UpstreamModel>>,
}

impl UpstreamEngine {
    /// An engine for the server at `base`, which offers nothing before [`UpstreamEngine::refresh`] has found it.
    ///
    /// # Errors
    /// [`UpstreamError`] where the server is not on this machine or an allowed host.
    pub fn new(base: Url, allowed: &AllowedHosts) -> Result<Self, UpstreamError> {
        allowed.check(&base)?;
        let client = allowed
            .client()
            .map_err(|error| UpstreamError::Client(innermost(&error)))?;
        let state = RwLock::new(State {
            kind: UpstreamKind::Other,
            models: Vec::new(),
        });
        Ok(Self {
            name: base.to_string(),
            base,
            client,
            state,
        })
    }

    /// Where the server is.
    #[must_use]
    pub const fn base(&self) -> &Url {
        &self.base
    }

    /// Which server it is, as far as is known.
    #[must_use]
    pub fn kind(&self) -> UpstreamKind {
        self.state.read().unwrap_or_else(PoisonError::into_inner).kind
    }

    /// Asks the server what models it has. Returns whether it is there.
    pub async fn refresh(&self) -> bool {
        let found = probe::probe(&self.client, &self.base).await;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let was_there = !state.models.is_empty();
        match found {
            Ok(found) => {
                if !was_there && !found.models.is_empty() {
                    tracing::info!(
                        url = self.name,
                        server = found.kind.name(),
                        models = found.models.len(),
                        "upstream found"
                    );
                }
                *state = State {
                    kind: found.kind,
                    models: found.models.into_iter().map(Arc::new).collect(),
                };
                true
            }
            Err(error) => {
                if was_there {
                    tracing::warn!(%error, "an upstream is gone; its models are off the market until it is back");
                } else if matches!(error, ProbeError::NotAnUpstream { .. }) {
                    tracing::debug!(%error, "no upstream");
                }
                state.models.clear();
                false
            }
        }
    }

    fn model(&self, request: &EngineRequest) -> Result<(UpstreamKind, Arc<UpstreamModel>), EngineError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let asked = |model: &&Arc<UpstreamModel>| {
            model.offered.kind == request.kind && model.offered.name == request.model
        };
        let gone = || EngineError {
            status: 404,
            code: "model_not_found".to_owned(),
            message: format!(
                "the provider's server no longer has the model '{}'",
                request.model
            ),
            param: Some("model".to_owned()),
        };
        let found = state.models.iter().find(asked).ok_or_else(gone)?;
        Ok((state.kind, Arc::clone(found)))
    }

    /// Sends a request and waits for the beginning of its answer.
    async fn post(&self, request: &EngineRequest, body: &Value) -> Result<Response, EngineError> {
        let path = format!("v1{}", request.kind.path());
        let sent = self
            .client
            .post(endpoint(&self.base, &path))
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream, application/json")
            .header("x-request-id", &request.request_id)
            .body(body.to_string())
            .send();
        let response = match tokio::time::timeout(SILENCE_MAX, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::warn!(
                    url = self.name,
                    error = innermost(&error),
                    "the upstream can't be reached"
                );
                return Err(errors::unreachable());
            }
            Err(_) => return Err(timed_out()),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = read_body(response, ERROR_MAX_BYTES).await.unwrap_or_default();
        Err(errors::in_answer(status.as_u16(), &body))
    }

    async fn chat(&self, request: EngineRequest, output: &Pieces) -> Result<Usage, EngineError> {
        let (kind, model) = self.model(&request)?;
        if kind == UpstreamKind::Ollama {
            refuse_what_is_too_long(&request.body, model.offered.context_length)?;
        }
        let body = streaming_body(request.body.clone(), &model.id, kind);
        let mut response = self.post(&request, &body).await?;
        let mut events = EventStream::default();
        let mut chunks = ChunkReader::new(&request.model, &request.request_id, (system_clock())() / 1_000);
        let mut is_done = false;
        while !is_done {
            let part = match tokio::time::timeout(SILENCE_MAX, response.chunk()).await {
                Ok(Ok(Some(part))) => part,
                Ok(Ok(None)) => break,
                Ok(Err(_)) => return Err(errors::provider_failed("the upstream broke off its answer")),
                Err(_) => return Err(timed_out()),
            };
            let read = events
                .push(&part)
                .map_err(|error| errors::provider_failed(error.to_string()))?;
            for data in read {
                is_done = is_done || output.deliver(&mut chunks, &data).await?;
            }
        }
        if !is_done
            && let Some(data) = events.finish()
            && serde_json::from_slice::<Value>(&data).is_ok()
        {
            output.deliver(&mut chunks, &data).await?;
        }
        let (last, usage) = chunks.finish()?;
        if let Some(last) = last {
            output.send(last).await?;
        }
        // A connection whose answer was read to its end serves the next request too.
        let rest = async { while let Ok(Some(_)) = response.chunk().await {} };
        let _ = tokio::time::timeout(LINGER, rest).await;
        Ok(usage)
    }

    async fn embeddings(&self, request: EngineRequest, output: &Pieces) -> Result<Usage, EngineError> {
        let (_, model) = self.model(&request)?;
        let mut body = request.body.clone();
        body["model"] = json!(model.id);
        let response = self.post(&request, &body).await?;
        let read = tokio::time::timeout(SILENCE_MAX, read_body(response, ANSWER_MAX_BYTES)).await;
        let answer = read.map_err(|_| timed_out())?.map_err(|error| {
            errors::provider_failed(format!("the upstream's answer is unusable: {error}"))
        })?;
        let mut answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if !answer.get("data").is_some_and(Value::is_array) {
            return Err(errors::provider_failed(
                "the upstream's answer holds no embeddings",
            ));
        }
        answer["model"] = json!(request.model);
        let tokens = answer
            .pointer("/usage/prompt_tokens")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        let usage = Usage::tokens(tokens, 0);
        output
            .send(EngineOutput {
                message: answer.to_string().into_bytes(),
                meter: usage.clone(),
            })
            .await?;
        Ok(usage)
    }
}

#[async_trait]
impl Engine for UpstreamEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn models(&self) -> Vec<EngineModel> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.models.iter().map(|model| model.offered.clone()).collect()
    }

    async fn run(
        &self,
        request: EngineRequest,
        output: mpsc::Sender<EngineOutput>,
        cancel: CancellationToken,
    ) -> Result<Usage, EngineError> {
        let pieces = Pieces {
            output,
            used: Mutex::new(Usage::new()),
        };
        let run = async {
            match request.kind {
                JobKind::ChatCompletions => self.chat(request, &pieces).await,
                JobKind::Embeddings => self.embeddings(request, &pieces).await,
                _ => Err(model_not_found(&request.model)),
            }
        };
        // Dropping the request closes its connection, which is how an upstream hears that nobody listens any more.
        tokio::select! {
            result = run => result,
            () = cancel.cancelled() => Ok(pieces.used()),
            () = pieces.output.closed() => Ok(pieces.used()),
        }
    }
}

/// The pieces of an answer on their way out.
struct Pieces {
    output: mpsc::Sender<EngineOutput>,
    used: Mutex<Usage>,
}

impl Pieces {
    /// What was used up to the last piece.
    fn used(&self) -> Usage {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn send(&self, piece: EngineOutput) -> Result<(), EngineError> {
        let meter = piece.meter.clone();
        let sent = self.output.send(piece).await;
        sent.map_err(|_| errors::provider_failed("the job was cancelled"))?;
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = meter;
        Ok(())
    }

    /// Hands one event on. Returns whether it was the last.
    async fn deliver(&self, chunks: &mut ChunkReader, data: &[u8]) -> Result<bool, EngineError> {
        if data.trim_ascii() == b"[DONE]" {
            return Ok(true);
        }
        if let Some(piece) = chunks.take(data)? {
            self.send(piece).await?;
        }
        Ok(false)
    }
}

/// The body as it came, with what the market needs: this model, a stream, and usage at its end.
fn streaming_body(mut body: Value, model: &str, kind: UpstreamKind) -> Value {
    body["model"] = json!(model);
    body["stream"] = json!(true);
    if !body.get("stream_options").is_some_and(Value::is_object) {
        body["stream_options"] = json!({});
    }
    body["stream_options"]["include_usage"] = json!(true);
    if kind == UpstreamKind::Vllm {
        body["stream_options"]["continuous_usage_stats"] = json!(true);
    }
    body
}

fn refuse_what_is_too_long(body: &Value, context_length: u32) -> Result<(), EngineError> {
    let text = |content: &Value| match content {
        Value::String(text) => text.len() as u64,
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            texts.map(|text| text.len() as u64).sum()
        }
        _ => 0,
    };
    let messages = body.get("messages").and_then(Value::as_array);
    let bytes: u64 = messages
        .into_iter()
        .flatten()
        .filter_map(|message| message.get("content"))
        .map(text)
        .sum();
    if bytes / BYTES_PER_TOKEN_MAX <= u64::from(context_length) {
        return Ok(());
    }
    Err(EngineError {
        status: 400,
        code: "context_length_exceeded".to_owned(),
        message: format!(
            "this model takes at most {context_length} tokens, and {bytes} bytes of messages are more; shorten them \
             or choose another model"
        ),
        param: Some("messages".to_owned()),
    })
}

fn timed_out() -> EngineError {
    EngineError {
        status: 504,
        code: "timeout".to_owned(),
        ..errors::provider_failed("the upstream was silent for too long")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_passed_on_but_for_what_the_market_needs() {
        let body =
            json!({"model": "another", "messages": [], "stream": false, "seed": 7, "x": {"y": [1.50, null]}});
        let sent = streaming_body(body, "up/model", UpstreamKind::Other);
        assert_eq!(
            sent.to_string(),
            "{\"model\":\"up/model\",\"messages\":[],\"stream\":true,\"seed\":7,\"x\":{\"y\":[1.5,null]},\
             \"stream_options\":{\"include_usage\":true}}"
        );
        let body = json!({"stream_options": {"include_usage": false, "other": 1}});
        let sent = streaming_body(body, "m", UpstreamKind::Vllm);
        assert_eq!(
            sent["stream_options"],
            json!({"include_usage": true, "other": 1, "continuous_usage_stats": true})
        );
        assert_eq!(
            streaming_body(json!({"stream_options": null}), "m", UpstreamKind::Other)["stream_options"],
            json!({"include_usage": true})
        );
    }

    #[test]
    fn what_is_surely_too_long_is_refused_and_the_rest_is_not() {
        let body = |bytes: usize| {
            json!({"messages": [
                {"role": "user", "content": "x".repeat(bytes / 2)},
                {"role": "user", "content": [{"type": "text", "text": "x".repeat(bytes - bytes / 2)}, {"type": "image_url"}]},
            ]})
        };
        assert!(refuse_what_is_too_long(&body(8 * 100 + 7), 100).is_ok());
        let error = refuse_what_is_too_long(&body(8 * 101), 100).unwrap_err();
        assert_eq!(
            (error.status, error.code.as_str()),
            (400, "context_length_exceeded")
        );
        assert!(refuse_what_is_too_long(&json!({"messages": "x"}), 1).is_ok());
    }

    #[test]
    fn an_upstream_elsewhere_is_not_set_up() {
        let elsewhere = Url::parse("http://169.254.169.254/").unwrap();
        let error = UpstreamEngine::new(elsewhere, &AllowedHosts::default()).unwrap_err();
        assert!(error.to_string().contains("allowed_upstream_hosts"), "{error}");
    }
}
