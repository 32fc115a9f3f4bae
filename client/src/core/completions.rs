//! The answer to a `/v1/completions` request: chunks in OpenAI's form as they come, or one `text_completion`.
//!
//! Strict clients validate every chunk here too: `id`, `object`, an integer `created`, `model`, and choices with
//! `text`, `index`, `logprobs` and `finish_reason`.

use std::collections::BTreeMap;

use gristmill_protocol::job::RequestId;
use serde_json::{Map, Value, json};

use crate::core::answer_frame::{
    AnswerFrame, ChunkError, ChunkNames, NormalChunk, finish_reason, open_choice,
};
use crate::core::answer_stream::{JobSummary, chunk_failure, unfinished};
use crate::core::chunk_events::ChunkEvents;
use crate::core::failure::ApiFailure;
use crate::core::request::COMPLETIONS_MAX;

/// Most bytes of an answer that is put together.
const ANSWER_MAX_BYTES: usize = 64 << 20;
const NAMES: ChunkNames = ChunkNames {
    object: "text_completion",
    id_prefix: "cmpl",
};

/// A completion on its way to the program.
#[derive(Clone, Debug)]
pub struct CompletionAnswer {
    frame: AnswerFrame,
    /// Whether each choice that has begun has ended.
    choices: BTreeMap<u64, bool>,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    Stream(ChunkEvents),
    Whole {
        choices: BTreeMap<u64, Map<String, Value>>,
        extra: Map<String, Value>,
        bytes: usize,
    },
}

impl CompletionAnswer {
    /// An answer of which nothing has come yet: a stream where `include_usage` is said, else a whole.
    /// `now_seconds` is used where the server does not say when it answered.
    #[must_use]
    pub fn new(
        request_id: RequestId,
        model: String,
        now_seconds: u64,
        stream_with_usage: Option<bool>,
    ) -> Self {
        let form = match stream_with_usage {
            Some(include_usage) => Form::Stream(ChunkEvents::new(include_usage)),
            None => Form::Whole {
                choices: BTreeMap::new(),
                extra: Map::new(),
                bytes: 0,
            },
        };
        Self {
            frame: AnswerFrame::new(NAMES, request_id, model, now_seconds),
            choices: BTreeMap::new(),
            form,
        }
    }

    /// What stands around the choices.
    #[must_use]
    pub const fn frame(&self) -> &AnswerFrame {
        &self.frame
    }

    /// The same, to be changed.
    pub const fn frame_mut(&mut self) -> &mut AnswerFrame {
        &mut self.frame
    }

    /// Whether the answer has choices and all of them were ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.values().all(|is_finished| *is_finished)
    }

    /// Takes a message; appends what the program gets of it now.
    ///
    /// # Errors
    /// [`ApiFailure`] where it is no part of such an answer.
    pub fn message(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), ApiFailure> {
        let Some(chunk) = self.normalise(message).map_err(chunk_failure)? else {
            return Ok(());
        };
        match &mut self.form {
            Form::Stream(events) => Ok(events.chunk(chunk, out)?),
            Form::Whole {
                choices,
                extra,
                bytes,
            } => {
                *bytes = bytes.saturating_add(message.len());
                if *bytes > ANSWER_MAX_BYTES {
                    return Err(ApiFailure::provider_failed(
                        "the answer is longer than any model's context",
                    ));
                }
                add(choices, extra, chunk.value);
                Ok(())
            }
        }
    }

    /// Appends the end of a complete answer.
    ///
    /// # Errors
    /// [`ApiFailure`] where the answer is not whole.
    pub fn complete(&mut self, summary: &JobSummary, out: &mut Vec<u8>) -> Result<(), ApiFailure> {
        if !self.is_finished() {
            return Err(unfinished());
        }
        match &mut self.form {
            Form::Stream(events) => Ok(events.complete(&self.frame, summary, out)?),
            Form::Whole { choices, extra, .. } => {
                let mut answer = self.frame.header();
                answer.append(extra);
                let choices: Vec<Value> = std::mem::take(choices).into_values().map(Value::from).collect();
                answer.insert("choices".into(), choices.into());
                answer.insert("usage".into(), summary.usage_json(self.frame.usage()));
                answer.insert("gristmill".into(), summary.to_json());
                out.extend_from_slice(Value::from(answer).to_string().as_bytes());
                Ok(())
            }
        }
    }

    /// The end of a streamed answer that broke off; nothing where the answer was to come whole.
    #[must_use]
    pub fn broken_off(self, failure: &ApiFailure) -> Option<Vec<u8>> {
        let Form::Stream(events) = self.form else {
            return None;
        };
        let mut out = Vec::new();
        events.fail(failure, &mut out);
        Some(out)
    }

    fn normalise(&mut self, message: &[u8]) -> Result<Option<NormalChunk>, ChunkError> {
        let (chunk, choices) = self.frame.open(message)?;
        let mut finishes = false;
        let mut normal = Vec::with_capacity(choices.len());
        for (position, choice) in choices.into_iter().enumerate() {
            let choice = self.choice(position, choice, &mut finishes);
            normal.extend(self.frame.noted(choice)?);
        }
        if normal.is_empty() {
            return Ok(None);
        }
        let value = self.frame.close(chunk, normal);
        Ok(Some(NormalChunk { value, finishes }))
    }

    fn choice(
        &mut self,
        position: usize,
        choice: Value,
        finishes: &mut bool,
    ) -> Result<Option<Value>, ChunkError> {
        let (index, mut choice) = open_choice(position, choice, COMPLETIONS_MAX)?;
        let is_finished = self.choices.entry(index).or_default();
        if *is_finished {
            return Ok(None);
        }
        let mut text = match choice.remove("text") {
            Some(Value::String(text)) => text,
            None | Some(Value::Null) => String::new(),
            Some(_) => return Err(ChunkError::Malformed("the text of a choice is no text")),
        };
        let finish = choice.remove("finish_reason").as_ref().and_then(finish_reason);
        if let Some(junction) = &mut self.frame.junction {
            text = junction.pass(&text, finish.is_some())?;
            if text.is_empty() && finish.is_none() {
                return Ok(None);
            }
        }
        if let Some(partial) = &mut self.frame.partial {
            partial.observe_text(index, &text);
        }
        *is_finished = finish.is_some();
        *finishes |= *is_finished;
        let mut normal = Map::from_iter([
            ("text".to_owned(), json!(text)),
            ("index".to_owned(), json!(index)),
            (
                "logprobs".to_owned(),
                choice.remove("logprobs").unwrap_or(Value::Null),
            ),
        ]);
        normal.extend(choice.into_iter().filter(|(_, field)| !field.is_null()));
        normal.insert("finish_reason".into(), json!(finish));
        Ok(Some(normal.into()))
    }
}

/// Adds a chunk to an answer that is put together.
fn add(
    choices: &mut BTreeMap<u64, Map<String, Value>>,
    extra: &mut Map<String, Value>,
    chunk: Map<String, Value>,
) {
    for (name, field) in chunk {
        match (name.as_str(), field) {
            ("id" | "object" | "created" | "model", _) => {}
            ("choices", Value::Array(added)) => {
                for choice in added {
                    let index = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
                    if let Value::Object(choice) = choice {
                        merge(choices.entry(index).or_default(), choice);
                    }
                }
            }
            (_, field) => {
                extra.entry(name).or_insert(field);
            }
        }
    }
}

/// Texts are appended, lists of logprobs joined, everything else is replaced by what says something.
fn merge(into: &mut Map<String, Value>, choice: Map<String, Value>) {
    for (name, field) in choice {
        match (into.get_mut(&name), field) {
            (Some(Value::String(text)), Value::String(more)) if name == "text" => text.push_str(&more),
            (Some(Value::Object(known)), Value::Object(more)) if name == "logprobs" => {
                for (list, more) in more {
                    match (known.get_mut(&list), more) {
                        (Some(Value::Array(known)), Value::Array(mut more)) => known.append(&mut more),
                        (None | Some(Value::Null), more) => {
                            known.insert(list, more);
                        }
                        _ => {}
                    }
                }
            }
            (Some(_), Value::Null) => {}
            (_, field) => {
                into.insert(name, field);
            }
        }
    }
}

#[cfg(test)]
mod tests;
