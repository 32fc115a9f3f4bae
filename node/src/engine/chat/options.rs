//! How an answer is to be written: what chat and completion requests share. Pure.

use serde_json::Value;

use super::fields::{self, Fields, present};
use crate::engine::EngineError;
use crate::engine::refusal::invalid_request;

/// Most stop strings of a request.
pub(super) const STOPS_MAX: usize = 16;
/// Most bytes of a stop string.
pub(super) const STOP_MAX_BYTES: usize = 1_024;
/// Most answers to one request, as OpenAI has it.
pub(super) const CHOICES_MAX: u64 = 128;
/// Most tokens whose likelihood a request may change.
const BIASES_MAX: usize = 4_096;

/// What a program says about the writing of its answer. What it left out is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Options {
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) frequency_penalty: Option<f64>,
    pub(super) presence_penalty: Option<f64>,
    pub(super) seed: Option<u64>,
    pub(super) stops: Vec<String>,
    /// What is added to the logits of tokens.
    pub(super) logit_bias: Vec<(u32, f32)>,
    /// How many answers; at least one.
    pub(super) choices: u32,
}

impl Options {
    /// Reads the fields of a body.
    ///
    /// # Errors
    /// A 400 that names the field at fault.
    pub(super) fn parse(fields: &Fields) -> Result<Self, EngineError> {
        let number = |field: &str, least: f64, most: f64| fields::number(fields, field, least, most);
        let choices = fields::integer(fields, "n", 1, CHOICES_MAX)?.unwrap_or(1);
        Ok(Self {
            temperature: number("temperature", 0.0, 2.0)?,
            top_p: number("top_p", 0.0, 1.0)?,
            frequency_penalty: number("frequency_penalty", -2.0, 2.0)?,
            presence_penalty: number("presence_penalty", -2.0, 2.0)?,
            seed: seed(fields)?,
            stops: stops(fields)?,
            logit_bias: logit_bias(fields)?,
            choices: u32::try_from(choices).unwrap_or(1),
        })
    }
}

fn seed(fields: &Fields) -> Result<Option<u64>, EngineError> {
    let Some(value) = present(fields, "seed") else {
        return Ok(None);
    };
    let seed = value.as_u64().or_else(|| value.as_i64().map(i64::cast_unsigned));
    seed.map(Some)
        .ok_or_else(|| invalid_request("seed", "'seed' must be an integer of 64 bits"))
}

fn stops(fields: &Fields) -> Result<Vec<String>, EngineError> {
    let refuse = || {
        let message = format!(
            "'stop' must be a string or a list of at most {STOPS_MAX} strings, each of 1 to {STOP_MAX_BYTES} bytes"
        );
        invalid_request("stop", message)
    };
    let list = match present(fields, "stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list.as_slice(),
        Some(single) => std::slice::from_ref(single),
    };
    if list.len() > STOPS_MAX {
        return Err(refuse());
    }
    let read = |stop: &Value| match stop.as_str() {
        Some(text) if (1..=STOP_MAX_BYTES).contains(&text.len()) => Ok(text.to_owned()),
        _ => Err(refuse()),
    };
    list.iter().map(read).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "logits are of single precision")]
fn logit_bias(fields: &Fields) -> Result<Vec<(u32, f32)>, EngineError> {
    let refuse = || {
        let message = format!(
            "'logit_bias' must be an object of at most {BIASES_MAX} token numbers, each with a number between -100 and 100"
        );
        invalid_request("logit_bias", message)
    };
    let entries = match present(fields, "logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(entries)) if entries.len() <= BIASES_MAX => entries,
        Some(_) => return Err(refuse()),
    };
    let read = |(token, bias): (&String, &Value)| {
        let token: u32 = token.parse().map_err(|_| refuse())?;
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        Ok((token, bias.ok_or_else(refuse)? as f32))
    };
    entries.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(field: &str, value: Value) -> Result<Options, EngineError> {
        Options::parse(json!({field: value}).as_object().unwrap())
    }

    #[test]
    fn what_is_said_is_read() {
        let body = json!({"temperature": 0, "top_p": 0.5, "seed": -1, "stop": "x", "n": 3,
            "logit_bias": {"5": -100, "7": 1.5}, "frequency_penalty": null});
        let options = Options::parse(body.as_object().unwrap()).unwrap();
        assert_eq!(
            (options.temperature, options.top_p, options.seed),
            (Some(0.0), Some(0.5), Some(u64::MAX))
        );
        assert_eq!((options.stops, options.choices), (vec!["x".to_owned()], 3));
        assert_eq!(options.logit_bias, [(5, -100.0), (7, 1.5)]);
        assert_eq!(options.frequency_penalty, None);
        assert_eq!(with("stop", Value::Null).unwrap().choices, 1);
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (field, value) in [
            ("temperature", json!(2.01)),
            ("temperature", json!("hot")),
            ("top_p", json!(-0.1)),
            ("presence_penalty", json!(3)),
            ("seed", json!(1.5)),
            ("n", json!(0)),
            ("n", json!(CHOICES_MAX + 1)),
            ("n", json!("2")),
            ("stop", json!("")),
            ("stop", json!([1])),
            ("stop", json!(vec!["x"; STOPS_MAX + 1])),
            ("stop", json!("x".repeat(STOP_MAX_BYTES + 1))),
            ("logit_bias", json!([1])),
            ("logit_bias", json!({"a": 1})),
            ("logit_bias", json!({"-1": 1})),
            ("logit_bias", json!({"1": 101})),
            ("logit_bias", json!({"1": "x"})),
        ] {
            let error = with(field, value).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(field)));
        }
        let full = json!(vec!["x".repeat(STOP_MAX_BYTES); STOPS_MAX]);
        assert_eq!(with("stop", full).unwrap().stops.len(), STOPS_MAX);
    }
}
