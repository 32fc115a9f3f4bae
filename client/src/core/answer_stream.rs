//! The bytes of a streamed answer: chunks as they come, then the finish, the usage where it was asked for, and
//! `[DONE]`; or a nested error and `[DONE]`. A stream never just ends.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::RequestId;
use gristmill_protocol::usage::{Unit, Usage};
use serde_json::{Map, Value, json};

use crate::core::answer_frame::ChunkError;
use crate::core::bill::Bill;
use crate::core::chunk_events::ChunkEvents;
use crate::core::failure::ApiFailure;
use crate::core::normaliser::Normaliser;
use crate::core::sse::TooLong;

/// What a finished job came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSummary {
    /// The request.
    pub request_id: RequestId,
    /// Who served it, or its end where several did.
    pub provider: AccountId,
    /// The channel that paid for that.
    pub channel: ChannelId,
    /// The usage of the answer, as metered: what was written twice counts once.
    pub usage: Usage,
    /// What the request cost in all.
    pub cost: Credits,
    /// Everybody who was paid.
    pub bill: Bill,
}

impl JobSummary {
    /// What stands beside an answer as `gristmill`. Amounts are in microcredits.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = json!({
            "request_id": self.request_id,
            "provider": self.provider,
            "channel": self.channel,
            "cost": self.cost,
            "currency": "microcredits",
        });
        if self.bill.items().len() > 1 {
            object["providers"] = self.bill.to_json();
        }
        object
    }

    /// The usage in OpenAI's form: what was metered, with what else the server told.
    #[must_use]
    pub fn usage_json(&self, told: Option<&Map<String, Value>>) -> Value {
        let mut usage = told.cloned().unwrap_or_default();
        usage.retain(|_, field| !field.is_null());
        let told = |name: &str| usage.get(name).and_then(Value::as_u64).unwrap_or(0);
        let metered = |unit, name| match self.usage.count(unit) {
            // A price that knows no tokens needs no meter of them.
            0 => told(name),
            count => count,
        };
        let input = metered(Unit::InputToken, "prompt_tokens");
        let output = metered(Unit::OutputToken, "completion_tokens");
        for (name, count) in [
            ("prompt_tokens", input),
            ("completion_tokens", output),
            ("total_tokens", input.saturating_add(output)),
        ] {
            usage.insert(name.to_owned(), count.into());
        }
        usage.into()
    }
}

/// What a program is told about a message that is no chunk.
#[must_use]
pub fn chunk_failure(error: ChunkError) -> ApiFailure {
    match error {
        ChunkError::Malformed(_) | ChunkError::Seam(_) => ApiFailure::provider_failed(error.to_string()),
        ChunkError::Failed(failed) => ApiFailure::from_engine(&failed),
    }
}

/// What a program is told about an answer that its provider calls complete though a choice has no end.
#[must_use]
pub fn unfinished() -> ApiFailure {
    ApiFailure::provider_failed("the answer ended without a finish reason; it may be cut short")
}

impl From<TooLong> for ApiFailure {
    fn from(error: TooLong) -> Self {
        Self::provider_failed(error.to_string())
    }
}

/// A streamed chat completion.
#[derive(Clone, Debug)]
pub struct AnswerStream {
    normaliser: Normaliser,
    events: ChunkEvents,
}

impl AnswerStream {
    /// An answer of which nothing has come yet.
    #[must_use]
    pub const fn new(normaliser: Normaliser, include_usage: bool) -> Self {
        Self {
            normaliser,
            events: ChunkEvents::new(include_usage),
        }
    }

    /// What brings its chunks into form.
    #[must_use]
    pub const fn normaliser(&self) -> &Normaliser {
        &self.normaliser
    }

    /// The same, to be changed.
    pub const fn normaliser_mut(&mut self) -> &mut Normaliser {
        &mut self.normaliser
    }

    /// Appends the events of one message of the answer.
    ///
    /// # Errors
    /// [`ApiFailure`] where the message is no part of an answer; end the stream with [`AnswerStream::fail`].
    pub fn message(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), ApiFailure> {
        match self.normaliser.normalise(message).map_err(chunk_failure)? {
            Some(chunk) => Ok(self.events.chunk(chunk, out)?),
            None => Ok(()),
        }
    }

    /// Appends the end of a complete answer.
    ///
    /// # Errors
    /// [`ApiFailure`] where the answer is not whole; end the stream with [`AnswerStream::fail`].
    pub fn complete(&mut self, summary: &JobSummary, out: &mut Vec<u8>) -> Result<(), ApiFailure> {
        if !self.normaliser.is_finished() {
            return Err(unfinished());
        }
        Ok(self.events.complete(self.normaliser.frame(), summary, out)?)
    }

    /// Appends the end of an answer that broke off.
    pub fn fail(self, failure: &ApiFailure, out: &mut Vec<u8>) {
        self.events.fail(failure, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::sse;
    use proptest::prelude::*;

    fn stream(include_usage: bool) -> AnswerStream {
        let request_id = RequestId::from_random([7; 16]);
        AnswerStream::new(Normaliser::new(request_id, "guide".into(), 5), include_usage)
    }

    fn summary() -> JobSummary {
        JobSummary {
            request_id: RequestId::from_random([7; 16]),
            provider: AccountId::from_public_key([1; 32]),
            channel: ChannelId::from_bytes([2; 16]),
            usage: Usage::tokens(12, 3),
            cost: Credits::micro(9),
            bill: Bill::default(),
        }
    }

    const ID: &str = "chatcmpl-req_07070707070707070707070707070707";

    fn run(include_usage: bool, messages: &[&str]) -> String {
        let (mut stream, mut out) = (stream(include_usage), Vec::new());
        for message in messages {
            stream.message(message.as_bytes(), &mut out).unwrap();
        }
        if let Err(failure) = stream.complete(&summary(), &mut out) {
            stream.fail(&failure, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    fn chunk(choices: &str, rest: &str) -> String {
        format!(
            "data: {{\"id\":\"{ID}\",\"object\":\"chat.completion.chunk\",\"created\":5,\"model\":\"guide\",\
             \"choices\":[{choices}]{rest}}}\n\n"
        )
    }

    fn gristmill() -> String {
        format!(",\"gristmill\":{}", summary().to_json())
    }

    const TEXT: &str = r#"{"choices":[{"delta":{"content":"Hi"}}]}"#;
    const FINISH: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":99,"prompt_tokens_details":{"cached_tokens":4}}}"#;
    const TEXT_OUT: &str = r#"{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}"#;
    const FINISH_OUT: &str = r#"{"index":0,"delta":{},"finish_reason":"stop"}"#;

    #[test]
    fn a_stream_is_byte_for_byte_as_clients_expect() {
        let expected = [
            chunk(TEXT_OUT, ""),
            chunk(FINISH_OUT, &gristmill()),
            "data: [DONE]\n\n".to_owned(),
        ];
        assert_eq!(run(false, &[TEXT, FINISH]), expected.concat());
    }

    #[test]
    fn usage_comes_last_and_only_where_asked_for() {
        let usage = ",\"usage\":{\"prompt_tokens\":12,\"prompt_tokens_details\":{\"cached_tokens\":4},\
                     \"completion_tokens\":3,\"total_tokens\":15}";
        let expected = [
            chunk(TEXT_OUT, ""),
            chunk(FINISH_OUT, ""),
            chunk("", &format!("{usage}{}", gristmill())),
            "data: [DONE]\n\n".to_owned(),
        ];
        assert_eq!(run(true, &[TEXT, FINISH]), expected.concat());
        assert!(!run(false, &[TEXT, FINISH]).contains("usage"));
    }

    #[test]
    fn an_answer_that_breaks_off_ends_with_a_nested_error() {
        let (mut stream, mut out) = (stream(true), Vec::new());
        stream.message(TEXT.as_bytes(), &mut out).unwrap();
        stream.fail(&ApiFailure::provider_failed("gone"), &mut out);
        let error = "data: {\"error\":{\"message\":\"gone\",\"type\":\"server_error\",\"param\":null,\
                     \"code\":\"provider_failed\"}}\n\n";
        let expected = [chunk(TEXT_OUT, "").as_str(), error, "data: [DONE]\n\n"].concat();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_answer_without_an_end_is_an_error_and_not_a_stop() {
        let answer = run(false, &[TEXT]);
        assert!(answer.contains("\"code\":\"provider_failed\"") && !answer.contains("\"stop\""));
        assert!(answer.ends_with("data: [DONE]\n\n"));
        assert!(run(false, &[]).contains("provider_failed"));
    }

    #[test]
    fn an_error_chunk_of_a_server_keeps_its_words() {
        let (mut stream, mut out) = (stream(false), Vec::new());
        let failure = stream
            .message(br#"{"error":{"message":"out of memory"}}"#, &mut out)
            .unwrap_err();
        assert_eq!((failure.status, failure.message.as_str()), (502, "out of memory"));
    }

    #[test]
    fn two_choices_each_have_their_end_and_the_sum_stands_once() {
        let ended = |index: u32| {
            format!(r#"{{"choices":[{{"index":{index},"delta":{{}},"finish_reason":"stop"}}]}}"#)
        };
        let answer = run(false, &[TEXT, &ended(0), &ended(1)]);
        assert_eq!(answer.matches("\"finish_reason\":\"stop\"").count(), 2);
        assert_eq!(answer.matches("\"gristmill\"").count(), 1);
        let last = answer.trim_end().rsplit("\n\n").nth(1).unwrap();
        assert!(last.contains("\"index\":1") && last.contains("\"gristmill\""));
    }

    proptest! {
        /// Whatever a provider sends, programs read `data:` lines of valid JSON below the limit, no null errors, and
        /// `[DONE]` at the end.
        #[test]
        fn streams_are_well_formed(
            messages in proptest::collection::vec(
                prop_oneof![
                    Just(TEXT.to_owned()),
                    Just(FINISH.to_owned()),
                    Just(r#"{"choices":[],"error":null}"#.to_owned()),
                    Just(r#"{"choices":[{"delta":null,"finish_reason":null}]}"#.to_owned()),
                    Just(r#"{"choices":[{"delta":{"tool_calls":[{"id":"a"},{"id":"a"},5]}}]}"#.to_owned()),
                    Just(r#"{"error":"x"}"#.to_owned()),
                    "[{}\":a-z,]{0,20}",
                    (0usize..200_000).prop_map(|length| {
                        json!({"choices": [{"delta": {"content": "\n".repeat(length)}}]}).to_string()
                    }),
                ],
                0..8,
            ),
            include_usage: bool,
        ) {
            let (mut stream, mut out) = (stream(include_usage), Vec::new());
            let broken = messages.iter().find_map(|message| stream.message(message.as_bytes(), &mut out).err());
            let broken = broken.or_else(|| stream.complete(&summary(), &mut out).err());
            if let Some(failure) = broken {
                stream.fail(&failure, &mut out);
            }
            let text = String::from_utf8(out).unwrap();
            let body = text.strip_suffix("data: [DONE]\n\n");
            prop_assert!(body.is_some());
            let events: Vec<&str> = body.unwrap().split_terminator("\n\n").collect();
            let mut ends = 0;
            for event in &events {
                prop_assert!(event.len() < sse::LINE_LIMIT_BYTES && !event.contains('\n'));
                let value: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
                prop_assert!(value.get("error").is_none_or(Value::is_object));
                ends += usize::from(value.get("error").is_some() || value.get("gristmill").is_some());
            }
            prop_assert_eq!(ends, 1, "one error or one sum");
        }
    }
}
