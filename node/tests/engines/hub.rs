//! Models by name, from a server on loopback that speaks as the Hugging Face hub does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use candle_core::DType;
use gristmill_node::engine::chat::ChatEngine;
use gristmill_node::engine::model_files::{Hub, LoadError};
use serde_json::{Value, json};

use crate::asking::{self, ask, question};
use crate::tiny_models::{self, Family, GgufOptions};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

type Files = Arc<BTreeMap<String, Vec<u8>>>;

/// A hub with one repository, `tiny/model`.
async fn serve(folder: &Path) -> (String, tokio::task::JoinHandle<()>) {
    let files: BTreeMap<String, Vec<u8>> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().to_str().unwrap().to_owned(),
                std::fs::read(path).unwrap(),
            )
        })
        .collect();
    let router = Router::new()
        .route(
            "/api/models/tiny/model/revision/main",
            get(async || axum::Json(json!({"id": "tiny/model", "sha": COMMIT}))),
        )
        .route(
            "/api/models/tiny/model",
            get(async || axum::Json(json!({"id": "tiny/model", "sha": COMMIT}))),
        )
        .route("/api/models/tiny/model/tree/{revision}", get(tree))
        .route("/tiny/model/resolve/{revision}/{file}", get(resolve))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                [("x-error-code", "RepoNotFound")],
                "no such repository",
            )
        })
        .with_state(Arc::new(files));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    (
        endpoint,
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }),
    )
}

async fn tree(State(files): State<Files>) -> axum::Json<Value> {
    let entry = |(name, bytes): (&String, &Vec<u8>)| json!({"type": "file", "oid": "0", "size": bytes.len(), "path": name});
    axum::Json(files.iter().map(entry).collect())
}

async fn resolve(
    method: Method,
    State(files): State<Files>,
    UrlPath((_, file)): UrlPath<(String, String)>,
) -> Response {
    let Some(bytes) = files.get(&file) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let etag = format!("\"{}\"", blake3::hash(bytes).to_hex());
    let mut response = Response::new(if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(bytes.clone())
    });
    let headers = response.headers_mut();
    headers.insert(header::ETAG, HeaderValue::from_str(&etag).unwrap());
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    headers.insert("x-repo-commit", HeaderValue::from_static(COMMIT));
    response
}

#[tokio::test]
async fn a_repository_is_downloaded_once_and_then_found_without_a_network() {
    let folder = tempfile::tempdir().unwrap();
    tiny_models::write_folder(folder.path(), Family::Llama, 5, DType::F32, 2);
    std::fs::write(folder.path().join("pytorch_model.bin"), "of no use here").unwrap();
    let cache = tempfile::tempdir().unwrap();
    let (endpoint, server) = serve(folder.path()).await;
    let hub = Hub::at(&endpoint, cache.path()).unwrap();
    let files = hub.fetch("tiny/model", None).await.unwrap();
    assert_eq!(files.name(), "tiny/model");
    let engine = ChatEngine::from_files(&files, Some(asking::MODEL)).unwrap();
    let answer = async |engine: &ChatEngine| {
        ask(engine, question("hi", json!({"temperature": 0, "max_tokens": 5})))
            .await
            .unwrap()
            .text
    };
    assert_eq!(
        answer(&engine).await,
        answer(&asking::load_chat(folder.path())).await
    );
    let cached: Vec<_> = walk(cache.path())
        .into_iter()
        .filter(|path| path.ends_with("pytorch_model.bin"))
        .collect();
    assert!(cached.is_empty(), "{cached:?}");

    server.abort();
    let _ = server.await;
    let again = hub.fetch("tiny/model", None).await.unwrap();
    assert!(ChatEngine::from_files(&again, None).is_ok());
    let error = hub.fetch("other/model", None).await.err().unwrap();
    assert!(matches!(error, LoadError::Hub { .. }), "{error}");
}

#[tokio::test]
async fn one_gguf_file_of_a_repository_can_be_taken() {
    let folder = tempfile::tempdir().unwrap();
    tiny_models::write_gguf(folder.path(), Family::Qwen2, 5, GgufOptions::default());
    tiny_models::write_gguf(folder.path(), Family::Llama, 5, GgufOptions::default());
    let cache = tempfile::tempdir().unwrap();
    let (endpoint, _server) = serve(folder.path()).await;
    let hub = Hub::at(&endpoint, cache.path()).unwrap();
    let files = hub.fetch("tiny/model", Some("tiny-qwen2.gguf")).await.unwrap();
    assert!(ChatEngine::from_files(&files, None).is_ok());
    assert!(
        !walk(cache.path())
            .iter()
            .any(|path| path.ends_with("tiny-llama.gguf"))
    );
    for (repository, file) in [
        ("tiny/model", None),
        ("tiny/model", Some("none.gguf")),
        ("tiny/none", None),
    ] {
        let error = hub.fetch(repository, file).await.err().unwrap();
        assert!(
            matches!(&error, LoadError::Hub { repository: named, .. } if named == repository),
            "{error}"
        );
    }
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}
