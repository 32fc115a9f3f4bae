//! Looks for image and audio parts in a message without keeping any of it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What a message has beside text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) has_image: bool,
    pub(super) has_audio: bool,
}

impl Parts {
    /// Of a message. What is no message of a known shape has none: engines judge those.
    pub(super) fn of(message: &str) -> Self {
        let message = serde_json::from_str::<Message>(message);
        message
            .ok()
            .and_then(|message| message.content)
            .unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<Parts>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    r#type: Option<Cow<'a, str>>,
}

impl<'de> Deserialize<'de> for Parts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartsVisitor)
    }
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text or a list of parts")
    }

    fn visit_str<E>(self, _: &str) -> Result<Parts, E> {
        Ok(Parts::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Parts, A::Error> {
        let mut found = Parts::default();
        while let Some(part) = parts.next_element::<Part<'de>>()? {
            match part.r#type.as_deref() {
                Some("image_url" | "input_image" | "image") => found.has_image = true,
                Some("input_audio" | "audio_url") => found.has_audio = true,
                _ => {}
            }
        }
        Ok(found)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Parts, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Parts::default())
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
            assert_eq!(Parts::of(message).has_image, expected, "{message}");
        }
        let audio = Parts::of(r#"{"content":[{"type":"input_audio","input_audio":{"data":""}}]}"#);
        assert!(audio.has_audio && !audio.has_image);
    }
}
