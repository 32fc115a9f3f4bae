//! Upstreams that can continue an answer, that can't, and that only say so.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use gristmill_node::engine::Engine as _;
use gristmill_node::engine::upstream::{AllowedHosts, UpstreamEngine};
use gristmill_node::settings::UpstreamModelSetting;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use serde_json::{Value, json};

use crate::market::within_a_minute;
use crate::upstream_servers::{list, serve};

const LATER_MS: u64 = 24 * 60 * 60 * 1_000;

/// What a server does with a partial answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Writes on.
    Continues,
    /// Takes the fields, and starts anew.
    StartsAnew,
    /// Writes on, but repeats what it was given first.
    Repeats,
    /// Guesses the next word, without the blank before it.
    LosesTheBlank,
    /// Thinks again first.
    ThinksAgain,
    /// Does not know the fields.
    Refuses,
    /// Is still loading, and continues later.
    Loads,
}

struct Fake {
    manner: Mutex<Manner>,
    takes_tools: bool,
    is_there: AtomicBool,
    asked: AtomicUsize,
}

impl Fake {
    fn new(manner: Manner, takes_tools: bool) -> Arc<Self> {
        Arc::new(Self {
            manner: Mutex::new(manner),
            takes_tools,
            is_there: AtomicBool::new(true),
            asked: AtomicUsize::new(0),
        })
    }

    async fn engine(self: &Arc<Self>) -> UpstreamEngine {
        let router = Router::new()
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(chat))
            .with_state(Arc::clone(self));
        let (url, _) = serve(router).await;
        UpstreamEngine::new(url, &AllowedHosts::default()).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn models(State(fake): State<Arc<Fake>>) -> Response {
    if fake.is_there.load(Ordering::SeqCst) {
        Json(list(&["m"], "vllm")).into_response()
    } else {
        StatusCode::NOT_FOUND.into_response()
    }
}

async fn chat(State(fake): State<Arc<Fake>>, Json(body): Json<Value>) -> Response {
    fake.asked.fetch_add(1, Ordering::SeqCst);
    let refuse = |status: StatusCode| (status, Json(json!({"error": {"message": "no"}}))).into_response();
    if body.get("tools").is_some() {
        return match fake.takes_tools {
            true => stream("content", "Hi"),
            false => refuse(StatusCode::BAD_REQUEST),
        };
    }
    assert_eq!(
        (
            &body["continue_final_message"],
            &body["add_generation_prompt"],
            &body["temperature"]
        ),
        (&json!(true), &json!(false), &json!(0))
    );
    let partial = body["messages"][1]["content"].as_str().unwrap();
    let rest = if partial.ends_with(',') {
        " Wednesday,"
    } else {
        "day,"
    };
    match *fake.manner.lock().unwrap() {
        Manner::Continues => stream("content", rest),
        Manner::StartsAnew => stream("content", "Monday, Tuesday, Wednesday"),
        Manner::Repeats => stream("content", &format!("{partial}{rest}")),
        Manner::LosesTheBlank => stream("content", rest.trim()),
        Manner::ThinksAgain => stream("reasoning_content", rest),
        Manner::Refuses => refuse(StatusCode::BAD_REQUEST),
        Manner::Loads => refuse(StatusCode::SERVICE_UNAVAILABLE),
    }
}

fn stream(field: &str, text: &str) -> Response {
    let chunk = json!({"choices": [{"index": 0, "delta": {field: text}, "finish_reason": "stop"}]});
    let text = format!("data: {chunk}\n\ndata: [DONE]\n\n");
    ([(CONTENT_TYPE, "text/event-stream")], text).into_response()
}

fn chat_capabilities(engine: &UpstreamEngine) -> Vec<Capability> {
    let models = engine.models();
    let chat = models
        .into_iter()
        .find(|model| model.kind == JobKind::ChatCompletions);
    chat.unwrap().capabilities
}

fn continues(engine: &UpstreamEngine) -> bool {
    chat_capabilities(engine).contains(&Capability::Continuation)
}

#[tokio::test]
async fn only_who_writes_on_is_offered_to_continue() {
    within_a_minute(async {
        for (manner, can) in [
            (Manner::Continues, true),
            (Manner::StartsAnew, false),
            (Manner::Repeats, false),
            (Manner::LosesTheBlank, false),
            (Manner::ThinksAgain, false),
            (Manner::Refuses, false),
        ] {
            let fake = Fake::new(manner, false);
            let engine = fake.engine().await;
            assert!(
                engine.refresh().await && !continues(&engine),
                "{manner:?}: nothing is believed untried"
            );
            assert_eq!(engine.try_abilities(0).await, can, "{manner:?}");
            assert_eq!(continues(&engine), can, "{manner:?}");
            let asked = fake.asked();
            engine.refresh().await;
            engine.try_abilities(LATER_MS).await;
            assert_eq!(fake.asked(), asked, "{manner:?} is tried once");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_still_loading_is_tried_again() {
    within_a_minute(async {
        let fake = Fake::new(Manner::Loads, true);
        let engine = fake.engine().await;
        engine.refresh().await;
        assert!(engine.try_abilities(0).await, "tools were taken");
        let capabilities = chat_capabilities(&engine);
        assert!(
            capabilities.contains(&Capability::Tools) && !capabilities.contains(&Capability::Continuation)
        );
        let asked = fake.asked();
        *fake.manner.lock().unwrap() = Manner::Continues;
        engine.try_abilities(1).await;
        assert_eq!(fake.asked(), asked, "not at once");
        assert!(engine.try_abilities(LATER_MS).await && continues(&engine));
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_comes_back_is_tried_again() {
    within_a_minute(async {
        let fake = Fake::new(Manner::Continues, false);
        let engine = fake.engine().await;
        engine.refresh().await;
        engine.try_abilities(0).await;
        assert!(continues(&engine));
        fake.is_there.store(false, Ordering::SeqCst);
        assert!(!engine.refresh().await);
        // It was started otherwise meanwhile.
        *fake.manner.lock().unwrap() = Manner::StartsAnew;
        fake.is_there.store(true, Ordering::SeqCst);
        assert!(engine.refresh().await && !continues(&engine));
        engine.try_abilities(0).await;
        assert!(!continues(&engine));
    })
    .await;
}

#[tokio::test]
async fn what_the_owner_settled_is_not_tried() {
    within_a_minute(async {
        let fake = Fake::new(Manner::Continues, true);
        let setting = UpstreamModelSetting {
            kinds: None,
            added: [Capability::Tools].into(),
            removed: [Capability::Continuation].into(),
        };
        let engine = fake
            .engine()
            .await
            .with_settings(BTreeMap::from([("*".to_owned(), setting)]));
        engine.refresh().await;
        assert!(!engine.try_abilities(0).await);
        assert_eq!(fake.asked(), 0);
        let capabilities = chat_capabilities(&engine);
        assert!(
            capabilities.contains(&Capability::Tools) && !capabilities.contains(&Capability::Continuation)
        );
    })
    .await;
}
