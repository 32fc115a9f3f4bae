//! How many tokens a chat probably has, before any model has read it.
//!
//! Nobody but the model's own tokenizer knows. The estimate goes by kinds of characters, as byte-pair tokenizers of
//! current models cut them; what is certain is only that a token is at least a byte (see
//! [`gristmill_protocol::content::input_tokens_max`]).

use serde_json::Value;

/// Tokens around each message in usual templates: its role, its begin and its end.
const TOKENS_PER_MESSAGE: u64 = 4;
/// Tokens that begin the answer in usual templates.
const TOKENS_OF_ANSWERS_BEGIN: u64 = 3;
/// Tokens of an image in usual vision models at a usual size.
const TOKENS_PER_IMAGE: u64 = 765;
/// Letters of an alphabet per token, in tenths: English words have 4.7 letters, and most are one token.
const TENTHS_OF_LETTERS_PER_TOKEN: u64 = 42;

/// The probable number of input tokens of a chat completion's body.
#[must_use]
pub fn estimated_input_tokens(chat: &Value) -> u64 {
    let messages = chat.get("messages").and_then(Value::as_array);
    let of_messages: u64 = messages
        .into_iter()
        .flatten()
        .map(|message| TOKENS_PER_MESSAGE + of_value(message))
        .sum();
    let of_schemas: u64 = ["tools", "functions", "response_format"]
        .iter()
        .filter_map(|field| chat.get(field))
        .map(of_value)
        .sum();
    of_messages
        .saturating_add(of_schemas)
        .saturating_add(TOKENS_OF_ANSWERS_BEGIN)
}

fn of_value(value: &Value) -> u64 {
    match value {
        Value::String(text) => of_text(text),
        Value::Array(items) => items.iter().map(of_value).sum(),
        Value::Object(fields) if is_image(value) => {
            // Its bytes are no text.
            fields.get("text").map_or(TOKENS_PER_IMAGE, of_value)
        }
        Value::Object(fields) => fields
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "role" | "type" | "id" | "tool_call_id"))
            .map(|(_, value)| of_value(value))
            .sum(),
        Value::Number(_) | Value::Bool(_) => 1,
        Value::Null => 0,
    }
}

fn is_image(part: &Value) -> bool {
    matches!(
        part.get("type").and_then(Value::as_str),
        Some("image_url" | "input_image" | "image" | "input_audio")
    )
}

/// The probable tokens of a text.
fn of_text(text: &str) -> u64 {
    let (mut tenths_of_letters, mut digits, mut others, mut dense) = (0_u64, 0_u64, 0_u64, 0_u64);
    for character in text.chars() {
        match character {
            'a'..='z' | 'A'..='Z' => tenths_of_letters += 10,
            '0'..='9' => digits += 1,
            // A blank belongs to the word after it.
            ' ' => {}
            character if character.is_ascii() => others += 1,
            character if character.is_alphabetic() && (character as u32) < 0x0590 => tenths_of_letters += 20,
            _ => dense += 1,
        }
    }
    tenths_of_letters.div_ceil(TENTHS_OF_LETTERS_PER_TOKEN)
        + digits.div_ceil(3)
        + others.saturating_mul(3).div_ceil(4)
        + dense
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::content::input_tokens_max;
    use proptest::prelude::*;
    use serde_json::json;

    /// Counted with `tiktoken`'s `o200k_base`.
    #[test]
    fn texts_of_many_kinds_are_near() {
        for (text, counted) in [
            ("The quick brown fox jumps over the lazy dog.", 10),
            (
                "What is Gristmill, and how does a market for compute settle its debts?",
                16,
            ),
            ("fn main() { println!(\"{}\", 1 + 2); }", 15),
        ] {
            let estimated = of_text(text);
            assert!(
                (counted / 2..=counted * 2).contains(&estimated),
                "{text}: {estimated}"
            );
        }
    }

    #[test]
    fn images_count_as_images_and_tools_as_text() {
        let image = json!({"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,".to_owned() + &"A".repeat(100_000)}}]}]});
        assert_eq!(estimated_input_tokens(&image), 4 + 765 + 3);
        let plain = json!({"messages": [{"role": "user", "content": "Hi"}]});
        let with_tools = json!({"messages": [{"role": "user", "content": "Hi"}],
            "tools": [{"type": "function", "function": {"name": "weather"}}]});
        assert!(estimated_input_tokens(&with_tools) > estimated_input_tokens(&plain));
    }

    proptest! {
        #[test]
        fn the_estimate_is_never_above_what_is_certain(texts in proptest::collection::vec(".{0,200}", 1..4)) {
            let messages: Vec<_> = texts.iter().map(|text| json!({"role": "user", "content": text})).collect();
            let body = json!({"messages": messages});
            prop_assert!(estimated_input_tokens(&body) <= input_tokens_max(body.to_string().len() as u64));
        }
    }
}
