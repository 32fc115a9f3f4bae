//! Goes on with a text that another engine, or this one, began to write.
//!
//! The text may end within a token, and its tokens need not be those that the tokenizer would choose. What the
//! tokenizer says is therefore only a guess. Where the same request gives the same answer, the guess is checked: the
//! model reads it and is asked at each token what it would have chosen. Up to the first token that it would have
//! written otherwise with the same text, the guess stands. From there on tokens are chosen anew, held to the rest of
//! the text. So an answer that this model itself was writing goes on exactly as if it had not been broken off.
//!
//! Where the answer is random, there is nothing to check against: the last word is written anew, held to what of it
//! is there.

use tokenizers::Tokenizer;

use super::super::vocabulary::Vocabulary;
use super::super::weights::first_line;
use super::{Answer, EACH_TOKENS_AT_ONCE, Next, failed};
use crate::engine::EngineError;
use crate::engine::refusal::{engine_failed, invalid_request};

/// Most tokens of a last word that is written anew.
const WORD_TOKENS_MAX: usize = 8;

/// A text that is continued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Continued {
    text: String,
    /// The tokens that the tokenizer would choose; none where they do not spell the text.
    tokens: Vec<u32>,
    /// Where each of them ends in the bytes.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl Continued {
    /// Guesses the tokens of a text.
    pub(in super::super) fn new(text: &str, tokenizer: &Tokenizer, vocabulary: &Vocabulary) -> Self {
        let mut guess = Self {
            text: text.to_owned(),
            tokens: Vec::new(),
            ends: Vec::new(),
            bytes: Vec::new(),
        };
        let tokens = tokenizer
            .encode_fast(text, false)
            .map(|encoding| encoding.get_ids().to_vec())
            .unwrap_or_default();
        for token in &tokens {
            guess.bytes.extend(vocabulary.bytes(*token));
            guess.ends.push(guess.bytes.len());
        }
        let are_all_text = tokens.iter().all(|token| !vocabulary.bytes(*token).is_empty());
        if are_all_text
            && tokenizer
                .decode(&tokens, true)
                .is_ok_and(|decoded| decoded == text)
        {
            guess.tokens = tokens;
        } else {
            guess.ends.clear();
            guess.bytes = text.as_bytes().to_vec();
        }
        guess
    }

    /// At most how many tokens the text has.
    pub(in super::super) const fn tokens_max(&self) -> usize {
        if self.tokens.is_empty() {
            self.bytes.len()
        } else {
            self.tokens.len()
        }
    }

    fn start(&self, token: usize) -> usize {
        if token == 0 { 0 } else { self.ends[token - 1] }
    }

    /// How many tokens come before the last word.
    fn before_last_word(&self, vocabulary: &Vocabulary) -> usize {
        let begins_word = |token: &u32| {
            vocabulary
                .bytes(*token)
                .first()
                .is_some_and(u8::is_ascii_whitespace)
        };
        let last = self.tokens.len().saturating_sub(1);
        let nearest = self
            .tokens
            .iter()
            .rev()
            .take(WORD_TOKENS_MAX)
            .position(begins_word);
        match nearest {
            Some(back) => last - back,
            // A short text is its first word.
            None if self.tokens.len() <= WORD_TOKENS_MAX => 0,
            None => last,
        }
    }
}

impl Answer<'_> {
    /// Goes on after a text instead of beginning; false where `is_over` says that nobody wants that.
    ///
    /// # Errors
    /// [`EngineError`] where the model can't be run, and a 400 where the text is not of the grammar.
    pub(in super::super) fn go_on_after(
        &mut self,
        continued: &Continued,
        is_over: impl Fn() -> bool,
    ) -> Result<bool, EngineError> {
        let Some(vocabulary) = &self.model.vocabulary else {
            return Err(engine_failed("its tokens have no certain bytes"));
        };
        let limit = if self.is_repeatable {
            continued.tokens.len()
        } else {
            continued.before_last_word(vocabulary)
        };
        let Some(kept) = self.read_guess(continued, limit, is_over)? else {
            return Ok(false);
        };
        self.forced = continued.bytes[continued.start(kept)..].to_vec();
        let mut out = 0;
        for token in &continued.tokens[..kept] {
            let piece = self
                .detokenizer
                .push(*token)
                .map_err(|error| engine_failed(first_line(&error)))?;
            out += piece.len();
        }
        self.skipped = continued.text.len().saturating_sub(out);
        self.stops.go_on_after(&continued.text);
        Ok(true)
    }

    /// Reads as many of the guessed tokens as stand, at most `limit`, and returns how many.
    fn read_guess(
        &mut self,
        continued: &Continued,
        limit: usize,
        is_over: impl Fn() -> bool,
    ) -> Result<Option<usize>, EngineError> {
        let before = self.memory.tokens();
        let mut kept = 0;
        let Next::Choose(mut logits) = std::mem::replace(&mut self.next, Next::Choose(Vec::new())) else {
            return Err(engine_failed("its answer has begun already"));
        };
        'parts: for part in continued.tokens[..limit].chunks(EACH_TOKENS_AT_ONCE) {
            if is_over() {
                return Ok(None);
            }
            let each = self
                .model
                .decoder
                .read_each(part, &mut self.memory)
                .map_err(|error| failed(&error))?;
            for (token, next) in part.iter().zip(each) {
                if self.is_repeatable && self.would_spell_otherwise(continued, kept, &logits)? {
                    break 'parts;
                }
                self.accept_guess(*token)?;
                kept += 1;
                logits = next;
            }
        }
        self.memory = self.memory.first(before + kept).map_err(|error| failed(&error))?;
        self.next = Next::Choose(logits);
        Ok(Some(kept))
    }

    /// Whether the model would write the same text with another token than the guess. A text that it would not have
    /// written at all is taken as it was given.
    fn would_spell_otherwise(
        &mut self,
        continued: &Continued,
        index: usize,
        logits: &[f32],
    ) -> Result<bool, EngineError> {
        let chosen = self.choose(logits, false)?;
        let rest = &continued.bytes[continued.start(index)..];
        let fits = |vocabulary: &Vocabulary| vocabulary.fits(chosen, rest);
        Ok(chosen != continued.tokens[index] && self.model.vocabulary.as_ref().is_some_and(fits))
    }

    fn accept_guess(&mut self, token: u32) -> Result<(), EngineError> {
        if let Some(grammar) = &mut self.grammar {
            grammar.accept(&[token]).map_err(|_| {
                let message = "the text that is to be continued is not what 'response_format' asks for";
                invalid_request("messages", message)
            })?;
        }
        self.sampler.record(token);
        Ok(())
    }
}
