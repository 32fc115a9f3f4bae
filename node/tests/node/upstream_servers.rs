//! Upstream servers in their own dialects, found and lost.

use axum::routing::{get, post};
use axum::{Json, Router};
use gristmill_node::engine::Engine as _;
use gristmill_node::engine::upstream::{AllowedHosts, UpstreamEngine, UpstreamKind};
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::market::within_a_minute;

/// Serves routes at a port of its own; gives its address and what ends it.
pub async fn serve(router: Router) -> (reqwest::Url, tokio::task::AbortHandle) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, task.abort_handle())
}

pub fn answer(value: Value) -> axum::routing::MethodRouter {
    get(move || async move { Json(value) })
}

async fn found(router: Router) -> (UpstreamKind, Vec<(String, JobKind, u32)>) {
    let (url, _) = serve(router).await;
    let engine = UpstreamEngine::new(url, &AllowedHosts::default()).unwrap();
    assert!(engine.refresh().await);
    let models = engine.models();
    let passes = models
        .iter()
        .any(|model| model.capabilities.contains(&Capability::Passthrough));
    assert_eq!(
        passes,
        engine.kind() == UpstreamKind::Other,
        "the known ones are known"
    );
    let seen = models
        .into_iter()
        .filter(|model| model.kind != JobKind::Completions)
        .map(|model| (model.name, model.kind, model.context_length));
    (engine.kind(), seen.collect())
}

pub fn list(ids: &[&str], owner: &str) -> Value {
    let models: Vec<_> = ids
        .iter()
        .map(|id| json!({"id": id, "object": "model", "owned_by": owner}))
        .collect();
    json!({"object": "list", "data": models})
}

#[tokio::test]
async fn each_server_is_known_by_what_it_says() {
    within_a_minute(async {
        let show = post(|Json(question): Json<Value>| async move {
            let embeds = question["model"] == "nomic";
            let capability = if embeds { "embedding" } else { "completion" };
            Json(json!({
                "parameters": "num_ctx 8192", "model_info": {"x.context_length": 131_072}, "capabilities": [capability],
            }))
        });
        let ollama = Router::new()
            .route("/v1/models", answer(list(&["llama3.2:3b", "nomic"], "library")))
            .route("/api/tags", answer(json!({"models": []})))
            .route("/api/ps", answer(json!({"models": []})))
            .route("/api/show", show);
        let (kind, models) = found(ollama).await;
        assert_eq!(kind, UpstreamKind::Ollama);
        assert_eq!(models[0], ("llama3.2:3b".into(), JobKind::ChatCompletions, 8_192));
        assert_eq!(models[1], ("nomic".into(), JobKind::Embeddings, 8_192));

        let llama = Router::new()
            .route("/v1/models", answer(list(&["/models/q.gguf"], "llamacpp")))
            .route("/props", answer(json!({"default_generation_settings": {"n_ctx": 1_024}})));
        let (kind, models) = found(llama).await;
        assert_eq!((kind, &models[0]), (UpstreamKind::LlamaCpp, &("q".into(), JobKind::ChatCompletions, 1_024)));

        let studio = json!({"data": [{"id": "m", "type": "llm", "loaded_context_length": 3_000}]});
        let studio = Router::new()
            .route("/v1/models", answer(list(&["m"], "organization_owner")))
            .route("/api/v0/models", answer(studio));
        let (kind, models) = found(studio).await;
        assert_eq!((kind, models[0].2), (UpstreamKind::LmStudio, 3_000));

        let other = Router::new().route("/v1/models", answer(list(&["m"], "me")));
        let (kind, models) = found(other).await;
        assert_eq!((kind, models[0].2), (UpstreamKind::Other, 4_096));
    })
    .await;
}

#[tokio::test]
async fn what_is_no_upstream_is_none_and_one_that_goes_is_gone() {
    within_a_minute(async {
        for router in [
            Router::new(),
            Router::new().route("/v1/models", get(|| async { "hello" })),
            Router::new().route("/v1/models", answer(json!({"models": []}))),
            Router::new().route(
                "/v1/models",
                get(|| async { axum::response::Redirect::temporary("/elsewhere") }),
            ),
        ] {
            let (url, _) = serve(router).await;
            assert!(
                !UpstreamEngine::new(url, &AllowedHosts::default())
                    .unwrap()
                    .refresh()
                    .await
            );
        }
        let (url, _) = serve(Router::new().route("/v1/models", answer(list(&["m"], "gristmill")))).await;
        let proxy = UpstreamEngine::new(url, &AllowedHosts::default()).unwrap();
        assert!(
            proxy.refresh().await && proxy.models().is_empty(),
            "the market is not sold to itself"
        );

        let (url, server) = serve(Router::new().route("/v1/models", answer(list(&["m"], "vllm")))).await;
        let engine = UpstreamEngine::new(url, &AllowedHosts::default()).unwrap();
        assert!(engine.refresh().await && !engine.models().is_empty());
        server.abort();
        while engine.refresh().await {
            tokio::task::yield_now().await;
        }
        assert!(engine.models().is_empty());
    })
    .await;
}
