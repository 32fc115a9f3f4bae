//! An upstream that answers at once: what is left is the way.

use std::net::Ipv4Addr;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

/// The name of its model.
pub(super) const MODEL: &str = "instant";

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

async fn chat(_body: axum::body::Bytes) -> Response {
    let chunk = |choices: serde_json::Value, usage: serde_json::Value| {
        let mut chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": choices,
        });
        if !usage.is_null() {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    };
    let words = ["Mills ", "grind ", "grain ", "slowly."];
    let mut events = String::new();
    for (index, word) in words.iter().enumerate() {
        let delta = if index == 0 {
            json!({ "role": "assistant", "content": word })
        } else {
            json!({ "content": word })
        };
        events += &chunk(
            json!([{ "index": 0, "delta": delta, "finish_reason": null }]),
            json!(null),
        );
    }
    events += &chunk(
        json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]),
        json!(null),
    );
    events += &chunk(
        json!([]),
        json!({ "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13 }),
    );
    events += "data: [DONE]\n\n";
    ([(CONTENT_TYPE, "text/event-stream")], events).into_response()
}
