//! The endpoint: translates HTTP, in OpenAI's form and in Anthropic's, to requests on the market and back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use gristmill_protocol::job::JobKind;

use crate::core::browser_guard::BrowserGuard;
use crate::core::failure::ApiFailure;
use crate::market::Market;
use crate::page;
use crate::proxy::answer::failure_response;
use crate::proxy::idempotency::Answers;
use crate::proxy::run::Endpoint;

mod answer;
mod anthropic;
mod body;
mod counting;
mod directory;
mod idempotency;
mod layers;
mod openapi;
mod passed;
mod priced;
mod run;
mod usage;

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
        let direct = |kind| runs(Endpoint::Direct(kind));
        let keyed = Router::new()
            .route("/v1/chat/completions", direct(JobKind::ChatCompletions))
            .route(
                "/v1/chat/completions/input_tokens",
                post(counting::chat_input_tokens),
            )
            .route("/v1/completions", direct(JobKind::Completions))
            .route("/v1/embeddings", direct(JobKind::Embeddings))
            .route("/v1/responses", runs(Endpoint::Responses))
            .route(
                "/v1/responses/input_tokens",
                post(counting::responses_input_tokens),
            )
            .route("/v1/audio/transcriptions", direct(JobKind::AudioTranscriptions))
            .route("/v1/audio/speech", direct(JobKind::AudioSpeech))
            .route("/v1/images/generations", direct(JobKind::ImageGenerations))
            .route("/v1/rerank", direct(JobKind::Rerank))
            .route("/v1/models", get(directory::models))
            .route("/v1/models/{*id}", get(directory::model))
            .route("/v1/providers", get(directory::providers))
            .route("/v1/witness", get(directory::witness))
            .route("/v1/usage", get(usage::report))
            .route("/v1/usage/requests", get(usage::requests))
            .route("/metrics", get(usage::metrics))
            .merge(page::data())
            .layer(from_fn_with_state(proxy.clone(), layers::ask_for_key));
        let anthropic = Router::new()
            .route(
                "/v1/messages",
                // Its own, so that this too is said in Anthropic's words.
                runs(Endpoint::Messages).fallback(method_not_allowed),
            )
            .route(
                "/v1/messages/count_tokens",
                post(counting::messages_count_tokens).fallback(method_not_allowed),
            )
            .layer(from_fn_with_state(proxy.clone(), layers::ask_for_key))
            .layer(from_fn(anthropic::speak));
        Router::new()
            .merge(keyed)
            .merge(anthropic)
            .merge(page::files())
            .route("/openapi.json", get(openapi::document))
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

/// Runs what comes in at an endpoint.
fn runs(endpoint: Endpoint) -> MethodRouter<Arc<Proxy>> {
    post(
        move |State(proxy): State<Arc<Proxy>>, request: Request| async move {
            run::answered(&proxy, endpoint, request).await
        },
    )
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
