//! One request from its body to its answer, whatever service's form it has.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use bytes::Bytes;
use gristmill_protocol::job::{JobKind, RequestId};
use gristmill_protocol::trace::{TRACE_PARENT_HEADER, TraceParent};

use crate::core::context::RequestContext;
use crate::core::failure::ApiFailure;
use crate::core::idempotency::RequestDigest;
use crate::core::keys::Program;
use crate::core::overrides::{HEADER_PREFIX, RoutingOverrides};
use crate::core::request::ProgramRequest;
use crate::core::translation::messages::failure_json;
use crate::core::translation::{TranslatedRequest, Translation};
use crate::proxy::Proxy;
use crate::proxy::answer::{self, failure_response, json_body};
use crate::proxy::{body, idempotency, passed, priced};

/// What a request is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// An endpoint that offers name.
    Direct(JobKind),
    /// OpenAI's `/v1/responses`.
    Responses,
    /// Anthropic's `/v1/messages`.
    Messages,
}

/// Answers a request, or says why not.
pub(super) async fn answered(proxy: &Proxy, endpoint: Endpoint, request: Request) -> Response {
    match run(proxy, endpoint, request).await {
        Ok(response) => response,
        Err(failure) => failure_response(&failure),
    }
}

async fn run(proxy: &Proxy, endpoint: Endpoint, request: Request) -> Result<Response, ApiFailure> {
    // The layer outside has given every request its id.
    let request_id = request
        .extensions()
        .get::<RequestId>()
        .cloned()
        .ok_or_else(ApiFailure::internal)?;
    let market = &proxy.market;
    let (mut head, body) = request.into_parts();
    // Where no layer has asked who it is, nobody has to say.
    let program = head.extensions.remove::<Program>().unwrap_or_default();
    if let Err(failure) = market.keys.admit(&program) {
        market.usage.metrics().note_rate_limited();
        return Err(failure);
    }
    let key = idempotency::key(&head.headers, market.keys.are_asked_for())?;
    let body = body::read(body, market.settings.body_max_bytes).await?;
    let digest = match key {
        Some(_) => Some(digest(&head.method, head.uri.path(), &head.headers, &body)?),
        None => None,
    };
    let (body, overrides) = overrides(&head.headers, body)?;
    let now_seconds = market.now_ms() / 1_000;
    let (request, translation) = read(endpoint, &head.headers, body, &request_id, now_seconds)?;
    let mut recording = match key.zip(digest) {
        Some((key, digest)) => match proxy.answers.begin(key, digest, &request_id) {
            ControlFlow::Continue(recording) => Some(recording),
            ControlFlow::Break(answered) => return answered,
        },
        None => None,
    };
    let context = RequestContext {
        program,
        trace_parent: trace_parent(&head.headers),
        overrides,
        ..RequestContext::new(request_id.clone())
    };
    let (is_stream, is_passed) = (request.stream, request.kind.is_passed_through());
    let (events, course) = market.begin(request, context)?;
    let answered = if is_passed {
        passed::passed(events, &mut recording).await
    } else if is_stream {
        let (keep_alive, headers_after) = (proxy.keep_alive, proxy.headers_after);
        answer::stream(events, keep_alive, headers_after, translation, &mut recording).await
    } else {
        whole(answer::whole(events).await, translation).map(|json| {
            if let Some(recording) = recording.take() {
                recording.whole(&json);
            }
            json_body(json)
        })
    };
    if let (Err(failure), Some(recording)) = (&answered, recording) {
        recording.failed(failure, &words(endpoint, failure, &request_id));
    }
    let mut response = answered.unwrap_or_else(|failure| failure_response(&failure));
    priced::price(&mut response, &course);
    Ok(response)
}

fn whole(answer: Result<Bytes, ApiFailure>, translation: Translation) -> Result<Bytes, ApiFailure> {
    match answer {
        Ok(json) => translation.whole(json),
        Err(failure) => Err(translation.at_own_field(failure)),
    }
}

/// A failure as the program reads it.
fn words(endpoint: Endpoint, failure: &ApiFailure, request_id: &RequestId) -> String {
    match endpoint {
        Endpoint::Messages => failure_json(failure, Some(request_id)),
        Endpoint::Direct(_) | Endpoint::Responses => failure.to_json(),
    }
}

/// The request that runs, and what becomes of its answer.
fn read(
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: Bytes,
    request_id: &RequestId,
    now_seconds: u64,
) -> Result<(ProgramRequest, Translation), ApiFailure> {
    let translated = match endpoint {
        Endpoint::Direct(kind) => {
            let request = match kind {
                JobKind::AudioTranscriptions => {
                    ProgramRequest::parse_form(kind, content_type(headers), body)?
                }
                _ => ProgramRequest::parse(kind, body)?,
            };
            return Ok((request, Translation::Verbatim));
        }
        Endpoint::Responses => TranslatedRequest::of_responses(&body)?,
        Endpoint::Messages => TranslatedRequest::of_messages(&body)?,
    };
    let translation = match translated.answer {
        Translation::Responses(answer) => {
            Translation::Responses(Box::new(answer.of_request(request_id.clone(), now_seconds)))
        }
        Translation::Messages(answer) => {
            Translation::Messages(Box::new(answer.of_request(request_id.clone())))
        }
        Translation::Verbatim => Translation::Verbatim,
    };
    let request = ProgramRequest::parse(JobKind::ChatCompletions, translated.chat)
        .map_err(|failure| translation.at_own_field(failure))?;
    Ok((request, translation))
}

/// What tells two requests apart.
fn digest(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<RequestDigest, ApiFailure> {
    let overrides: BTreeMap<&str, &[u8]> = headers
        .iter()
        .filter(|(name, _)| name.as_str().starts_with(HEADER_PREFIX))
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    let content_type = content_type(headers);
    let is_form = content_type
        .to_ascii_lowercase()
        .starts_with("multipart/form-data");
    if is_form {
        let canonical = ProgramRequest::canonical_form(content_type, body)?;
        return Ok(RequestDigest::of(method.as_str(), path, &overrides, &canonical));
    }
    Ok(RequestDigest::of(method.as_str(), path, &overrides, body))
}

fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE);
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// What the program says of this request's routing, and the body that goes to a provider.
pub(super) fn overrides(headers: &HeaderMap, body: Bytes) -> Result<(Bytes, RoutingOverrides), ApiFailure> {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()));
    let of_headers = RoutingOverrides::from_headers(headers)?;
    let (body, of_body) = RoutingOverrides::take_from_body(body)?;
    Ok((body, of_headers.and(of_body)?))
}

/// Where the request stands in the program's trace. What is malformed is as good as none: section 4.3 of W3C Trace
/// Context.
fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACE_PARENT_HEADER).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    only.to_str().ok()?.parse().ok()
}
