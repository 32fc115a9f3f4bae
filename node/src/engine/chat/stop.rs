//! Ends an answer at a stop string, without ever letting a part of one out. Pure.

/// What may go out after a piece of text came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// What can't be a part of a stop string any more.
    pub(super) text: String,
    /// Whether a stop string was found. Nothing may follow then.
    pub(super) stopped: bool,
}

/// Looks for stop strings in text that comes in pieces.
///
/// The text ends before the stop string that is complete first; of several that are complete at the same
/// character, before the longest. How the text is cut into pieces makes no difference.
pub(super) struct StopScanner {
    stops: Vec<String>,
    held: String,
    /// How many bytes at the beginning of what is held are out already.
    out: usize,
}

impl StopScanner {
    /// A scanner for these strings, none of which may be empty.
    pub(super) fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        stops.sort_unstable_by_key(|stop| std::cmp::Reverse(stop.len()));
        Self {
            stops,
            held: String::new(),
            out: 0,
        }
    }

    /// Begins after a text that is out already: a stop string may begin in it, and what is out does not come again.
    pub(super) fn go_on_after(&mut self, text: &str) {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let start = text.ceil_char_boundary(text.len().saturating_sub(longest));
        self.held = text[start..].to_owned();
        self.held = self.held.split_off(self.safe_length());
        self.out = self.held.len();
    }

    /// Takes a piece of text in.
    pub(super) fn push(&mut self, piece: &str) -> Scanned {
        if self.stops.is_empty() {
            return Scanned {
                text: piece.to_owned(),
                stopped: false,
            };
        }
        for character in piece.chars() {
            self.held.push(character);
            if let Some(stop) = self.stops.iter().find(|stop| self.held.ends_with(stop.as_str())) {
                let end = self.held.len() - stop.len();
                return Scanned {
                    text: self.let_out(end),
                    stopped: true,
                };
            }
        }
        Scanned {
            text: self.let_out(self.safe_length()),
            stopped: false,
        }
    }

    /// What was held back, where the text ended by itself.
    pub(super) fn finish(&mut self) -> String {
        self.let_out(self.held.len())
    }

    /// Whether nothing is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The held text up to there, but for what is out already.
    fn let_out(&mut self, end: usize) -> String {
        let kept = self.held.split_off(end);
        let text = std::mem::replace(&mut self.held, kept);
        let skipped = self.out.min(text.len());
        self.out -= skipped;
        text[skipped..].to_owned()
    }

    /// How much of the held text is no beginning of a stop string.
    fn safe_length(&self) -> usize {
        let begins_a_stop = |start: &usize| {
            self.stops
                .iter()
                .any(|stop| stop.starts_with(&self.held[*start..]))
        };
        let starts = self.held.char_indices().map(|(start, _)| start);
        starts.into_iter().find(begins_a_stop).unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: the first place where a stop string is complete.
    fn cut(text: &str, stops: &[String]) -> (String, bool) {
        for (start, character) in text.char_indices() {
            let read = &text[..start + character.len_utf8()];
            if let Some(longest) = stops
                .iter()
                .filter(|stop| read.ends_with(*stop))
                .max_by_key(|stop| stop.len())
            {
                return (read[..read.len() - longest.len()].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    fn scan(pieces: &[&str], stops: &[String]) -> (String, bool) {
        let mut scanner = StopScanner::new(stops.to_vec());
        let mut out = String::new();
        for piece in pieces {
            let scanned = scanner.push(piece);
            out.push_str(&scanned.text);
            if scanned.stopped {
                return (out, true);
            }
        }
        out.push_str(&scanner.finish());
        (out, false)
    }

    #[test]
    fn a_stop_string_across_pieces_never_shows() {
        let mut scanner = StopScanner::new(vec!["END".to_owned()]);
        assert_eq!(
            scanner.push("abE"),
            Scanned {
                text: "ab".into(),
                stopped: false
            }
        );
        assert_eq!(
            scanner.push("N"),
            Scanned {
                text: String::new(),
                stopped: false
            }
        );
        assert_eq!(
            scanner.push("Dxyz"),
            Scanned {
                text: String::new(),
                stopped: true
            }
        );
    }

    #[test]
    fn a_beginning_that_comes_to_nothing_is_let_out() {
        let mut scanner = StopScanner::new(vec!["END".to_owned()]);
        assert_eq!(scanner.push("EN").text, "");
        assert_eq!(scanner.push("EE").text, "ENE");
        assert_eq!(scanner.finish(), "E");
    }

    #[test]
    fn characters_of_several_bytes_are_never_split() {
        let stops = ["→→".to_owned()];
        assert_eq!(scan(&["a→", "b→", "→c"], &stops), ("a→b".to_owned(), true));
    }

    proptest! {
        #[test]
        fn going_on_after_a_text_is_as_if_it_had_been_read(
            before in "[abc→]{0,12}",
            after in "[abc→]{0,12}",
            stops in prop::collection::vec("[abc→]{1,4}", 0..4),
        ) {
            let mut whole = StopScanner::new(stops.clone());
            let read = whole.push(&before);
            prop_assume!(!read.stopped);
            let held = whole.finish();
            let out = format!("{}{held}", read.text);
            let mut scanner = StopScanner::new(stops.clone());
            scanner.go_on_after(&before);
            let scanned = scanner.push(&after);
            let rest = if scanned.stopped { scanned.text.clone() } else { format!("{}{}", scanned.text, scanner.finish()) };
            let (expected, stopped) = cut(&format!("{before}{after}"), &stops);
            prop_assert_eq!(scanned.stopped, stopped);
            // What was out before a stop string was complete stays out.
            prop_assert_eq!(rest, expected.strip_prefix(&out).unwrap_or(""));
        }

        #[test]
        fn how_text_is_cut_makes_no_difference(
            text in "[abc→]{0,30}",
            stops in prop::collection::vec("[abc→]{1,4}", 0..4),
            cuts in prop::collection::vec(0usize..30, 0..8),
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| text.is_char_boundary(*cut)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&text[start..cut]);
                start = cut;
            }
            pieces.push(&text[start..]);
            prop_assert_eq!(scan(&pieces, &stops), cut(&text, &stops));
        }

        #[test]
        fn no_stop_string_ever_shows(
            pieces in prop::collection::vec("[ab]{0,5}", 0..8),
            stop in "[ab]{1,3}",
        ) {
            let pieces: Vec<_> = pieces.iter().map(String::as_str).collect();
            let (out, _) = scan(&pieces, std::slice::from_ref(&stop));
            prop_assert!(!out.contains(&stop));
        }
    }
}
