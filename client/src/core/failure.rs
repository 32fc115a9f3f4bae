//! Every way in which a request can fail, as a program written for OpenAI expects to see it.
//!
//! Source of the shape and of the codes: OpenAI's API reference, "Error codes"; the SDKs repeat 408, 409, 429 and
//! 5xx by themselves and nothing else, which is what the statuses are chosen by.

use std::borrow::Cow;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::JobFailed;
use serde::Serialize;
use thiserror::Error;

/// Longest time that a program is told to wait, in seconds.
pub const RETRY_AFTER_MAX_SECONDS: u32 = 120;
/// Most bytes of a message for people.
const MESSAGE_MAX_BYTES: usize = 4_096;

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ApiFailure {
    /// The HTTP status, where none was sent yet.
    pub status: u16,
    /// For programs.
    pub code: Cow<'static, str>,
    /// For people: what happened, to what, what to do.
    pub message: String,
    /// The request field at fault, where there is one.
    pub param: Option<String>,
    /// When it may be worth asking again, in seconds.
    pub retry_after_seconds: Option<u32>,
    /// Whether an engine said so, and not this client.
    pub is_from_engine: bool,
    /// Whether the same request would fail in the same way again though its status is one that SDKs repeat.
    pub is_useless_to_repeat: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Fields<'a>,
}

#[derive(Serialize)]
struct Fields<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
}

impl ApiFailure {
    /// A failure.
    #[must_use]
    pub fn new(status: u16, code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_MAX_BYTES));
        Self {
            status,
            code: code.into(),
            message,
            param: None,
            retry_after_seconds: None,
            is_from_engine: false,
            is_useless_to_repeat: false,
        }
    }

    /// The same, telling SDKs with `x-should-retry: false` not to repeat the request by themselves.
    #[must_use]
    pub const fn useless_to_repeat(mut self) -> Self {
        self.is_useless_to_repeat = true;
        self
    }

    /// The same, naming the request field at fault.
    #[must_use]
    pub fn at(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// The same, saying when to ask again; at most [`RETRY_AFTER_MAX_SECONDS`], at least a second.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds.clamp(1, RETRY_AFTER_MAX_SECONDS));
        self
    }

    /// A request that can't be understood.
    #[must_use]
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request", message)
    }

    /// A field that none of the offers can honour.
    #[must_use]
    pub fn unsupported_field(model: &str, field: &'static str) -> Self {
        let message = format!(
            "no provider of '{model}' can honour '{field}' now; leave it out or choose another model"
        );
        Self::new(400, "unsupported_parameter", message).at(field)
    }

    /// The key is missing or wrong.
    #[must_use]
    pub fn unauthorized() -> Self {
        let message = "this endpoint needs one of its API keys; send it as 'Authorization: Bearer KEY'";
        Self::new(401, "invalid_api_key", message)
    }

    /// What a stateless endpoint can't do, or what only the maker of another service can.
    #[must_use]
    pub fn not_offered_here(field: &str, message: impl Into<String>) -> Self {
        Self::new(400, "unsupported_parameter", message).at(field)
    }

    /// Too few credits.
    #[must_use]
    pub fn insufficient_credits(needed: Credits, available: Credits) -> Self {
        let message = format!(
            "this request may cost up to {needed} credits and {available} are available; lower max_tokens, earn \
             credits with 'gristmill node serve', or ask the coordinator's operator for a grant"
        );
        Self::new(402, "insufficient_credits", message)
    }

    /// A browser or a rebound name.
    #[must_use]
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(403, "forbidden", message)
    }

    /// No such path.
    #[must_use]
    pub fn unknown_route(method: &str, path: &str) -> Self {
        let shown: String = path.chars().take(128).collect();
        let hint = match path.starts_with("/v1/") {
            true => "",
            false => "; paths begin with /v1, so a base URL ends in /v1",
        };
        Self::new(
            404,
            "unknown_url",
            format!("there is no {method} {shown} here{hint}"),
        )
    }

    /// No such method at this path.
    #[must_use]
    pub fn method_not_allowed(method: &str) -> Self {
        Self::new(405, "method_not_allowed", format!("{method} is not allowed here"))
    }

    /// Nobody offers the model; `near` are names that are on offer.
    #[must_use]
    pub fn model_not_found(model: &str, near: &[String]) -> Self {
        let hint = match near {
            [] => "; GET /v1/models lists what is on offer".to_owned(),
            near => format!("; did you mean {}?", near.join(", ")),
        };
        Self::new(
            404,
            "model_not_found",
            format!("the model '{model}' does not exist{hint}"),
        )
        .at("model")
    }

    /// The body did not arrive.
    #[must_use]
    pub fn body_timeout() -> Self {
        Self::new(408, "timeout", "the request body did not arrive in time")
    }

    /// The body is too large for this client.
    #[must_use]
    pub fn too_large(limit_bytes: usize) -> Self {
        let message = format!("the request is over {limit_bytes} bytes; shorten it, or raise body_max_bytes");
        Self::new(413, "request_too_large", message)
    }

    /// An `Idempotency-Key` that can't be one.
    #[must_use]
    pub fn malformed_idempotency_key() -> Self {
        let message = "the header 'Idempotency-Key' must stand once and have 1 to 255 visible ASCII characters \
                       without blanks";
        Self::new(400, "invalid_idempotency_key", message)
    }

    /// An `Idempotency-Key` that belongs to another request.
    #[must_use]
    pub fn idempotency_key_reused() -> Self {
        let message = "the header 'Idempotency-Key' has the key of a request with another path or body; each \
                       request needs a key of its own";
        Self::new(400, "idempotency_key_reused", message)
    }

    /// The request with the same `Idempotency-Key` still runs.
    #[must_use]
    pub fn request_in_progress() -> Self {
        let message =
            "the request with this 'Idempotency-Key' still runs; its answer can be had when it is done";
        Self::new(409, "request_in_progress", message).retry_after(1)
    }

    /// The request with the same `Idempotency-Key` was answered, and the answer was too large to remember.
    #[must_use]
    pub fn idempotency_key_used() -> Self {
        let message = "the request with this 'Idempotency-Key' was answered and paid, and its answer was too large \
                       to be remembered; use another key to run and pay it again";
        Self::new(409, "idempotency_key_used", message).useless_to_repeat()
    }

    /// More requests at once than the client takes.
    #[must_use]
    pub fn too_many_requests() -> Self {
        Self::new(
            429,
            "rate_limit_exceeded",
            "too many requests at once; try again shortly",
        )
        .retry_after(1)
    }

    /// The program itself is at fault.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            500,
            "internal_error",
            "the client made an error; its log says more",
        )
    }

    /// A provider broke off or misbehaved.
    #[must_use]
    pub fn provider_failed(message: impl Into<String>) -> Self {
        Self::new(502, "provider_failed", message)
    }

    /// Nobody can serve the request now.
    #[must_use]
    pub fn no_provider_available(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(503, "no_provider_available", message).retry_after(retry_after_seconds)
    }

    /// Everybody asks for more than the price cap, or an answer came to more than was set aside for it. Prices may
    /// fall, so there is a `Retry-After`; but not while an SDK repeats the request.
    #[must_use]
    pub fn budget_exhausted(message: impl Into<String>) -> Self {
        Self::new(503, "budget_exhausted", message)
            .retry_after(60)
            .useless_to_repeat()
    }

    /// The coordinator can't be asked and would have to be.
    #[must_use]
    pub fn coordinator_unavailable(reason: &str) -> Self {
        let message = format!("no provider can be paid until the coordinator is back: {reason}");
        Self::new(503, "coordinator_unavailable", message).retry_after(5)
    }

    /// The coordinator was caught lying, and nothing more is set aside with it.
    #[must_use]
    pub fn coordinator_distrusted(reason: &str) -> Self {
        let message = format!(
            "no more credits are set aside with this coordinator: {reason}. 'gristmill client witness' shows it; \
             refuse_lying_coordinator = false in the [client] section goes on all the same"
        );
        Self::new(503, "coordinator_distrusted", message)
            .retry_after(RETRY_AFTER_MAX_SECONDS)
            .useless_to_repeat()
    }

    /// The client is ending.
    #[must_use]
    pub fn shutting_down() -> Self {
        Self::new(503, "shutting_down", "the client is shutting down").retry_after(5)
    }

    /// A provider was too slow.
    #[must_use]
    pub fn provider_timeout(message: impl Into<String>) -> Self {
        Self::new(504, "provider_timeout", message)
    }

    /// The time that the program gave the request is over. Whoever asks again gives it that time again.
    #[must_use]
    pub fn timeout_exceeded(timeout_ms: u64) -> Self {
        let message = format!(
            "the request was not answered within the {timeout_ms} ms that timeout_ms allows; what was delivered by \
             then is paid. Allow more, or ask for fewer tokens"
        );
        Self::new(504, "timeout_exceeded", message).useless_to_repeat()
    }

    /// What an engine said, in its own words; a status or code that makes no sense is replaced.
    #[must_use]
    pub fn from_engine(failed: &JobFailed) -> Self {
        let (status, code) = match failed.status {
            status @ 400..=599 => (status, failed.code.as_str()),
            _ => (502, failed.code.as_str()),
        };
        let code = if code.is_empty() { "provider_failed" } else { code };
        let mut failure = Self::new(status, code.to_owned(), failed.reason.clone());
        failure.param.clone_from(&failed.param);
        failure.is_from_engine = true;
        if matches!(status, 429 | 503) {
            return failure.retry_after(1);
        }
        failure
    }

    /// Whether an engine would say the same of the same request again: what it finds wrong with the request itself,
    /// and not with keys, credits, time or load.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        let is_of_the_moment = matches!(self.status, 401..=403 | 408 | 409 | 425 | 429);
        self.is_from_engine && matches!(self.status, 400..=499) && !is_of_the_moment
    }

    /// OpenAI's word for the kind of failure.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            402 => "insufficient_quota",
            403 => "permission_error",
            429 => "rate_limit_error",
            500..=599 => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The JSON object that programs read, as one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let error = Fields {
            message: &self.message,
            r#type: self.kind(),
            param: self.param.as_deref(),
            code: &self.code,
        };
        // Strings always serialise.
        serde_json::to_string(&Body { error }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parsed(failure: &ApiFailure) -> Value {
        serde_json::from_str(&failure.to_json()).unwrap()
    }

    #[test]
    fn the_shape_is_openais() {
        let near = ["guide".to_owned(), "guild".to_owned()];
        let failure = ApiFailure::model_not_found("gide", &near);
        assert_eq!(
            parsed(&failure),
            json!({"error": {
                "message": "the model 'gide' does not exist; did you mean guide, guild?",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }})
        );
        assert!(!failure.to_json().contains('\n'));
        assert_eq!(parsed(&ApiFailure::internal())["error"]["param"], Value::Null);
    }

    #[test]
    fn programs_never_wait_for_more_than_two_minutes() {
        let wait = |seconds| ApiFailure::no_provider_available("x", seconds).retry_after_seconds;
        assert_eq!((wait(0), wait(120), wait(121)), (Some(1), Some(120), Some(120)));
    }

    #[test]
    fn an_engines_words_survive_and_nonsense_does_not() {
        let failed = JobFailed::new(400, "context_length_exceeded", "too long", Some("messages"));
        let failure = ApiFailure::from_engine(&failed);
        assert_eq!(
            (failure.status, failure.code.as_ref()),
            (400, "context_length_exceeded")
        );
        assert_eq!(failure.param.as_deref(), Some("messages"));
        for status in [0, 200, 302, 600] {
            let failure = ApiFailure::from_engine(&JobFailed::new(status, "", "x", None));
            assert_eq!((failure.status, failure.code.as_ref()), (502, "provider_failed"));
        }
    }

    #[test]
    fn only_what_an_engine_finds_wrong_with_a_request_is_final() {
        let said = |status| ApiFailure::from_engine(&JobFailed::new(status, "code", "x", None)).is_final();
        assert!(said(400) && said(404) && said(413) && said(422));
        for status in [401, 402, 403, 408, 409, 429, 500, 503] {
            assert!(!said(status), "{status}");
        }
        assert!(!ApiFailure::model_not_found("guide", &[]).is_final());
    }

    #[test]
    fn sdks_are_told_where_repeating_is_useless() {
        assert!(ApiFailure::idempotency_key_used().is_useless_to_repeat);
        assert!(ApiFailure::budget_exhausted("x").is_useless_to_repeat);
        assert!(ApiFailure::coordinator_distrusted("x").is_useless_to_repeat);
        assert!(!ApiFailure::request_in_progress().is_useless_to_repeat);
        assert!(!ApiFailure::no_provider_available("x", 1).is_useless_to_repeat);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let failure = ApiFailure::invalid_request("é".repeat(4_000));
        assert_eq!(failure.message.len(), MESSAGE_MAX_BYTES);
    }
}
