//! The OpenAI endpoint: translates HTTP to requests on the market and back.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::HeaderMap;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use gristmill_protocol::job::{JobKind, RequestId};
use gristmill_protocol::trace::{TRACE_PARENT_HEADER, TraceParent};

use crate::core::browser_guard::BrowserGuard;
use crate::core::context::RequestContext;
use crate::core::failure::ApiFailure;
use crate::core::idempotency::RequestDigest;
use crate::core::request::ProgramRequest;
use crate::market::Market;
use crate::proxy::answer::{failure_response, json_body};
use crate::proxy::idempotency::Answers;

mod answer;
mod body;
mod directory;
mod idempotency;
mod layers;
pub(crate) mod listener;

/// How long a stream may be silent before it gets a comment.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long after its acceptance a job may take before the program gets its headers without a first output.
const HEADERS_AFTER: Duration = Duration::from_secs(10);

/// The endpoint's part of the client.
pub(crate) struct Proxy {
    pub(crate) market: Arc<Market>,
    pub(crate) guard: BrowserGuard,
    answers: Arc<Answers>,
    keep_alive: Duration,
    headers_after: Duration,
}

impl Proxy {
    /// For an endpoint at an address.
    pub(crate) fn new(market: Arc<Market>, listen: SocketAddr) -> Self {
        let settings = &market.settings;
        let guard = BrowserGuard::new(listen, &settings.allowed_hosts, &settings.allowed_origins);
        Self {
            market,
            guard,
            answers: Arc::default(),
            keep_alive: KEEP_ALIVE,
            headers_after: HEADERS_AFTER,
        }
    }

    /// The routes with everything around them.
    pub(crate) fn routes(self) -> Router {
        let proxy = Arc::new(self);
        let keyed = Router::new()
            .route("/v1/chat/completions", post(chat_completions))
            .route("/v1/embeddings", post(embeddings))
            .route("/v1/models", get(directory::models))
            .route("/v1/models/{*id}", get(directory::model))
            .route("/v1/witness", get(directory::witness))
            .layer(from_fn_with_state(proxy.clone(), layers::ask_for_key));
        Router::new()
            .merge(keyed)
            .route("/healthz", get(directory::health))
            .route("/readyz", get(directory::readiness))
            .fallback(unknown_route)
            .method_not_allowed_fallback(method_not_allowed)
            // Bodies are read by `body::read`, which answers what is too large as programs expect it.
            .layer(DefaultBodyLimit::disable())
            .layer(from_fn_with_state(proxy.clone(), layers::keep_pages_out))
            .layer(from_fn(layers::name_request))
            .with_state(proxy)
    }
}

async fn chat_completions(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    answered(&proxy, JobKind::ChatCompletions, request).await
}

async fn embeddings(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    answered(&proxy, JobKind::Embeddings, request).await
}

async fn answered(proxy: &Proxy, kind: JobKind, request: Request) -> Response {
    match run(proxy, kind, request).await {
        Ok(response) => response,
        Err(failure) => failure_response(&failure),
    }
}

async fn run(proxy: &Proxy, kind: JobKind, request: Request) -> Result<Response, ApiFailure> {
    // The layer outside has given every request its id.
    let request_id = request
        .extensions()
        .get::<RequestId>()
        .cloned()
        .ok_or_else(ApiFailure::internal)?;
    let settings = &proxy.market.settings;
    let (head, body) = request.into_parts();
    let key = idempotency::key(&head.headers, !settings.api_keys.is_empty())?;
    let body = body::read(body, settings.body_max_bytes).await?;
    let digest = key.map(|_| RequestDigest::of(head.method.as_str(), head.uri.path(), &body));
    let request = ProgramRequest::parse(kind, body)?;
    let mut recording = match key.zip(digest) {
        Some((key, digest)) => match proxy.answers.begin(key, digest, &request_id) {
            ControlFlow::Continue(recording) => Some(recording),
            ControlFlow::Break(answered) => return answered,
        },
        None => None,
    };
    let context = RequestContext {
        trace_parent: trace_parent(&head.headers),
        ..RequestContext::new(request_id)
    };
    let is_stream = request.stream;
    let events = proxy.market.begin(request, context)?;
    let answered = if is_stream {
        answer::stream(events, proxy.keep_alive, proxy.headers_after, &mut recording).await
    } else {
        answer::whole(events).await.map(|json| {
            if let Some(recording) = recording.take() {
                recording.whole(&json);
            }
            json_body(json)
        })
    };
    if let (Err(failure), Some(recording)) = (&answered, recording) {
        recording.failed(failure);
    }
    answered
}

/// Where the request stands in the program's trace. What is malformed is as good as none: section 4.3 of W3C Trace
/// Context.
fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACE_PARENT_HEADER).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    only.to_str().ok()?.parse().ok()
}

async fn unknown_route(request: Request) -> Response {
    failure_response(&ApiFailure::unknown_route(
        request.method().as_str(),
        request.uri().path(),
    ))
}

async fn method_not_allowed(request: Request) -> Response {
    failure_response(&ApiFailure::method_not_allowed(request.method().as_str()))
}
