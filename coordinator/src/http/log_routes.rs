//! The public side of the Merkle log, as C2SP tlog-tiles lays it out, and cosignatures. What everybody may read can be
//! cached by anybody, and read by any web page.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use gristmill_protocol::coordinator_api::{CosignatureAnswer, CosignatureRequest, ErrorBody, ReceiptView};

use super::signed_call::{PathParameter, SignedCall, SignedJson};
use crate::core::rejection::Rejection;
use crate::service::Service;

type Answer<T> = Result<Json<T>, Rejection>;

const TEXT: &str = "text/plain; charset=utf-8";
const BYTES: &str = "application/octet-stream";
/// A new checkpoint comes several times a second while there are entries.
const A_MOMENT: &str = "public, max-age=1";
/// A tile never changes.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Partial tiles do not change either, but nobody asks for one again once it is full.
const FOR_AN_HOUR: &str = "public, max-age=3600, immutable";
/// What is not there may come any moment; what an auditor reads is nobody else's business.
const NEVER: &str = "no-store";

/// The newest checkpoint: a note signed by the coordinator, with the cosignatures of witnesses (C2SP tlog-checkpoint).
#[utoipa::path(get, path = "/log/checkpoint", tag = "log", responses(
    (status = 200, description = "A C2SP signed note", body = String, content_type = "text/plain"),
    (status = 304, description = "Still the one that the caller has"),
    (status = 404, description = "No checkpoint yet", body = ErrorBody),
    (status = "default", description = "Any other failure", body = ErrorBody)
))]
pub(super) async fn log_checkpoint(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let note = service.checkpoint().map(String::into_bytes);
    public(note.map(|note| cacheable(&headers, note, TEXT, A_MOMENT)))
}

/// A tile of hashes: up to 256 hashes of 32 bytes (C2SP tlog-tiles). The index has slashes in it where it is over 999,
/// and ends with `.p/` and a width where the tile is partial, as in `x001/067.p/8`.
#[utoipa::path(get, path = "/log/tile/{level}/{index}", tag = "log",
    params(
        ("level" = String, Path, description = "0 to 63"),
        ("index" = String, Path, description = "The index as C2SP tlog-tiles writes it")
    ),
    responses(
        (status = 200, description = "The hashes", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "The caller has it"),
        (status = 404, description = "The log has no such tile", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn log_tile(
    State(service): State<Arc<Service>>,
    PathParameter((level, index)): PathParameter<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let keep = if index.contains(".p/") {
        FOR_AN_HOUR
    } else {
        FOR_EVER
    };
    let tile = service.tile(&format!("tile/{level}/{index}")).await;
    public(tile.map(|bytes| cacheable(&headers, bytes, BYTES, keep)))
}

/// The entries behind a tile of level 0, for auditors with a key from the operator: each after its length in two
/// bytes, big-endian (C2SP tlog-tiles). The index is as for tiles.
#[utoipa::path(get, path = "/log/tile/entries/{index}", tag = "log", security(("auditor_key" = [])),
    params(("index" = String, Path, description = "The index as C2SP tlog-tiles writes it")),
    responses(
        (status = 200, description = "The entries", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 401, description = "No auditor's key", body = ErrorBody),
        (status = 404, description = "The log has no such bundle", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn log_entries(
    State(service): State<Arc<Service>>,
    PathParameter(index): PathParameter<String>,
    headers: HeaderMap,
) -> Response {
    let authorization = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let entries = service
        .entry_bundle(&format!("tile/entries/{index}"), authorization)
        .await;
    let mut response = match entries {
        Ok(bytes) => ([(CONTENT_TYPE, BYTES)], bytes).into_response(),
        Err(rejection) => rejection.into_response(),
    };
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static(NEVER));
    response
}

/// Hands in the caller's cosignature of a checkpoint of the last seconds. It is served with the checkpoint.
#[utoipa::path(post, path = "/v1/cosignatures", tag = "log", security(("caller_token" = [])),
    request_body = CosignatureRequest,
    responses(
        (status = 200, body = CosignatureAnswer),
        (status = 400, description = "Not the caller's valid cosignature", body = ErrorBody),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 403, description = "The caller is not in the ledger", body = ErrorBody),
        (status = 404, description = "Not a checkpoint of the last seconds", body = ErrorBody),
        (status = 429, description = "The checkpoint has all the cosignatures that are kept", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn cosign(
    State(service): State<Arc<Service>>,
    call: SignedJson<CosignatureRequest>,
) -> Answer<CosignatureAnswer> {
    service.cosign(call.account, call.content).await.map(Json)
}

/// One receipt of the caller, as consumer or provider, with its record's entry in the log and the proof of that.
#[utoipa::path(get, path = "/v1/receipts/{sequence}", tag = "settlements", security(("caller_token" = [])),
    params(("sequence" = u64, Path, description = "The number of the record, as the receipt names it")),
    responses(
        (status = 200, body = ReceiptView),
        (status = 401, description = "No valid caller token", body = ErrorBody),
        (status = 404, description = "No such receipt of the caller", body = ErrorBody),
        (status = "default", description = "Any other failure", body = ErrorBody)
    )
)]
pub(super) async fn receipt(
    State(service): State<Arc<Service>>,
    PathParameter(sequence): PathParameter<u64>,
    call: SignedCall,
) -> Answer<ReceiptView> {
    service.receipt(call.account, sequence).await.map(Json)
}

/// An answer that any web page may read, and whose absence nobody keeps.
fn public(answer: Result<Response, Rejection>) -> Response {
    let mut response = answer.unwrap_or_else(|rejection| {
        let mut response = rejection.into_response();
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static(NEVER));
        response
    });
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("etag"));
    response
}

/// A body, or that the caller has it already.
fn cacheable(asked: &HeaderMap, body: Vec<u8>, content_type: &'static str, keep: &'static str) -> Response {
    let tag = format!("\"{}\"", &blake3::hash(&body).to_hex()[..32]);
    let unchanged = asked
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|tags| matches(tags, &tag));
    let mut response = match unchanged {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(CONTENT_TYPE, content_type)], body).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    response
}

/// Whether a list of entity tags has this one; caches may mark it as weak (RFC 9110 section 13.1.2).
fn matches(tags: &str, tag: &str) -> bool {
    let tags = tags.split(',').map(str::trim);
    tags.map(|given| given.strip_prefix("W/").unwrap_or(given))
        .any(|given| given == tag || given == "*")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entity_tags_are_compared_as_the_standard_says() {
        for (tags, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\" , \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
            ("", false),
        ] {
            assert_eq!(matches(tags, "\"a\""), expected, "{tags}");
        }
    }

    #[test]
    fn the_same_again_is_not_sent_again() {
        let first = cacheable(&HeaderMap::new(), b"tile".to_vec(), BYTES, FOR_EVER);
        assert_eq!(first.status(), StatusCode::OK);
        let mut asked = HeaderMap::new();
        asked.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        let again = cacheable(&asked, b"tile".to_vec(), BYTES, FOR_EVER);
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[ETAG], first.headers()[ETAG]);
        assert_eq!(again.headers()[CACHE_CONTROL], FOR_EVER);
        let other = cacheable(&asked, b"other".to_vec(), BYTES, FOR_EVER);
        assert_eq!(other.status(), StatusCode::OK);
    }
}
