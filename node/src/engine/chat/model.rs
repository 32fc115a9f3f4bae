//! A chat model, loaded: its weights, its text side, and what it can be asked for.

use candle_core::quantized::gguf_file::Content;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;

use super::configuration::Configuration;
use super::decoder::Decoder;
use super::grammar::GrammarCompiler;
use super::logprobs::TokenText;
use super::text::ModelText;
use super::tool_syntax::ToolSyntax;
use super::vocabulary::Vocabulary;
use super::weights::{Weights, first_line};
use crate::engine::EngineModel;
use crate::engine::model_files::{LoadError, ModelFiles, WeightsReader, device};

/// The tokens around the two sides of a gap that is to be filled in, as Qwen and others write them.
const FILL_TOKENS: [&str; 3] = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"];

/// The tokens that lay out a gap in a text: before its beginning, before its end, before what fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FillTokens {
    pub(super) prefix: u32,
    pub(super) suffix: u32,
    pub(super) middle: u32,
}

/// One model, loaded and ready.
pub(super) struct LoadedModel {
    pub(super) name: String,
    weights_digest: [u8; 32],
    pub(super) quantization: String,
    pub(super) decoder: Decoder,
    pub(super) text: ModelText,
    pub(super) context_length: usize,
    /// None where the bytes of its tokens are not certain.
    pub(super) vocabulary: Option<Vocabulary>,
    /// None where answers can't be held to grammars.
    pub(super) grammars: Option<GrammarCompiler>,
    /// None where it knows no tools.
    pub(super) tools: Option<ToolSyntax>,
    /// None where it was not trained to fill gaps.
    pub(super) fill: Option<FillTokens>,
}

impl LoadedModel {
    /// Loads a model from its files.
    ///
    /// # Errors
    /// [`LoadError`] saying what is wrong with the model and what to do.
    pub(super) fn load(files: &ModelFiles, public_name: Option<&str>) -> Result<Self, LoadError> {
        let name = files.public_name(public_name)?;
        let device = device::choose()?;
        let (configuration, text, mut weights) = match files.gguf() {
            None => {
                let configuration = Configuration::from_files(files)?;
                let text = ModelText::from_files(files)?;
                (configuration, text, Weights::from_safetensors(files, device)?)
            }
            Some(file) => {
                let mut reader = files.weights_reader(file)?;
                let mut content = read_gguf_header(&mut reader, files, file)?;
                let configuration = Configuration::from_gguf(&content, files)?;
                let text = ModelText::from_gguf(&mut content, files)?;
                let weights = Weights::from_gguf(files, content, reader, device)?;
                (configuration, text, weights)
            }
        };
        let decoder = Decoder::new(&configuration, &mut weights)?;
        let vocabulary = Vocabulary::new(&text.tokenizer, decoder.vocabulary(), &text.end_tokens);
        let fill_token = |name: &str| text.tokenizer.token_to_id(name);
        let fill = match FILL_TOKENS.map(fill_token) {
            [Some(prefix), Some(suffix), Some(middle)] => Some(FillTokens {
                prefix,
                suffix,
                middle,
            }),
            _ => None,
        };
        Ok(Self {
            name,
            weights_digest: weights.digest(),
            quantization: weights.quantization().to_owned(),
            context_length: configuration.context_length,
            grammars: vocabulary.as_ref().and_then(GrammarCompiler::new),
            tools: ToolSyntax::of(&text.template, &text.tokenizer),
            vocabulary,
            fill,
            decoder,
            text,
        })
    }

    /// The model as it is offered: for chat, and for going on with raw text.
    pub(super) fn offers(&self) -> Vec<EngineModel> {
        [JobKind::ChatCompletions, JobKind::Completions]
            .into_iter()
            .map(|kind| EngineModel {
                name: self.name.clone(),
                kind,
                weights_digest: Some(self.weights_digest),
                quantization: self.quantization.clone(),
                context_length: u32::try_from(self.context_length).unwrap_or(u32::MAX),
                capabilities: self.capabilities(kind),
            })
            .collect()
    }

    fn capabilities(&self, kind: JobKind) -> Vec<Capability> {
        let mut capabilities = vec![
            Capability::Logprobs,
            Capability::ManyChoices,
            Capability::LogitBias,
            Capability::Seed,
        ];
        capabilities.extend(self.vocabulary.as_ref().map(|_| Capability::Continuation));
        if kind == JobKind::Completions {
            capabilities.extend([Capability::TokenInput, Capability::Echo]);
            capabilities.extend(self.fill.map(|_| Capability::Suffix));
            return capabilities;
        }
        if self.grammars.is_some() {
            capabilities.extend([Capability::StructuredOutput, Capability::StrictSchema]);
        }
        if self.tools.is_some() {
            capabilities.push(Capability::Tools);
        }
        if self.tools.is_some() && self.grammars.is_some() {
            capabilities.push(Capability::ForcedTools);
        }
        capabilities
    }

    /// Writes this model's tokens as JSON.
    pub(super) const fn token_text(&self) -> TokenText<'_> {
        TokenText {
            tokenizer: &self.text.tokenizer,
            vocabulary: self.vocabulary.as_ref(),
        }
    }
}

fn read_gguf_header(
    reader: &mut Box<dyn WeightsReader>,
    files: &ModelFiles,
    file: &str,
) -> Result<Content, LoadError> {
    // candle divides by the alignment that the file claims, which may be zero.
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Content::read(reader)));
    match read {
        Ok(read) => read.map_err(|error| files.damaged(file, first_line(&error))),
        Err(_) => Err(files.damaged(file, "its header makes no sense")),
    }
}
