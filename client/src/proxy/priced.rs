//! What an answer did cost and who gave it, in headers: for answers that are whole. A stream says it in its last chunk.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

use crate::proxy::idempotency::EVENT_STREAM;
use crate::usage::Course;

/// What the request did cost, in microcredits.
pub(super) const COST: HeaderName = HeaderName::from_static("x-gristmill-cost");
/// Who was paid for it, separated by commas where there are several.
const PROVIDER: HeaderName = HeaderName::from_static("x-gristmill-provider");
/// What all programs spent today, in microcredits, where that is more than the owner wants to hear nothing of.
pub(super) const BUDGET_ALARM: HeaderName = HeaderName::from_static("x-gristmill-budget-alarm");

/// Adds the headers to an answer, be it a failure, whose request is over.
pub(super) fn price(response: &mut Response, course: &Course) {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|content_type| content_type == EVENT_STREAM) || !course.is_over() {
        return;
    }
    let headers = response.headers_mut();
    headers.insert(COST, HeaderValue::from(course.cost().microcredits()));
    let providers: Vec<String> = course.paid_providers().iter().map(ToString::to_string).collect();
    if let Ok(providers) = HeaderValue::from_str(&providers.join(", "))
        && !providers.is_empty()
    {
        headers.insert(PROVIDER, providers);
    }
}
