//! What surrounds every request: its id, its time, the guard against web pages, and the key.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use gristmill_protocol::job::RequestId;
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::core::browser_guard::Origins;
use crate::proxy::Proxy;
use crate::proxy::answer::failure_response;
use crate::proxy::priced::BUDGET_ALARM;
use crate::wallet::random_bytes;

/// The id of a request, in and out.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Milliseconds until the answer began.
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");
/// Where Anthropic's clients send their key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Asks whether a page on the internet may call a private address (Private Network Access).
const PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
/// How long a browser may remember what is allowed, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// Gives a request its id: the program's own `x-request-id` where it is a valid one, otherwise a new one. The same id
/// travels to the provider and stands in the receipt.
pub(super) async fn name_request(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let given = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let id: RequestId = given
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| RequestId::from_random(random_bytes()));
    request.extensions_mut().insert(id.clone());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let span = tracing::info_span!("request", request_id = id.as_str(), route);
    let mut response = next.run(request).instrument(span.clone()).await;
    let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), milliseconds, "answering"));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        // An answer that is given again keeps the id under which it was made.
        headers.entry(REQUEST_ID).or_insert(id);
    }
    headers.insert(PROCESSING_MS, HeaderValue::from(milliseconds));
    response
}

/// Serves known `Host` names and listed origins only, and tells browsers what listed origins may do.
pub(super) async fn keep_pages_out(
    State(proxy): State<Arc<Proxy>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let all = |name: HeaderName| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let origins = Origins {
        hosts: all(header::HOST),
        authority: request.uri().authority().map(axum::http::uri::Authority::as_str),
        origins: all(header::ORIGIN),
        fetch_sites: all(FETCH_SITE),
    };
    let origin = match proxy.guard.check(&origins) {
        Ok(origin) => origin.and_then(|origin| HeaderValue::from_str(origin).ok()),
        Err(failure) => {
            tracing::debug!(reason = %failure.message, "request refused");
            return failure_response(&failure);
        }
    };
    let Some(origin) = origin else {
        return next.run(request).await;
    };
    let asks_first = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if asks_first {
        preflight()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("x-request-id, request-id, openai-processing-ms, retry-after, x-should-retry, idempotency-replayed, x-gristmill-cost, x-gristmill-provider, x-gristmill-budget-alarm"),
    );
    response
}

fn preflight() -> Response {
    let headers = [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST"),
        ),
        // The SDKs send a dozen headers of their own; `*` does not cover the key.
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("authorization, content-type, *"),
        ),
        (
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static(PREFLIGHT_SECONDS),
        ),
        (PRIVATE_NETWORK, HeaderValue::from_static("true")),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Asks for a key where there are some, and says who asks. Warns where a budget is nearly used up.
pub(super) async fn ask_for_key(
    State(proxy): State<Arc<Proxy>>,
    mut request: Request,
    next: Next,
) -> Response {
    let market = &proxy.market;
    let program = match market.keys.program(bearer(request.headers())) {
        Ok(program) => program,
        Err(failure) => return failure_response(&failure),
    };
    request.extensions_mut().insert(program);
    let mut response = next.run(request).await;
    if let Some(spent_today) = market.usage.alarming() {
        let spent_today = HeaderValue::from(spent_today.microcredits());
        response.headers_mut().insert(BUDGET_ALARM, spent_today);
    }
    response
}

/// The key that a program shows: as OpenAI's clients do, or as Anthropic's.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return headers.get(API_KEY).map(|key| key.as_bytes().trim_ascii());
    };
    let (scheme, key) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_bearer_headers_only() {
        for (value, expected) in [
            ("Bearer key", Some("key")),
            ("bearer  key ", Some("key")),
            ("Basic key", None),
            ("Bearer", None),
            ("key", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(bearer(&headers), expected.map(str::as_bytes), "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
        let mut headers = HeaderMap::new();
        headers.insert(API_KEY, HeaderValue::from_static("key"));
        assert_eq!(bearer(&headers), Some(&b"key"[..]));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic x"));
        assert_eq!(bearer(&headers), None);
    }
}
