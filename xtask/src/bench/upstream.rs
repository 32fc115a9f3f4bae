//! An upstream that answers at once: what is left is the way.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

/// The name of its model.
pub(super) const MODEL: &str = "instant";
/// Asked for so many tokens, it sends each in a chunk and a packet of its own.
pub(super) const LONG_STREAM_CHUNKS: usize = 2_000;
/// The pause between two chunks of a long stream: a fast engine's.
const PACE: Duration = Duration::from_millis(1);

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    max_tokens: usize,
}

/// Starts it on a free port and gives its address.
pub(super) async fn start() -> anyhow::Result<String> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/chat/completions", post(chat));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}

async fn models() -> Response {
    let model =
        json!({ "id": MODEL, "object": "model", "created": 1, "owned_by": "bench", "max_model_len": 4096 });
    axum::Json(json!({ "object": "list", "data": [model] })).into_response()
}

async fn chat(axum::Json(request): axum::Json<Request>) -> Response {
    if !request.stream {
        return whole();
    }
    let events = if request.max_tokens == LONG_STREAM_CHUNKS {
        Body::from_stream(long_stream())
    } else {
        Body::from(short_stream())
    };
    ([(CONTENT_TYPE, "text/event-stream")], events).into_response()
}

fn whole() -> Response {
    axum::Json(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": "Mills grind grain slowly." },
        }],
        "usage": usage(4),
    }))
    .into_response()
}

fn usage(output: usize) -> Value {
    json!({ "prompt_tokens": 9, "completion_tokens": output, "total_tokens": 9 + output })
}

fn event(choices: &Value, usage: Option<Value>) -> String {
    let mut chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices,
    });
    if let Some(usage) = usage {
        chunk["usage"] = usage;
    }
    format!("data: {chunk}\n\n")
}

fn word(index: usize, word: &str) -> String {
    let delta = if index == 0 {
        json!({ "role": "assistant", "content": word })
    } else {
        json!({ "content": word })
    };
    event(
        &json!([{ "index": 0, "delta": delta, "finish_reason": null }]),
        None,
    )
}

fn end(output: usize) -> String {
    let mut events = event(
        &json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]),
        None,
    );
    events += &event(&json!([]), Some(usage(output)));
    events += "data: [DONE]\n\n";
    events
}

fn short_stream() -> String {
    let words = ["Mills ", "grind ", "grain ", "slowly."];
    let mut events: String = words
        .iter()
        .enumerate()
        .map(|(index, text)| word(index, text))
        .collect();
    events += &end(words.len());
    events
}

fn long_stream() -> impl futures::Stream<Item = Result<Bytes, Infallible>> {
    let pace = tokio::time::interval(PACE);
    futures::stream::unfold((0, pace), |(index, mut pace)| async move {
        if index > LONG_STREAM_CHUNKS {
            return None;
        }
        pace.tick().await;
        let events = if index == LONG_STREAM_CHUNKS {
            end(LONG_STREAM_CHUNKS)
        } else {
            // Never the same again: LiteLLM breaks a stream off whose chunks repeat themselves.
            word(index, &format!("Mill{index} "))
        };
        Some((Ok(events.into()), (index + 1, pace)))
    })
}
