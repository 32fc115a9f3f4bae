//! The guide's tokenizer, and conversations as token ids.

use anyhow::{Context, anyhow};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer, TokenizerBuilder};

use super::corpus::Turn;

/// Tokens in the vocabulary, special ones included.
pub(crate) const VOCABULARY: usize = 1536;
/// Fills rows to one length; never seen by the loss.
pub(crate) const PADDING: &str = "<|endoftext|>";
/// Begins a message.
pub(crate) const START: &str = "<|im_start|>";
/// Ends a message, and with it an answer.
pub(crate) const END: &str = "<|im_end|>";
/// Ids follow the order in which the special tokens are given to the trainer.
pub(crate) const PADDING_ID: u32 = 0;
/// Id of [`START`].
pub(crate) const START_ID: u32 = 1;
/// Id of [`END`].
pub(crate) const END_ID: u32 = 2;

/// The chat template that goes into `tokenizer_config.json`; [`encode`] must agree with it. Clients may send content as
/// a list of parts, and newer ones call the system message `developer`.
pub(crate) const CHAT_TEMPLATE: &str = "{%- for message in messages -%}\
{{- '<|im_start|>' + ('system' if message['role'] == 'developer' else message['role']) + '\\n' -}}\
{%- if message['content'] is string -%}{{- message['content'] -}}\
{%- elif message['content'] -%}{%- for part in message['content'] -%}{%- if part['text'] -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}\
{%- endif -%}\
{{- '<|im_end|>\\n' -}}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

/// Trains a byte-level BPE tokenizer: it can read anything, and writes the corpus compactly.
pub(crate) fn train_tokenizer(texts: &[String]) -> anyhow::Result<Tokenizer> {
    let special = |text: &str| AddedToken::from(text.to_owned(), true);
    let mut trainer = BpeTrainerBuilder::new()
        .show_progress(false)
        .vocab_size(VOCABULARY)
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![special(PADDING), special(START), special(END)])
        .build();
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None::<tokenizers::NormalizerWrapper>)
        .with_pre_tokenizer(Some(bytes))
        .with_post_processor(Some(bytes))
        .with_decoder(Some(bytes))
        .build()
        .map_err(|error| anyhow!("building the tokenizer: {error}"))?;
    tokenizer
        .train(&mut trainer, texts.iter())
        .map_err(|error| anyhow!("training the tokenizer: {error}"))?;
    let json = tokenizer
        .to_string(false)
        .map_err(|error| anyhow!("writing the tokenizer: {error}"))?;
    json.parse()
        .map_err(|error| anyhow!("reading the tokenizer back: {error}"))
}

/// A conversation as token ids, and for each id whether the model is to learn to say it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    /// Token ids from the start of the conversation.
    pub(crate) ids: Vec<u32>,
    /// True where the id belongs to an answer.
    pub(crate) said: Vec<bool>,
}

impl Row {
    /// A conversation that begins with a system message, if there is one.
    pub(crate) fn begin(tokenizer: &Tokenizer, system: Option<&str>) -> anyhow::Result<Self> {
        let mut row = Self::default();
        if let Some(system) = system {
            row.append(tokenizer, &format!("{START}system\n{system}{END}\n"), false)?;
        }
        Ok(row)
    }

    /// Adds a question and its answer.
    pub(crate) fn turn(&mut self, tokenizer: &Tokenizer, (question, answer): &Turn) -> anyhow::Result<()> {
        self.append(tokenizer, &prompt(question), false)?;
        self.append(tokenizer, &format!("{answer}{END}"), true)?;
        self.append(tokenizer, "\n", false)
    }

    fn append(&mut self, tokenizer: &Tokenizer, text: &str, said: bool) -> anyhow::Result<()> {
        let ids = encode(tokenizer, text)?;
        self.said.resize(self.said.len() + ids.len(), said);
        self.ids.extend(ids);
        Ok(())
    }
}

/// A user's message followed by the beginning of the answer, as the chat template writes them.
pub(crate) fn prompt(question: &str) -> String {
    format!("{START}user\n{question}{END}\n{START}assistant\n")
}

/// Token ids of a text in which special tokens may be spelled out.
pub(crate) fn encode(tokenizer: &Tokenizer, text: &str) -> anyhow::Result<Vec<u32>> {
    let encoding = tokenizer
        .encode_fast(text, false)
        .map_err(|error| anyhow!("{error}"))
        .context("encoding a conversation")?;
    Ok(encoding.get_ids().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Tokenizer {
        train_tokenizer(&vec![
            "Gristmill is a market for GPU compute. What is Gristmill?"
                .to_owned();
            9
        ])
        .unwrap()
    }

    #[test]
    fn training_twice_gives_the_same_tokenizer() {
        assert_eq!(
            small().to_string(false).unwrap(),
            small().to_string(false).unwrap()
        );
    }

    #[test]
    fn any_text_survives_the_round_trip() {
        let tokenizer = small();
        for text in ["Gristmill", "Ünïcödé 🌾 \n\t", "漢字 and {json: 1}"] {
            assert_eq!(
                tokenizer
                    .decode(&encode(&tokenizer, text).unwrap(), false)
                    .unwrap(),
                text
            );
        }
    }

    #[test]
    fn special_tokens_have_the_announced_ids() {
        let tokenizer = small();
        for (text, id) in [(PADDING, PADDING_ID), (START, START_ID), (END, END_ID)] {
            assert_eq!(encode(&tokenizer, text).unwrap(), [id]);
        }
    }

    #[test]
    fn pieces_of_a_conversation_tokenize_as_the_whole_does() {
        let tokenizer = small();
        let turn = (
            "What is Gristmill?".to_owned(),
            "Gristmill is a market.".to_owned(),
        );
        let mut row = Row::begin(&tokenizer, Some("Be brief.")).unwrap();
        row.turn(&tokenizer, &turn).unwrap();
        let whole = format!(
            "{START}system\nBe brief.{END}\n{}{}{END}\n",
            prompt(&turn.0),
            turn.1
        );
        assert_eq!(row.ids, encode(&tokenizer, &whole).unwrap());
        let said: Vec<u32> = row
            .ids
            .iter()
            .zip(&row.said)
            .filter_map(|(id, said)| said.then_some(*id))
            .collect();
        assert_eq!(
            tokenizer.decode(&said, false).unwrap(),
            "Gristmill is a market.<|im_end|>"
        );
    }
}
