//! The text side of a model: tokenizer, chat template and the tokens that end an answer.

use candle_core::quantized::gguf_file::{Content, Value as GgufValue};
use candle_core::quantized::tokenizer::TokenizerFromGguf;
use serde::Deserialize;
use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use super::configuration::OneOrMany;
use super::template::{CHATML, ChatTemplate};
use super::weights::first_line;
use crate::engine::model_files::{LoadError, ModelFiles};

/// Tokens that end a turn in the known chat formats. Models name only one of them as their end of sequence.
const TURN_ENDS: [&str; 6] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
];
/// The type numbers of tokens in GGUF files (ggml's `llama_token_type`).
const GGUF_NORMAL: i32 = 1;
const GGUF_USER_DEFINED: i32 = 4;

/// How a model samples where the program does not say, from `generation_config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct SamplingDefaults {
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
}

/// Everything about a model's text.
pub(super) struct ModelText {
    pub(super) tokenizer: Tokenizer,
    pub(super) template: ChatTemplate,
    /// The token that begins a text, where the model has one.
    pub(super) begin_token: Option<u32>,
    /// Tokens that end an answer.
    pub(super) end_tokens: Vec<u32>,
    pub(super) sampling: SamplingDefaults,
}

/// Special tokens by their text, as a tokenizer's configuration names them.
#[derive(Default)]
struct Named {
    bos: Option<String>,
    eos: Option<String>,
    template: Option<String>,
}

#[derive(Default, Deserialize)]
struct GenerationConfiguration {
    eos_token_id: Option<OneOrMany>,
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
}

impl ModelText {
    /// Reads the documents of a folder.
    pub(super) fn from_files(files: &ModelFiles) -> Result<Self, LoadError> {
        #[derive(Deserialize)]
        struct Ends {
            eos_token_id: Option<OneOrMany>,
        }
        let tokenizer = tokenizer_document(files)?.ok_or_else(|| files.missing("tokenizer.json"))?;
        let ends: Ends = files.require_json("config.json")?;
        let ends = ends.eos_token_id.map(OneOrMany::into_vec).unwrap_or_default();
        Self::assemble(files, tokenizer, ends, Named::default())
    }

    /// Reads a GGUF file's metadata; documents that lie beside it take precedence.
    pub(super) fn from_gguf(content: &mut Content, files: &ModelFiles) -> Result<Self, LoadError> {
        let tokenizer = match tokenizer_document(files)? {
            Some(tokenizer) => tokenizer,
            None => gguf_tokenizer(content, files)?,
        };
        let id = |key: &str| gguf_number(content.metadata.get(key)?);
        let ends = ["eos_token_id", "eot_token_id", "eom_token_id"]
            .iter()
            .filter_map(|name| id(&format!("tokenizer.ggml.{name}")))
            .collect();
        let text = |key: &str| {
            content
                .metadata
                .get(key)
                .and_then(|value| value.to_string().ok())
                .cloned()
        };
        let named = Named {
            bos: id("tokenizer.ggml.bos_token_id").and_then(|id| tokenizer.id_to_token(id)),
            eos: id("tokenizer.ggml.eos_token_id").and_then(|id| tokenizer.id_to_token(id)),
            template: text("tokenizer.chat_template"),
        };
        Self::assemble(files, tokenizer, ends, named)
    }

    fn assemble(
        files: &ModelFiles,
        tokenizer: Tokenizer,
        mut end_tokens: Vec<u32>,
        named: Named,
    ) -> Result<Self, LoadError> {
        let named = named_in_documents(files)?.or(named);
        let generation: GenerationConfiguration = files.json("generation_config.json")?.unwrap_or_default();
        end_tokens.extend(
            generation
                .eos_token_id
                .clone()
                .map(OneOrMany::into_vec)
                .unwrap_or_default(),
        );
        let texts = named.eos.as_deref().into_iter().chain(TURN_ENDS);
        end_tokens.extend(texts.filter_map(|text| tokenizer.token_to_id(text)));
        end_tokens.sort_unstable();
        end_tokens.dedup();
        let begin_token = named.bos.as_deref().and_then(|text| tokenizer.token_to_id(text));
        let template = chat_template(files, &tokenizer, named)?;
        Ok(Self {
            begin_token,
            tokenizer,
            template,
            end_tokens,
            sampling: generation.sampling(),
        })
    }
}

impl GenerationConfiguration {
    fn sampling(&self) -> SamplingDefaults {
        let greedy = self.do_sample == Some(false);
        let sound = |value: Option<f64>, most: f64| value.filter(|value| (0.0..=most).contains(value));
        SamplingDefaults {
            temperature: if greedy {
                Some(0.0)
            } else {
                sound(self.temperature, 2.0)
            },
            top_p: sound(self.top_p, 1.0),
        }
    }
}

impl Named {
    fn or(self, other: Self) -> Self {
        Self {
            bos: self.bos.or(other.bos),
            eos: self.eos.or(other.eos),
            template: self.template.or(other.template),
        }
    }
}

fn tokenizer_document(files: &ModelFiles) -> Result<Option<Tokenizer>, LoadError> {
    let Some(bytes) = files.document("tokenizer.json")? else {
        return Ok(None);
    };
    let mut tokenizer =
        Tokenizer::from_bytes(&bytes).map_err(|error| files.damaged("tokenizer.json", first_line(&error)))?;
    // Some files carry the truncation and padding of their training: a prompt must be neither cut nor padded.
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|error| files.damaged("tokenizer.json", first_line(&error)))?;
    Ok(Some(tokenizer))
}

fn named_in_documents(files: &ModelFiles) -> Result<Named, LoadError> {
    #[derive(Default, Deserialize)]
    struct Document {
        bos_token: Option<Value>,
        eos_token: Option<Value>,
        chat_template: Option<Value>,
    }
    let document: Document = files.json("tokenizer_config.json")?.unwrap_or_default();
    let special: Document = files.json("special_tokens_map.json")?.unwrap_or_default();
    let text = |value: Option<Value>| match value? {
        Value::String(text) => Some(text),
        Value::Object(mut token) => match token.remove("content")? {
            Value::String(text) => Some(text),
            _ => None,
        },
        _ => None,
    };
    let template = match files.document("chat_template.jinja")? {
        Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        None => {
            let separate: Document = files.json("chat_template.json")?.unwrap_or_default();
            separate
                .chat_template
                .or(document.chat_template)
                .and_then(default_template)
        }
    };
    Ok(Named {
        bos: text(document.bos_token).or_else(|| text(special.bos_token)),
        eos: text(document.eos_token).or_else(|| text(special.eos_token)),
        template,
    })
}

/// The template itself, or the one named `default` of several.
fn default_template(value: Value) -> Option<String> {
    match value {
        Value::String(template) => Some(template),
        Value::Array(list) => {
            let default = list
                .into_iter()
                .find(|entry| entry.get("name").is_some_and(|name| name == "default"))?;
            default.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

fn chat_template(files: &ModelFiles, tokenizer: &Tokenizer, named: Named) -> Result<ChatTemplate, LoadError> {
    let knows = |token: &str| tokenizer.token_to_id(token).is_some();
    let source = match named.template {
        Some(template) => template,
        None if knows("<|im_start|>") && knows("<|im_end|>") => CHATML.to_owned(),
        None => {
            let problem = "it has no chat template, so it can't be asked in messages; add a chat_template.jinja \
                           beside it";
            return Err(files.unsupported(problem));
        }
    };
    ChatTemplate::new(
        source,
        named.bos.unwrap_or_default(),
        named.eos.unwrap_or_default(),
    )
    .map_err(|error| files.damaged("the chat template", first_line(&error)))
}

/// The tokenizer in a GGUF file's metadata, where it is a byte-level one whose way to split text is known.
fn gguf_tokenizer(content: &mut Content, files: &ModelFiles) -> Result<Tokenizer, LoadError> {
    let text = |key: &str| {
        content
            .metadata
            .get(key)
            .and_then(|value| value.to_string().ok())
            .cloned()
    };
    let kind = text("tokenizer.ggml.model").unwrap_or_else(|| "missing".to_owned());
    let split = text("tokenizer.ggml.pre").unwrap_or_else(|| "gpt-2".to_owned());
    let known_split = match (kind.as_str(), split.as_str()) {
        ("gpt2", "gpt-2" | "gpt2") => "gpt2",
        ("gpt2", "qwen2" | "deepseek-r1-qwen") => "qwen2",
        ("gpt2", "llama-bpe" | "llama-v3" | "llama3" | "smaug-bpe") => "llama3",
        _ => {
            let problem = format!(
                "its tokenizer is of the kind {kind} ({split}), which can't be read from a GGUF file; put the \
                 model's tokenizer.json beside it"
            );
            return Err(files.unsupported(problem));
        }
    };
    let set = |content: &mut Content, key: &str, value| content.metadata.insert(key.to_owned(), value);
    set(
        content,
        "tokenizer.ggml.pre",
        GgufValue::String(known_split.to_owned()),
    );
    set(
        content,
        "tokenizer.ggml.ignore_merges",
        GgufValue::Bool(known_split == "llama3"),
    );
    // candle takes user-defined tokens for special ones, and answers would lose their <think> tags.
    let user_defined = take_user_defined(content);
    let file = files.gguf().unwrap_or_default();
    let mut tokenizer =
        Tokenizer::from_gguf(content).map_err(|error| files.damaged(file, first_line(&error)))?;
    let user_defined = user_defined
        .into_iter()
        .map(|token| AddedToken::from(token, false));
    tokenizer
        .add_tokens(user_defined)
        .map_err(|error| files.damaged(file, first_line(&error)))?;
    Ok(tokenizer)
}

/// Makes a GGUF file's user-defined tokens normal ones, and returns their texts.
fn take_user_defined(content: &mut Content) -> Vec<String> {
    let mut positions = Vec::new();
    if let Some(GgufValue::Array(types)) = content.metadata.get_mut("tokenizer.ggml.token_type") {
        for (position, kind) in types.iter_mut().enumerate() {
            if gguf_number(kind).is_some_and(|kind| i64::from(kind) == i64::from(GGUF_USER_DEFINED)) {
                *kind = GgufValue::I32(GGUF_NORMAL);
                positions.push(position);
            }
        }
    }
    let Some(GgufValue::Array(tokens)) = content.metadata.get("tokenizer.ggml.tokens") else {
        return Vec::new();
    };
    let text = |position: usize| {
        tokens
            .get(position)
            .and_then(|token| token.to_string().ok())
            .cloned()
    };
    positions.into_iter().filter_map(text).collect()
}

fn gguf_number(value: &GgufValue) -> Option<u32> {
    match value {
        GgufValue::I32(value) => u32::try_from(*value).ok(),
        GgufValue::I64(value) => u32::try_from(*value).ok(),
        other => other.to_u64().ok().and_then(|value| u32::try_from(value).ok()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::quantized::gguf_file::VersionedMagic;

    use super::*;

    /// Metadata of a byte-level tokenizer that knows a few ASCII letters and one merge.
    fn content(changes: &[(&str, GgufValue)]) -> Content {
        let tokens = ["a", "b", "1", "2", "ab", "12", "<think>", "<|eot_id|>"];
        let types = [1, 1, 1, 1, 1, 1, 4, 3];
        let text = |text: &str| GgufValue::String(text.to_owned());
        let mut metadata = HashMap::from([
            ("tokenizer.ggml.model".to_owned(), text("gpt2")),
            ("tokenizer.ggml.pre".to_owned(), text("llama-bpe")),
            (
                "tokenizer.ggml.tokens".to_owned(),
                GgufValue::Array(tokens.map(text).to_vec()),
            ),
            (
                "tokenizer.ggml.token_type".to_owned(),
                GgufValue::Array(types.map(GgufValue::I32).to_vec()),
            ),
            (
                "tokenizer.ggml.merges".to_owned(),
                GgufValue::Array(vec![text("a b"), text("1 2")]),
            ),
            ("tokenizer.ggml.eot_token_id".to_owned(), GgufValue::U32(7)),
            (
                "tokenizer.chat_template".to_owned(),
                text("{{ messages[0].content }}"),
            ),
        ]);
        metadata.extend(
            changes
                .iter()
                .map(|(key, value)| (format!("tokenizer.{key}"), value.clone())),
        );
        Content {
            magic: VersionedMagic::GgufV3,
            metadata,
            tensor_infos: HashMap::new(),
            tensor_data_offset: 0,
        }
    }

    fn read(changes: &[(&str, GgufValue)]) -> Result<ModelText, LoadError> {
        ModelText::from_gguf(
            &mut content(changes),
            &ModelFiles::in_memory("m", [("m.gguf", &b""[..])]),
        )
    }

    #[test]
    fn the_tokenizer_of_a_gguf_file_splits_as_its_kind_does() {
        let encode = |split: &str| {
            let text = read(&[("ggml.pre", GgufValue::String(split.to_owned()))]).unwrap();
            text.tokenizer
                .encode("ab12<|eot_id|>", false)
                .unwrap()
                .get_ids()
                .to_vec()
        };
        // Llama 3 takes up to three digits together, Qwen each alone.
        assert_eq!(encode("llama-bpe"), [4, 5, 7]);
        assert_eq!(encode("qwen2"), [4, 2, 3, 7]);
    }

    #[test]
    fn tags_of_thinking_stay_in_the_answer_and_ends_of_turns_do_not() {
        let text = read(&[]).unwrap();
        assert_eq!(text.tokenizer.decode(&[6, 4, 7], true).unwrap(), "<think>ab");
        assert_eq!(text.tokenizer.encode("<think>", false).unwrap().get_ids(), [6]);
        assert_eq!(text.end_tokens, [7]);
    }

    #[test]
    fn tokenizers_of_unknown_kinds_are_refused_with_the_way_out() {
        for change in [("ggml.model", "llama"), ("ggml.pre", "never-heard-of")] {
            let error = read(&[(change.0, GgufValue::String(change.1.to_owned()))])
                .err()
                .unwrap();
            assert!(
                matches!(&error, LoadError::Unsupported { problem, .. } if problem.contains("tokenizer.json"))
            );
        }
    }

    #[test]
    fn nonsense_in_the_metadata_is_damaged() {
        let number = || GgufValue::U32(3);
        for change in [
            ("ggml.tokens", number()),
            ("ggml.merges", number()),
            (
                "ggml.merges",
                GgufValue::Array(vec![GgufValue::String("ab".to_owned())]),
            ),
            (
                "ggml.merges",
                GgufValue::Array(vec![GgufValue::String("x y".to_owned())]),
            ),
            ("chat_template", GgufValue::String("{% if %}".to_owned())),
        ] {
            let key = change.0;
            assert!(matches!(read(&[change]), Err(LoadError::Damaged { .. })), "{key}");
        }
    }

    #[test]
    fn documents_say_which_tokens_template_and_sampling() {
        let tokenizer: &'static [u8] = crate::engine::chat::tiny_models::tokenizer_document()
            .to_string()
            .leak()
            .as_bytes();
        let parts: [(&str, &[u8]); 4] = [
            ("config.json", br#"{"eos_token_id": [3, 257]}"#),
            ("tokenizer.json", tokenizer),
            (
                "tokenizer_config.json",
                br#"{"bos_token": {"content": "<b>"}, "eos_token": "a",
                     "chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "{{ bos_token }}{{ eos_token }}"}]}"#,
            ),
            ("generation_config.json", br#"{"eos_token_id": 5, "temperature": 0.6, "top_p": 7.0}"#),
        ];
        let text = ModelText::from_files(&ModelFiles::in_memory("m", parts)).unwrap();
        assert_eq!(text.end_tokens, [3, 5, 97, 257]);
        assert_eq!(
            text.sampling,
            SamplingDefaults {
                temperature: Some(0.6),
                top_p: None
            }
        );
        let conversation = crate::engine::chat::template::Conversation {
            messages: &[],
            tools: &[],
            arguments: &serde_json::Map::new(),
            opens_turn: true,
        };
        assert_eq!(text.template.render(&conversation, 0).unwrap(), "<b>a");
    }
}
