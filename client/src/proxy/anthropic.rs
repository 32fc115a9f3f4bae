//! Failures at Anthropic's paths in Anthropic's words, wherever they were found: a missing key, a wrong body, no
//! provider.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use gristmill_protocol::job::RequestId;

use crate::core::failure::ApiFailure;
use crate::core::translation::messages::failure_json;

/// Where Anthropic's clients look for the id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Writes the body of a failure anew and names the request.
pub(super) async fn speak(request: Request, next: Next) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let mut response = next.run(request).await;
    if let Some(failure) = response.extensions_mut().remove::<ApiFailure>() {
        *response.body_mut() = failure_json(&failure, id.as_ref()).into();
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let id = id.as_ref().and_then(|id| HeaderValue::from_str(id.as_str()).ok());
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
