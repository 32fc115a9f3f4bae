//! A decoder-only transformer of the Llama and Qwen families.
//!
//! It is ours rather than candle-transformers' because those models panic on incomplete files, keep the last
//! conversation's keys and values inside, and run GGUF files with at most 4,096 tokens and without their rotary
//! factors. Here the weights are immutable and shared, and each conversation brings its own [`Memory`]. The tests
//! hold its logits against candle-transformers'.

use candle_core::{DType, Device, Module, Result, Tensor};
use candle_nn::kv_cache::KvCache;
use candle_nn::{Linear, RmsNorm};

use super::configuration::{Configuration, Family};
use super::rotary::Rotary;
use super::weights::{LayerPart, Part, Projection, Weights};
use crate::engine::model_files::LoadError;

/// By how many tokens the memory of a conversation grows at once.
const MEMORY_GROWTH_TOKENS: usize = 256;

/// The keys and values of one conversation. Dropped with it.
pub(super) struct Memory {
    layers: Vec<KvCache>,
    tokens: usize,
}

impl Memory {
    /// How many tokens were read so far.
    #[cfg(test)]
    pub(super) const fn tokens(&self) -> usize {
        self.tokens
    }
}

struct Attention {
    query: Projection,
    key: Projection,
    value: Projection,
    output: Projection,
    query_norm: Option<RmsNorm>,
    key_norm: Option<RmsNorm>,
    heads: usize,
    key_value_heads: usize,
    head_dimension: usize,
}

struct Layer {
    attention_norm: RmsNorm,
    attention: Attention,
    feed_forward_norm: RmsNorm,
    gate: Projection,
    up: Projection,
    down: Projection,
}

/// The weights of a model, ready to run.
pub(super) struct Decoder {
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Projection,
    rotary: Rotary,
    device: Device,
    vocabulary: usize,
}

impl Decoder {
    /// Takes the tensors that the configuration asks for.
    ///
    /// # Errors
    /// [`LoadError`] naming the first tensor that is missing or has the wrong shape.
    pub(super) fn new(
        configuration: &Configuration,
        weights: &mut Weights<'_>,
    ) -> std::result::Result<Self, LoadError> {
        let divisors = weights.rope_divisors(configuration.head_dimension / 2)?;
        let rotary = Rotary::new(
            configuration,
            divisors.as_deref(),
            weights.dtype(),
            weights.device(),
        )
        .map_err(|error| weights.placement(&error))?;
        let (vocabulary, hidden) = (configuration.vocabulary, configuration.hidden);
        let embedding = weights.tensor(Part::Embedding, &[vocabulary, hidden])?;
        let layers = (0..configuration.layers)
            .map(|index| Layer::new(index, configuration, weights))
            .collect::<std::result::Result<_, _>>()?;
        let norm = RmsNorm::new(
            weights.tensor(Part::FinalNorm, &[hidden])?,
            configuration.norm_epsilon,
        );
        let head = if configuration.tied_embeddings {
            Projection::Dense(Linear::new(embedding.clone(), None))
        } else {
            weights.projection(Part::Head, vocabulary, hidden, false)?
        };
        Ok(Self {
            embedding,
            layers,
            norm,
            head,
            rotary,
            device: weights.device().clone(),
            vocabulary,
        })
    }

    /// How many tokens there are.
    pub(super) const fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The empty memory of a new conversation.
    pub(super) fn memory(&self) -> Memory {
        let layers = self
            .layers
            .iter()
            .map(|_| KvCache::new(1, MEMORY_GROWTH_TOKENS))
            .collect();
        Memory { layers, tokens: 0 }
    }

    /// Reads tokens that follow what is in memory, and returns the logits of the token after them.
    pub(super) fn read(&self, tokens: &[u32], memory: &mut Memory) -> Result<Vec<f32>> {
        let count = tokens.len();
        let ids = Tensor::new(tokens, &self.device)?;
        let mut states = self.embedding.index_select(&ids, 0)?.unsqueeze(0)?;
        let mask = causal_mask(count, memory.tokens, &self.device)?;
        for (layer, cache) in self.layers.iter().zip(&mut memory.layers) {
            states = layer.forward(&states, &self.rotary, memory.tokens, mask.as_ref(), cache)?;
        }
        memory.tokens += count;
        let last = states.narrow(1, count - 1, 1)?.contiguous()?;
        let logits = self.head.forward(&self.norm.forward(&last)?)?;
        logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
    }
}

impl Layer {
    fn new(
        index: usize,
        configuration: &Configuration,
        weights: &mut Weights<'_>,
    ) -> std::result::Result<Self, LoadError> {
        let hidden = configuration.hidden;
        let wide = configuration.feed_forward;
        let part = |part| Part::Layer(index, part);
        let norm = |weights: &mut Weights<'_>, role, size| {
            Ok(RmsNorm::new(
                weights.tensor(part(role), &[size])?,
                configuration.norm_epsilon,
            ))
        };
        Ok(Self {
            attention_norm: norm(weights, LayerPart::AttentionNorm, hidden)?,
            attention: Attention::new(index, configuration, weights)?,
            feed_forward_norm: norm(weights, LayerPart::FeedForwardNorm, hidden)?,
            gate: weights.projection(part(LayerPart::Gate), wide, hidden, false)?,
            up: weights.projection(part(LayerPart::Up), wide, hidden, false)?,
            down: weights.projection(part(LayerPart::Down), hidden, wide, false)?,
        })
    }

    fn forward(
        &self,
        states: &Tensor,
        rotary: &Rotary,
        position: usize,
        mask: Option<&Tensor>,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let normed = self.attention_norm.forward(states)?;
        let states = (states + self.attention.forward(&normed, rotary, position, mask, cache)?)?;
        let normed = self.feed_forward_norm.forward(&states)?;
        let gated = (self.gate.forward(&normed)?.silu()? * self.up.forward(&normed)?)?;
        states + self.down.forward(&gated)?
    }
}

impl Attention {
    fn new(
        index: usize,
        configuration: &Configuration,
        weights: &mut Weights<'_>,
    ) -> std::result::Result<Self, LoadError> {
        let Configuration {
            hidden,
            heads,
            key_value_heads,
            head_dimension,
            ..
        } = *configuration;
        let bias = configuration.attention_bias;
        let part = |part| Part::Layer(index, part);
        let per_head_norm = |weights: &mut Weights<'_>, role| {
            if configuration.family != Family::Qwen3 {
                return Ok(None);
            }
            let weight = weights.tensor(part(role), &[head_dimension])?;
            Ok(Some(RmsNorm::new(weight, configuration.norm_epsilon)))
        };
        let wide = heads * head_dimension;
        let narrow = key_value_heads * head_dimension;
        Ok(Self {
            query: weights.projection(part(LayerPart::Query), wide, hidden, bias)?,
            key: weights.projection(part(LayerPart::Key), narrow, hidden, bias)?,
            value: weights.projection(part(LayerPart::Value), narrow, hidden, bias)?,
            output: weights.projection(part(LayerPart::Output), hidden, wide, configuration.output_bias)?,
            query_norm: per_head_norm(weights, LayerPart::QueryNorm)?,
            key_norm: per_head_norm(weights, LayerPart::KeyNorm)?,
            heads,
            key_value_heads,
            head_dimension,
        })
    }

    fn forward(
        &self,
        states: &Tensor,
        rotary: &Rotary,
        position: usize,
        mask: Option<&Tensor>,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let tokens = states.dim(1)?;
        let (heads, sources, size) = (self.heads, self.key_value_heads, self.head_dimension);
        let query = self.split_heads(&self.query.forward(states)?, heads, self.query_norm.as_ref())?;
        let key = self.split_heads(&self.key.forward(states)?, sources, self.key_norm.as_ref())?;
        let value = self.split_heads(&self.value.forward(states)?, sources, None)?;
        let query = rotary.apply(&query, position)?;
        let key = rotary.apply(&key, position)?;
        let (key, value) = cache.append(&key.squeeze(0)?, &value.squeeze(0)?)?;

        // The heads that share a key are rows of one product, so that keys and values are never repeated.
        let group = heads / sources;
        let rows = query.reshape((sources, group * tokens, size))?;
        let scores = rows.matmul(&key.t()?)?.to_dtype(DType::F32)?;
        #[expect(clippy::cast_precision_loss, reason = "heads are far smaller than 2^52")]
        let scores = (scores / (size as f64).sqrt())?;
        let scores = match mask {
            None => scores,
            Some(mask) => {
                let total = key.dim(1)?;
                let by_head = scores.reshape((sources, group, tokens, total))?;
                by_head
                    .broadcast_add(mask)?
                    .reshape((sources, group * tokens, total))?
            }
        };
        let shares = candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(value.dtype())?;
        let mixed = shares.matmul(&value)?.reshape((heads, tokens, size))?;
        self.output
            .forward(&mixed.transpose(0, 1)?.reshape((1, tokens, heads * size))?)
    }

    /// `[1, tokens, heads · head]` to `[1, heads, tokens, head]`.
    fn split_heads(&self, states: &Tensor, heads: usize, norm: Option<&RmsNorm>) -> Result<Tensor> {
        let tokens = states.dim(1)?;
        let split = states
            .reshape((1, tokens, heads, self.head_dimension))?
            .transpose(1, 2)?
            .contiguous()?;
        match norm {
            None => Ok(split),
            Some(norm) => norm.forward(&split),
        }
    }
}

/// What hides later tokens from earlier ones: `[count, before + count]`, nothing where a single token reads on.
fn causal_mask(count: usize, before: usize, device: &Device) -> Result<Option<Tensor>> {
    if count == 1 {
        return Ok(None);
    }
    let total = before + count;
    let hidden = |row: usize, column: usize| {
        if column > before + row {
            f32::NEG_INFINITY
        } else {
            0.0
        }
    };
    let mask: Vec<f32> = (0..count)
        .flat_map(|row| (0..total).map(move |column| hidden(row, column)))
        .collect();
    Tensor::from_vec(mask, (count, total), device).map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use candle_core::quantized::GgmlDType;
    use candle_nn::VarBuilder;
    use candle_transformers::models::{llama, qwen2, qwen3};

    use super::super::LoadedModel;
    use super::super::tiny_models::{self, Family as TinyFamily, GgufOptions};
    use super::*;
    use crate::engine::model_files::ModelFiles;

    const SEED: u64 = 11;

    fn load(path: &Path) -> LoadedModel {
        LoadedModel::load(&ModelFiles::open(path).unwrap(), None).unwrap()
    }

    fn folder_model(family: TinyFamily) -> LoadedModel {
        let folder = tempfile::tempdir().unwrap();
        tiny_models::write_folder(folder.path(), family, SEED, DType::F32, 1);
        load(folder.path())
    }

    fn gguf_model(family: TinyFamily, options: GgufOptions) -> LoadedModel {
        let folder = tempfile::tempdir().unwrap();
        load(&tiny_models::write_gguf(folder.path(), family, SEED, options))
    }

    fn prompt() -> Vec<u32> {
        (0..37).map(|index| (index * 7 + 3) % 250).collect()
    }

    fn logits(model: &LoadedModel, tokens: &[u32]) -> Vec<f32> {
        model.decoder.read(tokens, &mut model.decoder.memory()).unwrap()
    }

    fn farthest(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// The logits of candle-transformers' own model of the family.
    fn reference(family: TinyFamily, config: &serde_json::Value, tokens: &[u32]) -> Vec<f32> {
        let tensors: HashMap<_, _> = tiny_models::tensors(family, SEED).into_iter().collect();
        let builder = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let tokens = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
        let logits = match family {
            TinyFamily::Llama => {
                let config: llama::LlamaConfig = serde_json::from_value(config.clone()).unwrap();
                let config = config.into_config(false);
                let mut cache = llama::Cache::new(true, DType::F32, &config, &Device::Cpu).unwrap();
                llama::Llama::load(builder, &config)
                    .unwrap()
                    .forward(&tokens, 0, &mut cache)
            }
            TinyFamily::Qwen2 => {
                let config: qwen2::Config = serde_json::from_value(config.clone()).unwrap();
                qwen2::ModelForCausalLM::new(&config, builder)
                    .unwrap()
                    .forward(&tokens, 0)
            }
            TinyFamily::Qwen3 => {
                let config: qwen3::Config = serde_json::from_value(config.clone()).unwrap();
                qwen3::ModelForCausalLM::new(&config, builder)
                    .unwrap()
                    .forward(&tokens, 0)
            }
        };
        logits.unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn logits_are_those_of_candle_transformers() {
        for family in TinyFamily::ALL {
            let expected = reference(family, &tiny_models::config(family), &prompt());
            let found = logits(&folder_model(family), &prompt());
            assert!(
                farthest(&expected, &found) < 1e-3,
                "{family:?}: {}",
                farthest(&expected, &found)
            );
        }
    }

    #[test]
    fn llama3_rotary_scaling_is_that_of_candle_transformers() {
        let folder = tempfile::tempdir().unwrap();
        tiny_models::write_folder(folder.path(), TinyFamily::Llama, SEED, DType::F32, 1);
        let mut config = tiny_models::config(TinyFamily::Llama);
        config["rope_scaling"] = serde_json::json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32
        });
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let plain = logits(&folder_model(TinyFamily::Llama), &prompt());
        let found = logits(&load(folder.path()), &prompt());
        let expected = reference(TinyFamily::Llama, &config, &prompt());
        assert!(farthest(&expected, &found) < 1e-3);
        assert!(
            farthest(&expected, &plain) > 1e-2,
            "the scaling changes nothing, so this test shows nothing"
        );
    }

    #[test]
    fn a_gguf_file_gives_what_the_folder_gives() {
        for family in TinyFamily::ALL {
            let expected = logits(&folder_model(family), &prompt());
            let found = logits(&gguf_model(family, GgufOptions::default()), &prompt());
            assert!(farthest(&expected, &found) < 1e-3, "{family:?}");
            let quantized = GgufOptions {
                projections: GgmlDType::Q8_0,
                ..GgufOptions::default()
            };
            let model = gguf_model(family, quantized);
            assert_eq!(model.offer.quantization, "q8_0");
            let near = farthest(&expected, &logits(&model, &prompt()));
            assert!(near > 0.0 && near < 0.5, "{family:?}: {near}");
        }
    }

    #[test]
    fn the_rotary_factors_of_a_gguf_file_are_used() {
        let halved = GgufOptions {
            rope_divisor: Some(2.0),
            ..GgufOptions::default()
        };
        let found = logits(&gguf_model(TinyFamily::Llama, halved), &prompt());
        let folder = tempfile::tempdir().unwrap();
        tiny_models::write_folder(folder.path(), TinyFamily::Llama, SEED, DType::F32, 1);
        let mut config = tiny_models::config(TinyFamily::Llama);
        config["rope_scaling"] = serde_json::json!({"type": "linear", "factor": 2.0});
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        assert!(farthest(&logits(&load(folder.path()), &prompt()), &found) < 1e-3);
    }

    #[test]
    fn memory_gives_what_reading_everything_anew_gives() {
        for family in TinyFamily::ALL {
            for model in [folder_model(family), gguf_model(family, GgufOptions::default())] {
                let mut tokens = prompt();
                let mut memory = model.decoder.memory();
                // In uneven parts, then token by token, over the bound at which memory grows.
                for part in tokens.chunks(13) {
                    model.decoder.read(part, &mut memory).unwrap();
                }
                for _ in 0..MEMORY_GROWTH_TOKENS {
                    let token = (tokens.len() as u32 * 31) % 250;
                    tokens.push(token);
                    let step = model.decoder.read(&[token], &mut memory).unwrap();
                    if tokens.len().is_multiple_of(64) {
                        let anew = logits(&model, &tokens);
                        assert!(
                            farthest(&anew, &step) < 2e-3,
                            "{family:?}: {}",
                            farthest(&anew, &step)
                        );
                    }
                }
                assert_eq!(memory.tokens(), tokens.len());
            }
        }
    }

    #[test]
    fn conversations_know_nothing_of_each_other() {
        let model = folder_model(TinyFamily::Qwen3);
        let alone = logits(&model, &prompt());
        let mut other = model.decoder.memory();
        model.decoder.read(&[1, 2, 3, 4, 5], &mut other).unwrap();
        let mut mine = model.decoder.memory();
        model.decoder.read(&prompt()[..10], &mut mine).unwrap();
        model.decoder.read(&[6, 7, 8], &mut other).unwrap();
        let beside = model.decoder.read(&prompt()[10..], &mut mine).unwrap();
        assert!(farthest(&alone, &beside) < 1e-4);
        assert_eq!(alone, logits(&model, &prompt()));
    }

    #[test]
    fn half_precision_weights_and_parts_load_too() {
        let expected = logits(&folder_model(TinyFamily::Llama), &prompt());
        for (dtype, shards, tolerance) in [(DType::F32, 2, 1e-6), (DType::F16, 1, 0.1), (DType::BF16, 3, 0.8)]
        {
            let folder = tempfile::tempdir().unwrap();
            tiny_models::write_folder(folder.path(), TinyFamily::Llama, SEED, dtype, shards);
            let model = load(folder.path());
            assert_eq!(model.offer.quantization, dtype.as_str());
            let found = farthest(&expected, &logits(&model, &prompt()));
            assert!(found <= tolerance, "{dtype:?}: {found}");
        }
    }
}
