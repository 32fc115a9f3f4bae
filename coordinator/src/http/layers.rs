//! What surrounds every call: its id, its span in the logs, its deadline, and how many run at once.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use gristmill_protocol::job::RequestId;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use super::hardware_routes::PROOF_ROUTE;
use crate::core::rejection::Rejection;

/// The header that carries the id of a request, in and out.
pub(crate) const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest that a call is worked on: with its turn, less than callers wait before they try again.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(7);
/// The longest that the upload of a proof is worked on.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that a call waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(2);
/// Most calls that are worked on at once. The others wait; there are at most as many as connections.
pub(crate) const CALLS_AT_ONCE_MAX: usize = 256;

/// Gives the call its id and its span, and writes one line about how it went.
pub(crate) async fn trace_call(mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let header = HeaderValue::from_str(id.as_str()).ok();
    if let Some(header) = &header {
        request.headers_mut().insert(REQUEST_ID_HEADER, header.clone());
    }
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched", MatchedPath::as_str)
        .to_owned();
    let span = tracing::info_span!(
        "call",
        request_id = id.as_str(),
        method = %request.method(),
        route,
        account = tracing::field::Empty
    );
    async move {
        let began = tokio::time::Instant::now();
        let mut response = next.run(request).await;
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let status = response.status();
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), milliseconds, "call failed");
        } else {
            tracing::debug!(status = status.as_u16(), milliseconds, "call answered");
        }
        if let Some(header) = header {
            response.headers_mut().insert(REQUEST_ID_HEADER, header);
        }
        response
    }
    .instrument(span)
    .await
}

/// The caller's id for the request where it is one, otherwise a new one.
fn request_id(headers: &HeaderMap) -> RequestId {
    let given = headers
        .get(REQUEST_ID_HEADER)
        .and_then(|value| value.to_str().ok());
    given.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            tracing::warn!("the system gave no randomness for a request id");
        }
        RequestId::from_random(random)
    })
}

/// Lets a bounded number of calls run at once, each for a bounded time.
pub(crate) async fn bound_call(
    State(turns): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    let Ok(Ok(_turn)) = tokio::time::timeout(TURN_TIMEOUT, turns.acquire()).await else {
        return Rejection::unavailable("the coordinator has too many calls at once; try again soon", 1)
            .into_response();
    };
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let timeout = match route {
        Some(PROOF_ROUTE) => UPLOAD_TIMEOUT,
        _ => CALL_TIMEOUT,
    };
    match tokio::time::timeout(timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Rejection::timed_out().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::middleware::{from_fn, from_fn_with_state};
    use axum::routing::get;
    use tower::ServiceExt as _;

    fn call(id: Option<&str>) -> Request {
        let mut request = Request::new(Body::empty());
        if let Some(id) = id {
            request
                .headers_mut()
                .insert(REQUEST_ID_HEADER, HeaderValue::from_str(id).unwrap());
        }
        request
    }

    #[tokio::test]
    async fn good_request_ids_come_back_and_bad_ones_are_replaced() {
        let router: Router = Router::new()
            .route("/", get(|| async {}))
            .layer(from_fn(trace_call));
        let answer = router.clone().oneshot(call(Some("my-id.1"))).await.unwrap();
        assert_eq!(answer.headers()[REQUEST_ID_HEADER], "my-id.1");
        for bad in [None, Some("a b"), Some("")] {
            let answer = router.clone().oneshot(call(bad)).await.unwrap();
            let id = answer.headers()[REQUEST_ID_HEADER].to_str().unwrap().to_owned();
            assert!(id.starts_with("req_") && id.len() == 36, "{id}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_is_ended_and_one_without_a_turn_is_told_so() {
        let turns = Arc::new(Semaphore::new(1));
        let router: Router = Router::new()
            .route("/", get(std::future::pending::<()>))
            .layer(from_fn_with_state(turns.clone(), bound_call));
        let (first, second) = tokio::join!(router.clone().oneshot(call(None)), router.oneshot(call(None)));
        assert_eq!(first.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(second.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(turns.available_permits(), 1);
    }
}
