//! Reads the fields of a request body, and refuses by name what is out of range. Pure.

use serde_json::{Map, Value};

use crate::engine::EngineError;
use crate::engine::refusal::{invalid_request, unsupported_parameter};

/// The fields of a request body.
pub(super) type Fields = Map<String, Value>;

/// The fields of a body.
///
/// # Errors
/// A 400 where the body is no object.
pub(super) fn of(body: &Value) -> Result<&Fields, EngineError> {
    body.as_object()
        .ok_or_else(|| invalid_request("body", "the body must be a JSON object"))
}

/// A field that is there and not null.
pub(super) fn present<'a>(fields: &'a Fields, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

/// A number within bounds.
pub(super) fn number(
    fields: &Fields,
    field: &str,
    least: f64,
    most: f64,
) -> Result<Option<f64>, EngineError> {
    let Some(value) = present(fields, field) else {
        return Ok(None);
    };
    match value.as_f64() {
        Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(invalid_request(
            field,
            format!("'{field}' must be a number between {least} and {most}"),
        )),
    }
}

/// An integer within bounds.
pub(super) fn integer(
    fields: &Fields,
    field: &str,
    least: u64,
    most: u64,
) -> Result<Option<u64>, EngineError> {
    let Some(value) = present(fields, field) else {
        return Ok(None);
    };
    match value.as_u64() {
        Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(invalid_request(
            field,
            if most == u64::MAX {
                format!("'{field}' must be an integer of at least {least}")
            } else {
                format!("'{field}' must be an integer between {least} and {most}")
            },
        )),
    }
}

/// True or false.
pub(super) fn flag(fields: &Fields, field: &str) -> Result<Option<bool>, EngineError> {
    match present(fields, field) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(invalid_request(field, format!("'{field}' must be true or false"))),
    }
}

/// Refuses fields that would change the answer and that are not done here, unless they ask for nothing: dropping
/// them in silence would be a wrong answer.
pub(super) fn refuse_unsupported(fields: &Fields, names: &[&str]) -> Result<(), EngineError> {
    let asks_for_nothing = |field: &str, value: &Value| match (field, value) {
        ("function_call", value) => value == "none" || value == "auto",
        ("modalities", Value::Array(items)) => items.iter().all(|item| item == "text"),
        ("best_of", value) => value == 1,
        (_, Value::Array(items)) => items.is_empty(),
        (_, Value::Object(entries)) => entries.is_empty(),
        (_, Value::String(text)) => text.is_empty(),
        _ => false,
    };
    for field in names {
        if present(fields, field).is_some_and(|value| !asks_for_nothing(field, value)) {
            return Err(unsupported_parameter(*field));
        }
    }
    Ok(())
}
