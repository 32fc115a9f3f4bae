//! How likely the model held its tokens: the numbers behind `logprobs` and `top_logprobs`. Pure.
//!
//! They are those of the model's own distribution, before temperature, penalties, biases and grammars.

use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::vocabulary::Vocabulary;

/// What stands for a probability of zero, as OpenAI has it.
const IMPOSSIBLE: f32 = -9_999.0;

/// A token of an answer, how likely it was, and what was likelier.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TokenLogprob {
    pub(super) token: u32,
    pub(super) logprob: f32,
    /// The likeliest tokens, likeliest first.
    pub(super) top: Vec<(u32, f32)>,
    /// How many bytes of the answer's text came before it.
    pub(super) start: usize,
}

/// The log-probabilities behind logits.
#[expect(clippy::cast_possible_truncation, reason = "logits are of single precision")]
pub(super) fn logprobs(logits: &[f32], token: u32, top: usize, start: usize) -> TokenLogprob {
    let numbers = || logits.iter().copied().filter(|logit| !logit.is_nan());
    let most = numbers().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = numbers().map(|logit| f64::from(logit - most).exp()).sum();
    let normal = f64::from(most) + total.ln();
    let logprob = |logit: f32| {
        let value = (f64::from(logit) - normal) as f32;
        if value.is_finite() { value } else { IMPOSSIBLE }
    };
    let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let top = likeliest(logits, top);
    TokenLogprob {
        token,
        logprob: logprob(own),
        top: top
            .into_iter()
            .map(|(token, logit)| (token, logprob(logit)))
            .collect(),
        start,
    }
}

/// The tokens with the highest logits, highest first.
fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    if count == 0 {
        return top;
    }
    for (token, logit) in (0u32..).zip(logits.iter().copied()) {
        if logit.is_nan() || (top.len() == count && top[count - 1].1 >= logit) {
            continue;
        }
        let place = top.partition_point(|(_, other)| *other >= logit);
        top.insert(place, (token, logit));
        top.truncate(count);
    }
    top
}

/// Writes tokens as JSON.
#[derive(Clone, Copy)]
pub(super) struct TokenText<'m> {
    pub(super) tokenizer: &'m Tokenizer,
    pub(super) vocabulary: Option<&'m Vocabulary>,
}

impl TokenText<'_> {
    /// A token's bytes; of a special token its name.
    pub(super) fn bytes(&self, token: u32) -> Vec<u8> {
        let known = self.vocabulary.map(|vocabulary| vocabulary.bytes(token));
        match known.filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => bytes.to_vec(),
            None => self.tokenizer.id_to_token(token).unwrap_or_default().into_bytes(),
        }
    }

    /// A token as text, with what is no text of its own replaced.
    pub(super) fn text(&self, token: u32) -> String {
        String::from_utf8_lossy(&self.bytes(token)).into_owned()
    }

    /// The `logprobs` object of a chat chunk.
    pub(super) fn chat(&self, tokens: &[TokenLogprob]) -> Value {
        let entry = |token: u32, logprob: f32| json!({"token": self.text(token), "logprob": logprob, "bytes": self.bytes(token)});
        let content: Vec<Value> = tokens
            .iter()
            .map(|token| {
                let mut written = entry(token.token, token.logprob);
                written["top_logprobs"] = token
                    .top
                    .iter()
                    .map(|(token, logprob)| entry(*token, *logprob))
                    .collect();
                written
            })
            .collect();
        json!({"content": content, "refusal": null})
    }

    /// The `logprobs` object of a prompt that comes before its completion. Nothing is known of its first token.
    pub(super) fn echoed(&self, first: u32, others: &[TokenLogprob]) -> Value {
        let first_text = self.text(first);
        let mut whole = self.completion(others, first_text.chars().count());
        let firsts = [
            ("tokens", json!(first_text)),
            ("token_logprobs", Value::Null),
            ("top_logprobs", Value::Null),
            ("text_offset", json!(0)),
        ];
        for (field, first) in firsts {
            if let Some(list) = whole[field].as_array_mut() {
                list.insert(0, first);
            }
        }
        whole
    }

    /// The `logprobs` object of a completion chunk. `before` is how many characters of the choice came earlier.
    pub(super) fn completion(&self, tokens: &[TokenLogprob], before: usize) -> Value {
        let mut offset = before;
        let mut offsets = Vec::with_capacity(tokens.len());
        for token in tokens {
            offsets.push(offset);
            offset += self.text(token.token).chars().count();
        }
        let top = |token: &TokenLogprob| -> Value {
            let entries = token.top.iter();
            Value::Object(
                entries
                    .map(|(token, logprob)| (self.text(*token), json!(logprob)))
                    .collect(),
            )
        };
        json!({
            "tokens": tokens.iter().map(|token| self.text(token.token)).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
            "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::chat::tiny_models;

    #[test]
    fn probabilities_are_the_softmax_and_sorted() {
        let logits = [1f32.ln(), 7f32.ln(), f32::NAN, 2f32.ln(), f32::NEG_INFINITY];
        let found = logprobs(&logits, 3, 3, 5);
        let probability = |logprob: f32| (f64::from(logprob).exp() * 10.0).round();
        assert_eq!((probability(found.logprob), found.start), (2.0, 5));
        let top: Vec<_> = found
            .top
            .iter()
            .map(|(token, logprob)| (*token, probability(*logprob)))
            .collect();
        assert_eq!(top, [(1, 7.0), (3, 2.0), (0, 1.0)]);
        assert_eq!(logprobs(&logits, 4, 0, 0).logprob, IMPOSSIBLE);
        assert_eq!(logprobs(&logits, 2, 0, 0).logprob, IMPOSSIBLE);
        assert_eq!(logprobs(&[], 0, 2, 0).top, []);
    }

    #[test]
    fn tokens_within_a_character_keep_their_bytes() {
        let tokenizer = tiny_models::tokenizer();
        let text = TokenText {
            tokenizer: &tokenizer,
            vocabulary: None,
        };
        assert_eq!(text.text(257), "<|im_end|>");
        let vocabulary = Vocabulary::new(&tokenizer, tiny_models::VOCABULARY, &[257]).unwrap();
        let text = TokenText {
            vocabulary: Some(&vocabulary),
            ..text
        };
        let tokens = [logprobs(&[0.0; 300], 0xC3, 1, 0), logprobs(&[0.0; 300], 97, 0, 0)];
        let chat = text.chat(&tokens);
        assert_eq!(chat["content"][0]["bytes"], json!([0xC3]));
        assert_eq!(chat["content"][0]["token"], "\u{FFFD}");
        assert_eq!(chat["content"][0]["top_logprobs"][0]["bytes"], json!([0]));
        assert_eq!(chat["content"][1]["top_logprobs"], json!([]));
        let completion = text.completion(&tokens, 7);
        assert_eq!(completion["text_offset"], json!([7, 8]));
        assert_eq!(completion["tokens"][1], "a");
    }
}
