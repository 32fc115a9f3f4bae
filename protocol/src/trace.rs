//! Where a request stands in a distributed trace: the `traceparent` of W3C Trace Context, level 1
//! (<https://www.w3.org/TR/trace-context/>), as it travels in HTTP headers and on job streams.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};
use thiserror::Error;

/// The HTTP header that carries a [`TraceParent`].
pub const TRACE_PARENT_HEADER: &str = "traceparent";

/// The length of the text in version 00.
const TEXT_BYTES: usize = 55;

/// A position in a trace: which trace, under which span, and whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(test, derive(wincode::SchemaWrite, wincode::SchemaRead))]
pub struct TraceParent {
    /// The trace, the same for everyone who works on one request.
    pub trace: [u8; 16],
    /// The span that caused this one.
    pub parent: [u8; 8],
    /// Whether the caller records the trace.
    pub is_sampled: bool,
}

/// A text that is no `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "not a traceparent: it has the form 00-<32 digits>-<16 digits>-<2 digits>, hexadecimal, lower case, not all zero"
)]
pub struct TraceParentError;

impl TraceParent {
    /// The same trace, under another span.
    #[must_use]
    pub const fn with_parent(self, parent: [u8; 8]) -> Self {
        Self { parent, ..self }
    }
}

impl FromStr for TraceParent {
    type Err = TraceParentError;

    /// Reads versions other than 00 by their first four fields, as section 4 of the specification asks for.
    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let bytes = text.as_bytes();
        let is_version_00 = bytes.starts_with(b"00-");
        let has_length = bytes.len() == TEXT_BYTES
            || (!is_version_00 && bytes.len() > TEXT_BYTES && bytes[TEXT_BYTES] == b'-');
        if !has_length || bytes.starts_with(b"ff") || [2, 35, 52].iter().any(|at| bytes[*at] != b'-') {
            return Err(TraceParentError);
        }
        let _version: [u8; 1] = hexadecimal(&bytes[..2])?;
        let trace = hexadecimal(&bytes[3..35])?;
        let parent = hexadecimal(&bytes[36..52])?;
        let [flags] = hexadecimal(&bytes[53..TEXT_BYTES])?;
        if trace == [0; 16] || parent == [0; 8] {
            return Err(TraceParentError);
        }
        Ok(Self {
            trace,
            parent,
            is_sampled: flags & 1 == 1,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, parent) = (hex::encode(self.trace), hex::encode(self.parent));
        write!(formatter, "00-{trace}-{parent}-{:02x}", u8::from(self.is_sampled))
    }
}

fn hexadecimal<const N: usize>(digits: &[u8]) -> Result<[u8; N], TraceParentError> {
    let mut bytes = [0; N];
    let is_lower_case = digits.iter().all(|digit| !digit.is_ascii_uppercase());
    match hex::decode_to_slice(digits, &mut bytes) {
        Ok(()) if is_lower_case => Ok(bytes),
        _ => Err(TraceParentError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_examples_of_the_specification_are_read() {
        let read: TraceParent = EXAMPLE.parse().unwrap();
        assert!(read.is_sampled && read.trace[0] == 0x0a && read.parent[7] == 0x31);
        assert_eq!(read.to_string(), EXAMPLE);
        let later = format!("cc{}-what-the-future-brings", &EXAMPLE[2..]);
        assert_eq!(later.parse(), Ok(read));
        assert_eq!(format!("cc{}", &EXAMPLE[2..]).parse(), Ok(read));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in [
            "",
            "00",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.",
            "00-0af7651916cd43dd8448eb211c80319cüb7ad6b7169203331-01",
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(TraceParentError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            let _ = text.parse::<TraceParent>();
        }

        #[test]
        fn what_is_written_is_read(trace in any::<[u8; 16]>(), parent in any::<[u8; 8]>(), is_sampled: bool) {
            prop_assume!(trace != [0; 16] && parent != [0; 8]);
            let position = TraceParent { trace, parent, is_sampled };
            prop_assert_eq!(position.to_string().parse(), Ok(position));
        }
    }
}
