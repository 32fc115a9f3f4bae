//! Extractors for calls that an account signed: nothing of such a call is looked at before its token is checked.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Uri, header};
use futures::StreamExt as _;
use gristmill_protocol::coordinator_api::CALL_BODY_MAX_BYTES;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::tokens::Call;
use serde::de::DeserializeOwned;

use crate::core::authentication::bearer_token;
use crate::core::rejection::Rejection;
use crate::service::Service;

/// How much of an oversize body is read and thrown away, so that the caller reads our answer rather than a
/// broken connection.
const DISCARDED_MAX_BYTES: usize = 7 * CALL_BODY_MAX_BYTES;

/// A call whose token holds.
pub(crate) struct SignedCall {
    /// Who calls.
    pub(crate) account: AccountId,
    /// What was sent along.
    pub(crate) body: Bytes,
}

impl SignedCall {
    /// Reads a call with a body of at most so many bytes.
    pub(crate) async fn with_body_of(
        request: Request,
        service: &Arc<Service>,
        body_max_bytes: usize,
    ) -> Result<Self, Rejection> {
        let (parts, body) = request.into_parts();
        let authorization = parts
            .headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes());
        // A caller without any token can't make us read a body.
        bearer_token(authorization)?;
        let body = read_body(&parts, body, body_max_bytes).await?;
        let path = path_and_query(&parts.uri);
        let call = Call {
            method: parts.method.as_str(),
            path,
            body: &body,
        };
        let account = service.authenticate(call, authorization)?;
        tracing::Span::current().record("account", tracing::field::display(&account));
        Ok(Self { account, body })
    }
}

impl FromRequest<Arc<Service>> for SignedCall {
    type Rejection = Rejection;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, Rejection> {
        Self::with_body_of(request, service, CALL_BODY_MAX_BYTES).await
    }
}

/// A signed call with a JSON body.
pub(crate) struct SignedJson<T> {
    /// Who calls.
    pub(crate) account: AccountId,
    /// What was sent along.
    pub(crate) content: T,
}

impl<T: DeserializeOwned> FromRequest<Arc<Service>> for SignedJson<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, service: &Arc<Service>) -> Result<Self, Rejection> {
        let SignedCall { account, body } = SignedCall::from_request(request, service).await?;
        let content = serde_json::from_slice(&body).map_err(|error| {
            Rejection::invalid_request(format!("the body is not the JSON of this call: {error}"))
        })?;
        Ok(Self { account, content })
    }
}

/// A path parameter; what does not parse is answered as JSON too.
pub(crate) struct PathParameter<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for PathParameter<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let axum::extract::Path(value) = axum::extract::Path::from_request_parts(parts, state)
            .await
            .map_err(|error| Rejection::invalid_request(error.body_text()))?;
        Ok(Self(value))
    }
}

/// Query parameters; what does not parse is answered as JSON too.
pub(crate) struct QueryParameters<T>(pub(crate) T);

impl<T, S> FromRequestParts<S> for QueryParameters<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        let axum::extract::Query(value) = axum::extract::Query::from_request_parts(parts, state)
            .await
            .map_err(|error| Rejection::invalid_request(error.body_text()))?;
        Ok(Self(value))
    }
}

fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query()
        .map_or_else(|| uri.path(), |both| both.as_str())
}

async fn read_body(parts: &Parts, body: Body, body_max_bytes: usize) -> Result<Bytes, Rejection> {
    let announced = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > body_max_bytes.saturating_add(DISCARDED_MAX_BYTES)) {
        return Err(Rejection::too_large(body_max_bytes));
    }
    let mut stream = body.into_data_stream();
    let mut collected = Vec::with_capacity(announced.unwrap_or(0).min(CALL_BODY_MAX_BYTES));
    let mut received_bytes = 0;
    while let Some(part) = stream.next().await {
        let part =
            part.map_err(|_| Rejection::invalid_request("the body ended before its announced length"))?;
        received_bytes += part.len();
        if received_bytes > body_max_bytes.saturating_add(DISCARDED_MAX_BYTES) {
            break;
        }
        if received_bytes <= body_max_bytes {
            collected.extend_from_slice(&part);
        }
    }
    if received_bytes > body_max_bytes {
        return Err(Rejection::too_large(body_max_bytes));
    }
    Ok(collected.into())
}
