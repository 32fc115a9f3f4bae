//! How many tokens a request has and what it would cost, before it runs. Nobody is asked and nothing is paid.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use gristmill_protocol::job::JobKind;
use serde_json::{Value, json};

use crate::core::failure::ApiFailure;
use crate::core::quote::{Asker, Quote};
use crate::core::request::ProgramRequest;
use crate::core::tokens::estimated_input_tokens;
use crate::core::translation::TranslatedRequest;
use crate::proxy::answer::failure_response;
use crate::proxy::directory::json_response;
use crate::proxy::{Proxy, body};

/// `POST /v1/chat/completions/input_tokens`: a count and a quote.
pub(super) async fn chat_input_tokens(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let quote = async {
        let body = read(&proxy, request).await?;
        let request = ProgramRequest::parse(JobKind::ChatCompletions, body)?;
        let input_tokens = estimate(&request.body)?;
        let market = &proxy.market;
        let asker = Asker {
            account: market.account,
            coordinator: market.link.terms().map(|terms| terms.coordinator),
            max_price_per_million: market.settings.max_price_per_million,
            output_tokens_assumed: market.settings.output_tokens_assumed,
        };
        let now_ms = market.now_ms();
        market
            .mesh
            .with_board(|board| Quote::of(&request, input_tokens, board, &asker, now_ms))
    };
    match quote.await {
        Ok(quote) => json_response(&quote),
        Err(failure) => failure_response(&failure),
    }
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
