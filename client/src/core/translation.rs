//! Other services' ways of asking for a chat: OpenAI's `/v1/responses` and Anthropic's `/v1/messages`.
//!
//! A request becomes a chat completion, which runs like any other; its answer, streamed or whole, becomes what the
//! program expects. Everything that makes an answer whole (providers, payment, continuation) is left to the chat.

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::core::failure::ApiFailure;
use crate::core::sse;

pub mod messages;
mod messages_request;
mod parts;
pub mod responses;
mod responses_request;

pub use messages::MessagesAnswer;
pub use responses::ResponsesAnswer;

/// A request in another service's form, as a chat completion.
#[derive(Clone, Debug, PartialEq)]
pub struct TranslatedRequest {
    /// The body of the chat completion.
    pub chat: Bytes,
    /// What becomes of its answer.
    pub answer: Translation,
}

/// What becomes of an answer on its way to the program.
#[derive(Clone, Debug, PartialEq)]
pub enum Translation {
    /// It goes on as it is.
    Verbatim,
    /// It becomes a response.
    Responses(Box<ResponsesAnswer>),
    /// It becomes a message.
    Messages(Box<MessagesAnswer>),
}

/// What a program gets now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether a complete answer ends with them.
    pub is_end: bool,
}

impl Translation {
    /// A piece of a stream: whole events of a chat completion.
    #[must_use]
    pub fn piece(&mut self, piece: Bytes) -> Translated {
        let is_end = piece.ends_with(sse::DONE);
        let mut out = Vec::new();
        match self {
            Self::Verbatim => return Translated { bytes: piece, is_end },
            Self::Responses(answer) => {
                parts::of_events(&piece, &mut |part| answer.take(part, &mut out));
            }
            Self::Messages(answer) => {
                parts::of_events(&piece, &mut |part| answer.take(part, &mut out));
            }
        }
        Translated {
            bytes: out.into(),
            is_end,
        }
    }

    /// A whole answer: a chat completion.
    ///
    /// # Errors
    /// [`ApiFailure`] where it can't be said in the program's form.
    pub fn whole(self, json: Bytes) -> Result<Bytes, ApiFailure> {
        let mut scratch = Vec::new();
        let answer = match self {
            Self::Verbatim => return Ok(json),
            Self::Responses(mut answer) => {
                parts::of_whole(&json, &mut |part| answer.take(part, &mut scratch))?;
                answer.finish()?
            }
            Self::Messages(mut answer) => {
                parts::of_whole(&json, &mut |part| answer.take(part, &mut scratch))?;
                answer.finish()?
            }
        };
        Ok(answer.to_string().into())
    }

    /// The end of a stream that broke off.
    #[must_use]
    pub fn failed(&mut self, failure: &ApiFailure) -> Bytes {
        let mut out = Vec::new();
        match self {
            Self::Verbatim => {
                sse::write_event(&failure.to_json(), &mut out);
                out.extend_from_slice(sse::DONE);
            }
            Self::Responses(answer) => answer.fail(&failure.into(), &mut out),
            Self::Messages(answer) => answer.fail(&failure.into(), &mut out),
        }
        out.into()
    }

    /// What keeps a silent connection alive.
    #[must_use]
    pub const fn keep_alive(&self) -> &'static [u8] {
        match self {
            Self::Verbatim | Self::Responses(_) => sse::KEEP_ALIVE,
            // Its clients know this one.
            Self::Messages(_) => messages::PING,
        }
    }

    /// The name by which the program knows the field at fault.
    #[must_use]
    pub fn at_own_field(&self, mut failure: ApiFailure) -> ApiFailure {
        let own_name = match self {
            Self::Verbatim => return failure,
            Self::Responses(_) => responses_request::own_name,
            Self::Messages(_) => messages_request::own_name,
        };
        if let Some(name) = failure.param.as_deref().and_then(own_name) {
            failure.param = Some(name.to_owned());
        }
        failure
    }
}

/// Appends an event with a name, as both services write them.
fn write_named_event(name: &str, data: &Map<String, Value>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    // Writing JSON values into memory does not fail.
    let _ = serde_json::to_writer(&mut *out, data);
    out.extend_from_slice(b"\n\n");
}

/// The fields of a JSON object in a body.
fn object(body: &[u8]) -> Result<Map<String, Value>, ApiFailure> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(ApiFailure::invalid_request("the body is not a JSON object")),
        Err(error) => Err(ApiFailure::invalid_request(format!(
            "the body is not valid JSON: {error}"
        ))),
    }
}

/// Takes a field out, where it is there and not null.
fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    fields.shift_remove(name).filter(|value| !value.is_null())
}

/// An answer of either service has one choice: more of them would be paid and never shown.
fn refuse_more_choices(fields: &mut Map<String, Value>) -> Result<(), ApiFailure> {
    match take(fields, "n") {
        None => Ok(()),
        Some(count) if count == 1 => Ok(()),
        Some(_) => {
            let message = "'n' can't be honoured: there is one answer to a request; send several requests";
            Err(ApiFailure::not_offered_here("n", message))
        }
    }
}

/// Checks a limit of output tokens, which neither service knows below one. Whether it is whole is the chat's affair.
fn check_limit(limit: &Value, field: &str) -> Result<(), ApiFailure> {
    match limit.as_f64() {
        Some(limit) if limit >= 1.0 => Ok(()),
        _ => Err(wrong(field, "a whole number of at least 1")),
    }
}

/// A field that is not what it must be.
fn wrong(field: &str, expected: &str) -> ApiFailure {
    ApiFailure::invalid_request(format!("'{field}' must be {expected}")).at(field)
}
