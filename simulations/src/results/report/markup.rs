//! Text into HTML and SVG. Every text that comes from a file goes through [`Text`].

use std::fmt;

use crate::results::{WHICH, unit_of};

/// A text that shows as it is wherever it is put: between tags and in quoted attributes.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a>(pub &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for character in self.0.chars() {
            match character {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                '\n' | '\t' => formatter.write_char(character)?,
                // No part of HTML, or able to turn the text around them.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => formatter.write_char('\u{fffd}')?,
                character if character.is_control() => formatter.write_char('\u{fffd}')?,
                character => formatter.write_char(character)?,
            }
        }
        Ok(())
    }
}

/// A name with underscores in words: `age_p99_s` and `age_s_p99` are "age p99".
#[must_use]
pub fn words(name: &str) -> String {
    let (bare, which) = match WHICH.iter().find(|which| name.ends_with(**which)) {
        Some(which) => (name.strip_suffix(which).unwrap_or(name), *which),
        None => (name, ""),
    };
    let is_in_name = matches!(unit_of(bare), "s" | "ms" | "µs" | "B" | "B/s" | "1/s" | "µcr");
    let bare = if is_in_name { strip_unit(bare) } else { bare };
    format!("{bare}{which}").replace('_', " ")
}

fn strip_unit(name: &str) -> &str {
    const ENDINGS: [&str; 9] = [
        "_bytes_per_second",
        "_bytes_per_s",
        "_per_second",
        "_per_s",
        "_microcredits",
        "_bytes",
        "_us",
        "_ms",
        "_s",
    ];
    ENDINGS
        .iter()
        .find_map(|ending| name.strip_suffix(ending))
        .unwrap_or(name)
}

/// Words with their unit in brackets: "age p99 (s)".
#[must_use]
pub fn with_unit(words: &str, unit: &str) -> String {
    let is_said = words
        .strip_suffix(unit)
        .is_some_and(|before| before.ends_with(' '));
    if unit.is_empty() || is_said {
        return words.to_owned();
    }
    format!("{words} ({unit})")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_become_words() {
        assert_eq!(words("age_p99_s"), "age p99");
        assert_eq!(words("gossip_delivery_ms_p99"), "gossip delivery p99");
        assert_eq!(words("lost_share"), "lost share");
        assert_eq!(words("events_per_second"), "events");
        assert_eq!(with_unit("age p99", "s"), "age p99 (s)");
        assert_eq!(with_unit("lost share", "share"), "lost share");
    }

    proptest! {
        #[test]
        fn no_text_opens_a_tag_or_ends_an_attribute(text: String) {
            let shown = Text(&text).to_string();
            prop_assert!(!shown.contains(['<', '>', '"', '\'']));
            let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
            for (at, _) in shown.match_indices('&') {
                prop_assert!(entities.iter().any(|entity| shown[at..].starts_with(entity)));
            }
        }
    }
}
