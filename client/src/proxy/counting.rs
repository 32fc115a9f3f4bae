//! How many tokens a request has and what it would cost, before it runs. Nobody is asked and nothing is paid.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::routing::affinity::PrefixDigests;
use gristmill_protocol::routing::candidates::fitting;
use serde_json::{Value, json};

use crate::core::failure::ApiFailure;
use crate::core::overrides::RoutingOverrides;
use crate::core::quote::Quote;
use crate::core::request::ProgramRequest;
use crate::core::router::{Asker, Needs, constraints_of};
use crate::core::tokens::estimated_input_tokens;
use crate::core::translation::TranslatedRequest;
use crate::jobs::no_route;
use crate::market::Market;
use crate::proxy::answer::failure_response;
use crate::proxy::directory::json_response;
use crate::proxy::{Proxy, body, run};
use crate::wallet::lock;

/// `POST /v1/chat/completions/input_tokens`: a count and a quote.
pub(super) async fn chat_input_tokens(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let quote = async {
        let (head, body) = request.into_parts();
        let body = body::read(body, proxy.market.settings.body_max_bytes).await?;
        let (body, overrides) = run::overrides(&head.headers, body)?;
        quote(&proxy.market, body, &overrides)
    };
    match quote.await {
        Ok(quote) => json_response(&quote),
        Err(failure) => failure_response(&failure),
    }
}

/// The quote for a chat, or the failure with which it would end at once.
fn quote(market: &Market, body: Bytes, overrides: &RoutingOverrides) -> Result<Quote, ApiFailure> {
    let request = ProgramRequest::parse(JobKind::ChatCompletions, body)?;
    let input_tokens = estimate(&request.body)?;
    let constraints = constraints_of(overrides, market.settings.max_price_per_million)
        .map_err(|conflict| ApiFailure::invalid_request(conflict.to_string()))?;
    let Some(terms) = market.link.terms() else {
        return Err(ApiFailure::coordinator_unavailable("it has not answered yet"));
    };
    let needs = Needs {
        kind: request.kind,
        model: &request.model,
        capabilities: &request.needs,
        body_bytes: request.body.len() as u64,
        output_tokens_max: request.output_tokens_max,
        choices: request.choices,
        context_length_above: 0,
        constraints: &constraints,
        prefix: &PrefixDigests::default(),
    };
    let nobody = BTreeSet::new();
    let asker = Asker {
        account: market.account,
        coordinator: terms.coordinator,
        tried: &nobody,
        funded: &nobody,
    };
    let (now_ms, assumed) = (market.now_ms(), market.settings.output_tokens_assumed);
    let records = lock(&market.records);
    market
        .mesh
        .with_board(|board| {
            let candidates = fitting(board, &needs, &asker, &records, now_ms)?;
            Ok(Quote::of(&request, input_tokens, &candidates, assumed))
        })
        .map_err(|none| no_route(none, &request, &constraints))
}

/// `POST /v1/responses/input_tokens`.
pub(super) async fn responses_input_tokens(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let counted = async {
        let body = read(&proxy, request).await?;
        estimate(&TranslatedRequest::of_responses(&body)?.chat)
    };
    answered(
        counted.await,
        |tokens| json!({"object": "response.input_tokens", "input_tokens": tokens}),
    )
}

/// `POST /v1/messages/count_tokens`.
pub(super) async fn messages_count_tokens(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let counted = async {
        let body = read(&proxy, request).await?;
        estimate(&TranslatedRequest::of_messages_to_count(&body)?.chat)
    };
    answered(counted.await, |tokens| json!({"input_tokens": tokens}))
}

async fn read(proxy: &Proxy, request: Request) -> Result<Bytes, ApiFailure> {
    body::read(request.into_body(), proxy.market.settings.body_max_bytes).await
}

fn estimate(chat: &[u8]) -> Result<u64, ApiFailure> {
    let chat: Value = serde_json::from_slice(chat).map_err(|_| ApiFailure::internal())?;
    Ok(estimated_input_tokens(&chat))
}

fn answered(counted: Result<u64, ApiFailure>, answer: impl FnOnce(u64) -> Value) -> Response {
    match counted {
        Ok(tokens) => json_response(&answer(tokens)),
        Err(failure) => failure_response(&failure),
    }
}
