//! What the answers to chats and to completions have in common, chunk by chunk: what stands around the choices, what
//! the server said of the usage, and where one provider's output joins another's.

use gristmill_protocol::job::{JobFailed, RequestId};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::core::continuation::{Junction, PartialAnswer, SeamError};

/// Most bytes of an id that a server may give an answer.
const ID_MAX_BYTES: usize = 256;

/// Why a message is no part of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChunkError {
    /// It is not a chunk.
    #[error("the provider sent what is no chunk of an answer: {0}")]
    Malformed(&'static str),
    /// It says that the answer failed.
    #[error("{}", .0.reason)]
    Failed(JobFailed),
    /// It does not continue what the program has.
    #[error(transparent)]
    Seam(#[from] SeamError),
}

/// A chunk in OpenAI's form.
#[derive(Clone, Debug, PartialEq)]
pub struct NormalChunk {
    /// The JSON object.
    pub value: Map<String, Value>,
    /// Whether it ends one of the choices.
    pub finishes: bool,
}

/// What OpenAI calls the chunks of one kind of answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkNames {
    /// The `object` of each chunk.
    pub object: &'static str,
    /// How ids begin.
    pub id_prefix: &'static str,
}

/// What stands around the choices of one answer, and where its parts join.
#[derive(Clone, Debug)]
pub struct AnswerFrame {
    names: ChunkNames,
    request_id: RequestId,
    model: String,
    created: u64,
    id: Option<String>,
    usage: Option<Map<String, Value>>,
    /// What the program has, where that is worth keeping.
    pub(super) partial: Option<PartialAnswer>,
    /// Where the present provider's output joins what others wrote, if it continues an answer.
    pub(super) junction: Option<Junction>,
    seam_error: Option<SeamError>,
}

impl AnswerFrame {
    /// For the answer to a request. `now_seconds` is used where the server does not say when it answered.
    #[must_use]
    pub const fn new(names: ChunkNames, request_id: RequestId, model: String, now_seconds: u64) -> Self {
        Self {
            names,
            request_id,
            model,
            created: now_seconds,
            id: None,
            usage: None,
            partial: None,
            junction: None,
            seam_error: None,
        }
    }

    /// From here on, what another provider would need to continue the answer is kept.
    pub fn keep_text(&mut self) {
        self.partial = Some(PartialAnswer::default());
    }

    /// The request that is answered.
    #[must_use]
    pub const fn request_id(&self) -> &RequestId {
        &self.request_id
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

    /// From here on another provider's output follows, of whose answer others wrote so many tokens.
    pub fn go_on(&mut self, junction: Junction, tokens_before: u64) {
        self.junction = Some(junction);
        self.seam_error = None;
        self.usage = None;
        if let Some(partial) = &mut self.partial {
            partial.go_on(tokens_before);
        }
    }

    /// The usage that the server sent last; nothing where it wrote a part of the answer only.
    #[must_use]
    pub const fn usage(&self) -> Option<&Map<String, Value>> {
        match self.junction {
            None => self.usage.as_ref(),
            Some(_) => None,
        }
    }

    /// The fields with which every chunk begins.
    #[must_use]
    pub fn header(&self) -> Map<String, Value> {
        let id = self.id.clone().unwrap_or_else(|| self.own_id());
        Map::from_iter([
            ("id".to_owned(), json!(id)),
            ("object".to_owned(), json!(self.names.object)),
            ("created".to_owned(), json!(self.created)),
            ("model".to_owned(), json!(self.model)),
        ])
    }

    /// Reads a message: the fields of a chunk, and apart from them its choices. Its usage is kept for the end.
    ///
    /// # Errors
    /// [`ChunkError`] where it is no chunk, or one that says that the answer failed.
    pub fn open(&mut self, message: &[u8]) -> Result<(Map<String, Value>, Vec<Value>), ChunkError> {
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
        Ok((chunk, choices))
    }

    /// The choice of a chunk with its reason where it is no part of the answer: a seam that does not fit is kept.
    ///
    /// # Errors
    /// The one that is given.
    pub fn noted<T>(&mut self, choice: Result<T, ChunkError>) -> Result<T, ChunkError> {
        if let Err(ChunkError::Seam(error)) = &choice {
            self.seam_error = Some(*error);
        }
        choice
    }

    /// The chunk that programs get: the answer's header, the server's other fields, and the choices.
    #[must_use]
    pub fn close(&self, chunk: Map<String, Value>, choices: Vec<Value>) -> Map<String, Value> {
        let mut value = self.header();
        for (name, field) in chunk {
            if !field.is_null() && !value.contains_key(&name) {
                value.insert(name, field);
            }
        }
        value.insert("choices".into(), choices.into());
        value
    }

    fn own_id(&self) -> String {
        format!("{}-{}", self.names.id_prefix, self.request_id)
    }

    fn take_header(&mut self, chunk: &Map<String, Value>) {
        let text = chunk.get("id").and_then(Value::as_str);
        let id = text.filter(|id| !id.is_empty() && id.len() <= ID_MAX_BYTES);
        self.id = Some(id.map_or_else(|| self.own_id(), str::to_owned));
        let created = chunk.get("created").and_then(Value::as_u64);
        self.created = created.filter(|created| *created > 0).unwrap_or(self.created);
    }
}

/// The index of a choice, which is its place where it does not say, and its other fields. Fewer than `most` can be
/// asked for.
///
/// # Errors
/// [`ChunkError`] where it is no choice, or none that was asked for.
pub fn open_choice(
    position: usize,
    choice: Value,
    most: u64,
) -> Result<(u64, Map<String, Value>), ChunkError> {
    let Value::Object(mut choice) = choice else {
        return Err(ChunkError::Malformed("one of its choices is not an object"));
    };
    let index = choice
        .remove("index")
        .as_ref()
        .and_then(Value::as_u64)
        .unwrap_or(position as u64);
    if index >= most {
        return Err(ChunkError::Malformed("it has more choices than can be asked for"));
    }
    Ok((index, choice))
}

/// Why a choice ended, as one of OpenAI's words: strict clients know no others.
pub(crate) fn finish_reason(reason: &Value) -> Option<&'static str> {
    match reason.as_str()? {
        "" => None,
        "length" | "max_tokens" => Some("length"),
        "tool_calls" | "tool_use" => Some("tool_calls"),
        "content_filter" => Some("content_filter"),
        "function_call" => Some("function_call"),
        _ => Some("stop"),
    }
}

/// What a server says in an error chunk.
pub(crate) fn error_of_chunk(error: &Value) -> JobFailed {
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    let message = text("message")
        .or_else(|| error.as_str())
        .unwrap_or("the provider's engine failed");
    let status = error
        .get("code")
        .and_then(Value::as_u64)
        .and_then(|code| u16::try_from(code).ok());
    let status = status
        .filter(|status| (400..=599).contains(status))
        .unwrap_or(502);
    JobFailed::new(
        status,
        text("code").unwrap_or("provider_failed"),
        message,
        text("param"),
    )
}
