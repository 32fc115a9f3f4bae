//! Every kind of job from a program to a server behind a node and back, through a whole market on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gristmill_client::server::{Client, RunningClient};
use gristmill_coordinator::{Coordinator, RunningCoordinator};
use gristmill_node::daemon::{Node, RunningNode};
use gristmill_node::settings::{HardwareSettings, LocalApi, MeshListen, Settings, Upstreams};
use gristmill_protocol::credits::Credits;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const FREE_MESH_PORT: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const MODELS: [&str; 5] = ["m", "m-whisper", "m-tts", "m-sdxl", "m-rerank"];
const SOUND: &[u8] = b"ID3\0\xff\r\n\r\n\xfe";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server behind the node was asked: path, headers and body.
type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

async fn models() -> Json<Value> {
    let model = |id| json!({"id": id, "object": "model", "owned_by": "vllm", "max_model_len": 4_096});
    Json(json!({"object": "list", "data": MODELS.map(model)}))
}

async fn answer(State(seen): State<Seen>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    if headers.get("x-request-id").is_some_and(|id| id != "trial") {
        seen.lock().unwrap().push((path.clone(), headers, body));
    }
    match path.as_str() {
        "/v1/audio/speech" => ([(CONTENT_TYPE, "audio/mpeg")], SOUND).into_response(),
        "/v1/audio/transcriptions" => Json(json!({"text": "hello"})).into_response(),
        "/v1/images/generations" => {
            Json(json!({"created": 1, "data": [{"b64_json": "iVBO"}]})).into_response()
        }
        "/v1/rerank" => Json(json!({"results": [{"index": 0, "relevance_score": 0.5}]})).into_response(),
        "/v1/completions" => stream(&json!({"index": 0, "text": "Hi", "finish_reason": "stop"})),
        _ => stream(&json!({"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"})),
    }
}

fn stream(choice: &Value) -> Response {
    let usage = json!({"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3});
    let chunk = json!({"id": "up", "choices": [choice], "usage": usage});
    let text = format!("data: {chunk}\n\ndata: [DONE]\n\n");
    ([(CONTENT_TYPE, "text/event-stream")], text).into_response()
}

async fn start_server(seen: &Seen) -> SocketAddr {
    let router = Router::new()
        .route("/v1/models", get(models))
        .fallback(post(answer))
        .with_state(Arc::clone(seen));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn start_market(folder: &Path, server: SocketAddr) -> (RunningCoordinator, RunningNode, RunningClient) {
    let settings = gristmill_coordinator::Settings {
        http_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        mesh_listen: vec![FREE_MESH_PORT.into()],
        starter_grant: Credits::micro(5_000_000),
        ..Default::default()
    };
    let stop = CancellationToken::new;
    let coordinator = Coordinator::start(settings, &folder.join("coordinator"), stop())
        .await
        .unwrap();
    let settings = Settings {
        coordinator: coordinator.http_url(),
        mesh_listen: MeshListen::At(vec![FREE_MESH_PORT.parse().unwrap()]),
        upstreams: Upstreams {
            discover: false,
            urls: vec![format!("http://{server}").parse().unwrap()],
            ..Settings::default().upstreams
        },
        local_api: LocalApi::Off,
        hardware: HardwareSettings {
            enabled: false,
            ..HardwareSettings::default()
        },
        ..Settings::default()
    };
    let node = Box::pin(Node::start(settings, &folder.join("node"), Vec::new(), stop()))
        .await
        .unwrap();
    let settings = gristmill_client::settings::Settings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        coordinator: coordinator.http_url(),
        mesh_listen: vec![FREE_MESH_PORT.into()],
        ..Default::default()
    };
    let client = Box::pin(Client::start(settings, &folder.join("client"), stop()))
        .await
        .unwrap();
    (coordinator, node, client)
}

/// Waits until the market has heard of every model.
async fn until_listed(http: &reqwest::Client, base: &str) {
    loop {
        let listed: Value = http
            .get(format!("{base}/models"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let names = listed["data"].as_array().map_or(0, Vec::len);
        if names == MODELS.len() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn form() -> Vec<u8> {
    let head = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm-whisper\r\n";
    let file = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\0\xff\r\n--b--\r\n";
    [head.as_bytes(), file].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_job_goes_from_a_program_to_a_server_behind_a_node_and_back() {
    let test = async {
        let (folder, seen) = (tempfile::tempdir().unwrap(), Seen::default());
        let server = start_server(&seen).await;
        let (coordinator, node, client) = start_market(folder.path(), server).await;
        let (http, base) = (reqwest::Client::new(), client.base_url());
        until_listed(&http, &base).await;
        let json_type = "application/json";
        let form_type = "multipart/form-data; boundary=b";
        let spoken = "{ \"model\": \"m-tts\", \"input\": \"Grüße\", \"voice\": \"a\", \"speed\": 1.50 }";
        for (path, content_type, body, answer_type, says) in [
            (
                "/audio/speech",
                json_type,
                spoken.as_bytes().to_vec(),
                "audio/mpeg",
                "",
            ),
            (
                "/audio/transcriptions",
                form_type,
                form(),
                json_type,
                "\"text\":\"hello\"",
            ),
            (
                "/images/generations",
                json_type,
                b"{\"model\":\"m-sdxl\",\"prompt\":\"a mill\"}".to_vec(),
                json_type,
                "iVBO",
            ),
            (
                "/rerank",
                json_type,
                b"{\"model\":\"m-rerank\",\"query\":\"q\",\"documents\":[\"a\"]}".to_vec(),
                json_type,
                "relevance_score",
            ),
            (
                "/completions",
                json_type,
                b"{\"model\":\"m\",\"prompt\":\"Say\",\"max_tokens\":4}".to_vec(),
                json_type,
                "\"text\":\"Hi\"",
            ),
            (
                "/chat/completions",
                json_type,
                b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}".to_vec(),
                json_type,
                "\"content\":\"Hi\"",
            ),
        ] {
            let asked = http
                .post(format!("{base}{path}"))
                .header(CONTENT_TYPE, content_type)
                .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
                .body(body.clone());
            let answer = asked.send().await.unwrap();
            let (status, headers) = (answer.status(), answer.headers().clone());
            let bytes = answer.bytes().await.unwrap();
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!(status, 200, "{path}: {text}");
            assert!(
                headers[CONTENT_TYPE].to_str().unwrap().starts_with(answer_type),
                "{path}"
            );
            assert!(text.contains(says), "{path}: {text}");
            let (asked_path, sent, sent_body) = seen.lock().unwrap().pop().expect(path);
            assert_eq!(asked_path, format!("/v1{path}"));
            if answer_type == "audio/mpeg" {
                assert_eq!(bytes, SOUND);
            }
            if !path.ends_with("completions") {
                assert_eq!(
                    (sent_body, &sent[CONTENT_TYPE]),
                    (body.into(), &content_type.parse().unwrap())
                );
            }
            assert_eq!(sent["x-request-id"], headers["x-request-id"], "{path}");
            let position = sent["traceparent"].to_str().unwrap();
            assert!(
                position.contains(TRACE) && !position.contains("b7ad6b7169203331"),
                "{position}"
            );
        }
        client.shutdown().await.unwrap();
        node.shutdown().await.unwrap();
        coordinator.shutdown().await.unwrap();
    };
    Box::pin(tokio::time::timeout(PATIENCE, test))
        .await
        .expect("a minute is more than enough");
}
