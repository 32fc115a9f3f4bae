//! Gives the answer to a repeated request again. The header is `Idempotency-Key`, as in the IETF's draft
//! `draft-ietf-httpapi-idempotency-key-header`.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use gristmill_protocol::job::RequestId;
use tokio::time::Instant;

use crate::core::failure::ApiFailure;
use crate::core::idempotency::{
    AnswerHead, Begun, IdempotencyKey, Limits, RememberedAnswer, RememberedAnswers, RequestDigest,
};
use crate::proxy::layers;
use crate::proxy::priced::COST;
use crate::wallet::lock;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Tells that an answer was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The content type of a whole answer.
pub(super) const JSON: &str = "application/json";
/// The content type of a stream.
pub(super) const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

/// The key of a request, where it has one; programs with different API keys, where those are asked for, share none.
///
/// # Errors
/// [`ApiFailure`] where the header makes no sense.
pub(super) fn key(headers: &HeaderMap, asks_for_key: bool) -> Result<Option<IdempotencyKey>, ApiFailure> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(ApiFailure::malformed_idempotency_key());
    }
    let program = if asks_for_key {
        layers::bearer(headers)
    } else {
        None
    };
    let key = IdempotencyKey::parse(value.as_bytes(), program);
    key.map(Some).ok_or_else(ApiFailure::malformed_idempotency_key)
}

/// The answers to requests with keys, in memory alone.
pub(super) struct Answers {
    remembered: Mutex<RememberedAnswers>,
    /// Time is counted from here: the wall clock may jump.
    began: Instant,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            remembered: Mutex::new(RememberedAnswers::new(Limits::default())),
            began: Instant::now(),
        }
    }
}

impl Answers {
    /// Goes on where the request has to run; breaks with what the program gets where it must not.
    pub(super) fn begin(
        self: &Arc<Self>,
        key: IdempotencyKey,
        digest: RequestDigest,
        request_id: &RequestId,
    ) -> ControlFlow<Result<Response, ApiFailure>, Recording> {
        let begun = lock(&self.remembered).begin(key, digest, self.now_ms());
        let answered = match begun {
            Begun::Begin => {
                return ControlFlow::Continue(Recording {
                    answers: self.clone(),
                    key,
                    request_id: request_id.clone(),
                    is_finished: false,
                });
            }
            Begun::Replay(answer) => {
                tracing::info!(answered_as = %answer.head.request_id, "a request was repeated and answered again");
                Ok(replayed(answer))
            }
            Begun::StillRunning => Err(ApiFailure::request_in_progress()),
            Begun::OtherBody => Err(ApiFailure::idempotency_key_reused()),
            Begun::AnswerForgotten => Err(ApiFailure::idempotency_key_used()),
            Begun::Full => Err(ApiFailure::too_many_requests()),
        };
        ControlFlow::Break(answered)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn replayed(answer: RememberedAnswer) -> Response {
    let status = StatusCode::from_u16(answer.head.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fixed = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_str(&answer.head.content_type).unwrap_or(HeaderValue::from_static(JSON)),
        ),
        (REPLAYED, HeaderValue::from_static("true")),
        (COST, HeaderValue::from_static("0")),
    ];
    let mut response = (status, fixed, Body::from(answer.body)).into_response();
    let headers = response.headers_mut();
    if answer.head.content_type == EVENT_STREAM {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    if let Ok(id) = HeaderValue::from_str(answer.head.request_id.as_str()) {
        headers.insert(layers::REQUEST_ID, id);
    }
    response
}

/// A request with a key, as long as it runs. Dropping it frees the key, so that a repetition runs again.
pub(super) struct Recording {
    answers: Arc<Answers>,
    key: IdempotencyKey,
    request_id: RequestId,
    is_finished: bool,
}

impl Recording {
    /// A piece of a stream is on its way.
    pub(super) fn piece(&self, piece: &[u8]) {
        lock(&self.answers.remembered).record(&self.key, piece);
    }

    /// The stream is on its way to its end.
    pub(super) fn streamed(self) {
        self.passed(EVENT_STREAM.into());
    }

    /// All pieces of an answer of some other type are on their way.
    pub(super) fn passed(self, content_type: Cow<'static, str>) {
        self.finish(StatusCode::OK.as_u16(), content_type);
    }

    /// A whole answer was made.
    pub(super) fn whole(self, json: &[u8]) {
        self.piece(json);
        self.passed(JSON.into());
    }

    /// There is no answer. What an engine would only say again is remembered, in the words that the program got;
    /// otherwise a repetition may do better.
    pub(super) fn failed(self, failure: &ApiFailure, words: &str) {
        if failure.is_final() {
            self.piece(words.as_bytes());
            self.finish(failure.status, JSON.into());
        }
    }

    fn finish(mut self, status: u16, content_type: Cow<'static, str>) {
        self.is_finished = true;
        let head = AnswerHead {
            status,
            content_type,
            request_id: self.request_id.clone(),
        };
        let now_ms = self.answers.now_ms();
        lock(&self.answers.remembered).finish(&self.key, head, now_ms);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.is_finished {
            lock(&self.answers.remembered).free(&self.key);
        }
    }
}
