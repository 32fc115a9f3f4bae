//! Reads single fields of a request; what can't be understood is a 400 that names the field.

use gristmill_protocol::listing::MODEL_NAME_MAX_BYTES;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Number;
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

/// A whole number. JSON has one kind of number, so `5.0` is one too: some languages write it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole(i128);

impl Whole {
    /// The largest number below which a 64-bit float has every whole one: 2^53.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

    /// The number, where it is not negative and fits.
    pub(super) fn count(self) -> Option<u64> {
        u64::try_from(self.0).ok()
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = Number::deserialize(deserializer)?;
        let whole = number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from));
        whole
            .or_else(|| whole_float(number.as_f64()?))
            .map(Self)
            .ok_or_else(|| D::Error::custom("no whole number"))
    }
}

fn whole_float(number: f64) -> Option<i128> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is whole and far below the bounds"
    )]
    (number.fract() == 0.0 && number.abs() <= Whole::EXACT_MAX).then_some(number as i128)
}

/// A whole number that is not negative.
pub(super) fn whole(raw: Option<&RawValue>, field: &str) -> Result<Option<u64>, ApiFailure> {
    let number: Option<Whole> = optional(raw, field, "a whole number")?;
    let count = |number: Whole| number.count().ok_or_else(|| wrong_type(field, "a whole number"));
    number.map(count).transpose()
}

/// A number of choices.
pub(super) fn count(raw: Option<&RawValue>, field: &str, most: u64) -> Result<u64, ApiFailure> {
    let count = whole(raw, field)?.unwrap_or(1);
    if (1..=most).contains(&count) {
        return Ok(count);
    }
    Err(ApiFailure::invalid_request(format!("'{field}' must be 1 to {most}")).at(field))
}

/// A limit of output tokens. Negative ones mean none, as at llama.cpp.
pub(super) fn output_limit(
    raw: Option<&RawValue>,
    field: &str,
    least: u64,
) -> Result<Option<u64>, ApiFailure> {
    let limit: Option<Whole> = optional(raw, field, "a whole number")?;
    let limit = limit.and_then(Whole::count);
    if limit.is_some_and(|limit| limit < least) {
        return Err(ApiFailure::invalid_request(format!("'{field}' must be at least {least}")).at(field));
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_may_be_written_with_a_point() {
        for (json, number) in [
            ("5", Some(5)),
            ("5.0", Some(5)),
            ("-0.0", Some(0)),
            ("1e3", Some(1_000)),
            ("-7", Some(-7)),
            ("18446744073709551615", Some(18_446_744_073_709_551_615)),
            ("5.5", None),
            ("1e300", None),
            ("\"5\"", None),
            ("true", None),
        ] {
            let whole = serde_json::from_str::<Whole>(json).ok();
            assert_eq!(whole.map(|whole| whole.0), number, "{json}");
        }
    }
}
