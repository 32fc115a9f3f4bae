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
    pub(super) const fn tokens(&self) -> usize {
        self.tokens
    }

    /// A memory of its own with the first `tokens` of this one.
    ///
    /// # Errors
    /// An error of the device, such as too little memory.
    pub(super) fn first(&self, tokens: usize) -> Result<Self> {
        let tokens = tokens.min(self.tokens);
        let copy = |cache: &KvCache| -> Result<KvCache> {
            let mut copied = KvCache::new(1, MEMORY_GROWTH_TOKENS);
            if let (Some(key), Some(value), true) = (cache.k()?, cache.v()?, tokens > 0) {
                let key = key.narrow(1, 0, tokens)?.contiguous()?;
                copied.append(&key, &value.narrow(1, 0, tokens)?.contiguous()?)?;
            }
            Ok(copied)
        };
        Ok(Self {
            layers: self.layers.iter().map(copy).collect::<Result<_>>()?,
            tokens,
        })
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
        let states = self.states(tokens, memory)?;
        let last = states.narrow(1, tokens.len() - 1, 1)?.contiguous()?;
        let logits = self.head.forward(&self.norm.forward(&last)?)?;
        logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1()
    }

    /// Reads tokens as [`Decoder::read`] does, and returns the logits after each of them.
    pub(super) fn read_each(&self, tokens: &[u32], memory: &mut Memory) -> Result<Vec<Vec<f32>>> {
        let states = self.states(tokens, memory)?;
        let logits = self.head.forward(&self.norm.forward(&states)?)?;
        logits.squeeze(0)?.to_dtype(DType::F32)?.to_vec2()
    }

    fn states(&self, tokens: &[u32], memory: &mut Memory) -> Result<Tensor> {
        let count = tokens.len();
        let ids = Tensor::new(tokens, &self.device)?;
        let mut states = self.embedding.index_select(&ids, 0)?.unsqueeze(0)?;
        let mask = causal_mask(count, memory.tokens, &self.device)?;
        for (layer, cache) in self.layers.iter().zip(&mut memory.layers) {
            states = layer.forward(&states, &self.rotary, memory.tokens, mask.as_ref(), cache)?;
        }
        memory.tokens += count;
        Ok(states)
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
mod tests;
