//! What upstreams do that a node must know, each once seen: Ollama's broken streams and short prompts, numbers for
//! error codes, redirects, and answers nobody waits for any more. That a disconnect stops the upstream is in
//! [`crate::jobs`] and [`crate::kinds`], and which addresses are allowed beside the engine itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use gristmill_node::engine::upstream::{AllowedHosts, UpstreamEngine};
use gristmill_node::engine::{Engine as _, EngineError, EngineRequest, RequestBody};
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::Usage;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::market::within_a_minute;
use crate::upstream_servers::{answer, list, serve};

/// An Ollama that counts what it is asked, and answers with these bytes.
fn ollama(text: &'static str, asked: &Arc<AtomicUsize>) -> Router {
    let asked = Arc::clone(asked);
    let reply = move || {
        asked.fetch_add(1, Ordering::SeqCst);
        async move { ([(CONTENT_TYPE, "text/event-stream")], text) }
    };
    Router::new()
        .route("/v1/models", answer(list(&["m"], "library")))
        .route("/api/tags", answer(json!({"models": []})))
        .route("/v1/chat/completions", post(reply.clone()))
        .route("/v1/completions", post(reply.clone()))
        .route("/v1/embeddings", post(reply))
}

async fn ask(router: Router, kind: JobKind, body: Value) -> Result<Usage, EngineError> {
    let (url, _server) = serve(router).await;
    let engine = UpstreamEngine::new(url, &AllowedHosts::default()).unwrap();
    assert!(engine.refresh().await);
    let (sender, mut receiver) = mpsc::channel(64);
    let request = EngineRequest {
        request_id: "req_1".into(),
        kind,
        model: "m".into(),
        body: RequestBody::Json(body),
        trace_parent: None,
    };
    let read = async { while receiver.recv().await.is_some() {} };
    tokio::join!(engine.run(request, sender, CancellationToken::new()), read).0
}

fn chat(content: &str) -> Value {
    json!({"messages": [{"role": "user", "content": content}]})
}

#[tokio::test]
async fn a_broken_stream_of_ollama_is_a_failure_and_no_short_answer() {
    within_a_minute(async {
        let asked = Arc::default();
        let broken = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hel\"}}]}\n\ndata: {\"choices\":[]}\n\n";
        let error = ask(ollama(broken, &asked), JobKind::ChatCompletions, chat("hi"))
            .await
            .unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (502, "provider_failed"));
        assert!(error.message.contains("finish_reason"), "{}", error.message);
        let empty = ask(ollama("", &asked), JobKind::ChatCompletions, chat("hi")).await;
        assert_eq!(empty.unwrap_err().status, 502);
    })
    .await;
}

#[tokio::test]
async fn what_ollama_would_cut_without_a_word_never_reaches_it() {
    within_a_minute(async {
        let asked = Arc::default();
        // 4,096 tokens are assumed; so many bytes are more, however they are cut.
        let long = "x".repeat(8 * 4_097);
        for (kind, body, field) in [
            (JobKind::ChatCompletions, chat(&long), "messages"),
            (JobKind::Completions, json!({"prompt": long}), "prompt"),
        ] {
            let error = ask(ollama("", &asked), kind, body).await.unwrap_err();
            assert_eq!(
                (error.status, error.code.as_str(), error.param.as_deref()),
                (400, "context_length_exceeded", Some(field))
            );
        }
        assert_eq!(asked.load(Ordering::SeqCst), 0);
    })
    .await;
}

#[tokio::test]
async fn numbers_for_error_codes_become_words() {
    within_a_minute(async {
        let refuse = |body: Value| {
            let refuse = move || {
                let body = body.clone();
                async move { (StatusCode::BAD_REQUEST, Json(body)) }
            };
            Router::new()
                .route("/v1/models", answer(list(&["m"], "vllm")))
                .route("/v1/chat/completions", post(refuse))
        };
        let vllm = json!({"error": {"message": "too hot", "type": "BadRequestError", "param": "temperature", "code": 400}});
        let error = ask(refuse(vllm), JobKind::ChatCompletions, chat("hi")).await.unwrap_err();
        assert_eq!(
            (error.status, error.code.as_str(), error.param.as_deref()),
            (400, "BadRequestError", Some("temperature"))
        );
        let numbered = json!({"error": {"message": "no", "code": 4_711}});
        let error = ask(refuse(numbered), JobKind::ChatCompletions, chat("hi")).await.unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (400, "4711"));
    })
    .await;
}

#[tokio::test]
async fn redirects_are_not_followed_even_on_this_machine() {
    within_a_minute(async {
        let reached = Arc::new(AtomicUsize::new(0));
        let (elsewhere, _server) = serve(ollama("", &reached)).await;
        let redirect = move || {
            let there = format!("{elsewhere}v1/chat/completions");
            async move { (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, there)]).into_response() }
        };
        let router = Router::new()
            .route("/v1/models", answer(list(&["m"], "vllm")))
            .route("/v1/chat/completions", post(redirect));
        let error = ask(router, JobKind::ChatCompletions, chat("hi"))
            .await
            .unwrap_err();
        assert_eq!((error.status, error.code.as_str()), (502, "provider_failed"));
        assert_eq!(reached.load(Ordering::SeqCst), 0);
    })
    .await;
}
