//! Reads a stream of chat completion chunks, as any program would.

use anyhow::{Context as _, bail};
use serde_json::Value;

/// Most bytes of a line: the endpoint's are shorter.
const LINE_MAX_BYTES: usize = 1 << 20;

/// The events of a stream.
pub(super) struct Events {
    response: reqwest::Response,
    buffer: Vec<u8>,
    is_done: bool,
}

impl Events {
    pub(super) const fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            buffer: Vec::new(),
            is_done: false,
        }
    }

    /// The next chunk; nothing after the last one.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Value>> {
        while !self.is_done {
            while let Some(line) = next_line(&mut self.buffer) {
                match parse(&line)? {
                    Line::Chunk(chunk) => return Ok(Some(chunk)),
                    Line::Done => self.is_done = true,
                    Line::Nothing => {}
                }
            }
            if self.is_done {
                break;
            }
            if self.buffer.len() > LINE_MAX_BYTES {
                bail!("the client sent a line over {LINE_MAX_BYTES} bytes");
            }
            match self
                .response
                .chunk()
                .await
                .context("the connection to the client broke")?
            {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => bail!("the answer ended before it was complete"),
            }
        }
        Ok(None)
    }
}

#[derive(Debug, PartialEq)]
enum Line {
    Chunk(Value),
    Done,
    Nothing,
}

fn next_line(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = buffer.iter().position(|byte| *byte == b'\n')?;
    let mut line: Vec<u8> = buffer.drain(..=end).collect();
    line.pop();
    Some(line)
}

fn parse(line: &[u8]) -> anyhow::Result<Line> {
    let Some(data) = line.strip_prefix(b"data: ") else {
        return Ok(Line::Nothing);
    };
    if data == b"[DONE]" {
        return Ok(Line::Done);
    }
    let chunk: Value = serde_json::from_slice(data).context("the client sent what is no event")?;
    match chunk.get("error") {
        Some(error) => bail!("{}", error["message"].as_str().unwrap_or("the answer broke off")),
        None => Ok(Line::Chunk(chunk)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_are_chunks_comments_the_end_or_an_error() {
        assert_eq!(parse(b"data: {\"a\":1}").unwrap(), Line::Chunk(json!({"a": 1})));
        assert_eq!(parse(b"data: [DONE]").unwrap(), Line::Done);
        for nothing in ["", ": ping", "event: x"] {
            assert_eq!(parse(nothing.as_bytes()).unwrap(), Line::Nothing);
        }
        let error = parse(b"data: {\"error\":{\"message\":\"gone\"}}").unwrap_err();
        assert_eq!(error.to_string(), "gone");
        assert!(parse(b"data: {").is_err());
        let mut buffer = b"one\ntwo\nthr".to_vec();
        assert_eq!(next_line(&mut buffer).unwrap(), b"one");
        assert_eq!(next_line(&mut buffer).unwrap(), b"two");
        assert_eq!(next_line(&mut buffer), None);
    }
}
