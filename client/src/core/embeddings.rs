//! The answer to a request for embeddings: the provider's vectors, untouched, in OpenAI's envelope.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::core::answer_stream::JobSummary;
use crate::core::failure::ApiFailure;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    usage: Option<Map<String, Value>>,
    error: Option<Value>,
}

/// The answer that the program gets, from the one message of the provider's.
///
/// # Errors
/// [`ApiFailure`] where the message has no vectors.
pub fn embeddings_answer(message: &[u8], model: &str, summary: &JobSummary) -> Result<Vec<u8>, ApiFailure> {
    let broken = |what: &str| {
        ApiFailure::provider_failed(format!("the provider sent what is no list of embeddings: {what}"))
    };
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
    if !data.starts_with('[') {
        return Err(broken("its data is no list"));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::identity::AccountId;
    use gristmill_protocol::ids::ChannelId;
    use gristmill_protocol::job::RequestId;
    use gristmill_protocol::usage::Usage;

    fn answer(message: &str) -> Result<String, ApiFailure> {
        let summary = JobSummary {
            request_id: RequestId::from_random([7; 16]),
            provider: AccountId::from_public_key([1; 32]),
            channel: ChannelId::from_bytes([2; 16]),
            usage: Usage::tokens(5, 0),
            cost: Credits::micro(9),
        };
        embeddings_answer(message.as_bytes(), "mini", &summary)
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
