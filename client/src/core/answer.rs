//! What becomes of a provider's messages, by what the program asked for: a stream of events, one chat completion,
//! or a list of embeddings.

use gristmill_protocol::job::{JobKind, RequestId};
use serde_json::Value;

use crate::core::answer_stream::{AnswerStream, JobSummary, chunk_failure, unfinished};
use crate::core::assembler::Assembler;
use crate::core::embeddings::embeddings_answer;
use crate::core::failure::ApiFailure;
use crate::core::normaliser::Normaliser;
use crate::core::request::ProgramRequest;

/// Most bytes of one message of a chat's answer: a chunk.
const CHUNK_MAX_BYTES: usize = 4 << 20;
/// Most bytes of an answer that is put together, and of a list of embeddings.
const ANSWER_MAX_BYTES: usize = 64 << 20;

/// An answer on its way to the program.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Events, one for each chunk.
    Stream(AnswerStream),
    /// One chat completion.
    Whole {
        /// Brings chunks into OpenAI's form.
        normaliser: Normaliser,
        /// Puts them together.
        assembler: Assembler,
        /// Bytes of all messages.
        bytes: usize,
    },
    /// A list of embeddings.
    Embeddings {
        /// The model.
        model: String,
        /// The provider's one message.
        message: Option<Vec<u8>>,
    },
}

impl Answer {
    /// The answer to a request, of which nothing has come yet.
    #[must_use]
    pub fn to(request: &ProgramRequest, request_id: &RequestId, now_seconds: u64) -> Self {
        let model = request.model.clone();
        let normaliser = || Normaliser::new(request_id.clone(), model.clone(), now_seconds);
        match (request.kind, request.stream) {
            (JobKind::ChatCompletions, true) => {
                Self::Stream(AnswerStream::new(normaliser(), request.include_usage))
            }
            (JobKind::ChatCompletions, false) => Self::Whole {
                normaliser: normaliser(),
                assembler: Assembler::default(),
                bytes: 0,
            },
            _ => Self::Embeddings { model, message: None },
        }
    }

    /// Most bytes that one message of the provider's may have.
    #[must_use]
    pub const fn message_max_bytes(kind: JobKind) -> usize {
        match kind {
            JobKind::ChatCompletions => CHUNK_MAX_BYTES,
            _ => ANSWER_MAX_BYTES,
        }
    }

    /// Takes a message; appends what the program gets of it now.
    ///
    /// # Errors
    /// [`ApiFailure`] where it is no part of such an answer.
    pub fn message(&mut self, message: Vec<u8>, out: &mut Vec<u8>) -> Result<(), ApiFailure> {
        match self {
            Self::Stream(stream) => stream.message(&message, out),
            Self::Whole {
                normaliser,
                assembler,
                bytes,
            } => {
                *bytes = bytes.saturating_add(message.len());
                if *bytes > ANSWER_MAX_BYTES {
                    return Err(ApiFailure::provider_failed(
                        "the answer is longer than any model's context",
                    ));
                }
                if let Some(chunk) = normaliser.normalise(&message).map_err(chunk_failure)? {
                    assembler.add(chunk.value);
                }
                Ok(())
            }
            Self::Embeddings { message: Some(_), .. } => Err(ApiFailure::provider_failed(
                "the provider sent two lists of embeddings",
            )),
            Self::Embeddings { message: kept, .. } => {
                *kept = Some(message);
                Ok(())
            }
        }
    }

    /// Appends the end of a complete answer, for those that come at once the whole of it.
    ///
    /// # Errors
    /// [`ApiFailure`] where the answer is not whole.
    pub fn complete(&mut self, summary: &JobSummary, out: &mut Vec<u8>) -> Result<(), ApiFailure> {
        match self {
            Self::Stream(stream) => stream.complete(summary, out),
            Self::Whole {
                normaliser,
                assembler,
                ..
            } => {
                if !normaliser.is_finished() {
                    return Err(unfinished());
                }
                let usage: Value = summary.usage_json(normaliser.usage());
                let answer = std::mem::take(assembler).finish(usage, summary.to_json());
                out.extend_from_slice(answer.to_string().as_bytes());
                Ok(())
            }
            Self::Embeddings { model, message } => {
                let message = message
                    .take()
                    .ok_or_else(|| ApiFailure::provider_failed("the provider sent no embeddings"))?;
                out.append(&mut embeddings_answer(&message, model, summary)?);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::identity::AccountId;
    use gristmill_protocol::ids::ChannelId;
    use gristmill_protocol::usage::Usage;

    fn answered(kind: JobKind, body: &'static str, messages: &[&str]) -> Result<Value, ApiFailure> {
        let request = ProgramRequest::parse(kind, Bytes::from_static(body.as_bytes())).unwrap();
        let request_id = RequestId::from_random([1; 16]);
        let summary = JobSummary {
            request_id: request_id.clone(),
            provider: AccountId::from_public_key([1; 32]),
            channel: ChannelId::from_bytes([2; 16]),
            usage: Usage::tokens(5, 2),
            cost: Credits::micro(9),
        };
        let (mut answer, mut out) = (Answer::to(&request, &request_id, 5), Vec::new());
        for message in messages {
            answer.message(message.as_bytes().to_vec(), &mut out)?;
            assert!(out.is_empty(), "nothing before the whole");
        }
        answer.complete(&summary, &mut out)?;
        Ok(serde_json::from_slice(&out).unwrap())
    }

    const CHAT: &str = r#"{"model":"guide","messages":[{"role":"user","content":"Hi"}]}"#;
    const EMBEDDINGS: &str = r#"{"model":"mini","input":"Hi"}"#;

    #[test]
    fn a_chat_comes_whole_or_as_a_failure() {
        let text = r#"{"choices":[{"delta":{"content":"Hi"}}]}"#;
        let end = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
        let answer = answered(JobKind::ChatCompletions, CHAT, &[text, end]).unwrap();
        assert_eq!(answer["choices"][0]["message"]["content"], "Hi");
        assert_eq!(answer["usage"]["total_tokens"], 7);
        assert_eq!(
            answered(JobKind::ChatCompletions, CHAT, &[text])
                .unwrap_err()
                .code,
            "provider_failed"
        );
        assert_eq!(
            answered(JobKind::ChatCompletions, CHAT, &["?"])
                .unwrap_err()
                .status,
            502
        );
    }

    #[test]
    fn embeddings_are_one_message() {
        let message = r#"{"data":[]}"#;
        assert_eq!(
            answered(JobKind::Embeddings, EMBEDDINGS, &[message]).unwrap()["model"],
            "mini"
        );
        assert!(answered(JobKind::Embeddings, EMBEDDINGS, &[]).is_err());
        assert!(answered(JobKind::Embeddings, EMBEDDINGS, &[message, message]).is_err());
    }
}
