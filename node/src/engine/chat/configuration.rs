//! What shape a decoder has, read from `config.json` or from GGUF metadata and checked before anything is built.

use candle_core::quantized::gguf_file::{Content, Value as GgufValue};
use serde::Deserialize;

use crate::engine::model_files::{LoadError, ModelFiles};

/// Most tokens of a conversation, whatever the model could do: its keys and values must fit in memory beside the
/// weights, on a machine that its owner uses for other things too.
const CONTEXT_TOKENS_MAX: usize = 32_768;
/// The `rope_theta` of models that do not say.
const ROPE_THETA_DEFAULT: f64 = 10_000.0;

/// The families of decoders that the engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Llama and what shares its architecture, such as Mistral and SmolLM2.
    Llama,
    /// Qwen2 and Qwen2.5: biases on query, key and value.
    Qwen2,
    /// Qwen3: queries and keys are normalized per head.
    Qwen3,
}

/// How rotary frequencies are stretched to longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RopeScaling {
    /// Not at all.
    None,
    /// All divided by one factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, those between interpolated.
    Llama3 {
        /// By what low frequencies are divided.
        factor: f64,
        /// Wavelengths longer than the original context divided by this are low frequencies.
        low_frequency_factor: f64,
        /// Wavelengths shorter than the original context divided by this are high frequencies.
        high_frequency_factor: f64,
        /// The context of the model before it was stretched, in tokens.
        original_context: f64,
    },
}

/// The shape of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Configuration {
    pub(super) family: Family,
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) feed_forward: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) key_value_heads: usize,
    pub(super) head_dimension: usize,
    pub(super) norm_epsilon: f64,
    pub(super) rope_theta: f64,
    pub(super) rope_scaling: RopeScaling,
    /// Whether rotary pairs are neighbours, as in Llama's GGUF files, or half a head apart.
    pub(super) rope_interleaved: bool,
    /// Most tokens of prompt and answer together.
    pub(super) context_length: usize,
    /// Whether the embedding is also the output projection.
    pub(super) tied_embeddings: bool,
    /// Whether query, key and value projections have biases.
    pub(super) attention_bias: bool,
    /// Whether the attention's output projection has a bias.
    pub(super) output_bias: bool,
}

/// One id or several, as configurations write the end of a sequence.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    /// One id.
    One(u32),
    /// Several ids.
    Many(Vec<u32>),
}

impl OneOrMany {
    pub(super) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

#[derive(Deserialize)]
struct Rope {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    older_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

#[derive(Deserialize)]
struct Document {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: f64,
    max_position_embeddings: usize,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
    partial_rotary_factor: Option<f64>,
    sliding_window: Option<usize>,
    use_sliding_window: Option<bool>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    quantization_config: Option<serde_json::Value>,
}

impl Configuration {
    /// Reads `config.json`.
    pub(super) fn from_files(files: &ModelFiles) -> Result<Self, LoadError> {
        #[derive(Deserialize)]
        struct Kind {
            model_type: Option<String>,
        }
        // The kind comes first, so that a model of another kind is told so rather than that a field is missing.
        let kind: Kind = files.require_json("config.json")?;
        let family = match kind.model_type.as_deref() {
            Some("llama" | "mistral") => Family::Llama,
            Some("qwen2") => Family::Qwen2,
            Some("qwen3") => Family::Qwen3,
            other => {
                let kind = other.unwrap_or("unknown");
                return Err(files.unsupported(format!(
                    "its model_type is {kind}, not llama, mistral, qwen2 or qwen3"
                )));
            }
        };
        let document: Document = files.require_json("config.json")?;
        document.refuse_unsupported(files)?;
        document.into_configuration(family, files)
    }

    /// Reads GGUF metadata.
    pub(super) fn from_gguf(content: &Content, files: &ModelFiles) -> Result<Self, LoadError> {
        Metadata { content, files }.configuration()
    }

    /// Checks every bound that building and running the decoder relies on.
    fn checked(self, files: &ModelFiles, file: &str) -> Result<Self, LoadError> {
        let within = |name: &str, value: usize, most: usize| {
            if (1..=most).contains(&value) {
                Ok(())
            } else {
                Err(files.damaged(file, format!("{name} is {value}, not between 1 and {most}")))
            }
        };
        within("the vocabulary", self.vocabulary, 1 << 24)?;
        within("the hidden size", self.hidden, 1 << 18)?;
        within("the feed-forward size", self.feed_forward, 1 << 20)?;
        within("the number of layers", self.layers, 1 << 10)?;
        within("the number of heads", self.heads, 1 << 12)?;
        within("the number of key-value heads", self.key_value_heads, self.heads)?;
        within("the size of a head", self.head_dimension, 1 << 12)?;
        within("the context length", self.context_length, CONTEXT_TOKENS_MAX)?;
        let whole = self.heads.is_multiple_of(self.key_value_heads) && self.head_dimension.is_multiple_of(2);
        if !whole {
            return Err(files.damaged(file, "the heads do not divide evenly"));
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let scaling = match self.rope_scaling {
            RopeScaling::None => true,
            RopeScaling::Linear { factor } => positive(factor),
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_context,
            } => {
                positive(factor)
                    && positive(low)
                    && positive(high)
                    && high > low
                    && positive(original_context)
            }
        };
        if !(scaling && positive(self.rope_theta) && positive(self.norm_epsilon)) {
            return Err(files.damaged(file, "a rotary or norm parameter is not a positive number"));
        }
        Ok(self)
    }
}

impl Document {
    fn refuse_unsupported(&self, files: &ModelFiles) -> Result<(), LoadError> {
        let problem = if self.quantization_config.is_some() {
            "its safetensors are quantized; take the unquantized model or a GGUF file"
        } else if self
            .hidden_act
            .as_deref()
            .is_some_and(|activation| activation != "silu")
        {
            "its activation is not silu"
        } else if self.mlp_bias == Some(true) {
            "its feed-forward layers have biases"
        } else if self
            .partial_rotary_factor
            .is_some_and(|factor| (factor - 1.0).abs() > f64::EPSILON)
        {
            "only a part of each head is rotated"
        } else {
            return Ok(());
        };
        Err(files.unsupported(problem))
    }

    fn into_configuration(self, family: Family, files: &ModelFiles) -> Result<Configuration, LoadError> {
        let rope = self.rope_parameters.or(self.rope_scaling);
        let rope_theta = rope.as_ref().and_then(|rope| rope.rope_theta).or(self.rope_theta);
        let rope_scaling = match rope {
            Some(rope) => rope.scaling(files)?,
            None => RopeScaling::None,
        };
        let head_dimension = match self.head_dim {
            Some(size) => size,
            None => self
                .hidden_size
                .checked_div(self.num_attention_heads)
                .unwrap_or(0),
        };
        let configuration = Configuration {
            family,
            vocabulary: self.vocab_size,
            hidden: self.hidden_size,
            feed_forward: self.intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            key_value_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dimension,
            norm_epsilon: self.rms_norm_eps,
            rope_theta: rope_theta.unwrap_or(ROPE_THETA_DEFAULT),
            rope_scaling,
            rope_interleaved: false,
            context_length: context_length(
                self.max_position_embeddings,
                self.sliding_window
                    .filter(|_| self.use_sliding_window != Some(false)),
            ),
            tied_embeddings: self.tie_word_embeddings.unwrap_or(false),
            attention_bias: self.attention_bias.unwrap_or(family == Family::Qwen2),
            output_bias: family != Family::Qwen2 && self.attention_bias.unwrap_or(false),
        };
        configuration.checked(files, "config.json")
    }
}

/// Within a sliding window, attention to the window is attention to everything: so far the model is run, and no
/// further.
fn context_length(trained: usize, sliding_window: Option<usize>) -> usize {
    trained
        .min(sliding_window.unwrap_or(usize::MAX))
        .min(CONTEXT_TOKENS_MAX)
}

impl Rope {
    fn scaling(&self, files: &ModelFiles) -> Result<RopeScaling, LoadError> {
        let factor = self.factor.unwrap_or(1.0);
        match self.rope_type.as_deref().or(self.older_type.as_deref()) {
            None | Some("default") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear { factor }),
            Some("llama3") => Ok(RopeScaling::Llama3 {
                factor,
                low_frequency_factor: self.low_freq_factor.unwrap_or(1.0),
                high_frequency_factor: self.high_freq_factor.unwrap_or(4.0),
                original_context: self.original_max_position_embeddings.unwrap_or(8_192.0),
            }),
            Some(other) => Err(files.unsupported(format!("its rotary scaling is of the type {other}"))),
        }
    }
}

struct Metadata<'c> {
    content: &'c Content,
    files: &'c ModelFiles,
}

impl Metadata<'_> {
    fn configuration(&self) -> Result<Configuration, LoadError> {
        let file = self.files.gguf().unwrap_or_default();
        let architecture = self
            .content
            .metadata
            .get("general.architecture")
            .and_then(|value| value.to_string().ok())
            .ok_or_else(|| self.files.damaged(file, "it has no general.architecture"))?
            .clone();
        let family = match architecture.as_str() {
            "llama" => Family::Llama,
            "qwen2" => Family::Qwen2,
            "qwen3" => Family::Qwen3,
            other => {
                return Err(self
                    .files
                    .unsupported(format!("its architecture is {other}, not llama, qwen2 or qwen3")));
            }
        };
        let key = |name: &str| format!("{architecture}.{name}");
        self.refuse_unsupported(&key)?;
        let require = |name: &str| {
            let name = key(name);
            self.number(&name)
                .ok_or_else(|| self.files.damaged(file, format!("it has no {name}")))
        };
        let heads = require("attention.head_count")?;
        let hidden = require("embedding_length")?;
        let head_dimension = self
            .number(&key("attention.key_length"))
            .or(hidden.checked_div(heads))
            .unwrap_or(0);
        if self
            .number(&key("rope.dimension_count"))
            .is_some_and(|rotated| rotated != head_dimension)
        {
            return Err(self.files.unsupported("only a part of each head is rotated"));
        }
        let configuration = Configuration {
            family,
            vocabulary: self.vocabulary(&key("vocab_size")),
            hidden,
            feed_forward: require("feed_forward_length")?,
            layers: require("block_count")?,
            heads,
            key_value_heads: self.number(&key("attention.head_count_kv")).unwrap_or(heads),
            head_dimension,
            norm_epsilon: self
                .real(&key("attention.layer_norm_rms_epsilon"))
                .unwrap_or(1e-6),
            rope_theta: self.real(&key("rope.freq_base")).unwrap_or(ROPE_THETA_DEFAULT),
            rope_scaling: self.rope_scaling(&key)?,
            rope_interleaved: family == Family::Llama,
            context_length: context_length(
                require("context_length")?,
                self.number(&key("attention.sliding_window")),
            ),
            tied_embeddings: !self.content.tensor_infos.contains_key("output.weight"),
            attention_bias: family == Family::Qwen2
                || self.content.tensor_infos.contains_key("blk.0.attn_q.bias"),
            output_bias: self.content.tensor_infos.contains_key("blk.0.attn_output.bias"),
        };
        configuration.checked(self.files, file)
    }

    fn refuse_unsupported(&self, key: &impl Fn(&str) -> String) -> Result<(), LoadError> {
        if self
            .number(&key("expert_count"))
            .is_some_and(|experts| experts > 1)
        {
            return Err(self.files.unsupported("it is a mixture of experts"));
        }
        if self.number("split.count").is_some_and(|parts| parts > 1) {
            return Err(self.files.unsupported("it is split over several GGUF files"));
        }
        Ok(())
    }

    fn rope_scaling(&self, key: &impl Fn(&str) -> String) -> Result<RopeScaling, LoadError> {
        let kind = self
            .content
            .metadata
            .get(&key("rope.scaling.type"))
            .and_then(|value| value.to_string().ok());
        match kind.map(String::as_str) {
            None | Some("none") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear {
                factor: self.real(&key("rope.scaling.factor")).unwrap_or(1.0),
            }),
            Some(other) => Err(self
                .files
                .unsupported(format!("its rotary scaling is of the type {other}"))),
        }
    }

    fn vocabulary(&self, key: &str) -> usize {
        // The embedding's own height is what counts: the metadata's figure is optional and sometimes padded.
        let rows = self
            .content
            .tensor_infos
            .get("token_embd.weight")
            .and_then(|info| info.shape.dims().first());
        rows.copied().or_else(|| self.number(key)).unwrap_or(0)
    }

    fn number(&self, key: &str) -> Option<usize> {
        let value = self.content.metadata.get(key)?;
        let number = match value {
            GgufValue::I8(value) => u64::try_from(*value).ok(),
            GgufValue::I16(value) => u64::try_from(*value).ok(),
            GgufValue::I32(value) => u64::try_from(*value).ok(),
            GgufValue::I64(value) => u64::try_from(*value).ok(),
            other => other.to_u64().ok(),
        };
        number.and_then(|number| usize::try_from(number).ok())
    }

    fn real(&self, key: &str) -> Option<f64> {
        match self.content.metadata.get(key)? {
            GgufValue::F32(value) => Some(f64::from(*value)),
            GgufValue::F64(value) => Some(*value),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
