//! How many tokens a chat probably has, before any model has read it.
//!
//! Nobody but the model's own tokenizer knows. The estimate goes by runs of characters of one kind, as byte-pair
//! tokenizers of current models cut them; its constants were fitted to what `o200k_base` counts of prose in several
//! languages, of code, of JSON and of logs (see the tests). What is certain is only that a token is at least a byte
//! (see [`gristmill_protocol::content::input_tokens_max`]).

use serde_json::Value;

/// Tokens around each message in usual templates: its role, its begin and its end.
const TOKENS_PER_MESSAGE: u64 = 4;
/// Tokens that begin the answer in usual templates.
const TOKENS_OF_ANSWERS_BEGIN: u64 = 3;
/// Tokens of an image in usual vision models at a usual size.
const TOKENS_PER_IMAGE: u64 = 765;
/// Letters of an alphabet per token, in tenths: English words have 4.7 letters, and most are one token.
const TENTHS_OF_LETTERS_PER_TOKEN: u64 = 42;
/// What a letter of another alphabet counts, in tenths of a Latin one.
const TENTHS_OF_OTHER_LETTERS: u64 = 18;
/// Digits, or marks that stand together, per token.
const MARKS_PER_TOKEN: u64 = 3;
/// Alphabets with Latin-like words end here: Latin, Greek, Cyrillic and Armenian come before.
const LAST_OF_ALPHABETS: char = '\u{590}';

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

/// How tokenizers treat a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Latin,
    /// A letter of another alphabet, or with an accent: words of these are cut into more pieces.
    OtherLetter,
    Digit,
    /// Punctuation and line breaks.
    Mark,
    Blank,
    /// A sign that stands for a syllable, a word or a picture.
    Sign,
    /// Such a sign of four bytes.
    LongSign,
}

impl Kind {
    fn of(character: char) -> Self {
        match character {
            'a'..='z' | 'A'..='Z' => Self::Latin,
            '0'..='9' => Self::Digit,
            ' ' => Self::Blank,
            _ if character.is_ascii() => Self::Mark,
            _ if character.is_alphabetic() && character < LAST_OF_ALPHABETS => Self::OtherLetter,
            _ if character.len_utf8() == 4 => Self::LongSign,
            _ => Self::Sign,
        }
    }
}

/// The probable tokens of a text.
fn of_text(text: &str) -> u64 {
    let (mut tokens, mut tenths_of_letters) = (0_u64, 0_u64);
    let mut characters = text.chars().map(Kind::of).peekable();
    while let Some(kind) = characters.next() {
        let mut length = 1_u64;
        while characters.next_if_eq(&kind).is_some() {
            length += 1;
        }
        match kind {
            Kind::Latin => tenths_of_letters += length * 10,
            Kind::OtherLetter => tenths_of_letters += length * TENTHS_OF_OTHER_LETTERS,
            Kind::Digit | Kind::Mark => tokens += length.div_ceil(MARKS_PER_TOKEN),
            // A blank belongs to the word after it.
            Kind::Blank => {}
            Kind::Sign => tokens += length,
            Kind::LongSign => tokens += length * 2,
        }
    }
    tokens + tenths_of_letters.div_ceil(TENTHS_OF_LETTERS_PER_TOKEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::content::input_tokens_max;
    use proptest::prelude::*;
    use serde_json::json;

    /// Counted with `o200k_base`, by the package `tiktoken` 0.14.
    const COUNTED: [(&str, u64); 12] = [
        ("The quick brown fox jumps over the lazy dog.", 10),
        (
            "What is Gristmill, and how does a market for compute settle its debts?",
            17,
        ),
        ("fn main() { println!(\"{}\", 1 + 2); }", 13),
        (
            "Gristmill ist ein Markt für Rechenleistung, auf dem Fremde ihre Grafikkarten vermieten.",
            22,
        ),
        (
            "Le marché règle ses dettes à la fin de chaque réponse, et personne ne paie deux fois.",
            21,
        ),
        ("Мельница мелет зерно, а рынок считает деньги.", 13),
        ("粒を挽く水車は、計算の市場である。", 16),
        ("磨坊是一个计算市场。", 7),
        (
            r#"{"type":"object","properties":{"city":{"type":"string","description":"The city"},"days":{"type":"integer"}},"required":["city"]}"#,
            31,
        ),
        ("2026-11-21T15:43:16Z 192.168.10.254 404 1234567890", 28),
        (
            "    if value is None:\n        return [x ** 2 for x in range(10)]\n",
            20,
        ),
        ("🌾🌾🌾 Hello 👋", 9),
    ];

    #[test]
    fn the_estimate_is_within_a_half_of_what_is_counted() {
        for (text, counted) in COUNTED {
            let estimated = of_text(text);
            assert!(
                estimated * 3 >= counted * 2 && estimated * 2 <= counted * 3,
                "{text}: {estimated}, not {counted}"
            );
        }
        let (estimated, counted) = COUNTED.iter().fold((0, 0), |(estimated, sum), (text, counted)| {
            (estimated + of_text(text), sum + counted)
        });
        assert!(
            estimated * 10 >= counted * 9 && estimated * 10 <= counted * 11,
            "{estimated} and {counted} in all"
        );
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
