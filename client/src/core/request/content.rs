//! Looks for image parts in a message without keeping any of it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Whether a message has an image part. What is no message of a known shape has none: engines judge those.
pub(super) fn has_image(message: &str) -> bool {
    let message = serde_json::from_str::<Message>(message);
    message.is_ok_and(|message| message.content.is_some_and(|content| content.has_image))
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<Content>,
}

struct Content {
    has_image: bool,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    r#type: Option<Cow<'a, str>>,
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let has_image = deserializer.deserialize_any(PartsVisitor)?;
        Ok(Self { has_image })
    }
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a list of parts")
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<bool, A::Error> {
        let mut has_image = false;
        while let Some(part) = parts.next_element::<Part<'de>>()? {
            has_image |= matches!(
                part.r#type.as_deref(),
                Some("image_url" | "input_image" | "image")
            );
        }
        Ok(has_image)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<bool, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_and_other_shapes_are_not_judged() {
        for (message, expected) in [
            (r#"{"role":"user","content":"image_url"}"#, false),
            (r#"{"role":"user","content":null}"#, false),
            (r#"{"role":"user"}"#, false),
            (r#"{"content":[{"type":"text","text":"image_url"}]}"#, false),
            (
                r#"{"content":[{"type":"text"},{"type":"image_url","image_url":{"url":"data:"}}]}"#,
                true,
            ),
            (r#"{"content":[{"type":"im\u0061ge_url"}]}"#, true),
            (r#"{"content":["text"]}"#, false),
            (r#"{"content":{"type":"image_url"}}"#, false),
            ("5", false),
        ] {
            assert_eq!(has_image(message), expected, "{message}");
        }
    }
}
