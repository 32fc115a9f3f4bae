//! Cuts an engine's meter to what a consumer can find plausible.
//!
//! A consumer that sees more tokens than there can be in the text takes its provider for a liar and leaves. Honest
//! engines count such tokens too (image parts of a prompt, reasoning that an upstream keeps to itself): these can't
//! be charged for, since nobody could check them.

use gristmill_protocol::content::{text_bytes, tokens_max};
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::{Unit, Usage};

/// The meter of one job, as its consumer will check it.
#[derive(Clone, Debug)]
pub struct PlausibleMeter {
    kind: JobKind,
    body_bytes: u64,
    text_bytes: u64,
    payload_bytes: u64,
    reached: Usage,
}

impl PlausibleMeter {
    /// The meter of a job that begins.
    #[must_use]
    pub const fn new(kind: JobKind, body_bytes: u64) -> Self {
        Self {
            kind,
            body_bytes,
            text_bytes: 0,
            payload_bytes: 0,
            reached: Usage::new(),
        }
    }

    /// The meter to show with a message for which the engine counts `claimed` so far.
    pub fn after_message(&mut self, message: &[u8], claimed: &Usage) -> Usage {
        self.text_bytes = self.text_bytes.saturating_add(text_bytes(self.kind, message));
        self.payload_bytes = self.payload_bytes.saturating_add(message.len() as u64);
        self.after_all(claimed)
    }

    /// The meter to show at the end.
    pub fn after_all(&mut self, claimed: &Usage) -> Usage {
        let cut = claimed.iter().fold(Usage::new(), |usage, (unit, count)| {
            usage.with(unit, count.min(self.most(unit)))
        });
        self.reached = self.reached.maximum(&cut);
        self.reached.clone()
    }

    /// Whether there was any text, or anything at all of what is passed through.
    #[must_use]
    pub const fn has_text(&self) -> bool {
        self.text_bytes > 0
    }

    fn most(&self, unit: Unit) -> u64 {
        let (input_tokens, output_tokens) = tokens_max(self.kind, self.body_bytes, self.text_bytes);
        match unit {
            Unit::InputToken => input_tokens,
            Unit::OutputToken => output_tokens,
            Unit::ByteIn => self.body_bytes,
            Unit::ByteOut => self.payload_bytes,
            Unit::GpuMillisecond => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::content::is_plausible;
    use proptest::prelude::*;

    fn chunk(text: &str) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}}]}))
            .unwrap()
    }

    #[test]
    fn honest_counts_pass_unchanged() {
        let mut meter = PlausibleMeter::new(JobKind::ChatCompletions, 1_000);
        assert_eq!(
            meter.after_message(&chunk("Hello"), &Usage::tokens(20, 1)),
            Usage::tokens(20, 1)
        );
        assert_eq!(meter.after_all(&Usage::tokens(20, 2)), Usage::tokens(20, 2));
    }

    #[test]
    fn counts_beyond_the_text_are_cut() {
        let mut meter = PlausibleMeter::new(JobKind::ChatCompletions, 10);
        assert_eq!(
            meter.after_message(&chunk("ab"), &Usage::tokens(9_000, 9_000)),
            Usage::tokens(266, 66)
        );
        let mut embeddings = PlausibleMeter::new(JobKind::Embeddings, 10);
        assert_eq!(
            embeddings.after_message(b"{}", &Usage::tokens(5, 5)),
            Usage::tokens(5, 0)
        );
    }

    #[test]
    fn what_is_passed_through_is_counted_in_bytes_and_time() {
        let mut meter = PlausibleMeter::new(JobKind::ImageGenerations, 10);
        let claimed = Usage::tokens(5, 5)
            .with(Unit::ByteIn, 99)
            .with(Unit::ByteOut, 99)
            .with(Unit::GpuMillisecond, 700);
        let expected = Usage::new()
            .with(Unit::ByteIn, 10)
            .with(Unit::ByteOut, 2)
            .with(Unit::GpuMillisecond, 700);
        assert_eq!(meter.after_message(b"{}", &claimed), expected);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_plausible_and_never_shrinks(
            body in 0u64..2_000,
            steps in proptest::collection::vec(("[a-zü ]{0,40}", 0u64..4_000, 0u64..400, 0u64..9_000), 1..20),
        ) {
            let mut meter = PlausibleMeter::new(JobKind::ChatCompletions, body);
            let (mut text, mut payload, mut shown) = (0, 0, Usage::new());
            for (content, input, output, bytes) in steps {
                let message = chunk(&content);
                text += content.len() as u64;
                payload += message.len() as u64;
                let claimed = Usage::tokens(input, output).with(Unit::ByteIn, bytes).with(Unit::ByteOut, bytes);
                let next = meter.after_message(&message, &claimed);
                prop_assert!(next.covers(&shown));
                prop_assert!(is_plausible(&next, JobKind::ChatCompletions, body, text, payload));
                shown = next;
            }
        }
    }
}
