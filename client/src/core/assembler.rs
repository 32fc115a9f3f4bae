//! Puts the chunks of a streamed answer together to the one answer that a program asked for.
//!
//! Deltas are merged as OpenAI's own SDK does (`accumulate_delta` in openai-python): strings are appended, lists of
//! objects with an `index` are merged by it, other lists are joined, everything else is replaced.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// An answer as far as it has come.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    header: Map<String, Value>,
    choices: BTreeMap<u64, Map<String, Value>>,
}

impl Assembler {
    /// Adds a chunk in the form of [`crate::core::normaliser`].
    pub fn add(&mut self, chunk: Map<String, Value>) {
        for (name, field) in chunk {
            match field {
                Value::Array(choices) if name == "choices" => {
                    choices.into_iter().for_each(|choice| self.add_choice(choice));
                }
                field => {
                    self.header.entry(name).or_insert(field);
                }
            }
        }
    }

    fn add_choice(&mut self, choice: Value) {
        let Value::Object(mut choice) = choice else {
            return;
        };
        let index = choice
            .remove("index")
            .as_ref()
            .and_then(Value::as_u64)
            .unwrap_or(0);
        let merged = self.choices.entry(index).or_default();
        if let Some(delta) = choice.remove("delta") {
            merge_field(merged, "message", delta);
        }
        if let Some(logprobs) = choice.remove("logprobs") {
            merge_field(merged, "logprobs", logprobs);
        }
        for (name, field) in choice {
            if !field.is_null() {
                merged.insert(name, field);
            }
        }
    }

    /// The whole answer, a `chat.completion`.
    #[must_use]
    pub fn finish(self, usage: Value, gristmill: Value) -> Value {
        let mut answer = self.header;
        answer.insert("object".into(), json!("chat.completion"));
        let choices = self
            .choices
            .into_iter()
            .map(|(index, choice)| whole_choice(index, choice));
        answer.insert("choices".into(), choices.collect());
        answer.insert("usage".into(), usage);
        answer.insert("gristmill".into(), gristmill);
        answer.into()
    }
}

/// A choice with every field that OpenAI's schema requires.
fn whole_choice(index: u64, mut choice: Map<String, Value>) -> Value {
    let mut message = match choice.remove("message") {
        Some(Value::Object(message)) => message,
        _ => Map::new(),
    };
    let mut whole_message = Map::from_iter([
        (
            "role".to_owned(),
            message.remove("role").unwrap_or_else(|| json!("assistant")),
        ),
        (
            "content".to_owned(),
            message.remove("content").unwrap_or(Value::Null),
        ),
        (
            "refusal".to_owned(),
            message.remove("refusal").unwrap_or(Value::Null),
        ),
    ]);
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        // The index belongs to deltas alone.
        for call in calls.iter_mut().filter_map(Value::as_object_mut) {
            call.remove("index");
        }
    }
    whole_message.extend(message);
    let mut whole = Map::from_iter([
        ("index".to_owned(), json!(index)),
        ("message".to_owned(), whole_message.into()),
        (
            "logprobs".to_owned(),
            choice.remove("logprobs").unwrap_or(Value::Null),
        ),
        (
            "finish_reason".to_owned(),
            choice.remove("finish_reason").unwrap_or(Value::Null),
        ),
    ]);
    whole.extend(choice);
    whole.into()
}

fn merge_field(into: &mut Map<String, Value>, name: &str, delta: Value) {
    match (into.get_mut(name), delta) {
        (_, Value::Null) => {}
        (None | Some(Value::Null), Value::Object(delta)) => {
            let mut merged = Map::new();
            merge(&mut merged, delta);
            into.insert(name.to_owned(), merged.into());
        }
        (None | Some(Value::Null), Value::Array(delta)) => {
            let mut merged = Vec::new();
            merge_list(&mut merged, delta);
            into.insert(name.to_owned(), merged.into());
        }
        (Some(Value::String(text)), Value::String(delta)) if !matches!(name, "type" | "index") => {
            text.push_str(&delta);
        }
        (Some(Value::Object(merged)), Value::Object(delta)) => merge(merged, delta),
        (Some(Value::Array(merged)), Value::Array(delta)) => merge_list(merged, delta),
        (_, delta) => {
            into.insert(name.to_owned(), delta);
        }
    }
}

fn merge(into: &mut Map<String, Value>, delta: Map<String, Value>) {
    for (name, field) in delta {
        merge_field(into, &name, field);
    }
}

fn merge_list(into: &mut Vec<Value>, delta: Vec<Value>) {
    for entry in delta {
        let index = index_of(&entry);
        let place = index.and_then(|index| into.iter().position(|known| index_of(known) == Some(index)));
        match (place, entry) {
            (Some(place), Value::Object(entry)) => {
                if let Some(known) = into[place].as_object_mut() {
                    merge(known, entry);
                }
            }
            (_, entry) => {
                let mut whole = Map::new();
                merge_field(&mut whole, "entry", entry);
                let entry = whole.remove("entry").unwrap_or_default();
                // Entries with an index stand in its order, whatever order they come in.
                let after = |known: &Value| index.is_none() || index_of(known) <= index;
                let place = into.iter().rposition(after).map_or(0, |place| place + 1);
                into.insert(place, entry);
            }
        }
    }
}

fn index_of(entry: &Value) -> Option<u64> {
    entry.get("index").and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assembled(chunks: impl IntoIterator<Item = Value>) -> Value {
        let mut assembler = Assembler::default();
        for chunk in chunks {
            let Value::Object(chunk) = chunk else {
                panic!("{chunk}")
            };
            assembler.add(chunk);
        }
        assembler.finish(json!({"total_tokens": 3}), json!({"cost": 1}))
    }

    fn chunk(index: u64, delta: Value, finish: Option<&str>) -> Value {
        json!({"id": "a", "object": "chat.completion.chunk", "created": 5, "model": "guide",
            "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})
    }

    #[test]
    fn a_text_comes_together() {
        let answer = assembled([
            chunk(0, json!({"role": "assistant", "content": "Grist"}), None),
            chunk(0, json!({"content": "mill"}), None),
            chunk(0, json!({}), Some("stop")),
        ]);
        assert_eq!(
            answer,
            json!({"id": "a", "object": "chat.completion", "created": 5, "model": "guide",
                "choices": [{"index": 0, "finish_reason": "stop", "logprobs": null,
                    "message": {"role": "assistant", "content": "Gristmill", "refusal": null}}],
                "usage": {"total_tokens": 3}, "gristmill": {"cost": 1}})
        );
    }

    #[test]
    fn tool_calls_reasoning_logprobs_and_choices_come_together() {
        let call = |index: u64, id: &str| {
            json!({"tool_calls": [{"index": index, "id": id, "type": "function",
                "function": {"name": "f", "arguments": ""}}]})
        };
        let more = |index: u64, text: &str| json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]});
        let mut with_logprobs = chunk(1, json!({"content": "x"}), None);
        with_logprobs["choices"][0]["logprobs"] = json!({"content": [{"token": "x", "logprob": -0.5}]});
        let answer = assembled([
            chunk(0, json!({"role": "assistant", "reasoning_content": "hm"}), None),
            chunk(0, json!({"reasoning_content": "m"}), None),
            chunk(0, call(1, "b"), None),
            chunk(0, call(0, "a"), None),
            chunk(0, more(0, "{\"x\""), None),
            chunk(0, more(1, "{}"), None),
            chunk(0, more(0, ":1}"), Some("tool_calls")),
            with_logprobs.clone(),
            with_logprobs,
            chunk(1, json!({}), Some("length")),
        ]);
        let message = &answer["choices"][0]["message"];
        assert_eq!(
            (&message["content"], &message["reasoning_content"]),
            (&Value::Null, &json!("hmm"))
        );
        assert_eq!(
            message["tool_calls"],
            json!([
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
                {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ])
        );
        let second = &answer["choices"][1];
        assert_eq!(second["message"]["content"], "xx");
        assert_eq!(second["logprobs"]["content"].as_array().unwrap().len(), 2);
        assert_eq!(second["finish_reason"], "length");
    }

    /// Cuts a text at arbitrary characters.
    fn pieces(text: &str, cuts: &[usize]) -> Vec<String> {
        let letters: Vec<char> = text.chars().collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (letters.len() + 1)).collect();
        cuts.extend([0, letters.len()]);
        cuts.sort_unstable();
        cuts.windows(2)
            .map(|pair| letters[pair[0]..pair[1]].iter().collect())
            .collect()
    }

    proptest! {
        /// However an answer is cut into chunks and however its choices are interleaved, the same answer comes out.
        #[test]
        fn cuts_do_not_matter(
            texts in proptest::collection::vec((".{0,40}", "[a-z{}\": ]{0,40}"), 1..4),
            cuts in proptest::collection::vec(0usize..100, 0..8),
            order in proptest::collection::vec(0usize..1_000, 0..64),
        ) {
            let mut queues: Vec<Vec<Value>> = texts.iter().enumerate().map(|(index, (text, arguments))| {
                let content = pieces(text, &cuts).into_iter().map(|piece| json!({"content": piece}));
                let calls = pieces(arguments, &cuts).into_iter().map(|piece| {
                    json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
                });
                let mut queue: Vec<Value> =
                    content.chain(calls).map(|delta| chunk(index as u64, delta, None)).collect();
                queue.push(chunk(index as u64, json!({}), Some("stop")));
                queue.reverse();
                queue
            }).collect();
            let mut order = order.into_iter().cycle();
            let mut chunks = Vec::new();
            while queues.iter().any(|queue| !queue.is_empty()) {
                let start = order.next().unwrap_or(0);
                let count = queues.len();
                let next = (0..count).map(|step| (start + step) % count).find(|at| !queues[*at].is_empty());
                chunks.extend(queues[next.unwrap()].pop());
            }
            let answer = assembled(chunks);
            for (index, (text, arguments)) in texts.iter().enumerate() {
                let choice = &answer["choices"][index];
                prop_assert_eq!(choice["message"]["content"].as_str(), Some(text.as_str()));
                let call = &choice["message"]["tool_calls"][0];
                prop_assert_eq!(call["function"]["arguments"].as_str(), Some(arguments.as_str()));
                prop_assert_eq!(&choice["finish_reason"], "stop");
            }
        }
    }
}
