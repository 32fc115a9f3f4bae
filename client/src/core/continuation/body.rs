//! The body that asks for the rest of an answer: the program's own, byte for byte, but for the fields that say what
//! there is already.

use std::borrow::Cow;
use std::ops::Range;

use gristmill_protocol::job::JobKind;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::Obstacle;
use super::seam::REASONING_FIELDS;

/// The fields that are looked at.
#[derive(Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    messages: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    prompt: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    continue_final_message: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    add_generation_prompt: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    temperature: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    best_of: Option<&'a RawValue>,
}

/// A field that is there, be it null.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn read<T: DeserializeOwned>(raw: Option<&RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

impl<'a> Fields<'a> {
    pub(super) fn read(body: &'a str) -> Result<Self, Obstacle> {
        serde_json::from_str(body).map_err(|_| Obstacle::Unreadable)
    }

    /// Whether the same request gives the same text, as far as the program can ask for that.
    pub(super) fn is_deterministic(&self) -> bool {
        read::<f64>(self.temperature) == Some(0.0)
    }

    /// Whether several answers are written and one is chosen.
    pub(super) fn has_several_candidates(&self) -> bool {
        read::<u64>(self.best_of).is_some_and(|best_of| best_of > 1)
    }
}

/// What there is already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written<'a> {
    /// The text that is written on.
    pub(super) prefix: &'a str,
    /// What was thought before it, in the order of [`REASONING_FIELDS`].
    pub(super) reasoning: &'a [String; 2],
    /// How many tokens both took.
    pub(super) tokens: u64,
    /// The most output tokens of the whole answer, where the program set no limit of its own.
    pub(super) output_limit: Option<u64>,
}

/// A body and the limit of output tokens that it sets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContinuedBody {
    pub(super) body: String,
    pub(super) output_tokens_max: Option<u64>,
}

/// The body that asks for the rest.
pub(super) fn continued(
    kind: JobKind,
    body: &str,
    fields: &Fields<'_>,
    written: Written<'_>,
) -> Result<ContinuedBody, Obstacle> {
    let mut edits = Edits::new(body);
    if kind == JobKind::Completions {
        edits.put(fields.prompt, "prompt", &prompt(fields, written.prefix)?);
        // Our own field, by which a built-in engine finds the seam.
        edits.put(None, "continued_bytes", &written.prefix.len().to_string());
    } else {
        let messages = fields.messages.ok_or(Obstacle::Unreadable)?;
        write_on(&mut edits, fields, messages, written)?;
        edits.put(fields.continue_final_message, "continue_final_message", "true");
        edits.put(fields.add_generation_prompt, "add_generation_prompt", "false");
    }
    let output_tokens_max = limit(&mut edits, fields, written);
    Ok(ContinuedBody {
        body: edits.applied()?,
        output_tokens_max,
    })
}

/// The prompt of a completion with the text so far behind it.
fn prompt(fields: &Fields<'_>, prefix: &str) -> Result<String, Obstacle> {
    let whole = |prompt: &str| json!(format!("{prompt}{prefix}")).to_string();
    match read(fields.prompt) {
        Some(Value::String(prompt)) => Ok(whole(&prompt)),
        Some(Value::Array(prompts)) => match prompts.as_slice() {
            [Value::String(prompt)] => Ok(whole(prompt)),
            _ => Err(Obstacle::TokenPrompt),
        },
        _ => Err(Obstacle::TokenPrompt),
    }
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    role: Cow<'a, str>,
}

/// Puts the text so far behind the last message, or into it where the program itself had begun the answer.
fn write_on(
    edits: &mut Edits<'_>,
    fields: &Fields<'_>,
    messages: &RawValue,
    written: Written<'_>,
) -> Result<(), Obstacle> {
    let list: Vec<&RawValue> = serde_json::from_str(messages.get()).map_err(|_| Obstacle::Unreadable)?;
    let last = list.last().ok_or(Obstacle::Unreadable)?;
    let message: Message<'_> = serde_json::from_str(last.get()).map_err(|_| Obstacle::Unreadable)?;
    let was_begun = read(fields.continue_final_message).unwrap_or(false);
    match (message.role.as_ref(), was_begun) {
        ("assistant", true) => {
            let mut begun: Map<String, Value> =
                serde_json::from_str(last.get()).map_err(|_| Obstacle::Unreadable)?;
            match begun.get_mut("content") {
                Some(Value::String(content)) => content.push_str(written.prefix),
                _ => return Err(Obstacle::EndsWithAssistant),
            }
            edits.replace(last, Value::Object(begun).to_string());
        }
        // Some servers would write on what stands there, others would answer it.
        ("assistant", false) => return Err(Obstacle::EndsWithAssistant),
        (_, true) => return Err(Obstacle::Unreadable),
        (_, false) => {
            let mut partial = Map::from_iter([("role".to_owned(), json!("assistant"))]);
            for (name, text) in REASONING_FIELDS.into_iter().zip(written.reasoning) {
                if !text.is_empty() {
                    partial.insert(name.to_owned(), json!(text));
                }
            }
            partial.insert("content".into(), json!(written.prefix));
            edits.insert_at_end(messages, &format!(",{}", Value::Object(partial)));
        }
    }
    Ok(())
}

/// Takes what was written off the limits of output tokens; at least one token is asked for.
fn limit(edits: &mut Edits<'_>, fields: &Fields<'_>, written: Written<'_>) -> Option<u64> {
    let rest = |limit: u64| limit.saturating_sub(written.tokens).max(1);
    let mut most = None;
    for (name, field) in [
        ("max_tokens", fields.max_tokens),
        ("max_completion_tokens", fields.max_completion_tokens),
    ] {
        if let Some(limit) = read::<u64>(field).map(rest) {
            edits.put(field, name, &limit.to_string());
            most = most.max(Some(limit));
        }
    }
    if most.is_none()
        && let Some(limit) = written.output_limit.map(rest)
    {
        edits.put(fields.max_tokens, "max_tokens", &limit.to_string());
        most = Some(limit);
    }
    most
}

/// Changes to a text, each at its place.
struct Edits<'a> {
    text: &'a str,
    edits: Vec<(Range<usize>, String)>,
    added: String,
}

impl<'a> Edits<'a> {
    const fn new(text: &'a str) -> Self {
        Self {
            text,
            edits: Vec::new(),
            added: String::new(),
        }
    }

    /// Where a value that was borrowed from the text stands in it.
    fn range(&self, raw: &RawValue) -> Range<usize> {
        let start = raw.get().as_ptr().addr().wrapping_sub(self.text.as_ptr().addr());
        start..start.saturating_add(raw.get().len())
    }

    fn replace(&mut self, raw: &RawValue, by: String) {
        self.edits.push((self.range(raw), by));
    }

    /// Before the bracket that closes a list.
    fn insert_at_end(&mut self, list: &RawValue, what: &str) {
        let end = self.range(list).end.saturating_sub(1);
        self.edits.push((end..end, what.to_owned()));
    }

    /// Sets a field of the object that the text is.
    fn put(&mut self, field: Option<&RawValue>, name: &str, value: &str) {
        match field {
            Some(raw) => self.replace(raw, value.to_owned()),
            None => self.added.push_str(&format!(",\"{name}\":{value}")),
        }
    }

    /// The text with all changes. The object has at least one field, so a comma before another one is due.
    fn applied(mut self) -> Result<String, Obstacle> {
        let end = self.text.trim_end().len().saturating_sub(1);
        self.edits.push((end..end, std::mem::take(&mut self.added)));
        self.edits.sort_by_key(|(range, _)| range.start);
        let mut whole = String::with_capacity(self.text.len() + 256);
        let mut done = 0;
        for (range, by) in self.edits {
            let kept = self.text.get(done..range.start).ok_or(Obstacle::Unreadable)?;
            whole.push_str(kept);
            whole.push_str(&by);
            done = range.end;
        }
        whole.push_str(self.text.get(done..).ok_or(Obstacle::Unreadable)?);
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    static NOTHING: [String; 2] = [String::new(), String::new()];

    fn written(prefix: &str) -> Written<'_> {
        Written {
            prefix,
            reasoning: &NOTHING,
            tokens: 3,
            output_limit: None,
        }
    }

    fn chat(body: &str, written: Written<'_>) -> Result<String, Obstacle> {
        let fields = Fields::read(body)?;
        continued(JobKind::ChatCompletions, body, &fields, written).map(|continued| continued.body)
    }

    #[test]
    fn only_what_has_to_change_changes() {
        let body = r#" {"model" : "guide", "seed":7.50,"messages":[ {"role":"user","content":"\u0048i"} ], "max_tokens": 10 , "x":{"y":[1.50,null]}} "#;
        assert_eq!(
            chat(body, written("Hel\"lo")).unwrap(),
            r#" {"model" : "guide", "seed":7.50,"messages":[ {"role":"user","content":"\u0048i"} ,{"role":"assistant","content":"Hel\"lo"}], "max_tokens": 7 , "x":{"y":[1.50,null]},"continue_final_message":true,"add_generation_prompt":false} "#
        );
    }

    #[test]
    fn what_was_thought_goes_along_in_the_field_that_it_came_in() {
        let reasoning = [String::new(), "hm".to_owned()];
        let written = Written {
            reasoning: &reasoning,
            ..written("Hi")
        };
        let body =
            r#"{"messages":[{"role":"user"}],"continue_final_message":false,"add_generation_prompt":null}"#;
        assert_eq!(
            chat(body, written).unwrap(),
            r#"{"messages":[{"role":"user"},{"role":"assistant","reasoning":"hm","content":"Hi"}],"continue_final_message":true,"add_generation_prompt":false}"#
        );
    }

    #[test]
    fn an_answer_that_the_program_had_begun_goes_on_in_its_message() {
        let body = r#"{"messages":[{"role":"user"},{"name":"a","role":"assistant","content":"Once "}],"continue_final_message":true}"#;
        assert_eq!(
            chat(body, written("upon")).unwrap(),
            r#"{"messages":[{"role":"user"},{"name":"a","role":"assistant","content":"Once upon"}],"continue_final_message":true,"add_generation_prompt":false}"#
        );
        let ambiguous = r#"{"messages":[{"role":"assistant","content":"Once "}]}"#;
        assert_eq!(chat(ambiguous, written("upon")), Err(Obstacle::EndsWithAssistant));
        let parts = r#"{"messages":[{"role":"assistant","content":[]}],"continue_final_message":true}"#;
        assert_eq!(chat(parts, written("upon")), Err(Obstacle::EndsWithAssistant));
    }

    #[test]
    fn limits_count_from_the_beginning_of_the_answer() {
        let limits = |fields: &str, output_limit| {
            let body = format!(r#"{{"messages":[{{"role":"user"}}]{fields}}}"#);
            let written = Written {
                output_limit,
                ..written("Hi")
            };
            let continued = continued(
                JobKind::ChatCompletions,
                &body,
                &Fields::read(&body).unwrap(),
                written,
            );
            let continued = continued.unwrap();
            let parsed: Value = serde_json::from_str(&continued.body).unwrap();
            let limit = |name: &str| parsed.get(name).and_then(Value::as_u64);
            (
                limit("max_tokens"),
                limit("max_completion_tokens"),
                continued.output_tokens_max,
            )
        };
        assert_eq!(limits(r#","max_tokens":10"#, None), (Some(7), None, Some(7)));
        assert_eq!(
            limits(r#","max_tokens":4,"max_completion_tokens":10"#, None),
            (Some(1), Some(7), Some(7))
        );
        assert_eq!(limits(r#","max_tokens":2"#, None), (Some(1), None, Some(1)));
        assert_eq!(limits("", None), (None, None, None));
        assert_eq!(limits("", Some(100)), (Some(97), None, Some(97)));
        assert_eq!(
            limits(r#","max_tokens":null"#, Some(100)),
            (Some(97), None, Some(97))
        );
        assert_eq!(
            limits(r#","max_completion_tokens":5"#, Some(100)),
            (None, Some(2), Some(2))
        );
    }

    #[test]
    fn a_completion_goes_on_behind_its_prompt() {
        let completion = |body: &str| {
            let fields = Fields::read(body)?;
            continued(JobKind::Completions, body, &fields, written(" upon")).map(|continued| continued.body)
        };
        assert_eq!(
            completion(r#"{"prompt":"Once","stop":["x"]}"#).unwrap(),
            r#"{"prompt":"Once upon","stop":["x"],"continued_bytes":5}"#
        );
        assert_eq!(
            completion(r#"{"prompt":["Once"]}"#).unwrap(),
            r#"{"prompt":"Once upon","continued_bytes":5}"#
        );
        for body in [
            r#"{"prompt":["a","b"]}"#,
            r#"{"prompt":[1,2]}"#,
            r#"{"prompt":5}"#,
            "{\"x\":1}",
        ] {
            assert_eq!(completion(body), Err(Obstacle::TokenPrompt), "{body}");
        }
    }

    #[test]
    fn what_can_t_be_read_is_left_alone() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"messages":[]}"#,
            r#"{"messages":5}"#,
            r#"{"messages":[5]}"#,
            r#"{"messages":[{"role":"user"}],"messages":[]}"#,
        ] {
            assert_eq!(chat(body, written("Hi")), Err(Obstacle::Unreadable), "{body}");
        }
    }

    proptest! {
        /// Whatever texts there are, the body stays JSON, says the text so far last, and keeps everything else.
        #[test]
        fn bodies_stay_whole(question in "\\PC{0,40}", prefix in "\\PC{0,40}", other in "\\PC{0,20}", limit in 1u64..50) {
            let body = json!({
                "other": other, "max_tokens": limit, "messages": [{"role": "user", "content": question}], "user": "é",
            });
            let continued = chat(&body.to_string(), written(&prefix)).unwrap();
            let mut parsed: Value = serde_json::from_str(&continued).unwrap();
            let last = parsed["messages"].as_array_mut().unwrap().pop().unwrap();
            prop_assert_eq!(last, json!({"role": "assistant", "content": prefix}));
            prop_assert_eq!(parsed["max_tokens"].as_u64(), Some(limit.saturating_sub(3).max(1)));
            parsed["max_tokens"] = json!(limit);
            let fields = parsed.as_object_mut().unwrap();
            prop_assert_eq!(fields.remove("continue_final_message"), Some(json!(true)));
            prop_assert_eq!(fields.remove("add_generation_prompt"), Some(json!(false)));
            prop_assert_eq!(parsed, body);
        }
    }
}
