//! What a program has of an answer, and whether another provider could write on.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use super::Obstacle;
use super::seam::REASONING_FIELDS;

/// Most bytes of text that are kept for a continuation.
const TEXT_MAX_BYTES: usize = 1 << 20;
/// For so many chunks it is remembered how many tokens had been written by then.
const MARKS_MAX: usize = 256;

/// How many tokens had been written when the text had so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    bytes: usize,
    tokens: u64,
}

/// An answer as far as it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartialAnswer {
    content: String,
    reasoning: [String; 2],
    obstacle: Option<Obstacle>,
    marks: VecDeque<Mark>,
    /// Tokens that earlier providers wrote of it.
    tokens_before: u64,
}

impl PartialAnswer {
    /// The text of the answer.
    #[must_use]
    pub fn content(&self) -> &str {
        &self.content
    }

    /// What the model thought before it, in the order of [`REASONING_FIELDS`].
    #[must_use]
    pub const fn reasoning(&self) -> &[String; 2] {
        &self.reasoning
    }

    /// What the program has that no other provider can continue.
    #[must_use]
    pub const fn obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    /// Tokens that earlier providers wrote of it.
    #[must_use]
    pub const fn tokens_before(&self) -> u64 {
        self.tokens_before
    }

    /// Takes note of what the program gets: one delta of one choice.
    pub fn observe(&mut self, index: u64, delta: &Map<String, Value>) {
        if self.obstacle.is_some() {
            return;
        }
        for (name, field) in delta {
            let reasoning = REASONING_FIELDS.iter().position(|known| known == name);
            match (name.as_str(), field) {
                ("role", _) => {}
                (_, Value::String(text)) if text.is_empty() => {}
                (_, Value::String(text)) if index == 0 && name == "content" => self.content.push_str(text),
                (_, Value::String(text)) if index == 0 && reasoning.is_some() => {
                    self.reasoning[reasoning.unwrap_or(0)].push_str(text);
                }
                ("tool_calls", Value::Array(calls)) if calls.is_empty() => {}
                ("tool_calls", _) => self.obstacle = Some(Obstacle::ToolCall),
                _ if index != 0 => self.obstacle = Some(Obstacle::ManyChoices),
                _ => self.obstacle = Some(Obstacle::OtherOutput),
            }
        }
        self.bound();
    }

    /// Takes note of what the program gets: one choice of a chunk in OpenAI's form.
    pub fn observe_choice(&mut self, choice: &Value) {
        let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
        if let Some(Value::Object(delta)) = choice.get("delta") {
            self.observe(index, delta);
        }
    }

    /// Takes note of a piece of the text of a completion.
    pub fn observe_text(&mut self, index: u64, text: &str) {
        if text.is_empty() || self.obstacle.is_some() {
            return;
        }
        if index == 0 {
            self.content.push_str(text);
            self.bound();
        } else {
            self.obstacle = Some(Obstacle::ManyChoices);
        }
    }

    fn bound(&mut self) {
        let bytes = self.content.len() + self.reasoning.iter().map(String::len).sum::<usize>();
        if bytes > TEXT_MAX_BYTES {
            self.obstacle = Some(Obstacle::TooLong);
        }
        if self.obstacle.is_some() {
            (self.content, self.reasoning) = Default::default();
            self.marks.clear();
        }
    }

    /// Takes note of how many tokens the present provider has written up to here.
    pub fn count_tokens(&mut self, written: u64) {
        let tokens = self.tokens_before.saturating_add(written);
        let bytes = self.content.len();
        match self.marks.back_mut() {
            Some(last) if last.bytes == bytes => last.tokens = last.tokens.max(tokens),
            _ => {
                if self.marks.len() == MARKS_MAX {
                    self.marks.pop_front();
                }
                self.marks.push_back(Mark { bytes, tokens });
            }
        }
    }

    /// How many tokens the first so many bytes of the text took, as far as that is known; never more than they did.
    #[must_use]
    pub fn tokens_at(&self, bytes: usize) -> u64 {
        let before = self.marks.iter().rev().find(|mark| mark.bytes <= bytes);
        match (before, self.marks.front()) {
            (Some(mark), _) => mark.tokens,
            // A token has at least a byte.
            (None, Some(first)) => first.tokens.saturating_sub((first.bytes - bytes) as u64),
            (None, None) => self.tokens_before,
        }
    }

    /// Another provider goes on; so many tokens of its answer were written by others.
    pub const fn go_on(&mut self, tokens_before: u64) {
        self.tokens_before = tokens_before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn observed(deltas: &[(u64, Value)]) -> PartialAnswer {
        let mut partial = PartialAnswer::default();
        for (index, delta) in deltas {
            partial.observe(*index, delta.as_object().unwrap());
        }
        partial
    }

    #[test]
    fn texts_are_kept_and_what_can_t_be_continued_is_told() {
        let partial = observed(&[
            (
                0,
                json!({"role": "assistant", "reasoning": "hm", "tool_calls": []}),
            ),
            (0, json!({"content": "Hi"})),
            (0, json!({"content": " you", "refusal": ""})),
        ]);
        assert_eq!(
            (partial.content(), partial.reasoning()),
            ("Hi you", &[String::new(), "hm".into()])
        );
        assert_eq!(partial.obstacle(), None);
        for (delta, obstacle) in [
            ((0, json!({"tool_calls": [{"index": 0}]})), Obstacle::ToolCall),
            ((0, json!({"refusal": "no"})), Obstacle::OtherOutput),
            ((0, json!({"audio": {"data": "x"}})), Obstacle::OtherOutput),
            ((1, json!({"content": "x"})), Obstacle::ManyChoices),
            (
                (0, json!({"content": "x".repeat(TEXT_MAX_BYTES + 1)})),
                Obstacle::TooLong,
            ),
        ] {
            let partial = observed(&[(0, json!({"content": "Hi"})), delta, (0, json!({"content": "!"}))]);
            assert_eq!((partial.obstacle(), partial.content()), (Some(obstacle), ""));
        }
        let limit = observed(&[(0, json!({"content": "x".repeat(TEXT_MAX_BYTES)}))]);
        assert_eq!(limit.obstacle(), None);
    }

    #[test]
    fn tokens_are_known_at_the_ends_of_chunks_and_below_in_between() {
        let mut partial = PartialAnswer::default();
        for (text, tokens) in [("Grist", 2), ("mill", 3), (" is", 4), ("", 5)] {
            partial.observe_text(0, text);
            partial.count_tokens(tokens);
        }
        let known: Vec<u64> = [0, 5, 8, 9, 11, 12]
            .map(|bytes| partial.tokens_at(bytes))
            .to_vec();
        assert_eq!(known, [0, 2, 2, 3, 3, 5]);
        partial.go_on(3);
        partial.count_tokens(1);
        assert_eq!(
            partial.tokens_at(12),
            5,
            "what is written again is not counted again"
        );
        partial.observe_text(0, " a");
        partial.count_tokens(3);
        assert_eq!(partial.tokens_at(14), 6);
    }

    #[test]
    fn marks_are_bounded() {
        let mut partial = PartialAnswer::default();
        for tokens in 1..=2 * MARKS_MAX as u64 {
            partial.observe_text(0, "ab");
            partial.count_tokens(tokens);
        }
        assert_eq!(partial.marks.len(), MARKS_MAX);
        assert_eq!(partial.tokens_at(4 * MARKS_MAX), 2 * MARKS_MAX as u64);
        assert!(partial.tokens_at(10) <= 5);
    }
}
