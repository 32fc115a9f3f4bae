//! Finds out who starts an answer anew instead of writing on: servers that do not know the field that asks for it
//! leave it out, whatever their offer says.

use std::borrow::Cow;

use super::SeamError;

/// So much of an answer's beginning, in bytes, nobody writes again in the middle of it.
const TELLING_MAX_BYTES: usize = 48;
/// Less than this may well come twice.
const TELLING_MIN_BYTES: usize = 8;

/// Watches the first text of a continuation. While it is the beginning of what the program has already, it is held
/// back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnewWatch {
    /// Empty: nothing is watched any more.
    beginning: String,
    /// The text so far.
    seen: String,
}

impl AnewWatch {
    /// Over a continuation of `written`.
    #[must_use]
    pub fn over(written: &str) -> Self {
        let end = written.floor_char_boundary(TELLING_MAX_BYTES.min(written.len()));
        Self {
            beginning: written[..end].to_owned(),
            seen: String::new(),
        }
    }

    /// What of a piece of text, and of what was held back, goes on.
    ///
    /// # Errors
    /// [`SeamError::BeginsAnew`] where it is the beginning once more.
    pub fn pass<'text>(&mut self, text: &'text str) -> Result<Cow<'text, str>, SeamError> {
        if self.beginning.is_empty() {
            return Ok(Cow::Borrowed(text));
        }
        self.seen.push_str(text);
        let is_whole = self.seen.starts_with(&self.beginning);
        let is_like = is_whole || self.beginning.starts_with(&self.seen);
        let is_telling = self.beginning.len() >= TELLING_MIN_BYTES;
        match (is_like, is_telling) {
            (true, true) if is_whole => Err(SeamError::BeginsAnew),
            (true, true) => Ok(Cow::Borrowed("")),
            (true, false) => Ok(Cow::Borrowed(text)),
            (false, true) => Ok(Cow::Owned(self.release())),
            (false, false) => {
                self.release();
                Ok(Cow::Borrowed(text))
            }
        }
    }

    /// Whether all that came may be the beginning once more.
    #[must_use]
    pub const fn looks_anew(&self) -> bool {
        !self.beginning.is_empty() && !self.seen.is_empty()
    }

    /// Whether text is held back.
    #[must_use]
    pub const fn is_holding(&self) -> bool {
        self.looks_anew() && self.beginning.len() >= TELLING_MIN_BYTES
    }

    /// Watches no more; gives what was held back.
    pub fn release(&mut self) -> String {
        let was_holding = self.is_holding();
        self.beginning.clear();
        let seen = std::mem::take(&mut self.seen);
        if was_holding { seen } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "Gristmill is a market of GPUs";

    fn all(watch: &mut AnewWatch, pieces: &[&str]) -> Result<String, SeamError> {
        pieces.iter().map(|piece| watch.pass(piece)).collect()
    }

    #[test]
    fn the_beginning_once_more_is_refused_before_any_of_it_goes_on() {
        let mut watch = AnewWatch::over(WRITTEN);
        assert_eq!(
            all(&mut watch, &["Gristmill", " is a market of"]),
            Ok(String::new())
        );
        assert!(watch.is_holding());
        assert_eq!(watch.pass(" GPUs and"), Err(SeamError::BeginsAnew));
    }

    #[test]
    fn what_only_begins_alike_goes_on_whole() {
        let mut watch = AnewWatch::over(WRITTEN);
        assert_eq!(
            all(&mut watch, &["Gristmill", " is", " good", "!"]),
            Ok("Gristmill is good!".into())
        );
        assert!(!watch.looks_anew());
        let mut watch = AnewWatch::over(WRITTEN);
        assert_eq!(all(&mut watch, &[" for", " all"]), Ok(" for all".into()));
        let mut watch = AnewWatch::over(WRITTEN);
        assert_eq!(all(&mut watch, &["Grist"]), Ok(String::new()));
        assert_eq!((watch.release().as_str(), watch.is_holding()), ("Grist", false));
    }

    #[test]
    fn a_short_beginning_holds_nothing_back_and_is_only_a_hint() {
        let mut watch = AnewWatch::over("Ha");
        assert_eq!(watch.pass("H"), Ok("H".into()));
        assert!(watch.looks_anew() && !watch.is_holding());
        assert_eq!(watch.pass("o"), Ok("o".into()));
        assert!(!watch.looks_anew());
        assert_eq!(AnewWatch::over("").pass("x"), Ok("x".into()));
    }
}
