//! The bytes behind each token of a model: what grammars and the continuing of a text are reckoned in.

use std::collections::BTreeMap;
use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use serde_json::Value;
use tokenizers::Tokenizer;

/// Most bytes of a token. No known vocabulary has longer ones that matter.
const TOKEN_MAX_BYTES: usize = 255;

/// How a tokenizer writes bytes as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// A character for each byte (GPT-2's `bytes_to_unicode`).
    ByteLevel,
    /// Plain text with a stand-in for the space, and `<0x0A>` for bytes that are no text of their own (SentencePiece).
    ByteFallback { space: char },
}

/// The tokens of a model as bytes. Special tokens have none.
#[derive(Clone)]
pub(super) struct Vocabulary {
    environment: TokEnv,
    /// Tokens that begin with the byte by which llguidance knows special ones. No text in UTF-8 has it.
    no_text: BTreeMap<u32, Vec<u8>>,
}

impl Vocabulary {
    /// Reads a tokenizer; none where it is of a kind whose tokens have no certain bytes, or ends no answer.
    ///
    /// `size` is how many logits the model gives, `end_tokens` are those that end an answer.
    pub(super) fn new(tokenizer: &Tokenizer, size: usize, end_tokens: &[u32]) -> Option<Self> {
        let decoder = serde_json::to_value(tokenizer.get_decoder()?).ok()?;
        let spelling = spelling(&decoder)?;
        let count = u32::try_from(size).ok()?;
        let ends: Vec<u32> = end_tokens.iter().copied().filter(|end| *end < count).collect();
        let first_end = *ends.first()?;
        let added = tokenizer.get_added_tokens_decoder();
        let bytes = |token: u32| {
            if let Some(added) = added.get(&token) {
                let is_text = !added.special && !ends.contains(&token);
                return is_text.then(|| added.content.clone().into_bytes());
            }
            spell(&tokenizer.id_to_token(token)?, spelling)
        };
        let usable = |bytes: &Vec<u8>| (1..=TOKEN_MAX_BYTES).contains(&bytes.len());
        let mut no_text = BTreeMap::new();
        let words: Vec<Vec<u8>> = (0..count)
            .map(|token| match bytes(token).filter(usable) {
                Some(bytes) if bytes[0] == TokTrie::SPECIAL_TOKEN_MARKER => {
                    no_text.insert(token, bytes);
                    special(token)
                }
                Some(bytes) => bytes,
                None => special(token),
            })
            .collect();
        let trie = TokTrie::from(&TokRxInfo::new(count, first_end), &words).with_eos_tokens(&ends);
        Some(Self {
            environment: Arc::new(ApproximateTokEnv::new(trie)),
            no_text,
        })
    }

    /// What llguidance reads.
    pub(super) const fn environment(&self) -> &TokEnv {
        &self.environment
    }

    /// The bytes of a token; none of a special one.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        let trie = self.environment.tok_trie();
        if token as usize >= trie.vocab_size() || trie.is_special_token(token) {
            return self.no_text.get(&token).map_or(&[], Vec::as_slice);
        }
        trie.token(token)
    }

    /// Tokens of these bytes, not necessarily those that the tokenizer would choose.
    pub(super) fn any_tokens(&self, bytes: &[u8]) -> Vec<u32> {
        self.environment.tok_trie().greedy_tokenize(bytes)
    }

    /// Whether a token can stand where these bytes are to be written: it is a beginning of them, or they of it.
    pub(super) fn fits(&self, token: u32, bytes: &[u8]) -> bool {
        let own = self.bytes(token);
        !own.is_empty() && (own.starts_with(bytes) || bytes.starts_with(own))
    }

    /// All tokens that [fit](Self::fits).
    pub(super) fn fitting(&self, bytes: &[u8]) -> SimpleVob {
        let trie = self.environment.tok_trie();
        let mut fitting = trie.alloc_token_set();
        for token in (0u32..).take(trie.vocab_size()) {
            if self.fits(token, bytes) {
                fitting.allow_token(token);
            }
        }
        fitting
    }
}

/// What stands for a token without bytes: a name that no text can have.
fn special(token: u32) -> Vec<u8> {
    let mut name = vec![TokTrie::SPECIAL_TOKEN_MARKER];
    name.extend(format!("<[{token}]>").into_bytes());
    name
}

fn spelling(decoder: &Value) -> Option<Spelling> {
    let parts = match decoder["decoders"].as_array() {
        Some(parts) => parts.as_slice(),
        None => std::slice::from_ref(decoder),
    };
    let is = |part: &&Value, kind: &str| part["type"] == kind;
    if parts.iter().any(|part| is(&part, "ByteLevel")) {
        return Some(Spelling::ByteLevel);
    }
    parts.iter().find(|part| is(part, "ByteFallback"))?;
    let replaced = parts
        .iter()
        .find(|part| is(part, "Replace") && part["content"] == " ")
        .and_then(|part| part["pattern"]["String"].as_str())
        .or_else(|| {
            let metaspace = parts.iter().find(|part| is(part, "Metaspace"));
            metaspace.and_then(|part| part["replacement"].as_str())
        });
    let space = replaced.and_then(|text| text.chars().next()).unwrap_or(' ');
    Some(Spelling::ByteFallback { space })
}

fn spell(text: &str, spelling: Spelling) -> Option<Vec<u8>> {
    match spelling {
        Spelling::ByteLevel => text.chars().map(byte_of).collect(),
        Spelling::ByteFallback { space } => {
            let number = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
            match number.map(|digits| u8::from_str_radix(digits, 16)) {
                Some(Ok(byte)) => Some(vec![byte]),
                _ => Some(text.replace(space, " ").into_bytes()),
            }
        }
    }
}

/// The byte that a character stands for in byte-level tokenizers.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match character {
        '!'..='~' | '\u{A1}'..='\u{AC}' | '\u{AE}'..='\u{FF}' => u8::try_from(code).ok(),
        // The other bytes in order: controls and the space, delete to the soft space, and the soft hyphen.
        '\u{100}'..='\u{120}' => u8::try_from(code - 0x100).ok(),
        '\u{121}'..='\u{142}' => u8::try_from(code - 0x121 + 0x7F).ok(),
        '\u{143}' => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::chat::tiny_models;
    use crate::engine::guide;

    #[test]
    fn each_byte_has_its_character() {
        let tokenizer = tiny_models::tokenizer();
        let vocabulary = Vocabulary::new(&tokenizer, tiny_models::VOCABULARY, &[257]).unwrap();
        for byte in 0..=255u8 {
            assert_eq!(vocabulary.bytes(u32::from(byte)), [byte]);
        }
        for special in [256, 257, 258, 271, 999] {
            assert!(vocabulary.bytes(special).is_empty(), "{special}");
        }
    }

    #[test]
    fn the_bytes_of_a_texts_tokens_are_the_text() {
        let bytes = guide::files().document("tokenizer.json").unwrap().unwrap();
        let tokenizer = Tokenizer::from_bytes(&bytes).unwrap();
        let size = tokenizer.get_vocab_size(true);
        let end = tokenizer.token_to_id("<|im_end|>").unwrap();
        let vocabulary = Vocabulary::new(&tokenizer, size, &[end]).unwrap();
        for text in ["What is Gristmill?", "  grüß → 🙂\n\n", "{\"a\": [1, 2]}"] {
            let tokens = tokenizer.encode(text, false).unwrap();
            let spelled: Vec<u8> = tokens
                .get_ids()
                .iter()
                .flat_map(|token| vocabulary.bytes(*token).to_vec())
                .collect();
            assert_eq!(String::from_utf8(spelled).unwrap(), text);
        }
    }

    #[test]
    fn what_fits_is_a_beginning_or_begins_so() {
        let tokenizer = tiny_models::tokenizer();
        let vocabulary = Vocabulary::new(&tokenizer, tiny_models::VOCABULARY, &[257]).unwrap();
        let fitting = vocabulary.fitting(b"ab");
        assert!(fitting.is_allowed(u32::from(b'a')) && fitting.num_set() == 1);
        assert!(!vocabulary.fits(257, b"ab"));
    }

    #[test]
    fn sentence_pieces_are_spelled_out() {
        let decoder = serde_json::json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let spelling = spelling(&decoder).unwrap();
        assert_eq!(spelling, Spelling::ByteFallback { space: '▁' });
        assert_eq!(spell("▁mill", spelling).unwrap(), b" mill");
        assert_eq!(spell("<0x0A>", spelling).unwrap(), b"\n");
        assert_eq!(spell("<0xé>", spelling).unwrap(), "<0xé>".as_bytes());
        assert_eq!(super::spelling(&serde_json::json!({"type": "WordPiece"})), None);
    }
}
