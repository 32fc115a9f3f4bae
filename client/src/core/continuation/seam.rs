//! Where the text of one provider ends and that of the next one begins.
//!
//! Tokens may split differently there, so the next provider is sent a little less than the program has. What it
//! writes first is then known already: it is compared and left out.

use serde_json::{Map, Value};
use thiserror::Error;

use super::anew::AnewWatch;

/// Fields of a delta that hold what a model thinks before it answers; servers differ in the name.
pub const REASONING_FIELDS: [&str; 2] = ["reasoning_content", "reasoning"];

/// Why a continuation does not fit what the program has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SeamError {
    /// It writes other text where the program has some already.
    #[error("the provider that was to continue the answer wrote another text instead")]
    OtherText,
    /// It begins to think again in the middle of the answer.
    #[error("the provider that was to continue the answer began anew")]
    BeginsAnew,
}

/// What happens where the expected text does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDifference {
    /// The continuation is refused.
    Refuse,
    /// What differs is taken as it is.
    PassOn,
    /// What differs, and all that follows, is left out.
    LeaveOut,
}

/// One text at its seam.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seam {
    /// Everything passes.
    #[default]
    Open,
    /// Everything is left out.
    Closed,
    /// There must not be any more.
    Ended,
    /// This is expected first, and left out since the program has it.
    Overlap {
        /// What is still expected.
        rest: String,
        /// What happens where something else comes.
        on_difference: OnDifference,
    },
}

impl Seam {
    /// A seam where `overlap` comes a second time.
    #[must_use]
    pub fn over(overlap: &str, on_difference: OnDifference) -> Self {
        if overlap.is_empty() {
            return Self::Open;
        }
        Self::Overlap {
            rest: overlap.to_owned(),
            on_difference,
        }
    }

    /// The part of a piece of text that the program does not have.
    ///
    /// # Errors
    /// [`SeamError`] where the piece does not belong there.
    pub fn pass<'text>(&mut self, text: &'text str) -> Result<&'text str, SeamError> {
        let (rest, on_difference) = match self {
            Self::Open => return Ok(text),
            Self::Closed => return Ok(""),
            Self::Ended if text.is_empty() => return Ok(""),
            Self::Ended => return Err(SeamError::BeginsAnew),
            Self::Overlap { rest, on_difference } => (rest, *on_difference),
        };
        let common = common_bytes(rest, text);
        if common == rest.len() {
            *self = Self::Open;
            return Ok(&text[common..]);
        }
        if common == text.len() {
            rest.drain(..common);
            return Ok("");
        }
        match on_difference {
            OnDifference::Refuse => Err(SeamError::OtherText),
            OnDifference::PassOn => {
                *self = Self::Open;
                Ok(&text[common..])
            }
            OnDifference::LeaveOut => {
                *self = Self::Closed;
                Ok("")
            }
        }
    }

    /// Whether something else may follow: another kind of output, or the end of the answer.
    #[must_use]
    pub const fn may_end(&self) -> bool {
        !matches!(
            self,
            Self::Overlap {
                on_difference: OnDifference::Refuse,
                ..
            }
        )
    }
}

/// How many bytes of whole characters two texts begin with in common.
fn common_bytes(one: &str, other: &str) -> usize {
    let pairs = one.chars().zip(other.chars());
    pairs
        .take_while(|(left, right)| left == right)
        .map(|(letter, _)| letter.len_utf8())
        .sum()
}

/// The seams of an answer's texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Junction {
    /// Of the answer itself.
    pub content: Seam,
    /// Of what the model thought before it, in the order of [`REASONING_FIELDS`].
    pub reasoning: [Seam; 2],
    /// Whether the answer itself begins anew.
    pub anew: AnewWatch,
}

impl Junction {
    /// Takes out of a delta what the program has already; `ends` where nothing comes after it.
    ///
    /// # Errors
    /// [`SeamError`] where the delta does not continue what the program has.
    pub fn apply(&mut self, delta: &mut Map<String, Value>, ends: bool) -> Result<(), SeamError> {
        for (name, seam) in REASONING_FIELDS.into_iter().zip(&mut self.reasoning) {
            pass_field(delta, name, seam)?;
        }
        let calls = delta.get("tool_calls").and_then(Value::as_array);
        let has_calls = calls.is_some_and(|calls| !calls.is_empty());
        let text = delta.get("content").and_then(Value::as_str).unwrap_or_default();
        let passed = self.pass(text, ends || has_calls)?;
        if !passed.is_empty() {
            delta.insert("content".into(), passed.into());
        } else if delta.get("content").is_some_and(Value::is_string) {
            delta.remove("content");
        }
        Ok(())
    }

    /// What of the answer's text the program does not have; `ends` where no more text comes.
    ///
    /// # Errors
    /// [`SeamError`] where it does not continue what the program has.
    pub fn pass(&mut self, text: &str, ends: bool) -> Result<String, SeamError> {
        let mut text = self.anew.pass(text)?.into_owned();
        if ends {
            text.push_str(&self.anew.release());
        }
        let passed = self.content.pass(&text).map(str::to_owned);
        match passed {
            Ok(_) if ends && !self.content.may_end() => Err(SeamError::OtherText),
            Err(SeamError::OtherText) if self.anew.looks_anew() => Err(SeamError::BeginsAnew),
            passed => passed,
        }
    }
}

fn pass_field(delta: &mut Map<String, Value>, name: &str, seam: &mut Seam) -> Result<(), SeamError> {
    let Some(Value::String(text)) = delta.get_mut(name) else {
        return Ok(());
    };
    let passed = seam.pass(text)?;
    if passed.is_empty() {
        delta.remove(name);
    } else if passed.len() < text.len() {
        *text = passed.to_owned();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn all(seam: &mut Seam, pieces: &[&str]) -> Result<String, SeamError> {
        pieces.iter().map(|piece| seam.pass(piece)).collect()
    }

    #[test]
    fn what_comes_twice_is_left_out_and_what_differs_is_handled_as_told() {
        let seam = |on_difference| Seam::over(" mill", on_difference);
        for on_difference in [OnDifference::Refuse, OnDifference::PassOn, OnDifference::LeaveOut] {
            assert_eq!(
                all(&mut seam(on_difference), &[" m", "", "ill", "er"]),
                Ok("er".into())
            );
            assert_eq!(all(&mut seam(on_difference), &[" miller"]), Ok("er".into()));
        }
        let other = [" mi", "nt", "!"];
        assert_eq!(
            all(&mut seam(OnDifference::Refuse), &other),
            Err(SeamError::OtherText)
        );
        assert_eq!(all(&mut seam(OnDifference::PassOn), &other), Ok("nt!".into()));
        assert_eq!(all(&mut seam(OnDifference::LeaveOut), &other), Ok(String::new()));
        assert_eq!(all(&mut Seam::Ended, &["", "x"]), Err(SeamError::BeginsAnew));
        assert_eq!(all(&mut Seam::Closed, &["x"]), Ok(String::new()));
    }

    #[test]
    fn an_answer_does_not_end_inside_what_has_to_come_again() {
        let mut seam = Seam::over("ab", OnDifference::Refuse);
        assert!(!seam.may_end());
        seam.pass("a").unwrap();
        assert!(!seam.may_end());
        seam.pass("b").unwrap();
        assert!(seam.may_end() && Seam::over("ab", OnDifference::PassOn).may_end());
    }

    #[test]
    fn a_delta_keeps_only_what_is_new() {
        let mut junction = Junction {
            content: Seam::over("Hi", OnDifference::Refuse),
            reasoning: [Seam::Ended, Seam::Closed],
            anew: AnewWatch::default(),
        };
        let mut delta = |delta: Value| {
            let Value::Object(mut delta) = delta else {
                panic!("{delta}")
            };
            junction.apply(&mut delta, false).map(|()| Value::Object(delta))
        };
        assert_eq!(delta(json!({"content": "H", "reasoning": "hm"})), Ok(json!({})));
        assert_eq!(delta(json!({"tool_calls": [{}]})), Err(SeamError::OtherText));
        assert_eq!(delta(json!({"content": "i!"})), Ok(json!({"content": "!"})));
        assert_eq!(
            delta(json!({"tool_calls": [{}]})),
            Ok(json!({"tool_calls": [{}]}))
        );
        assert_eq!(
            delta(json!({"reasoning_content": "hm"})),
            Err(SeamError::BeginsAnew)
        );
    }

    proptest! {
        /// However the repetition is cut into pieces, the program gets each character once.
        #[test]
        fn pieces_do_not_matter(overlap in "\\PC{0,20}", rest in "\\PC{0,20}", cuts in proptest::collection::vec(0usize..40, 0..6)) {
            let whole: Vec<char> = format!("{overlap}{rest}").chars().collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let pieces: Vec<String> = cuts.windows(2).map(|pair| whole[pair[0]..pair[1]].iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            for on_difference in [OnDifference::Refuse, OnDifference::PassOn, OnDifference::LeaveOut] {
                prop_assert_eq!(all(&mut Seam::over(&overlap, on_difference), &pieces), Ok(rest.clone()));
            }
        }
    }
}
