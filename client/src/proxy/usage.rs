//! What requests came to, over HTTP. A program with a key of its own hears of its own requests alone.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::json;

use crate::core::calendar::Day;
use crate::core::failure::ApiFailure;
use crate::core::keys::Program;
use crate::core::usage_report::GroupBy;
use crate::proxy::Proxy;
use crate::proxy::answer::failure_response;
use crate::proxy::directory::json_response;
use crate::usage::RECENT_MAX;

/// How many requests are listed where nobody says.
const LISTED: usize = 100;

/// What `GET /v1/usage` can be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportQuery {
    #[serde(default)]
    by: GroupBy,
    since: Option<Day>,
    key: Option<String>,
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    Csv,
}

/// What `GET /v1/usage/requests` can be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RequestsQuery {
    limit: Option<usize>,
    key: Option<String>,
}

/// The key whose requests are wanted and may be shown.
fn key(program: &Program, wanted: Option<String>) -> Option<String> {
    match program {
        Program::Key { name, .. } => Some(name.as_str().to_owned()),
        Program::Anyone | Program::Owner | Program::Settings => wanted,
    }
}

fn malformed(rejection: &QueryRejection) -> Response {
    failure_response(&ApiFailure::invalid_request(rejection.body_text()))
}

/// `GET /v1/usage?by=day|model|key|provider&since=2026-11-01&key=NAME&format=json|csv`: sums.
pub(super) async fn report(
    State(proxy): State<Arc<Proxy>>,
    Extension(program): Extension<Program>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return malformed(&rejection),
    };
    let key = key(&program, query.key);
    let report = proxy.market.usage.report(query.by, query.since, key.as_deref());
    match query.format {
        Format::Json => json_response(&report),
        Format::Csv => {
            let content_type = HeaderValue::from_static("text/csv; charset=utf-8; header=present");
            ([(header::CONTENT_TYPE, content_type)], report.to_csv()).into_response()
        }
    }
}

/// `GET /v1/usage/requests?limit=100&key=NAME`: the newest requests that are over, the very newest first.
pub(super) async fn requests(
    State(proxy): State<Arc<Proxy>>,
    Extension(program): Extension<Program>,
    query: Result<Query<RequestsQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return malformed(&rejection),
    };
    let limit = query.limit.unwrap_or(LISTED).min(RECENT_MAX);
    let recent = proxy
        .market
        .usage
        .recent(limit, key(&program, query.key).as_deref());
    let data: Vec<_> = recent.iter().map(AsRef::as_ref).collect();
    json_response(&json!({"object": "list", "data": data}))
}

/// `GET /metrics`, for Prometheus.
pub(super) async fn metrics(State(proxy): State<Arc<Proxy>>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let market = &proxy.market;
    let (content_type, text) = market.usage.metrics().text(market, accept);
    (
        [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))],
        text,
    )
        .into_response()
}
