//! What becomes of a provider's messages, by what the program asked for: a stream of events, one chat completion,
//! or a list of embeddings.

use gristmill_protocol::job::{JobKind, RequestId};
use serde_json::Value;

use crate::core::answer_frame::AnswerFrame;
use crate::core::answer_stream::{AnswerStream, JobSummary, chunk_failure, unfinished};
use crate::core::assembler::Assembler;
use crate::core::completions::CompletionAnswer;
use crate::core::continuation::{Continuation, PartialAnswer, SeamError, may_continue};
use crate::core::embeddings::{VectorEncoding, embeddings_answer};
use crate::core::failure::ApiFailure;
use crate::core::normaliser::Normaliser;
use crate::core::passthrough::PassedAnswer;
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
        /// How the vectors shall be written.
        encoding: VectorEncoding,
        /// The provider's one message.
        message: Option<Vec<u8>>,
    },
    /// The answer to `/v1/completions`, streamed or whole.
    Completion(CompletionAnswer),
    /// What is passed on as it came.
    Passed(PassedAnswer),
}

impl Answer {
    /// The answer to a request, of which nothing has come yet.
    #[must_use]
    pub fn to(request: &ProgramRequest, request_id: &RequestId, now_seconds: u64) -> Self {
        let model = request.model.clone();
        let normaliser = || Normaliser::new(request_id.clone(), model.clone(), now_seconds);
        let mut answer = match (request.kind, request.stream) {
            (JobKind::ChatCompletions, true) => {
                Self::Stream(AnswerStream::new(normaliser(), request.include_usage))
            }
            (JobKind::ChatCompletions, false) => Self::Whole {
                normaliser: normaliser(),
                assembler: Assembler::default(),
                bytes: 0,
            },
            (JobKind::Completions, is_stream) => {
                let include_usage = is_stream.then_some(request.include_usage);
                let request_id = request_id.clone();
                Self::Completion(CompletionAnswer::new(
                    request_id,
                    model,
                    now_seconds,
                    include_usage,
                ))
            }
            (JobKind::Embeddings, _) => Self::Embeddings {
                model,
                encoding: request.encoding,
                message: None,
            },
            (
                JobKind::AudioTranscriptions
                | JobKind::AudioSpeech
                | JobKind::ImageGenerations
                | JobKind::Rerank,
                _,
            ) => Self::Passed(PassedAnswer::default()),
        };
        if let Some(frame) = answer.frame_mut().filter(|_| may_continue(request)) {
            frame.keep_text();
        }
        answer
    }

    const fn frame(&self) -> Option<&AnswerFrame> {
        match self {
            Self::Stream(stream) => Some(stream.normaliser().frame()),
            Self::Whole { normaliser, .. } => Some(normaliser.frame()),
            Self::Completion(completion) => Some(completion.frame()),
            Self::Embeddings { .. } | Self::Passed(_) => None,
        }
    }

    const fn frame_mut(&mut self) -> Option<&mut AnswerFrame> {
        match self {
            Self::Stream(stream) => Some(stream.normaliser_mut().frame_mut()),
            Self::Whole { normaliser, .. } => Some(normaliser.frame_mut()),
            Self::Completion(completion) => Some(completion.frame_mut()),
            Self::Embeddings { .. } | Self::Passed(_) => None,
        }
    }

    /// What there is of it already, where that is kept.
    #[must_use]
    pub fn partial(&self) -> Option<&PartialAnswer> {
        self.frame().and_then(AnswerFrame::partial)
    }

    /// Whether every choice has its end, so that nothing is missing but the provider's own word for it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match self {
            Self::Stream(stream) => stream.normaliser().is_finished(),
            Self::Whole { normaliser, .. } => normaliser.is_finished(),
            Self::Completion(completion) => completion.is_finished(),
            Self::Embeddings { .. } | Self::Passed(_) => false,
        }
    }

    /// Why the last message does not continue what there is, where it was refused for that.
    #[must_use]
    pub fn seam_error(&self) -> Option<SeamError> {
        self.frame().and_then(AnswerFrame::seam_error)
    }

    /// Takes note of how many tokens the present provider has written up to here.
    pub fn count_tokens(&mut self, written: u64) {
        if let Some(frame) = self.frame_mut() {
            frame.count_tokens(written);
        }
    }

    /// From here on another provider's messages follow.
    pub fn go_on(&mut self, continuation: &Continuation) {
        if let Some(frame) = self.frame_mut() {
            frame.go_on(continuation.junction.clone(), continuation.tokens_before);
        }
    }

    /// Most bytes that one message of the provider's may have.
    #[must_use]
    pub const fn message_max_bytes(kind: JobKind) -> usize {
        match kind {
            JobKind::ChatCompletions | JobKind::Completions => CHUNK_MAX_BYTES,
            JobKind::Embeddings
            | JobKind::AudioTranscriptions
            | JobKind::AudioSpeech
            | JobKind::ImageGenerations
            | JobKind::Rerank => ANSWER_MAX_BYTES,
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
            Self::Completion(completion) => completion.message(&message, out),
            Self::Passed(passed) => passed.message(message, out),
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
                let usage: Value = summary.usage_json(normaliser.frame().usage());
                let answer = std::mem::take(assembler).finish(usage, summary.to_json());
                out.extend_from_slice(answer.to_string().as_bytes());
                Ok(())
            }
            Self::Embeddings {
                model,
                encoding,
                message,
            } => {
                let message = message
                    .take()
                    .ok_or_else(|| ApiFailure::provider_failed("the provider sent no embeddings"))?;
                out.append(&mut embeddings_answer(&message, model, *encoding, summary)?);
                Ok(())
            }
            Self::Completion(completion) => completion.complete(summary, out),
            Self::Passed(passed) => passed.complete(summary, out),
        }
    }

    /// The end of a streamed answer that broke off: the failure and the end of the stream. Nothing where the answer
    /// was to come whole, or is no stream of events.
    #[must_use]
    pub fn broken_off(self, failure: &ApiFailure) -> Option<Vec<u8>> {
        match self {
            Self::Stream(stream) => {
                let mut piece = Vec::new();
                stream.fail(failure, &mut piece);
                Some(piece)
            }
            Self::Completion(completion) => completion.broken_off(failure),
            Self::Whole { .. } | Self::Embeddings { .. } | Self::Passed(_) => None,
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
            bill: crate::core::bill::Bill::default(),
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
