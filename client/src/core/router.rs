//! What the market's routing is told of a program's request.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::routing::affinity::{PREFIX_MIN_BYTES, PrefixDigests};
use gristmill_protocol::routing::constraints::{Conflict, Constraints};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::core::overrides::RoutingOverrides;

pub use gristmill_protocol::routing::candidates::{Asker, Needs, NoRoute};
pub use gristmill_protocol::routing::choice::{Route, choose};

/// A prompt's text is looked at in pieces of so many bytes.
const PROMPT_PIECE_BYTES: usize = 1_024;

/// The beginnings of a program's prompt: of its messages, or of a prompt's text.
///
/// The body is a JSON object that has been read once; what is neither has no beginnings.
#[must_use]
pub fn prefix_of(model: &str, body: &[u8]) -> PrefixDigests {
    /// The fields that prompts stand in.
    #[derive(Deserialize)]
    struct Prompt<'a> {
        #[serde(borrow)]
        messages: Option<Vec<&'a RawValue>>,
        #[serde(borrow)]
        prompt: Option<&'a RawValue>,
    }

    if (body.len() as u64) < PREFIX_MIN_BYTES {
        return PrefixDigests::default();
    }
    match serde_json::from_slice(body) {
        Ok(Prompt {
            messages: Some(messages),
            ..
        }) => PrefixDigests::of(model, messages.iter().map(|message| message.get().as_bytes())),
        Ok(Prompt {
            prompt: Some(prompt), ..
        }) => PrefixDigests::of(model, prompt.get().as_bytes().chunks(PROMPT_PIECE_BYTES)),
        _ => PrefixDigests::default(),
    }
}

/// What a request is restricted to: by itself, and by the settings of the client, which no request can loosen.
///
/// # Errors
/// [`Conflict`] where nobody could meet both.
pub fn constraints_of(
    overrides: &RoutingOverrides,
    max_price_per_million: Option<Credits>,
) -> Result<Constraints, Conflict> {
    let settings = Constraints {
        max_price_per_million,
        ..Constraints::default()
    };
    overrides.constraints.clone().and(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::AccountId;
    use gristmill_protocol::routing::records::ProviderRecords;
    use serde_json::json;

    fn prefix(body: &serde_json::Value) -> PrefixDigests {
        prefix_of("guide", body.to_string().as_bytes())
    }

    #[test]
    fn a_conversation_goes_on_from_its_last_turn() {
        let text = "x".repeat(2_000);
        let (system, user) = (
            json!({"role": "system", "content": text}),
            json!({"role": "user", "content": "Hi"}),
        );
        let first = prefix(&json!({"model": "guide", "messages": [system, user]}));
        let more = json!({"role": "assistant", "content": "Hello"});
        let second = prefix(&json!({"messages": [system, user, more, user], "stream": true}));
        let mut records = ProviderRecords::default();
        let provider = AccountId::from_public_key([1; 32]);
        records.remember_prefix(&first, provider, 0);
        assert_eq!(records.prefix_holder(&second, 0), Some(provider));
    }

    #[test]
    fn a_longer_text_goes_on_from_a_shorter_one() {
        let (first, second) = ("y".repeat(4_000), "y".repeat(6_000));
        let mut records = ProviderRecords::default();
        let provider = AccountId::from_public_key([1; 32]);
        records.remember_prefix(&prefix(&json!({"prompt": first})), provider, 0);
        assert_eq!(
            records.prefix_holder(&prefix(&json!({"prompt": second})), 0),
            Some(provider)
        );
    }

    #[test]
    fn what_is_short_or_no_prompt_has_no_beginnings() {
        let long = "z".repeat(5_000);
        for body in [
            json!({"messages": [{"role": "user", "content": "Hi"}]}),
            json!({"input": long}),
            json!({"messages": long}),
            json!([long]),
        ] {
            assert_eq!(prefix(&body), PrefixDigests::default(), "{body}");
        }
        assert_eq!(prefix_of("guide", &[0xff; 5_000]), PrefixDigests::default());
    }

    #[test]
    fn a_request_cannot_loosen_the_price_cap_of_the_settings() {
        let overrides = |micro: Option<u32>| RoutingOverrides {
            constraints: Constraints {
                max_price_per_million: micro.map(Credits::micro),
                ..Constraints::default()
            },
            ..RoutingOverrides::default()
        };
        for (own, settings, both) in [
            (None, None, None),
            (Some(5), None, Some(5)),
            (None, Some(5), Some(5)),
            (Some(9), Some(5), Some(5)),
            (Some(3), Some(5), Some(3)),
        ] {
            let constraints = constraints_of(&overrides(own), settings.map(Credits::micro)).unwrap();
            assert_eq!(constraints.max_price_per_million, both.map(Credits::micro));
        }
    }
}
