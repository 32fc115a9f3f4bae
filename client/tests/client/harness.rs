//! A market on loopback: a real coordinator, a real client, and providers that do as they are told.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gristmill_client::{Client, RunningClient, Settings};
use gristmill_coordinator::{Coordinator, RunningCoordinator};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::session::consumer::ConsumerTimeouts;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::provider::{Script, Setup, TestProvider};

/// How long a test waits for what has to come: far longer than it takes on any machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

pub struct Market {
    pub coordinator_directory: TempDir,
    pub client_directory: TempDir,
    pub coordinator: RunningCoordinator,
    pub client: RunningClient,
    pub http: reqwest::Client,
}

/// A free port that stays free while a coordinator is away: the system gives those below its ephemeral ones (from 32,768
/// on Linux) to nobody by itself.
pub fn steady_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 2_000).unwrap_or(0) * 10;
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 22_000)
        .take(22_000)
        .find(is_free)
        .expect("one of so many ports is free")
}

pub fn coordinator_settings(starter_grant: Credits) -> gristmill_coordinator::Settings {
    gristmill_coordinator::Settings {
        http_listen: ([127, 0, 0, 1], steady_port()).into(),
        mesh_listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()],
        starter_grant,
        ..gristmill_coordinator::Settings::default()
    }
}

pub async fn start_coordinator(starter_grant: Credits, directory: &Path) -> RunningCoordinator {
    Coordinator::start(
        coordinator_settings(starter_grant),
        directory,
        CancellationToken::new(),
    )
    .await
    .unwrap()
}

pub fn client_settings(coordinator: &str) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        coordinator: coordinator.to_owned(),
        mesh_listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()],
        job_timeouts: ConsumerTimeouts {
            answer_ms: 10_000,
            ..ConsumerTimeouts::default()
        },
        ..Settings::default()
    }
}

pub async fn start_client(settings: Settings, directory: &Path) -> RunningClient {
    Client::start(settings, directory, CancellationToken::new())
        .await
        .unwrap()
}

/// Five credits to begin with.
pub const STARTER: Credits = Credits::micro(5_000_000);

impl Market {
    pub async fn start() -> Self {
        Self::start_with(STARTER, |settings| settings).await
    }

    pub async fn start_with(starter_grant: Credits, change: impl FnOnce(Settings) -> Settings) -> Self {
        let coordinator_directory = tempfile::tempdir().unwrap();
        let client_directory = tempfile::tempdir().unwrap();
        let coordinator = start_coordinator(starter_grant, coordinator_directory.path()).await;
        let settings = change(client_settings(&coordinator.http_url()));
        let client = start_client(settings, client_directory.path()).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            coordinator_directory,
            client_directory,
            coordinator,
            client,
            http,
        }
    }

    /// A provider that the client has heard of.
    pub async fn provider(&self, setup: Setup, script: Script) -> TestProvider {
        let bootstrap = self.coordinator.bootstrap_addresses();
        let provider = TestProvider::start(setup, self.coordinator.account(), &bootstrap, script).await;
        self.client.mesh().learn_listing(&provider.sealed).unwrap();
        provider
    }

    pub fn address(&self) -> SocketAddr {
        self.client.http_address()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let response = self.http.post(self.url(path)).json(body).send().await.unwrap();
        Answer::read(response).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::read(self.http.get(self.url(path)).send().await.unwrap()).await
    }

    pub async fn chat(&self, fields: Value) -> Answer {
        self.post("/v1/chat/completions", &chat_body(fields)).await
    }

    /// What the account has, in microcredits: available and held.
    pub async fn balance(&self) -> (u64, u64) {
        let view = self.client.balance().await.unwrap();
        (view.available.microcredits(), view.held.microcredits())
    }
}

/// A JSON object with more fields, or others.
pub fn with(mut object: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else {
        panic!("no fields: {fields}")
    };
    object.as_object_mut().unwrap().extend(fields);
    object
}

/// A chat request with more fields.
pub fn chat_body(fields: Value) -> Value {
    with(
        json!({"model": "guide", "messages": [{"role": "user", "content": "What is Gristmill?"}]}),
        fields,
    )
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self {
            status,
            headers,
            text: response.text().await.unwrap(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The status and the error's code, after checking that it is an error as programs expect it.
    pub fn error(&self) -> (u16, String) {
        let body = self.json();
        let error = body["error"]
            .as_object()
            .unwrap_or_else(|| panic!("no error: {}", self.text));
        assert!(
            error["message"].is_string() && error["type"].is_string(),
            "{body}"
        );
        assert!(error["param"].is_string() || error["param"].is_null(), "{body}");
        assert_eq!(self.header("content-type"), "application/json");
        assert!(!self.header("x-request-id").is_empty() && !self.header("openai-processing-ms").is_empty());
        (self.status, error["code"].as_str().unwrap().to_owned())
    }

    /// The data of every event of a stream, after checking that it is one.
    pub fn events(&self) -> Vec<String> {
        events(self.stream())
    }

    /// The chunks of a stream, without its `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop().as_deref(), Some("[DONE]"));
        events
            .iter()
            .map(|event| serde_json::from_str(event).unwrap())
            .collect()
    }

    /// The data of every event of a stream whose events have names, which are checked. `comment` may stand before one.
    pub fn named_events(&self, comment: &str) -> Vec<Value> {
        let stream = self.stream();
        assert!(stream.ends_with("\n\n"));
        let read = |block: &str| {
            let (name, data) = block.trim_start_matches(comment).split_once('\n').unwrap();
            let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(name.strip_prefix("event: "), data["type"].as_str());
            data
        };
        stream.split_terminator("\n\n").map(read).collect()
    }

    /// The text, after checking that it is said to be a stream.
    fn stream(&self) -> &str {
        assert_eq!(
            self.header("content-type"),
            "text/event-stream; charset=utf-8",
            "{}",
            self.text
        );
        &self.text
    }
}

/// The names of events that have some.
pub fn names(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect()
}

/// The data of every event, each of which is one `data:` line and a blank one; comments stand before them.
pub fn events(text: &str) -> Vec<String> {
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let data = |block: &str| {
        let mut lines = block.split('\n').filter(|line| *line != ": ping");
        let data = lines
            .next()
            .and_then(|line| line.strip_prefix("data: "))
            .map(str::to_owned);
        assert!(data.is_some() && lines.next().is_none(), "{block}");
        data.unwrap()
    };
    text.split_terminator("\n\n").map(data).collect()
}
