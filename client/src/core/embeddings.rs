//! The answer to a request for embeddings: the provider's vectors, untouched, in OpenAI's envelope.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::core::answer_stream::JobSummary;
use crate::core::failure::ApiFailure;

/// How the vectors of an answer are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VectorEncoding {
    /// As lists of numbers.
    #[default]
    Float,
    /// As the base64 of their numbers' bytes, 32-bit little-endian floats.
    Base64,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    usage: Option<Map<String, Value>>,
    error: Option<Value>,
}

/// The answer that the program gets, from the one message of the provider's. Servers differ in which encodings they
/// know; what is written as it was asked for stays as it is, byte for byte.
///
/// # Errors
/// [`ApiFailure`] where the message has no vectors.
pub fn embeddings_answer(
    message: &[u8],
    model: &str,
    encoding: VectorEncoding,
    summary: &JobSummary,
) -> Result<Vec<u8>, ApiFailure> {
    let text = std::str::from_utf8(message).map_err(|_| broken("it is not text"))?;
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|_| broken("it is not JSON"))?;
    if let Some(error) = envelope.error {
        let told = error
            .get("message")
            .and_then(Value::as_str)
            .unwrap_or("it says that it failed");
        return Err(broken(told));
    }
    let data = envelope.data.ok_or_else(|| broken("it has no data"))?.get();
    let data = in_encoding(data, encoding)?;
    let mut usage = summary.usage_json(envelope.usage.as_ref());
    if let Some(usage) = usage.as_object_mut() {
        // Embeddings have no output tokens, and OpenAI's schema no field for them.
        usage.remove("completion_tokens");
    }
    let (model, gristmill) = (json!(model), summary.to_json());
    let answer = format!(
        "{{\"object\":\"list\",\"data\":{data},\"model\":{model},\"usage\":{usage},\"gristmill\":{gristmill}}}"
    );
    Ok(answer.into_bytes())
}

fn broken(what: &str) -> ApiFailure {
    ApiFailure::provider_failed(format!("the provider sent what is no list of embeddings: {what}"))
}

/// The list of embeddings with its vectors written as they were asked for.
fn in_encoding(data: &str, encoding: VectorEncoding) -> Result<Cow<'_, str>, ApiFailure> {
    let mut embeddings: Vec<Map<String, Value>> = {
        let raw: Vec<Entry<'_>> = serde_json::from_str(data).map_err(|_| broken("its data is no list"))?;
        let is_text = |entry: &Entry<'_>| {
            entry
                .embedding
                .is_some_and(|vector| vector.get().starts_with('"'))
        };
        if raw
            .iter()
            .all(|entry| is_text(entry) == (encoding == VectorEncoding::Base64))
        {
            return Ok(Cow::Borrowed(data));
        }
        serde_json::from_str(data).map_err(|_| broken("its data is no list of objects"))?
    };
    for embedding in &mut embeddings {
        let vector = embedding.get_mut("embedding");
        let vector = vector.ok_or_else(|| broken("an entry has no vector"))?;
        *vector = match (encoding, &*vector) {
            (VectorEncoding::Base64, Value::Array(numbers)) => encoded(numbers)?.into(),
            (VectorEncoding::Float, Value::String(text)) => decoded(text)?,
            (_, other) => other.clone(),
        };
    }
    serde_json::to_string(&embeddings)
        .map(Cow::Owned)
        .map_err(|_| broken("its vectors can't be written"))
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    embedding: Option<&'a RawValue>,
}

fn encoded(numbers: &[Value]) -> Result<String, ApiFailure> {
    let mut bytes = Vec::with_capacity(numbers.len() * 4);
    for number in numbers {
        let number = number
            .as_f64()
            .ok_or_else(|| broken("a vector has what is no number"))?;
        // OpenAI's format has 32 bits.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the nearest float of 32 bits is what is meant"
        )]
        bytes.extend_from_slice(&(number as f32).to_le_bytes());
    }
    Ok(STANDARD.encode(bytes))
}

fn decoded(text: &str) -> Result<Value, ApiFailure> {
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| broken("a vector is no base64"))?;
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(broken("a vector is no list of floats"));
    }
    Ok(numbers
        .iter()
        .map(|number| json!(f32::from_le_bytes(*number)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::identity::AccountId;
    use gristmill_protocol::ids::ChannelId;
    use gristmill_protocol::job::RequestId;
    use gristmill_protocol::usage::Usage;

    fn answer(message: &str) -> Result<String, ApiFailure> {
        answer_in(message, VectorEncoding::Float)
    }

    fn answer_in(message: &str, encoding: VectorEncoding) -> Result<String, ApiFailure> {
        let summary = JobSummary {
            request_id: RequestId::from_random([7; 16]),
            provider: AccountId::from_public_key([1; 32]),
            channel: ChannelId::from_bytes([2; 16]),
            usage: Usage::tokens(5, 0),
            cost: Credits::micro(9),
            bill: crate::core::bill::Bill::default(),
        };
        embeddings_answer(message.as_bytes(), "mini", encoding, &summary)
            .map(|answer| String::from_utf8(answer).unwrap())
    }

    #[test]
    fn vectors_are_untouched_and_the_envelope_is_whole() {
        let data = "[{\"object\":\"embedding\",\"index\":0,\"embedding\":[1.50,-2e-3 ]}]";
        let text = answer(&format!("{{\"data\":{data},\"model\":\"x.gguf\"}}")).unwrap();
        assert!(text.contains(data), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&value["object"], &value["model"]),
            (&json!("list"), &json!("mini"))
        );
        assert_eq!(value["usage"], json!({"prompt_tokens": 5, "total_tokens": 5}));
        assert_eq!(value["gristmill"]["cost"], 9);
    }

    #[test]
    fn vectors_come_in_the_encoding_that_was_asked_for() {
        let floats = r#"{"data":[{"index":0,"embedding":[0.5,-2.0]},{"index":1,"embedding":[1]}]}"#;
        let base64 =
            r#"{"data":[{"index":0,"embedding":"AAAAPwAAAMA="},{"index":1,"embedding":"AACAPw=="}]}"#;
        for message in [floats, base64] {
            let vectors = |encoding| {
                let text = answer_in(message, encoding).unwrap();
                let value: Value = serde_json::from_str(&text).unwrap();
                (
                    value["data"][0]["embedding"].clone(),
                    value["data"][1]["embedding"].clone(),
                )
            };
            assert_eq!(
                vectors(VectorEncoding::Base64),
                (json!("AAAAPwAAAMA="), json!("AACAPw=="))
            );
            let (first, second) = vectors(VectorEncoding::Float);
            assert_eq!((first[1].as_f64(), second[0].as_f64()), (Some(-2.0), Some(1.0)));
        }
        for broken in [
            r#"{"data":[{"embedding":"?"}]}"#,
            r#"{"data":[{"embedding":"AAA="}]}"#,
        ] {
            assert_eq!(answer_in(broken, VectorEncoding::Float).unwrap_err().status, 502);
        }
        assert_eq!(
            answer_in(r#"{"data":[{"embedding":["x"]}]}"#, VectorEncoding::Base64)
                .unwrap_err()
                .status,
            502
        );
    }

    #[test]
    fn what_has_no_vectors_is_a_failure() {
        for message in [
            "",
            "[]",
            "{}",
            "{\"data\":5}",
            "{\"error\":{\"message\":\"no\"}}",
            "{\"data\":[}",
        ] {
            assert_eq!(answer(message).unwrap_err().status, 502, "{message}");
        }
    }
}
