//! Server-sent events as they arrive, cut anywhere.
//!
//! Source: WHATWG HTML, "Server-sent events", parsing an event stream. Only `data` matters here.

use thiserror::Error;

/// Most bytes of one line.
pub(super) const LINE_MAX_BYTES: usize = 1024 * 1024;
/// Most bytes of the data of one event, over all its lines.
pub(super) const EVENT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// A stream that goes beyond the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum EventStreamError {
    /// A line is too long.
    #[error("a line of the event stream has more than {LINE_MAX_BYTES} bytes")]
    LineTooLong,
    /// An event is too large.
    #[error("an event has more than {EVENT_MAX_BYTES} bytes")]
    EventTooLarge,
}

/// Reads an event stream.
#[derive(Debug, Default)]
pub(super) struct EventStream {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The last byte was a carriage return: a line feed after it belongs to the same line end.
    after_carriage_return: bool,
    any_line: bool,
}

impl EventStream {
    /// Takes the next bytes and gives the data of every event that they complete.
    ///
    /// # Errors
    /// [`EventStreamError`] where a limit is passed; nothing more can be read then.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, EventStreamError> {
        let mut events = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_carriage_return) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &rest[..end.unwrap_or(rest.len())];
            if self.line.len() + part.len() > LINE_MAX_BYTES {
                return Err(EventStreamError::LineTooLong);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { break };
            self.after_carriage_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            events.extend(self.end_line()?);
        }
        Ok(events)
    }

    /// The data of the event that the stream ended in, where there is some. The standard drops it; servers that
    /// forget the last blank line mean it.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        if !self.line.is_empty() {
            let complete = self.end_line().ok()?;
            if complete.is_some() {
                return complete;
            }
        }
        self.has_data.then_some(self.data).filter(|data| !data.is_empty())
    }

    fn end_line(&mut self) -> Result<Option<Vec<u8>>, EventStreamError> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.any_line, true) && line.starts_with("\u{feff}".as_bytes()) {
            line.drain(..3);
        }
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            // An event without data is none.
            return Ok((std::mem::take(&mut self.has_data) && !data.is_empty()).then_some(data));
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line.as_slice(), &[][..]),
        };
        if field == b"data" {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            if self.data.len() + value.len() >= EVENT_MAX_BYTES {
                return Err(EventStreamError::EventTooLarge);
            }
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<String> {
        read_in_parts(text.as_bytes(), usize::MAX)
    }

    fn read_in_parts(bytes: &[u8], part: usize) -> Vec<String> {
        let mut stream = EventStream::default();
        let mut events = Vec::new();
        for part in bytes.chunks(part.clamp(1, bytes.len().max(1))) {
            events.extend(stream.push(part).unwrap());
        }
        events.extend(stream.finish());
        events
            .into_iter()
            .map(|event| String::from_utf8_lossy(&event).into_owned())
            .collect()
    }

    #[test]
    fn events_end_with_a_blank_line_however_lines_end() {
        for end in ["\n", "\r\n", "\r"] {
            let text = [
                "data: {\"a\":1}",
                "",
                ": ping",
                "event: x",
                "data:b",
                "id: 7",
                "",
                "data: [DONE]",
                "",
                "",
            ];
            assert_eq!(read(&text.join(end)), ["{\"a\":1}", "b", "[DONE]"], "{end:?}");
        }
    }

    #[test]
    fn data_of_several_lines_is_joined_and_odd_fields_are_skipped() {
        assert_eq!(read("data: a\ndata\ndata:  b\n\n"), ["a\n\n b"]);
        assert_eq!(
            read("datax: a\n\nretry: 1\n\n: data: a\n\ndata:\n\n\n\n"),
            [""; 0]
        );
        assert_eq!(read("\u{feff}data: a\n\n"), ["a"]);
        assert_eq!(read("data: \u{feff}a\n\n"), ["\u{feff}a"]);
    }

    #[test]
    fn a_last_event_without_its_blank_line_counts() {
        assert_eq!(read("data: a\n\ndata: [DONE]\n"), ["a", "[DONE]"]);
        assert_eq!(read("data: a\n\ndata: [DONE]"), ["a", "[DONE]"]);
        assert_eq!(read("data: a\n\n: bye"), ["a"]);
    }

    #[test]
    fn limits_hold_at_n_and_not_at_n_plus_one() {
        let mut stream = EventStream::default();
        assert!(stream.push(&vec![b'x'; LINE_MAX_BYTES]).is_ok());
        assert_eq!(stream.push(b"x"), Err(EventStreamError::LineTooLong));
        let line = format!("data:{}\n", "x".repeat(EVENT_MAX_BYTES / 8 - 1));
        let mut stream = EventStream::default();
        for _ in 0..8 {
            assert!(stream.push(line.as_bytes()).is_ok());
        }
        assert_eq!(stream.push(line.as_bytes()), Err(EventStreamError::EventTooLarge));
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            "data: ?[a-z{}\":,ü]{0,20}",
            Just(String::new()),
            Just(": ping".to_owned()),
            "[a-z]{0,5}:? ?[a-z]{0,5}",
        ]
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_changes_nothing(
            lines in proptest::collection::vec((line(), prop_oneof!["\n", "\r\n", "\r"]), 0..30),
            part in 1usize..40,
        ) {
            let text: String = lines.into_iter().flat_map(|(line, end)| [line, end]).collect();
            prop_assert_eq!(read_in_parts(text.as_bytes(), part), read(&text));
        }

        #[test]
        fn line_ends_are_all_the_same(lines in proptest::collection::vec(line(), 0..30)) {
            prop_assert_eq!(read(&lines.join("\r\n")), read(&lines.join("\n")));
            prop_assert_eq!(read(&lines.join("\r")), read(&lines.join("\n")));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), part in 1usize..50) {
            read_in_parts(&bytes, part);
        }
    }
}
