//! What is asked and answered. Texts follow from a few numbers, so that a snapshot need not keep them.

use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::RequestId;

use crate::world::event::JobId;

/// Bytes of text in a token, as is usual for English.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;
/// Most tokens of a prompt, so that a body is one frame.
pub(crate) const INPUT_TOKENS_MAX: u32 = 60_000;
const BEFORE_TEXT: &str = r#"{"choices":[{"delta":{"content":""#;
const AFTER_TEXT: &str = r#""}}]}"#;

/// The body: how many tokens it has and how many are wanted, and text.
pub(crate) fn body(input_tokens: u32, output_tokens: u32) -> Vec<u8> {
    let mut body = format!("{input_tokens} {output_tokens} ").into_bytes();
    body.resize(body_bytes(input_tokens), b'x');
    body
}

/// Bytes of a body.
pub(crate) fn body_bytes(input_tokens: u32) -> usize {
    let bytes = u64::from(input_tokens.min(INPUT_TOKENS_MAX)) * BYTES_PER_TOKEN;
    usize::try_from(bytes).unwrap_or(usize::MAX).max(32)
}

/// What a body asks for: tokens of the prompt, and of the answer.
pub(crate) fn read_body(body: &[u8]) -> Option<(u32, u32)> {
    let head = std::str::from_utf8(body.get(..body.len().min(32))?).ok()?;
    let mut numbers = head.split(' ').map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// A message of an answer with so many tokens.
pub(crate) fn message(tokens: u32) -> Vec<u8> {
    let text = usize::try_from(u64::from(tokens) * BYTES_PER_TOKEN).unwrap_or(0);
    let mut message = Vec::with_capacity(BEFORE_TEXT.len() + text + AFTER_TEXT.len());
    message.extend_from_slice(BEFORE_TEXT.as_bytes());
    message.resize(BEFORE_TEXT.len() + text, b'y');
    message.extend_from_slice(AFTER_TEXT.as_bytes());
    message
}

/// The tokens of a message's text.
pub(crate) fn tokens_in(message: &[u8]) -> u32 {
    let text = message.len().saturating_sub(BEFORE_TEXT.len() + AFTER_TEXT.len()) as u64;
    u32::try_from(text / BYTES_PER_TOKEN).unwrap_or(u32::MAX)
}

/// The messages of an answer of so many tokens, made in parts of at most `part` tokens.
pub(crate) fn answer(tokens: u32, part: u32) -> Vec<u8> {
    let part = part.max(1);
    let mut answer: Vec<u8> = (0..tokens / part).flat_map(|_| message(part)).collect();
    if !tokens.is_multiple_of(part) {
        answer.extend(message(tokens % part));
    }
    answer
}

/// The id of a request.
pub(crate) fn request_id(job: JobId) -> RequestId {
    RequestId::from_random(sixteen(job.0, 0))
}

/// The name of a consumer's so-manieth channel.
pub(crate) fn channel_id(consumer: u32, count: u32) -> ChannelId {
    ChannelId::from_bytes(sixteen(u64::from(consumer), u64::from(count)))
}

fn sixteen(high: u64, low: u64) -> [u8; 16] {
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::content::text_bytes;
    use gristmill_protocol::job::JobKind;

    #[test]
    fn texts_say_what_they_stand_for() {
        assert_eq!(read_body(&body(500, 200)), Some((500, 200)));
        assert_eq!(body(500, 200).len(), 2_000);
        assert_eq!(read_body(&body(1, 1)), Some((1, 1)));
        assert_eq!(read_body(b"nonsense"), None);
        assert_eq!(tokens_in(&message(16)), 16);
        assert_eq!(text_bytes(JobKind::ChatCompletions, &message(16)), 64);
        assert_eq!(answer(40, 16), [message(16), message(16), message(8)].concat());
    }
}
