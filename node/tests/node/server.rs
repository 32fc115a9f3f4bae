//! An OpenAI-compatible server whose answers are written by the request: the first message's content is a script.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::stream;
use futures::{Stream, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The chat model of the server.
pub const MODEL: &str = "scripted";
/// The embeddings model of the server.
pub const EMBEDDINGS_MODEL: &str = "scripted-embed";

/// The transcription model of the server.
pub const TRANSCRIPTION_MODEL: &str = "scripted-whisper";
/// The speech model of the server.
pub const SPEECH_MODEL: &str = "scripted-tts";
/// The image model of the server.
pub const IMAGE_MODEL: &str = "scripted-sdxl";
/// The model of the server that ranks documents.
pub const RERANK_MODEL: &str = "scripted-rerank";

/// What the server saw of a request that is passed through.
pub struct Passed {
    pub path: String,
    pub content_type: String,
    pub body: Bytes,
}

/// What the server saw.
#[derive(Default)]
pub struct Seen {
    /// The bodies of chat requests, in order.
    pub bodies: Mutex<Vec<Value>>,
    /// The headers of chat requests, in order.
    pub headers: Mutex<Vec<HeaderMap>>,
    /// Requests that were passed through, in order.
    pub passed: Mutex<Vec<Passed>>,
    /// Scripts whose answer was cut off by the node before its end.
    left: watch::Sender<BTreeSet<String>>,
}

/// A running server.
pub struct Server {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn start() -> Self {
        let seen = Arc::new(Seen::default());
        let router = Router::new()
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(chat))
            .route("/v1/completions", post(completions))
            .route("/v1/embeddings", post(embeddings))
            .route("/v1/audio/transcriptions", post(passed))
            .route("/v1/audio/speech", post(passed))
            .route("/v1/images/generations", post(passed))
            .route("/v1/rerank", post(passed))
            .with_state(Arc::clone(&seen));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until the node has cut off the answer to a script.
    pub async fn until_left(&self, script: &str) {
        self.seen
            .left
            .subscribe()
            .wait_for(|left| left.contains(script))
            .await
            .unwrap();
    }

    /// Waits until the server has got so many chat requests.
    pub async fn until_asked(&self, times: usize) {
        while self.seen.bodies.lock().unwrap().len() < times {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

async fn models() -> Json<Value> {
    let model = |id| json!({"id": id, "object": "model", "owned_by": "vllm", "max_model_len": 2_048});
    let models = [
        MODEL,
        EMBEDDINGS_MODEL,
        TRANSCRIPTION_MODEL,
        SPEECH_MODEL,
        IMAGE_MODEL,
        RERANK_MODEL,
    ];
    Json(json!({"object": "list", "data": models.map(model)}))
}

/// A plain completion: as many words as the prompt says.
async fn completions(State(seen): State<Arc<Seen>>, Json(body): Json<Value>) -> Response {
    let number: usize = body["prompt"].as_str().unwrap().parse().unwrap();
    seen.bodies.lock().unwrap().push(body);
    let event = |value: Value| format!("data: {value}\n\n");
    let mut text: String = (1..=number)
        .map(|place| {
            event(json!({"choices": [{"index": 0, "text": format!("word{place} "), "logprobs": null}]}))
        })
        .collect();
    text += &event(json!({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}));
    let usage = json!({"prompt_tokens": 2, "completion_tokens": number, "total_tokens": number + 2});
    text += &event(json!({"choices": [], "usage": usage}));
    text += "data: [DONE]\n\n";
    ([(CONTENT_TYPE, "text/event-stream")], text).into_response()
}

/// The sound of the speech model.
pub const SOUND: [&[u8]; 3] = [b"ID3\0\xff", b"\r\n\r\n{", b"\xfe"];

async fn passed(State(seen): State<Arc<Seen>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    let text = String::from_utf8_lossy(&body).into_owned();
    let content_type = headers[CONTENT_TYPE].to_str().unwrap().to_owned();
    seen.passed.lock().unwrap().push(Passed {
        path: path.clone(),
        content_type,
        body,
    });
    if text.contains("refuse") {
        let error = json!({"error": {"message": "no such voice", "type": "BadRequestError", "param": "voice", "code": 400}});
        return (StatusCode::BAD_REQUEST, Json(error)).into_response();
    }
    match path.as_str() {
        "/v1/audio/speech" if text.contains("silence") => {
            ([(CONTENT_TYPE, "audio/mpeg")], "").into_response()
        }
        "/v1/audio/speech" => {
            let script = ["hang", "break", "whole"]
                .into_iter()
                .find(|word| text.contains(word))
                .unwrap_or("whole");
            let guard = Guard {
                seen,
                script: script.to_owned(),
                reached_end: false,
            };
            let sound = SOUND.map(|part| Ok::<_, Infallible>(Bytes::from_static(part)));
            let body = followed(stream::iter(sound), script == "hang", script == "break", guard);
            ([(CONTENT_TYPE, "audio/mpeg")], body).into_response()
        }
        "/v1/audio/transcriptions" => Json(json!({"text": "hello"})).into_response(),
        "/v1/rerank" => {
            Json(json!({"model": RERANK_MODEL, "results": [{"index": 0, "relevance_score": 0.5}]}))
                .into_response()
        }
        _ => Json(json!({"created": 1, "data": [{"b64_json": "iVBO"}]})).into_response(),
    }
}

/// What a model of this server does with what nodes try.
fn trial(body: &Value) -> Response {
    let partial = body["messages"][1]["content"].as_str().unwrap_or_default();
    let text = if partial.ends_with(',') {
        " Wednesday"
    } else {
        "day"
    };
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]});
    let text = format!("data: {chunk}\n\ndata: [DONE]\n\n");
    ([(CONTENT_TYPE, "text/event-stream")], text).into_response()
}

async fn embeddings(Json(body): Json<Value>) -> Json<Value> {
    assert_eq!(body["model"], EMBEDDINGS_MODEL);
    Json(json!({
        "object": "list", "model": "internal-name",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }))
}

/// Says so when it is dropped before the end was reached.
struct Guard {
    seen: Arc<Seen>,
    script: String,
    reached_end: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.reached_end {
            let script = std::mem::take(&mut self.script);
            self.seen.left.send_modify(|left| {
                left.insert(script);
            });
        }
    }
}

async fn chat(State(seen): State<Arc<Seen>>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    if headers["x-request-id"] == "trial" {
        return trial(&body);
    }
    seen.headers.lock().unwrap().push(headers);
    let script = body["messages"][0]["content"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    seen.bodies.lock().unwrap().push(body);
    let (word, number) = script.split_once(' ').unwrap_or((&script, "3"));
    let number: usize = number.split(' ').next().unwrap().parse().unwrap();
    match word {
        "refuse" => {
            let error = json!({"error": {"message": "too hot", "type": "invalid_request_error", "param": "temperature", "code": number}});
            (StatusCode::from_u16(number as u16).unwrap(), Json(error)).into_response()
        }
        "redirect" => (
            StatusCode::TEMPORARY_REDIRECT,
            [("location", "http://169.254.169.254/")],
        )
            .into_response(),
        "html" => "<html>".into_response(),
        // Whole answers, broken ones, and ones that never end.
        _ => stream_of(
            pieces(word, number),
            word == "hang",
            Guard {
                seen,
                script,
                reached_end: false,
            },
        ),
    }
}

/// The events of a script's answer, with a usage after each as vLLM gives it.
fn pieces(word: &str, number: usize) -> Vec<String> {
    let usage =
        |output: usize| json!({"prompt_tokens": 5, "completion_tokens": output, "total_tokens": 5 + output});
    let event = |value: Value| format!("data: {value}\r\n\r\n");
    let mut events = vec![": connected\n\n".to_owned()];
    events.extend((1..=number).map(|place| {
        event(json!({
            "id": "up-1", "object": "chat.completion.chunk", "created": 7, "model": "internal-name", "error": null,
            "choices": [{"index": 0, "delta": {"content": format!("word{place} ")}, "finish_reason": null}],
            "usage": usage(place),
        }))
    }));
    let end = event(json!({"id": "up-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    let total = event(json!({"id": "up-1", "choices": [], "usage": usage(number)}));
    match word {
        "endless" | "hang" | "break" => {}
        "unfinished" => events.push("data: [DONE]\n\n".into()),
        "error" => events.push(event(json!({"error": {"message": "out of memory", "code": 500}}))),
        "undone" => events.extend([end, total]),
        _ => events.extend([end, total, "data: [DONE]\n\n".into()]),
    }
    events
}

fn stream_of(pieces: Vec<String>, hangs: bool, guard: Guard) -> Response {
    let breaks = guard.script.starts_with("break");
    let pieces = pieces
        .into_iter()
        .map(Ok::<_, Infallible>)
        .map(|piece| piece.map(Bytes::from));
    let body = followed(stream::iter(pieces), hangs, breaks, guard);
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// A body that ends, breaks off, or goes on for ever without another word.
fn followed(
    whole: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static,
    hangs: bool,
    breaks: bool,
    guard: Guard,
) -> Body {
    let rest = stream::unfold(Some(guard), move |guard| async move {
        let mut guard = guard?;
        if hangs || guard.script.starts_with("endless") {
            // Nothing more ever: only a closed connection ends this.
            let _held = &guard;
            std::future::pending::<()>().await;
        }
        // Where nothing is ready, what was said so far is sent.
        tokio::task::yield_now().await;
        guard.reached_end = true;
        breaks.then(|| (Err(std::io::Error::other("broke")), None))
    });
    let body = whole
        .map(|piece| piece.map_err(|never| match never {}))
        .chain(rest);
    Body::from_stream(body)
}
