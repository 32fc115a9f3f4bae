//! Whether an upstream writes on where a partial answer ends, or starts anew: it is given the beginning of a list that
//! every model knows, once cut after a word and once within one, and has to join what follows without a seam.

use serde_json::{Value, json};

/// What is asked for.
const QUESTION: &str = "List the days of the week in order, separated by commas.";
/// Enough for the next word.
const TOKENS: u32 = 8;

/// The beginning of an answer, and how it goes on.
pub(super) struct Case {
    partial: &'static str,
    rest: &'static str,
}

/// The blank before the next word must come, and must not come before the rest of a word. An upstream that starts anew
/// begins with Monday; one that repeats what it was given does too.
pub(super) const CASES: [Case; 2] = [
    Case {
        partial: "Monday, Tuesday,",
        rest: " Wednesday",
    },
    Case {
        partial: "Monday, Tuesday, Wednes",
        rest: "day",
    },
];

impl Case {
    /// The request.
    pub(super) fn body(&self) -> Value {
        json!({
            "messages": [
                {"role": "user", "content": QUESTION},
                {"role": "assistant", "content": self.partial},
            ],
            "continue_final_message": true,
            "add_generation_prompt": false,
            "temperature": 0,
            "max_tokens": TOKENS,
        })
    }

    /// Whether the chunks of an answer go on where the partial one ends. A model that thinks first has not gone on.
    pub(super) fn is_continued_by(&self, chunks: &[Value]) -> bool {
        let text = |name: &str| -> String {
            let deltas = chunks
                .iter()
                .filter_map(|chunk| chunk.pointer("/choices/0/delta"));
            deltas.filter_map(|delta| delta.get(name)?.as_str()).collect()
        };
        let has_thought = ["reasoning", "reasoning_content"]
            .iter()
            .any(|name| !text(name).is_empty());
        !has_thought && text("content").starts_with(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(field: &str, parts: &[&str]) -> Vec<Value> {
        let chunk = |part: &&str| json!({"choices": [{"index": 0, "delta": {field: part}}]});
        parts.iter().map(chunk).collect()
    }

    #[test]
    fn only_what_joins_without_a_seam_is_a_continuation() {
        let [after_word, within_word] = CASES;
        assert!(after_word.is_continued_by(&chunks("content", &["", " Wed", "nesday, Thursday"])));
        assert!(within_word.is_continued_by(&chunks("content", &["day", ", Thursday"])));
        for answer in [
            "Wednesday",
            "Monday, Tuesday, Wednesday",
            "Sure! Monday",
            " day",
            "",
        ] {
            assert!(
                !after_word.is_continued_by(&chunks("content", &[answer])),
                "{answer}"
            );
            assert!(
                !within_word.is_continued_by(&chunks("content", &[answer])),
                "{answer}"
            );
        }
        let mut thinks = chunks("reasoning_content", &["The user wants"]);
        thinks.extend(chunks("content", &[" Wednesday"]));
        assert!(!after_word.is_continued_by(&thinks));
    }
}
