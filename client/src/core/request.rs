//! What the proxy reads of a request: just enough to choose a provider and to know what it can cost. The body
//! itself travels as the program wrote it.

use std::collections::BTreeMap;

use bytes::Bytes;
use gristmill_protocol::codec::PAYLOAD_MAX_BYTES;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::core::embeddings::VectorEncoding;
use crate::core::failure::ApiFailure;

mod chat;
mod completions;
mod content;
mod form;
mod input;
mod read;

use input::Input;
use read::{missing, optional, wrong_type};

/// Most answers to one request, as at OpenAI.
pub const CHOICES_MAX: u64 = 128;
/// Most answers that the prompts of one `/v1/completions` request may come to.
pub const COMPLETIONS_MAX: u64 = 2_048;
/// Most texts of one `/v1/embeddings` request, as at OpenAI.
const INPUTS_MAX: u64 = 2_048;
/// Most images of one request, as at OpenAI.
const IMAGES_MAX: u64 = 10;

/// A request of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRequest {
    /// What is asked for.
    pub kind: JobKind,
    /// The model.
    pub model: String,
    /// Whether the answer shall come as it is made.
    pub stream: bool,
    /// Whether a streamed answer shall end with its usage.
    pub include_usage: bool,
    /// The most output tokens of one choice, where the program says.
    pub output_tokens_max: Option<u64>,
    /// How many choices are made, and have to be paid.
    pub choices: u64,
    /// What an offer must be able to honour, and the field that asks for it.
    pub needs: BTreeMap<Capability, &'static str>,
    /// How vectors shall be written, for embeddings.
    pub encoding: VectorEncoding,
    /// The media type of the body: empty for JSON.
    pub content_type: String,
    /// The body as the program wrote it: a JSON object, or a form.
    pub body: Bytes,
}

/// The fields that are looked at. One that stands twice is an error: two readers could see two requests.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    query: Option<&'a RawValue>,
    #[serde(borrow)]
    documents: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    n: Option<&'a RawValue>,
    #[serde(borrow)]
    best_of: Option<&'a RawValue>,
    #[serde(borrow)]
    echo: Option<&'a RawValue>,
    #[serde(borrow)]
    suffix: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_choice: Option<&'a RawValue>,
    #[serde(borrow)]
    parallel_tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    functions: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    response_format: Option<&'a RawValue>,
    #[serde(borrow)]
    logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    top_logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    logit_bias: Option<&'a RawValue>,
    #[serde(borrow)]
    seed: Option<&'a RawValue>,
    #[serde(borrow)]
    continue_final_message: Option<&'a RawValue>,
    #[serde(borrow)]
    dimensions: Option<&'a RawValue>,
    #[serde(borrow)]
    encoding_format: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

impl ProgramRequest {
    /// Reads a request whose body is JSON.
    ///
    /// # Errors
    /// [`ApiFailure`] with status 400 that names the field at fault.
    pub fn parse(kind: JobKind, body: Bytes) -> Result<Self, ApiFailure> {
        let text = std::str::from_utf8(&body)
            .map_err(|error| ApiFailure::invalid_request(format!("the body is not UTF-8: {error}")))?;
        if !text.trim_start().starts_with('{') {
            return Err(ApiFailure::invalid_request("the body is not a JSON object"));
        }
        let fields: Fields<'_> = serde_json::from_str(text)
            .map_err(|error| ApiFailure::invalid_request(format!("the body is not valid JSON: {error}")))?;
        let request = Self::new(kind, read::model(fields.model)?);
        let mut request = match kind {
            JobKind::ChatCompletions => request.with_chat_fields(&fields)?,
            JobKind::Completions => request.with_completions_fields(&fields)?,
            JobKind::Embeddings => request.with_embeddings_fields(&fields)?,
            JobKind::AudioSpeech => request.with_speech_fields(&fields)?,
            JobKind::ImageGenerations => request.with_images_fields(&fields)?,
            JobKind::Rerank => request.with_rerank_fields(&fields)?,
            JobKind::AudioTranscriptions => return Err(form::not_a_form()),
        };
        // Servers differ in what they do where none is said.
        let must_say_its_limit = kind == JobKind::Completions && fields.max_tokens.is_none();
        request.body = body;
        if must_say_its_limit {
            request.body = request.limited_body(completions::OUTPUT_TOKENS_DEFAULT);
        }
        Ok(request)
    }

    /// A request of which only the model is known.
    fn new(kind: JobKind, model: String) -> Self {
        Self {
            kind,
            model,
            stream: false,
            include_usage: false,
            output_tokens_max: None,
            choices: 1,
            needs: BTreeMap::new(),
            encoding: VectorEncoding::Float,
            content_type: String::new(),
            body: Bytes::new(),
        }
    }

    /// Takes note of what an offer must be able to honour. The first field that asks for it is the one that is named.
    fn need(&mut self, wanted: bool, capability: Capability, field: &'static str) {
        if wanted {
            self.needs.entry(capability).or_insert(field);
        }
    }

    fn with_stream_fields(mut self, fields: &Fields<'_>) -> Result<Self, ApiFailure> {
        self.stream = optional(fields.stream, "stream", "true or false")?.unwrap_or(false);
        let options: Option<StreamOptions> = optional(
            fields.stream_options,
            "stream_options",
            "an object such as {\"include_usage\": true}",
        )?;
        self.include_usage = options.and_then(|options| options.include_usage).unwrap_or(false);
        Ok(self)
    }

    fn with_embeddings_fields(mut self, fields: &Fields<'_>) -> Result<Self, ApiFailure> {
        let expected = "a text that is not empty, or a list of texts or of tokens";
        let input: Input = optional(fields.input, "input", expected)?.ok_or_else(|| missing("input"))?;
        if input.count > INPUTS_MAX {
            let message = format!("'input' has {} texts; send at most {INPUTS_MAX}", input.count);
            return Err(ApiFailure::invalid_request(message).at("input"));
        }
        self.need(input.is_tokens, Capability::TokenInput, "input");
        let format: Option<String> = optional(fields.encoding_format, "encoding_format", "a text")?;
        self.encoding = match format.as_deref() {
            None | Some("float") => VectorEncoding::Float,
            Some("base64") => VectorEncoding::Base64,
            Some(_) => return Err(wrong_type("encoding_format", "\"float\" or \"base64\"")),
        };
        let dimensions = read::whole(fields.dimensions, "dimensions")?;
        if dimensions == Some(0) {
            return Err(wrong_type("dimensions", "at least 1"));
        }
        self.need(dimensions.is_some(), Capability::Dimensions, "dimensions");
        Ok(self)
    }

    fn with_speech_fields(self, fields: &Fields<'_>) -> Result<Self, ApiFailure> {
        let input: String = optional(fields.input, "input", "a text")?.ok_or_else(|| missing("input"))?;
        if input.is_empty() {
            return Err(wrong_type("input", "a text that is not empty"));
        }
        Ok(self)
    }

    fn with_images_fields(mut self, fields: &Fields<'_>) -> Result<Self, ApiFailure> {
        let _: String = optional(fields.prompt, "prompt", "a text")?.ok_or_else(|| missing("prompt"))?;
        self.choices = read::count(fields.n, "n", IMAGES_MAX)?;
        Ok(self)
    }

    fn with_rerank_fields(self, fields: &Fields<'_>) -> Result<Self, ApiFailure> {
        let _: &RawValue = fields.query.ok_or_else(|| missing("query"))?;
        let documents: Vec<&RawValue> = optional(fields.documents, "documents", "a list of documents")?
            .ok_or_else(|| missing("documents"))?;
        if documents.is_empty() {
            return Err(wrong_type("documents", "a list of at least one document"));
        }
        Ok(self)
    }

    /// How many bytes [`ProgramRequest::body_parts`] has in all.
    #[must_use]
    pub fn body_bytes(&self, output_limit: Option<u64>) -> u64 {
        let (head, tail) = self.limited(output_limit);
        (head.len() + tail.len()) as u64
    }

    /// The body in parts that fit a frame. With `output_limit`, which is for requests that set none, the field
    /// `max_tokens` stands at its end: what is paid for can then not run away, and an answer that is cut says so.
    pub fn body_parts(&self, output_limit: Option<u64>) -> impl Iterator<Item = Vec<u8>> + Send + use<> {
        let (head, tail) = self.limited(output_limit);
        let mut tail = tail.into_bytes();
        let mut head = head;
        std::iter::from_fn(move || {
            if head.is_empty() {
                return (!tail.is_empty()).then(|| std::mem::take(&mut tail));
            }
            let mut part = head.split_to(head.len().min(PAYLOAD_MAX_BYTES)).to_vec();
            if head.is_empty() && part.len() + tail.len() <= PAYLOAD_MAX_BYTES {
                part.append(&mut tail);
            }
            Some(part)
        })
    }

    /// The body with `max_tokens` at its end.
    fn limited_body(&self, output_limit: u64) -> Bytes {
        let (head, tail) = self.limited(Some(output_limit));
        [&head, tail.as_bytes()].concat().into()
    }

    /// The body up to where a field may be added, and the rest.
    fn limited(&self, output_limit: Option<u64>) -> (Bytes, String) {
        match (output_limit, self.body.trim_ascii_end().len()) {
            // The object has at least its model, so a comma is due; where a field stands twice, the last counts.
            (Some(limit), length @ 1..) => (
                self.body.slice(..length - 1),
                format!(",\"max_tokens\":{limit}}}"),
            ),
            _ => (self.body.clone(), String::new()),
        }
    }
}

#[cfg(test)]
mod tests;
