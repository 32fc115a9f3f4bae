//! The answer to a `/v1/completions` request: chunks in OpenAI's form as they come, or one `text_completion`.
//!
//! Strict clients validate every chunk here too: `id`, `object`, an integer `created`, `model`, and choices with
//! `text`, `index`, `logprobs` and `finish_reason`.

use std::collections::BTreeMap;

use gristmill_protocol::job::RequestId;
use serde_json::{Map, Value, json};

use crate::core::answer_stream::{JobSummary, chunk_failure, unfinished};
use crate::core::continuation::{Junction, PartialAnswer, SeamError};
use crate::core::failure::ApiFailure;
use crate::core::normaliser::{ChunkError, error_of_chunk, finish_reason};
use crate::core::request::COMPLETIONS_MAX;
use crate::core::sse;

/// Most bytes of an answer that is put together.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// A completion on its way to the program.
#[derive(Clone, Debug)]
pub struct CompletionAnswer {
    request_id: RequestId,
    model: String,
    created: u64,
    id: Option<String>,
    /// Whether each choice that has begun has ended.
    choices: BTreeMap<u64, bool>,
    usage: Option<Map<String, Value>>,
    form: Form,
    /// What the program has, where that is worth keeping.
    partial: Option<PartialAnswer>,
    /// Where the present provider's text joins what others wrote, if it continues an answer.
    junction: Option<Junction>,
    seam_error: Option<SeamError>,
}

#[derive(Clone, Debug)]
enum Form {
    Stream {
        include_usage: bool,
        /// The chunk that ends a choice waits for the next one, or for the sum: the last chunk carries it.
        held: Option<Map<String, Value>>,
    },
    Whole {
        choices: BTreeMap<u64, Map<String, Value>>,
        extra: Map<String, Value>,
        bytes: usize,
    },
}

/// A chunk in OpenAI's form.
struct NormalChunk {
    value: Map<String, Value>,
    finishes: bool,
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
            Some(include_usage) => Form::Stream {
                include_usage,
                held: None,
            },
            None => Form::Whole {
                choices: BTreeMap::new(),
                extra: Map::new(),
                bytes: 0,
            },
        };
        Self {
            request_id,
            model,
            created: now_seconds,
            id: None,
            choices: BTreeMap::new(),
            usage: None,
            form,
            partial: None,
            junction: None,
            seam_error: None,
        }
    }

    /// The same, keeping what another provider would need to continue the answer.
    #[must_use]
    pub fn keeping_text(mut self) -> Self {
        self.partial = Some(PartialAnswer::default());
        self
    }

    /// What the program has, where it is kept.
    #[must_use]
    pub const fn partial(&self) -> Option<&PartialAnswer> {
        self.partial.as_ref()
    }

    /// Why a chunk of the present provider was refused, where it does not continue what the program has.
    #[must_use]
    pub const fn seam_error(&self) -> Option<SeamError> {
        self.seam_error
    }

    /// Takes note of how many tokens the present provider has written up to here.
    pub fn count_tokens(&mut self, written: u64) {
        if self
            .junction
            .as_ref()
            .is_some_and(|junction| junction.anew.is_holding())
        {
            // The program does not have that text yet.
            return;
        }
        if let Some(partial) = &mut self.partial {
            partial.count_tokens(written);
        }
    }

    /// From here on another provider's text follows, of whose answer others wrote so many tokens.
    pub fn go_on(&mut self, junction: Junction, tokens_before: u64) {
        self.junction = Some(junction);
        self.seam_error = None;
        self.usage = None;
        if let Some(partial) = &mut self.partial {
            partial.go_on(tokens_before);
        }
    }

    /// Whether the answer has choices and all of them were ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.values().all(|is_finished| *is_finished)
    }

    /// The usage that the server sent last; nothing where it wrote a part of the answer only.
    fn told_usage(&self) -> Option<&Map<String, Value>> {
        self.usage.as_ref().filter(|_| self.junction.is_none())
    }

    /// Takes a message; appends what the program gets of it now.
    ///
    /// # Errors
    /// [`ApiFailure`] where it is no part of such an answer.
    pub fn message(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), ApiFailure> {
        let chunk = self.normalise(message).map_err(chunk_failure)?;
        match (&mut self.form, chunk) {
            (_, None) => Ok(()),
            (Form::Stream { held, .. }, Some(chunk)) => {
                if let Some(held) = held.take() {
                    sse::write_chunk(held, out)?;
                }
                if chunk.finishes {
                    *held = Some(chunk.value);
                    return Ok(());
                }
                Ok(sse::write_chunk(chunk.value, out)?)
            }
            (
                Form::Whole {
                    choices,
                    extra,
                    bytes,
                },
                Some(chunk),
            ) => {
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
        let usage = summary.usage_json(self.told_usage());
        let mut last = self.header();
        match &mut self.form {
            Form::Stream { include_usage, held } => {
                last.insert("choices".into(), json!([]));
                let mut last_chunk = held.take().unwrap_or_else(|| last.clone());
                if *include_usage {
                    sse::write_chunk(last_chunk, out)?;
                    last_chunk = last;
                    last_chunk.insert("usage".into(), usage);
                }
                last_chunk.insert("gristmill".into(), summary.to_json());
                sse::write_chunk(last_chunk, out)?;
                out.extend_from_slice(sse::DONE);
            }
            Form::Whole { choices, extra, .. } => {
                last.append(extra);
                let choices: Vec<Value> = std::mem::take(choices).into_values().map(Value::from).collect();
                last.insert("choices".into(), choices.into());
                last.insert("usage".into(), usage);
                last.insert("gristmill".into(), summary.to_json());
                out.extend_from_slice(Value::from(last).to_string().as_bytes());
            }
        }
        Ok(())
    }

    /// The end of a streamed answer that broke off; nothing where the answer was to come whole.
    #[must_use]
    pub fn broken_off(self, failure: &ApiFailure) -> Option<Vec<u8>> {
        let Form::Stream { held, .. } = self.form else {
            return None;
        };
        let mut out = Vec::new();
        if let Some(held) = held {
            // A choice that had ended has ended, whatever became of the others. One too long is lost with them.
            let _ = sse::write_chunk(held, &mut out);
        }
        sse::write_event(&failure.to_json(), &mut out);
        out.extend_from_slice(sse::DONE);
        Some(out)
    }

    fn header(&self) -> Map<String, Value> {
        let id = self
            .id
            .clone()
            .unwrap_or_else(|| format!("cmpl-{}", self.request_id));
        Map::from_iter([
            ("id".to_owned(), json!(id)),
            ("object".to_owned(), json!("text_completion")),
            ("created".to_owned(), json!(self.created)),
            ("model".to_owned(), json!(self.model)),
        ])
    }

    fn normalise(&mut self, message: &[u8]) -> Result<Option<NormalChunk>, ChunkError> {
        let mut chunk = match serde_json::from_slice(message) {
            Ok(Value::Object(chunk)) => chunk,
            Ok(_) => return Err(ChunkError::Malformed("it is not a JSON object")),
            Err(_) => return Err(ChunkError::Malformed("it is not JSON")),
        };
        match chunk.remove("error") {
            None | Some(Value::Null) => {}
            Some(error) => return Err(ChunkError::Failed(error_of_chunk(&error))),
        }
        if let Some(Value::Object(usage)) = chunk.remove("usage") {
            self.usage = Some(usage);
        }
        let choices = match chunk.remove("choices") {
            Some(Value::Array(choices)) => choices,
            None | Some(Value::Null) => Vec::new(),
            Some(_) => return Err(ChunkError::Malformed("its choices are not a list")),
        };
        if self.id.is_none() {
            self.take_header(&chunk);
        }
        let mut finishes = false;
        let mut normal = Vec::with_capacity(choices.len());
        for (position, choice) in choices.into_iter().enumerate() {
            normal.extend(self.choice(position, choice, &mut finishes)?);
        }
        if normal.is_empty() {
            return Ok(None);
        }
        let mut value = self.header();
        for (name, field) in chunk {
            if !field.is_null() && !value.contains_key(&name) {
                value.insert(name, field);
            }
        }
        value.insert("choices".into(), normal.into());
        Ok(Some(NormalChunk { value, finishes }))
    }

    fn take_header(&mut self, chunk: &Map<String, Value>) {
        let text = chunk.get("id").and_then(Value::as_str);
        let id = text.filter(|id| !id.is_empty() && id.len() <= 256);
        self.id = Some(id.map_or_else(|| format!("cmpl-{}", self.request_id), str::to_owned));
        let created = chunk.get("created").and_then(Value::as_u64);
        self.created = created.filter(|created| *created > 0).unwrap_or(self.created);
    }

    fn choice(
        &mut self,
        position: usize,
        choice: Value,
        finishes: &mut bool,
    ) -> Result<Option<Value>, ChunkError> {
        let Value::Object(mut choice) = choice else {
            return Err(ChunkError::Malformed("one of its choices is not an object"));
        };
        let index = choice
            .remove("index")
            .as_ref()
            .and_then(Value::as_u64)
            .unwrap_or(position as u64);
        if index >= COMPLETIONS_MAX {
            return Err(ChunkError::Malformed("it has more choices than can be asked for"));
        }
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
        if let Some(junction) = &mut self.junction {
            let joined = junction.pass(&text, finish.is_some());
            text = joined.inspect_err(|error| self.seam_error = Some(*error))?;
            if text.is_empty() && finish.is_none() {
                return Ok(None);
            }
        }
        if let Some(partial) = &mut self.partial {
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
