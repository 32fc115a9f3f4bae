//! Turns tokens into text as they come, without ever cutting a character in two.

use tokenizers::Tokenizer;

/// How many replacement characters at the end may stand for a character that is not complete yet: a character has
/// at most four bytes.
const INCOMPLETE_MAX: usize = 3;
/// From how many tokens on those that came out whole are forgotten.
const WINDOW_TOKENS: usize = 16;
/// Most tokens that are remembered. As many without one whole character are no text at all.
const WINDOW_TOKENS_MAX: usize = 64;

/// Decodes one answer.
///
/// Tokens are decoded together with some before them, because many tokenizers join words depending on their
/// neighbours; what came out before is then cut off.
pub(super) struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    window: Vec<u32>,
    /// How many of the window's tokens had come out whole when the last one before did.
    whole: usize,
    /// How many bytes of the window's text have come out.
    out: usize,
    /// Whether the last token ended within a character.
    is_within_character: bool,
}

impl<'t> Detokenizer<'t> {
    /// Decodes with a model's own tokenizer.
    pub(super) const fn new(tokenizer: &'t Tokenizer) -> Self {
        Self {
            tokenizer,
            window: Vec::new(),
            whole: 0,
            out: 0,
            is_within_character: false,
        }
    }

    /// Whether the text of all tokens has come out.
    pub(super) const fn is_all_out(&self) -> bool {
        !self.is_within_character
    }

    /// The text that a token completes; empty where it ends within a character.
    pub(super) fn push(&mut self, token: u32) -> Result<String, tokenizers::Error> {
        self.window.push(token);
        if self.window.len() > WINDOW_TOKENS_MAX {
            return self.finish();
        }
        let text = self.tokenizer.decode(&self.window, true)?;
        let certain = certain_length(&text);
        let piece = self.take(&text, certain);
        self.is_within_character = certain < text.len();
        if !self.is_within_character {
            self.forget_what_is_out()?;
        }
        Ok(piece)
    }

    /// What was held back, where the answer ends within a character.
    pub(super) fn finish(&mut self) -> Result<String, tokenizers::Error> {
        let text = self.tokenizer.decode(&self.window, true)?;
        let piece = self.take(&text, text.len());
        self.window.clear();
        self.whole = 0;
        self.out = 0;
        self.is_within_character = false;
        Ok(piece)
    }

    fn take(&mut self, text: &str, end: usize) -> String {
        let piece = text.get(self.out..end).unwrap_or_default().to_owned();
        self.out = self.out.max(end);
        piece
    }

    fn forget_what_is_out(&mut self) -> Result<(), tokenizers::Error> {
        if self.window.len() >= WINDOW_TOKENS {
            self.window.drain(..self.whole);
            self.out = self.tokenizer.decode(&self.window, true)?.len();
        }
        self.whole = self.window.len();
        Ok(())
    }
}

/// How much of a text can't change any more, whatever tokens follow.
fn certain_length(text: &str) -> usize {
    let incomplete = text
        .chars()
        .rev()
        .take(INCOMPLETE_MAX)
        .take_while(|last| *last == char::REPLACEMENT_CHARACTER);
    text.len() - incomplete.map(char::len_utf8).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::chat::tiny_models;
    use proptest::prelude::*;

    fn decode_in_steps(tokenizer: &Tokenizer, tokens: &[u32]) -> (Vec<String>, String) {
        let mut detokenizer = Detokenizer::new(tokenizer);
        let mut pieces: Vec<_> = tokens
            .iter()
            .map(|token| detokenizer.push(*token).unwrap())
            .collect();
        pieces.push(detokenizer.finish().unwrap());
        let whole = pieces.concat();
        (pieces, whole)
    }

    #[test]
    fn characters_of_several_tokens_come_out_whole() {
        let tokenizer = tiny_models::tokenizer();
        let tokens = tokenizer.encode("aé→🙂z", false).unwrap().get_ids().to_vec();
        let (pieces, whole) = decode_in_steps(&tokenizer, &tokens);
        assert_eq!(whole, "aé→🙂z");
        assert!(
            pieces
                .iter()
                .all(|piece| !piece.contains(char::REPLACEMENT_CHARACTER))
        );
        assert!(pieces.contains(&"🙂".to_owned()));
    }

    #[test]
    fn an_answer_cut_within_a_character_is_not_lost() {
        let tokenizer = tiny_models::tokenizer();
        let tokens = tokenizer.encode("a🙂", false).unwrap().get_ids().to_vec();
        let (_, whole) = decode_in_steps(&tokenizer, &tokens[..tokens.len() - 1]);
        assert!(whole.starts_with('a') && whole.ends_with(char::REPLACEMENT_CHARACTER));
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_whole(text in "\\PC{0,40}") {
            let tokenizer = tiny_models::tokenizer();
            let tokens = tokenizer.encode(text.as_str(), false).unwrap().get_ids().to_vec();
            prop_assert_eq!(decode_in_steps(&tokenizer, &tokens).1, tokenizer.decode(&tokens, true).unwrap());
        }

        #[test]
        fn any_tokens_decode_without_panic_and_without_growing_the_buffer(tokens in prop::collection::vec(0u32..300, 0..200)) {
            let tokenizer = tiny_models::tokenizer();
            let mut detokenizer = Detokenizer::new(&tokenizer);
            for token in tokens {
                detokenizer.push(token).unwrap();
                prop_assert!(detokenizer.window.len() <= WINDOW_TOKENS_MAX);
            }
        }
    }
}
