//! An upstream's errors in OpenAI's terms, with its own status and message.

use serde_json::{Map, Value};

use crate::engine::EngineError;

/// Most bytes of an upstream's message that are passed on.
const MESSAGE_MAX_BYTES: usize = 2_048;

/// The upstream broke, or is not there.
pub(super) fn provider_failed(message: impl Into<String>) -> EngineError {
    EngineError {
        status: 502,
        code: "provider_failed".to_owned(),
        message: message.into(),
        param: None,
    }
}

/// The upstream can't be reached at all.
pub(super) fn unreachable() -> EngineError {
    EngineError {
        status: 503,
        ..provider_failed("the model's server at the provider does not answer")
    }
}

/// The error of an answer with a status other than success.
pub(super) fn in_answer(status: u16, body: &[u8]) -> EngineError {
    let parsed = serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
    let error = match parsed.get("error") {
        Some(error) if !error.is_null() => error,
        _ => &parsed,
    };
    let mut error = read(error, status);
    error.status = match status {
        // The consumer's keys and logins are none of the upstream's business: this is between it and its owner.
        401 | 407 => 502,
        400..=599 => status,
        // Redirects are not followed: the owner named an address, not whatever that points to.
        _ => 502,
    };
    if error.status != status {
        error.code = "provider_failed".to_owned();
        error.message = format!("the model's server at the provider answered with status {status}");
    }
    error
}

/// The error that an event of a stream reports, where it does.
pub(super) fn in_event(event: &Map<String, Value>) -> Option<EngineError> {
    let error = match event.get("error") {
        Some(Value::Null) | None if event.get("object").and_then(Value::as_str) == Some("error") => {
            return Some(read(&Value::Object(event.clone()), 502));
        }
        Some(Value::Null) | None => return None,
        Some(error) => error,
    };
    Some(read(error, 502))
}

fn read(error: &Value, default_status: u16) -> EngineError {
    let text = |name: &str| {
        error
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let message = error.as_str().or_else(|| text("message"));
    let number = error
        .get("code")
        .and_then(Value::as_u64)
        .and_then(|code| u16::try_from(code).ok());
    let status = number
        .filter(|code| (400..600).contains(code))
        .unwrap_or(default_status);
    let code = match error.get("code") {
        Some(Value::String(code)) if !code.is_empty() => code.clone(),
        Some(Value::Number(code)) if number != Some(status) => code.to_string(),
        // An integer is the status once more; the type says more.
        _ => text("type").map_or_else(|| code_of(status).to_owned(), str::to_owned),
    };
    let message = message.unwrap_or("the model's server at the provider gave no reason");
    EngineError {
        status,
        code,
        message: message[..message.floor_char_boundary(MESSAGE_MAX_BYTES)].to_owned(),
        param: text("param").map(str::to_owned),
    }
}

const fn code_of(status: u16) -> &'static str {
    match status {
        400..=403 | 405..=428 => "invalid_request_error",
        404 => "model_not_found",
        429 => "rate_limit_exceeded",
        _ => "provider_failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_dialect_of_errors_is_understood() {
        let table = [
            // OpenAI, llama.cpp, vLLM old and new, Ollama, and no JSON at all.
            (
                400,
                json!({"error": {"message": "m", "type": "t", "param": "p", "code": "c"}}),
                "c",
                "m",
                Some("p"),
            ),
            (
                503,
                json!({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}),
                "unavailable_error",
                "Loading model",
                None,
            ),
            (
                400,
                json!({"object": "error", "message": "m", "type": "BadRequestError", "param": null, "code": 400}),
                "BadRequestError",
                "m",
                None,
            ),
            (
                400,
                json!({"error": {"message": "m", "type": "t", "code": 4711}}),
                "4711",
                "m",
                None,
            ),
            (
                404,
                json!({"error": "model 'x' not found"}),
                "model_not_found",
                "model 'x' not found",
                None,
            ),
            (
                429,
                json!({}),
                "rate_limit_exceeded",
                "the model's server at the provider gave no reason",
                None,
            ),
        ];
        for (status, body, code, message, param) in table {
            let error = in_answer(status, body.to_string().as_bytes());
            let found = (
                error.status,
                error.code.as_str(),
                error.message.as_str(),
                error.param.as_deref(),
            );
            assert_eq!(found, (status, code, message, param));
        }
        assert_eq!(in_answer(500, b"<html>").status, 500);
    }

    #[test]
    fn redirects_and_logins_are_failures_of_the_provider() {
        for status in [301, 302, 307, 401, 407, 100] {
            let error = in_answer(status, br#"{"error":{"message":"log in","code":"x"}}"#);
            assert_eq!(
                (error.status, error.code.as_str()),
                (502, "provider_failed"),
                "{status}"
            );
            assert!(!error.message.contains("log in"));
        }
    }

    #[test]
    fn events_report_errors_and_null_is_none() {
        let event = |value: Value| in_event(value.as_object().unwrap());
        assert_eq!(event(json!({"error": null})), None);
        assert_eq!(event(json!({"choices": []})), None);
        assert_eq!(event(json!({"error": "broke"})).unwrap().message, "broke");
        assert_eq!(
            event(json!({"object": "error", "message": "m", "code": 400}))
                .unwrap()
                .status,
            400
        );
        assert_eq!(
            event(json!({"error": {"message": "m", "code": 9}}))
                .unwrap()
                .status,
            502
        );
    }

    #[test]
    fn long_messages_are_cut() {
        let body = json!({"error": "ü".repeat(2_000)}).to_string();
        assert_eq!(in_answer(400, body.as_bytes()).message.len(), MESSAGE_MAX_BYTES);
    }
}
