//! What turns a job into an answer. Every engine, built in or upstream, stands behind [`Engine`].

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use gristmill_protocol::trace::TraceParent;
use gristmill_protocol::usage::Usage;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub mod built_in;
pub mod chat;
pub mod embeddings;
pub mod guide;
pub mod model_files;
pub(crate) mod refusal;
pub(crate) mod turns;
pub mod upstream;

/// How many messages an engine may be ahead of the consumer: generation stops where nobody takes the output.
pub const OUTPUT_QUEUE_MESSAGES: usize = 4;

/// One model that an engine can run now, as the listing will offer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineModel {
    /// The name by which consumers ask for it.
    pub name: String,
    /// What it can be asked to do.
    pub kind: JobKind,
    /// BLAKE3 over the weight files in the order of their names, where the engine has the files.
    pub weights_digest: Option<[u8; 32]>,
    /// How the weights are stored: `f32`, `bf16`, `q4_k_m`, …; empty where unknown.
    pub quantization: String,
    /// Most tokens of prompt and answer together.
    pub context_length: u32,
    /// What else it can be asked for, in order.
    pub capabilities: Vec<Capability>,
}

/// A job as an engine sees it.
#[derive(Clone, Debug)]
pub struct EngineRequest {
    /// The id that the consumer's program, the logs and the receipt share.
    pub request_id: String,
    /// What is asked for.
    pub kind: JobKind,
    /// The model, one of [`Engine::models`].
    pub model: String,
    /// What the program sent.
    ///
    /// Engines always stream text, whatever `stream` says: the consumer's proxy assembles a single answer where the
    /// program asked for one.
    pub body: RequestBody,
    /// The caller's position in a trace, where it has one.
    pub trace_parent: Option<TraceParent>,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestBody {
    /// A JSON object, read.
    Json(Value),
    /// What an upstream server gets as it came.
    PassedThrough {
        /// Its media type; empty for JSON.
        content_type: String,
        /// Its bytes.
        bytes: Bytes,
    },
}

impl RequestBody {
    /// The JSON object; null where the body is passed through, which no engine takes for a request of another kind.
    #[must_use]
    pub const fn json(&self) -> &Value {
        match self {
            Self::Json(value) => value,
            Self::PassedThrough { .. } => &Value::Null,
        }
    }
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOutput {
    /// One JSON document: a `chat.completion.chunk` or a `text_completion` object, or a whole embeddings response.
    /// Of what [is passed through](JobKind::is_passed_through), first an
    /// [`AnswerHead`](gristmill_protocol::job::AnswerHead) and then bytes of the answer.
    pub message: Vec<u8>,
    /// What was used since the job began, this piece included. Never shrinks.
    pub meter: Usage,
}

/// Why an engine could not answer, in OpenAI's terms, so that an upstream's own words survive the trip.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct EngineError {
    /// The HTTP status that the program should see.
    pub status: u16,
    /// A stable word for programs, such as `context_length_exceeded`.
    pub code: String,
    /// For people.
    pub message: String,
    /// The request field at fault, where there is one.
    pub param: Option<String>,
}

/// Runs jobs.
#[async_trait]
pub trait Engine: Send + Sync {
    /// A short name for logs and `gristmill node models`.
    fn name(&self) -> &str;

    /// The models that can be asked for now. May change over time; drivers ask again.
    fn models(&self) -> Vec<EngineModel>;

    /// Runs one job to its end and returns the final usage.
    ///
    /// Pieces go to `output`, whose bounded queue is the back pressure. The engine stops within one token when
    /// `cancel` fires or `output` is closed, and then returns what was used until then.
    ///
    /// # Errors
    /// [`EngineError`] where the request can't be honoured or the engine broke.
    async fn run(
        &self,
        request: EngineRequest,
        output: mpsc::Sender<EngineOutput>,
        cancel: CancellationToken,
    ) -> Result<Usage, EngineError>;
}

/// The engines of a node.
pub type Engines = Vec<Arc<dyn Engine>>;
