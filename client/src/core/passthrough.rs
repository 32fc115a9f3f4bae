//! Answers that are passed on as they came: audio, images, transcripts, rankings.
//!
//! The provider's first message says what they are, each later one is the next bytes of the body. JSON and plain
//! text are kept until they are whole, so that a failure still has a status; anything else goes on at once.

use gristmill_protocol::job::AnswerHead;

use crate::core::answer_stream::JobSummary;
use crate::core::failure::ApiFailure;

/// Most bytes of an answer that is kept until it is whole.
const KEPT_MAX_BYTES: usize = 64 << 20;
/// What a body is where its provider says nothing that can be believed.
const UNKNOWN: &str = "application/octet-stream";
/// Most bytes of a media type.
const CONTENT_TYPE_MAX_BYTES: usize = 256;

/// An answer that is passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedAnswer {
    head: Option<AnswerHead>,
    kept: Vec<u8>,
    has_body: bool,
}

impl PassedAnswer {
    /// Takes a message; appends what the program gets of it now. The first piece that comes out is the head, as
    /// JSON, and nothing else.
    ///
    /// # Errors
    /// [`ApiFailure`] where it is no part of such an answer.
    pub fn message(&mut self, mut message: Vec<u8>, out: &mut Vec<u8>) -> Result<(), ApiFailure> {
        let Some(head) = &self.head else {
            let head = read_head(&message)?;
            out.extend_from_slice(&written(&head));
            self.head = Some(head);
            return Ok(());
        };
        self.has_body |= !message.is_empty();
        if !is_kept(&head.content_type) {
            out.append(&mut message);
            return Ok(());
        }
        if self.kept.len().saturating_add(message.len()) > KEPT_MAX_BYTES {
            return Err(ApiFailure::provider_failed(
                "the answer is longer than any that can be kept",
            ));
        }
        self.kept.append(&mut message);
        Ok(())
    }

    /// Appends the end of a complete answer. A JSON object gets the field `gristmill`, like every other answer.
    ///
    /// # Errors
    /// [`ApiFailure`] where the answer is not whole.
    pub fn complete(&mut self, summary: &JobSummary, out: &mut Vec<u8>) -> Result<(), ApiFailure> {
        let head = self.head.as_ref();
        let head = head.ok_or_else(|| ApiFailure::provider_failed("the provider sent no answer"))?;
        if !self.has_body {
            return Err(ApiFailure::provider_failed("the provider sent an empty answer"));
        }
        out.append(&mut self.kept);
        if !is_json(&head.content_type) {
            return Ok(());
        }
        if serde_json::from_slice::<serde::de::IgnoredAny>(out).is_err() {
            return Err(ApiFailure::provider_failed("the provider sent JSON that is none"));
        }
        let end = out.trim_ascii_end().len();
        if out[..end].ends_with(b"}") {
            out.truncate(end - 1);
            let has_fields = !out.trim_ascii_end().ends_with(b"{");
            let comma = if has_fields { "," } else { "" };
            out.extend_from_slice(format!("{comma}\"gristmill\":{}}}", summary.to_json()).as_bytes());
        }
        Ok(())
    }
}

/// The head of an answer, from the piece that tells it.
///
/// # Errors
/// [`ApiFailure`] where it is none.
pub fn read_head(message: &[u8]) -> Result<AnswerHead, ApiFailure> {
    let head: AnswerHead = serde_json::from_slice(message)
        .map_err(|_| ApiFailure::provider_failed("the provider did not say what its answer is"))?;
    Ok(AnswerHead {
        content_type: believable(&head.content_type),
    })
}

/// Whether an answer is kept until it is whole.
#[must_use]
pub fn is_kept(content_type: &str) -> bool {
    is_json(content_type) || essence(content_type) == "text/plain"
}

fn written(head: &AnswerHead) -> Vec<u8> {
    // Strings always serialise.
    serde_json::to_vec(head).unwrap_or_default()
}

fn is_json(content_type: &str) -> bool {
    essence(content_type) == "application/json"
}

/// A media type without its parameters.
fn essence(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// The media type that a program gets to see. A stranger must not bring pages or scripts to an address on loopback.
fn believable(content_type: &str) -> String {
    let essence = essence(content_type);
    let is_media = ["audio/", "video/", "image/"]
        .iter()
        .any(|kind| essence.starts_with(kind))
        && essence != "image/svg+xml";
    let is_text = matches!(
        essence.as_str(),
        "application/json" | "text/plain" | "text/vtt" | "text/event-stream" | "application/x-subrip"
    );
    let is_sound = content_type.len() <= CONTENT_TYPE_MAX_BYTES
        && content_type
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if (is_media || is_text) && is_sound {
        content_type.to_owned()
    } else {
        UNKNOWN.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::identity::AccountId;
    use gristmill_protocol::ids::ChannelId;
    use gristmill_protocol::job::RequestId;
    use gristmill_protocol::usage::Usage;

    fn summary() -> JobSummary {
        JobSummary {
            request_id: RequestId::from_random([7; 16]),
            provider: AccountId::from_public_key([1; 32]),
            channel: ChannelId::from_bytes([2; 16]),
            usage: Usage::tokens(5, 0),
            cost: Credits::micro(9),
            bill: crate::core::bill::Bill::default(),
        }
    }

    fn passed(head: &str, parts: &[&[u8]]) -> Result<(Vec<Vec<u8>>, Vec<u8>), ApiFailure> {
        let mut answer = PassedAnswer::default();
        let head = serde_json::to_vec(&AnswerHead {
            content_type: head.into(),
        })
        .unwrap();
        let mut pieces = Vec::new();
        for message in std::iter::once(&head[..]).chain(parts.iter().copied()) {
            let mut out = Vec::new();
            answer.message(message.to_vec(), &mut out)?;
            pieces.push(out);
        }
        let mut last = Vec::new();
        answer.complete(&summary(), &mut last)?;
        Ok((pieces, last))
    }

    #[test]
    fn sound_goes_on_at_once_and_json_when_it_is_whole() {
        let (pieces, last) = passed("audio/mpeg", &[b"\0\xff", b"x"]).unwrap();
        assert_eq!(pieces[1..], [b"\0\xff".to_vec(), b"x".to_vec()]);
        assert!(last.is_empty());
        let (pieces, last) = passed("application/json; charset=utf-8", &[b"{\"a\":", b"1.50 } \n"]).unwrap();
        assert!(pieces[1..].iter().all(Vec::is_empty));
        let expected = format!("{{\"a\":1.50 ,\"gristmill\":{}}}", summary().to_json());
        assert_eq!(String::from_utf8(last).unwrap(), expected);
        let (_, last) = passed("application/json", &[b"{}"]).unwrap();
        assert!(last.starts_with(b"{\"gristmill\""));
        let (_, last) = passed("application/json", &[b"[1]"]).unwrap();
        assert_eq!(last, b"[1]");
        assert_eq!(passed("text/plain", &[b"Hi"]).unwrap().1, b"Hi");
    }

    #[test]
    fn what_is_empty_or_broken_is_a_failure() {
        assert_eq!(passed("audio/mpeg", &[]).unwrap_err().status, 502);
        assert_eq!(passed("application/json", &[b"{"]).unwrap_err().status, 502);
        assert_eq!(
            PassedAnswer::default()
                .message(b"RIFF".to_vec(), &mut Vec::new())
                .unwrap_err()
                .status,
            502
        );
        assert!(
            PassedAnswer::default()
                .complete(&summary(), &mut Vec::new())
                .is_err()
        );
    }

    #[test]
    fn a_stranger_brings_no_pages() {
        for (told, seen) in [
            ("text/html", UNKNOWN),
            ("image/svg+xml", UNKNOWN),
            ("application/javascript", UNKNOWN),
            ("audio/wav\r\nset-cookie: a=b", UNKNOWN),
            ("", UNKNOWN),
            ("Audio/WAV; rate=24000", "Audio/WAV; rate=24000"),
        ] {
            assert_eq!(believable(told), seen, "{told}");
        }
    }
}
