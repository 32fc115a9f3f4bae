//! Reads single fields of a request; what can't be understood is a 400 that names the field.

use gristmill_protocol::listing::MODEL_NAME_MAX_BYTES;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::core::failure::ApiFailure;

/// A field that has to be there.
pub(super) fn missing(field: &str) -> ApiFailure {
    ApiFailure::invalid_request(format!("'{field}' is missing")).at(field)
}

/// Reads a field, where it is there and not null.
pub(super) fn optional<'a, T: Deserialize<'a>>(
    raw: Option<&'a RawValue>,
    field: &str,
    expected: &str,
) -> Result<Option<T>, ApiFailure> {
    let read = |raw: &'a RawValue| serde_json::from_str::<Option<T>>(raw.get());
    raw.map(read)
        .transpose()
        .map(Option::flatten)
        .map_err(|_| wrong_type(field, expected))
}

/// A field that is not what it must be.
pub(super) fn wrong_type(field: &str, expected: &str) -> ApiFailure {
    ApiFailure::invalid_request(format!("'{field}' must be {expected}")).at(field)
}

/// The name of a model.
pub(super) fn model(raw: Option<&RawValue>) -> Result<String, ApiFailure> {
    let model: String = optional(raw, "model", "the name of a model")?.ok_or_else(|| missing("model"))?;
    check_model(&model)?;
    Ok(model)
}

/// Whether a text can be the name of a model.
pub(super) fn check_model(model: &str) -> Result<(), ApiFailure> {
    if model.is_empty() || model.len() > MODEL_NAME_MAX_BYTES || model.chars().any(char::is_control) {
        let message =
            format!("'model' must have 1 to {MODEL_NAME_MAX_BYTES} bytes and no control characters");
        return Err(ApiFailure::invalid_request(message).at("model"));
    }
    Ok(())
}

/// A number of choices.
pub(super) fn count(raw: Option<&RawValue>, field: &str, most: u64) -> Result<u64, ApiFailure> {
    let count: u64 = optional(raw, field, "a whole number")?.unwrap_or(1);
    if (1..=most).contains(&count) {
        return Ok(count);
    }
    Err(ApiFailure::invalid_request(format!("'{field}' must be 1 to {most}")).at(field))
}

/// A limit of output tokens. Negative ones mean none, as at llama.cpp.
pub(super) fn output_limit(
    raw: Option<&RawValue>,
    field: &str,
    least: i64,
) -> Result<Option<u64>, ApiFailure> {
    let limit: Option<i64> = optional(raw, field, "a whole number")?;
    if limit.is_some_and(|limit| (0..least).contains(&limit)) {
        return Err(ApiFailure::invalid_request(format!("'{field}' must be at least {least}")).at(field));
    }
    Ok(limit.and_then(|limit| u64::try_from(limit).ok()))
}
