//! Asks engines and reads their answers.

use std::path::Path;

use candle_core::DType;
use gristmill_node::engine::chat::ChatEngine;
use gristmill_node::engine::model_files::ModelFiles;
use gristmill_node::engine::{Engine, EngineError, EngineOutput, EngineRequest, RequestBody};
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::Usage;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::tiny_models::{self, Family};

pub(crate) const MODEL: &str = "tiny";

/// A request to the model [`MODEL`].
pub(crate) fn request(kind: JobKind, body: Value) -> EngineRequest {
    EngineRequest {
        request_id: "req_1".to_owned(),
        kind,
        model: MODEL.to_owned(),
        body: RequestBody::Json(body),
        trace_parent: None,
    }
}

/// A chat request with one question, and other fields.
pub(crate) fn question(content: &str, fields: Value) -> EngineRequest {
    let mut body = json!({"model": MODEL, "messages": [{"role": "user", "content": content}]});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    request(JobKind::ChatCompletions, body)
}

pub(crate) fn load_chat(path: &Path) -> ChatEngine {
    ChatEngine::from_files(&ModelFiles::open(path).unwrap(), Some(MODEL)).unwrap()
}

/// A tiny model from a folder.
pub(crate) fn tiny_chat(family: Family) -> ChatEngine {
    let folder = tempfile::tempdir().unwrap();
    tiny_models::write_folder(folder.path(), family, 5, DType::F32, 1);
    load_chat(folder.path())
}

/// A whole answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) chunks: Vec<Value>,
    pub(crate) text: String,
    pub(crate) finish_reason: Option<String>,
    pub(crate) meters: Vec<Usage>,
    pub(crate) usage: Usage,
}

/// A request to go on with raw text, and other fields.
pub(crate) fn prompt(prompt: Value, fields: Value) -> EngineRequest {
    let mut body = json!({"model": MODEL, "prompt": prompt});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    request(JobKind::Completions, body)
}

/// A tiny model with random weights and the tokenizer of the guide, whose tokens are parts of words.
pub(crate) fn wordy_chat(family: Family, template: Option<&str>) -> ChatEngine {
    let folder = tempfile::tempdir().unwrap();
    tiny_models::write_wordy_folder(folder.path(), family, 5, template);
    load_chat(folder.path())
}

/// Runs a job to its end.
pub(crate) async fn ask(engine: &dyn Engine, request: EngineRequest) -> Result<Answer, EngineError> {
    let (output, mut receiver) = mpsc::channel::<EngineOutput>(4);
    let collect = async {
        let mut pieces = Vec::new();
        while let Some(piece) = receiver.recv().await {
            pieces.push(piece);
        }
        pieces
    };
    let (usage, pieces) = tokio::join!(engine.run(request, output, CancellationToken::new()), collect);
    let usage = usage?;
    let chunks: Vec<Value> = pieces
        .iter()
        .map(|piece| serde_json::from_slice(&piece.message).unwrap())
        .collect();
    let delta = |chunk: &Value| {
        let choice = &chunk["choices"][0];
        let text = choice["delta"]["content"].as_str().or(choice["text"].as_str());
        text.unwrap_or_default().to_owned()
    };
    let finish = chunks
        .last()
        .and_then(|chunk| chunk["choices"][0]["finish_reason"].as_str());
    Ok(Answer {
        text: chunks.iter().map(delta).collect(),
        finish_reason: finish.map(str::to_owned),
        meters: pieces.into_iter().map(|piece| piece.meter).collect(),
        chunks,
        usage,
    })
}
