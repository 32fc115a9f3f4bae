//! One job of each kind, from the request to the upstream to the last piece of its answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_protocol::job::{AnswerHead, JobKind};
use gristmill_protocol::trace::TRACE_PARENT_HEADER;
use gristmill_protocol::usage::{Unit, Usage};
use gristmill_service::clock::unix_ms;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, Url};
use serde_json::{Value, json};

use super::body::{self, CONTENT_TYPE_MAX_BYTES, JSON};
use super::chunks::ChunkReader;
use super::errors;
use super::models::{UpstreamKind, UpstreamModel};
use super::pieces::Pieces;
use super::probe::{endpoint, innermost, read_body};
use super::sse::EventStream;
use crate::engine::refusal::invalid_request;
use crate::engine::{EngineError, EngineOutput, EngineRequest, RequestBody};

/// Longest silence of an upstream. Loading a large model from a slow disk takes minutes.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// How long the end of an answer is waited for after its last event. It comes with it, as a rule.
const LINGER: Duration = Duration::from_millis(5);
/// Most bytes of an error that are read.
const ERROR_MAX_BYTES: usize = 64 * 1024;
/// Most bytes of an answer that is read whole.
const ANSWER_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Most bytes of an answer that is passed through, as many as a consumer keeps of one.
const PASSED_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// What an answer is whose upstream does not say.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// A job at an upstream.
pub(super) struct UpstreamJob<'a> {
    pub(super) client: &'a Client,
    pub(super) base: &'a Url,
    pub(super) software: UpstreamKind,
    pub(super) model: &'a UpstreamModel,
    pub(super) request: &'a EngineRequest,
}

impl UpstreamJob<'_> {
    /// Runs it to its end.
    ///
    /// # Errors
    /// [`EngineError`] with the upstream's own words, or what is wrong with it.
    pub(super) async fn run(&self, output: &Pieces) -> Result<Usage, EngineError> {
        match self.request.kind {
            JobKind::ChatCompletions | JobKind::Completions => self.text(output).await,
            JobKind::Embeddings => self.embeddings(output).await,
            JobKind::AudioTranscriptions
            | JobKind::AudioSpeech
            | JobKind::ImageGenerations
            | JobKind::Rerank => self.pass_through(output).await,
        }
    }

    /// Sends the request and waits for the beginning of its answer.
    async fn post(
        &self,
        content_type: &str,
        accept: &'static str,
        body: Bytes,
    ) -> Result<Response, EngineError> {
        let content_type = HeaderValue::from_str(content_type)
            .map_err(|_| invalid_request("body", "the content type is no header value"))?;
        let path = format!("v1{}", self.request.kind.path());
        let mut asked = self
            .client
            .post(endpoint(self.base, &path))
            .header(CONTENT_TYPE, content_type)
            .header(ACCEPT, accept)
            .header("x-request-id", &self.request.request_id)
            .body(body);
        if let Some(position) = self.request.trace_parent {
            asked = asked.header(TRACE_PARENT_HEADER, position.to_string());
        }
        let response = match tokio::time::timeout(SILENCE_MAX, asked.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::warn!(
                    url = %self.base,
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

    /// A JSON body; refuses what Ollama would cut without a word.
    fn json(&self) -> Result<&Value, EngineError> {
        let RequestBody::Json(body) = &self.request.body else {
            return Err(invalid_request("body", "the body is not a JSON object"));
        };
        if self.software == UpstreamKind::Ollama {
            body::refuse_what_is_too_long(self.request.kind, body, self.model.context_length)?;
        }
        Ok(body)
    }

    async fn text(&self, output: &Pieces) -> Result<Usage, EngineError> {
        let request = self.request;
        let body = body::streaming(self.json()?, &self.model.id, self.software);
        let mut response = self
            .post(
                JSON,
                "text/event-stream, application/json",
                body.to_string().into(),
            )
            .await?;
        let mut events = EventStream::default();
        let now_s = unix_ms() / 1_000;
        let mut chunks = ChunkReader::new(request.kind, &request.model, &request.request_id, now_s);
        let mut is_done = false;
        while !is_done {
            let Some(part) = next_part(&mut response).await? else {
                break;
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

    async fn embeddings(&self, output: &Pieces) -> Result<Usage, EngineError> {
        let body = body::for_model(self.json()?, &self.model.id);
        let response = self.post(JSON, JSON, body.to_string().into()).await?;
        let mut answer: Value = serde_json::from_slice(&whole(response).await?).unwrap_or_default();
        if !answer.get("data").is_some_and(Value::is_array) {
            return Err(errors::provider_failed(
                "the upstream's answer holds no embeddings",
            ));
        }
        answer["model"] = json!(self.request.model);
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

    /// Hands the body to the upstream and its answer back, both as they are. What is counted are the bytes of both,
    /// and the time that the upstream took: what the consumer took to pay or to read is not in it.
    async fn pass_through(&self, output: &Pieces) -> Result<Usage, EngineError> {
        let (content_type, body) = body::passed(self.request.kind, self.model, &self.request.body)?;
        let mut meter = PassedMeter::new(&self.request.body);
        let response = meter.timed(self.post(&content_type, "*/*", body)).await?;
        let head = AnswerHead {
            content_type: content_type_of(&response),
        };
        let is_json = head.content_type.starts_with(JSON);
        let message = serde_json::to_vec(&head).unwrap_or_default();
        output
            .send(EngineOutput {
                message,
                meter: meter.usage(),
            })
            .await?;
        if is_json && self.model.id != self.model.name {
            let answer = meter.timed(whole(response)).await?;
            let answer = self.with_public_name(answer);
            meter.send(answer, output).await?;
        } else {
            let mut response = response;
            while let Some(part) = meter.timed(next_part(&mut response)).await? {
                meter.send(part, output).await?;
            }
        }
        if meter.bytes_out == 0 {
            return Err(errors::provider_failed("the upstream's answer is empty"));
        }
        Ok(meter.usage())
    }

    /// An answer that names the model as it is on offer: what its file is called is its owner's own business.
    fn with_public_name(&self, answer: Vec<u8>) -> Bytes {
        match serde_json::from_slice::<Value>(&answer) {
            Ok(Value::Object(mut fields)) if fields.get("model") == Some(&json!(self.model.id)) => {
                fields.insert("model".to_owned(), json!(self.model.name));
                Value::Object(fields).to_string().into()
            }
            _ => answer.into(),
        }
    }
}

/// Counts what is passed through.
struct PassedMeter {
    bytes_in: u64,
    bytes_out: u64,
    worked: Duration,
}

impl PassedMeter {
    const fn new(body: &RequestBody) -> Self {
        let bytes_in = match body {
            RequestBody::PassedThrough { bytes, .. } => bytes.len() as u64,
            RequestBody::Json(_) => 0,
        };
        Self {
            bytes_in,
            bytes_out: 0,
            worked: Duration::ZERO,
        }
    }

    /// Waits for the upstream, and counts how long.
    async fn timed<T>(&mut self, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        self.worked = self.worked.saturating_add(began.elapsed());
        done
    }

    fn usage(&self) -> Usage {
        let milliseconds = u64::try_from(self.worked.as_millis()).unwrap_or(u64::MAX);
        Usage::new()
            .with(Unit::ByteIn, self.bytes_in)
            .with(Unit::ByteOut, self.bytes_out)
            .with(Unit::GpuMillisecond, milliseconds)
    }

    async fn send(&mut self, part: Bytes, output: &Pieces) -> Result<(), EngineError> {
        if part.is_empty() {
            return Ok(());
        }
        self.bytes_out = self.bytes_out.saturating_add(part.len() as u64);
        if self.bytes_out > PASSED_MAX_BYTES {
            return Err(errors::provider_failed(
                "the upstream's answer is longer than any that is passed on",
            ));
        }
        let meter = self.usage();
        let message = part.to_vec();
        output.send(EngineOutput { message, meter }).await
    }
}

/// The next bytes of an answer.
async fn next_part(response: &mut Response) -> Result<Option<Bytes>, EngineError> {
    match tokio::time::timeout(SILENCE_MAX, response.chunk()).await {
        Ok(Ok(part)) => Ok(part),
        Ok(Err(_)) => Err(errors::provider_failed("the upstream broke off its answer")),
        Err(_) => Err(timed_out()),
    }
}

/// An answer as a whole.
async fn whole(response: Response) -> Result<Vec<u8>, EngineError> {
    let read = tokio::time::timeout(SILENCE_MAX, read_body(response, ANSWER_MAX_BYTES)).await;
    read.map_err(|_| timed_out())?
        .map_err(|error| errors::provider_failed(format!("the upstream's answer is unusable: {error}")))
}

fn content_type_of(response: &Response) -> String {
    let said = response.headers().get(CONTENT_TYPE);
    said.and_then(|value| value.to_str().ok())
        .filter(|text| !text.is_empty() && text.len() <= CONTENT_TYPE_MAX_BYTES)
        .unwrap_or(UNKNOWN_TYPE)
        .to_owned()
}

fn timed_out() -> EngineError {
    EngineError {
        status: 504,
        code: "timeout".to_owned(),
        ..errors::provider_failed("the upstream was silent for too long")
    }
}
