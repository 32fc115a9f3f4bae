//! The HTTP interface: translates calls into questions to the [`Service`] and its answers into JSON.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tokio::sync::Semaphore;

use crate::core::rejection::Rejection;
use crate::service::Service;

mod answer;
pub(crate) mod hardware_routes;
mod layers;
mod log_routes;
mod operator_routes;
pub(crate) mod routes;
mod signed_call;

/// The whole interface.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let turns = Arc::new(Semaphore::new(layers::CALLS_AT_ONCE_MAX));
    routes::router()
        .fallback(|| async { Rejection::not_found("there is no such path; GET /openapi.json lists them") })
        .method_not_allowed_fallback(|| async {
            Rejection::method_not_allowed("this path has no such method; GET /openapi.json lists them")
        })
        .with_state(service)
        .layer(from_fn_with_state(turns, layers::bound_call))
        .layer(from_fn(layers::trace_call))
}
