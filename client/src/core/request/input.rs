//! The shape of a `prompt` or an `input`: texts or lists of tokens, and how many. Nothing of it is kept.

use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What stands in a `prompt` or an `input`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// Whether it is tokens and not text.
    pub(super) is_tokens: bool,
    /// How many texts, or lists of tokens, there are.
    pub(super) count: u64,
}

impl Input {
    const TEXT: Self = Self {
        is_tokens: false,
        count: 1,
    };
}

/// One element of a list.
enum Element {
    Text,
    Token,
    Tokens,
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(InputVisitor)
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ElementVisitor)
    }
}

struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a list of texts, a list of tokens or a list of lists of tokens")
    }

    fn visit_str<E>(self, _: &str) -> Result<Input, E> {
        Ok(Input::TEXT)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Input, A::Error> {
        let (mut texts, mut tokens, mut lists) = (0_u64, 0_u64, 0_u64);
        while let Some(element) = elements.next_element()? {
            match element {
                Element::Text => texts += 1,
                Element::Token => tokens += 1,
                Element::Tokens => lists += 1,
            }
        }
        match (texts, tokens, lists) {
            (0, 0, 0) => Err(A::Error::custom("the list is empty")),
            (count, 0, 0) => Ok(Input {
                is_tokens: false,
                count,
            }),
            (0, _, 0) => Ok(Input {
                is_tokens: true,
                count: 1,
            }),
            (0, 0, count) => Ok(Input {
                is_tokens: true,
                count,
            }),
            _ => Err(A::Error::custom("texts and tokens are mixed")),
        }
    }
}

struct ElementVisitor;

impl<'de> Visitor<'de> for ElementVisitor {
    type Value = Element;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text, a token or a list of tokens")
    }

    fn visit_str<E>(self, _: &str) -> Result<Element, E> {
        Ok(Element::Text)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Element, E> {
        Ok(Element::Token)
    }

    fn visit_f64<E: Error>(self, token: f64) -> Result<Element, E> {
        // A whole number may be written with a point.
        if token.fract() == 0.0 && token >= 0.0 {
            return Ok(Element::Token);
        }
        Err(E::custom("a token is a whole number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tokens: A) -> Result<Element, A::Error> {
        let mut is_empty = true;
        while let Some(token) = tokens.next_element()? {
            let Element::Token = token else {
                return Err(A::Error::custom("a list of tokens has something else"));
            };
            is_empty = false;
        }
        if is_empty {
            return Err(A::Error::custom("a list of tokens is empty"));
        }
        Ok(Element::Tokens)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Element, A::Error> {
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Err(A::Error::custom("an object is neither text nor tokens"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_tokens_are_told_apart_and_counted() {
        for (json, is_tokens, count) in [
            (r#""a""#, false, 1),
            (r#""""#, false, 1),
            (r#"["a","b\n"]"#, false, 2),
            ("[1,2,3]", true, 1),
            ("[[1],[2,3]]", true, 2),
            ("[1.0,2]", true, 1),
        ] {
            let input: Input = serde_json::from_str(json).unwrap();
            assert_eq!(input, Input { is_tokens, count }, "{json}");
        }
        for json in [
            "[]",
            "{}",
            "5",
            "[1,\"a\"]",
            "[[1],2]",
            "[[]]",
            "[-1]",
            "[1.5]",
            "[{}]",
            "[[\"a\"]]",
            "[[[1]]]",
            "[null]",
        ] {
            assert!(serde_json::from_str::<Input>(json).is_err(), "{json}");
        }
    }
}
