//! What an embeddings request asks for. Pure.

use serde_json::{Map, Value};

use crate::engine::EngineError;
use crate::engine::refusal::invalid_request;

/// Most inputs of one request, as OpenAI has it.
pub(super) const INPUTS_MAX: usize = 2_048;

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// Text for the model's tokenizer.
    Text(String),
    /// Tokens of the model's own vocabulary.
    Tokens(Vec<u32>),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EmbeddingsRequest {
    pub(super) inputs: Vec<Input>,
    /// Whether vectors are to be written as base64 instead of as lists of numbers.
    pub(super) base64: bool,
    pub(super) dimensions: Option<u64>,
}

impl EmbeddingsRequest {
    /// Reads an OpenAI request body. Unknown fields are ignored.
    ///
    /// # Errors
    /// A 400 that names the field at fault.
    pub(super) fn parse(body: &Value) -> Result<Self, EngineError> {
        let fields = body
            .as_object()
            .ok_or_else(|| invalid_request("body", "the body must be a JSON object"))?;
        let base64 = match present(fields, "encoding_format").map(Value::as_str) {
            None | Some(Some("float")) => false,
            Some(Some("base64")) => true,
            Some(_) => {
                return Err(invalid_request(
                    "encoding_format",
                    "'encoding_format' must be 'float' or 'base64'",
                ));
            }
        };
        let dimensions =
            match present(fields, "dimensions") {
                None => None,
                Some(value) => Some(value.as_u64().filter(|dimensions| *dimensions > 0).ok_or_else(
                    || invalid_request("dimensions", "'dimensions' must be an integer of at least 1"),
                )?),
            };
        Ok(Self {
            inputs: inputs(fields)?,
            base64,
            dimensions,
        })
    }
}

fn present<'a>(fields: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

fn inputs(fields: &Map<String, Value>) -> Result<Vec<Input>, EngineError> {
    let refuse = |message: &str| invalid_request("input", message);
    let list = match present(fields, "input") {
        Some(Value::Array(list)) => list,
        Some(single @ Value::String(_)) => return Ok(vec![input(single)?]),
        _ => {
            return Err(refuse(
                "'input' must be a string, a list of strings, or a list of tokens or token lists",
            ));
        }
    };
    match list.first() {
        None => return Err(refuse("'input' is empty")),
        Some(Value::Number(_)) => return Ok(vec![tokens(list)?]),
        Some(_) => {}
    }
    if list.len() > INPUTS_MAX {
        return Err(refuse(&format!(
            "'input' has {} inputs, and at most {INPUTS_MAX} are allowed",
            list.len()
        )));
    }
    list.iter().map(input).collect()
}

fn input(value: &Value) -> Result<Input, EngineError> {
    match value {
        Value::String(text) if text.is_empty() => {
            Err(invalid_request("input", "an input is an empty string"))
        }
        Value::String(text) => Ok(Input::Text(text.clone())),
        Value::Array(list) => tokens(list),
        _ => Err(invalid_request(
            "input",
            "an input must be a string or a list of tokens",
        )),
    }
}

fn tokens(list: &[Value]) -> Result<Input, EngineError> {
    if list.is_empty() {
        return Err(invalid_request("input", "an input is an empty list"));
    }
    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    let tokens: Option<Vec<u32>> = list.iter().map(token).collect();
    tokens
        .map(Input::Tokens)
        .ok_or_else(|| invalid_request("input", "a list of tokens must hold integers alone"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(input: Value) -> Result<Vec<Input>, EngineError> {
        EmbeddingsRequest::parse(&json!({"input": input, "model": "m", "user": "u"}))
            .map(|request| request.inputs)
    }

    #[test]
    fn all_four_forms_of_input_are_read() {
        let text = |text: &str| Input::Text(text.to_owned());
        assert_eq!(read(json!("a")).unwrap(), [text("a")]);
        assert_eq!(read(json!(["a", " "])).unwrap(), [text("a"), text(" ")]);
        assert_eq!(read(json!([1, 2])).unwrap(), [Input::Tokens(vec![1, 2])]);
        assert_eq!(
            read(json!([[1], [2, 3]])).unwrap(),
            [Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])]
        );
    }

    #[test]
    fn other_inputs_are_refused_by_name() {
        for wrong in [
            json!(""),
            json!([]),
            json!([""]),
            json!(["a", ""]),
            json!([[]]),
            json!([1, -2]),
            json!([1.5]),
            json!([1, "a"]),
            json!(["a", 1]),
            json!({}),
            json!(7),
            Value::Null,
            json!([u64::MAX]),
        ] {
            let error = read(wrong.clone()).unwrap_err();
            assert_eq!(
                (error.status, error.param.as_deref()),
                (400, Some("input")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_number_of_inputs_has_a_bound() {
        assert_eq!(read(json!(vec!["a"; INPUTS_MAX])).unwrap().len(), INPUTS_MAX);
        assert_eq!(
            read(json!(vec!["a"; INPUTS_MAX + 1]))
                .unwrap_err()
                .param
                .as_deref(),
            Some("input")
        );
    }

    #[test]
    fn other_fields_are_checked() {
        let parse = |field: &str, value: Value| {
            let mut body = json!({"input": "a"});
            body[field] = value;
            EmbeddingsRequest::parse(&body)
        };
        assert!(parse("encoding_format", json!("base64")).unwrap().base64);
        assert_eq!(parse("dimensions", json!(384)).unwrap().dimensions, Some(384));
        assert_eq!(parse("dimensions", Value::Null).unwrap().dimensions, None);
        for (field, value) in [
            ("encoding_format", json!("hex")),
            ("encoding_format", json!(1)),
            ("dimensions", json!(0)),
            ("dimensions", json!("x")),
        ] {
            assert_eq!(parse(field, value).unwrap_err().param.as_deref(), Some(field));
        }
        assert!(EmbeddingsRequest::parse(&json!("a")).is_err());
    }
}
