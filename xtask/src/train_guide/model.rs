//! A Llama that can be trained: the same arithmetic as Hugging Face's, from operations that candle can differentiate
//! (its fused norm, rope and softmax have no backward pass).

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The fields of a Llama `config.json` that say how to compute.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// Width of the residual stream.
    pub(crate) hidden_size: usize,
    /// Width inside the feed-forward part.
    pub(crate) intermediate_size: usize,
    /// Number of blocks.
    pub(crate) num_hidden_layers: usize,
    /// Heads that ask.
    pub(crate) num_attention_heads: usize,
    /// Heads that answer; each serves several that ask.
    pub(crate) num_key_value_heads: usize,
    /// Tokens known.
    pub(crate) vocab_size: usize,
    /// Longest conversation in tokens.
    pub(crate) max_position_embeddings: usize,
    /// Keeps the norm from dividing by zero.
    pub(crate) rms_norm_eps: f64,
    /// Base of the rotary wavelengths.
    pub(crate) rope_theta: f32,
}

impl Shape {
    /// The guide's own shape.
    pub(crate) fn guide(vocab_size: usize) -> Self {
        Self {
            hidden_size: 160,
            intermediate_size: 448,
            num_hidden_layers: 5,
            num_attention_heads: 5,
            num_key_value_heads: 5,
            vocab_size,
            max_position_embeddings: 512,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
        }
    }

    fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

struct Block {
    attention_norm: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    feed_norm: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
}

/// A Llama with weights that an optimiser may change.
pub(crate) struct Llama {
    shape: Shape,
    weights: BTreeMap<String, Var>,
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    cosines: Tensor,
    sines: Tensor,
}

impl Llama {
    /// Random weights, the same for the same seed.
    pub(crate) fn new(shape: &Shape, rng: &mut ChaCha8Rng) -> Result<Self> {
        let (hidden, feed) = (shape.hidden_size, shape.intermediate_size);
        let narrow = shape.num_key_value_heads * shape.head_size();
        let width = 0.6 / (hidden as f32).sqrt();
        // Each block adds to the stream twice; smaller steps keep its size steady.
        let step = width / (2.0 * shape.num_hidden_layers as f32).sqrt();
        let mut weights = BTreeMap::new();
        let mut make = |name: String, rows: usize, columns: usize, width: f32| -> Result<Tensor> {
            let var = Var::from_tensor(&normal(rows, columns, width, rng)?)?;
            let tensor = var.as_tensor().clone();
            weights.insert(name, var);
            Ok(tensor)
        };
        let embedding = make(
            "model.embed_tokens.weight".into(),
            shape.vocab_size,
            hidden,
            width,
        )?;
        let mut matrices = Vec::new();
        for layer in 0..shape.num_hidden_layers {
            let mut part = |name: &str, rows, columns, width| {
                make(
                    format!("model.layers.{layer}.{name}.weight"),
                    rows,
                    columns,
                    width,
                )
            };
            matrices.push((
                part("self_attn.q_proj", hidden, hidden, width)?,
                part("self_attn.k_proj", narrow, hidden, width)?,
                part("self_attn.v_proj", narrow, hidden, width)?,
                part("self_attn.o_proj", hidden, hidden, step)?,
                part("mlp.gate_proj", feed, hidden, width)?,
                part("mlp.up_proj", feed, hidden, width)?,
                part("mlp.down_proj", hidden, feed, step)?,
            ));
        }
        let mut ones = |name: String| -> Result<Tensor> {
            let var = Var::ones(hidden, DType::F32, &Device::Cpu)?;
            let tensor = var.as_tensor().clone();
            weights.insert(name, var);
            Ok(tensor)
        };
        let mut blocks = Vec::new();
        for (layer, (query, key, value, output, gate, up, down)) in matrices.into_iter().enumerate() {
            let attention_norm = ones(format!("model.layers.{layer}.input_layernorm.weight"))?;
            let feed_norm = ones(format!("model.layers.{layer}.post_attention_layernorm.weight"))?;
            blocks.push(Block {
                attention_norm,
                query,
                key,
                value,
                output,
                feed_norm,
                gate,
                up,
                down,
            });
        }
        let norm = ones("model.norm.weight".into())?;
        let (cosines, sines) = rotations(shape)?;
        Ok(Self {
            shape: shape.clone(),
            weights,
            embedding,
            blocks,
            norm,
            cosines,
            sines,
        })
    }

    /// All weights under their Hugging Face names, in a fixed order.
    pub(crate) fn weights(&self) -> &BTreeMap<String, Var> {
        &self.weights
    }

    /// Rounds every weight to what the file will hold, so that what is judged is what is shipped.
    pub(crate) fn round_to_half(&self) -> Result<()> {
        for var in self.weights.values() {
            var.set(&var.as_tensor().to_dtype(DType::F16)?.to_dtype(DType::F32)?)?;
        }
        Ok(())
    }

    /// The stream after the last norm, one row per token of `ids` (batch, length).
    pub(crate) fn states(&self, ids: &Tensor) -> Result<Tensor> {
        let (batch, length) = ids.dims2()?;
        let mask = causal_mask(length)?;
        let mut stream = self.embedding.index_select(&ids.flatten_all()?, 0)?;
        for block in &self.blocks {
            stream = (&stream
                + self.attend(
                    block,
                    &self.normed(&stream, &block.attention_norm)?,
                    batch,
                    length,
                    &mask,
                )?)?;
            let input = self.normed(&stream, &block.feed_norm)?;
            let inner = (linear(&input, &block.gate)?.silu()? * linear(&input, &block.up)?)?;
            stream = (&stream + linear(&inner, &block.down)?)?;
        }
        self.normed(&stream, &self.norm)
    }

    /// Scores of every token of the vocabulary for the given rows of [`Self::states`].
    pub(crate) fn logits(&self, states: &Tensor) -> Result<Tensor> {
        linear(states, &self.embedding)
    }

    fn normed(&self, stream: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let mean = (stream.sqr()?.sum_keepdim(D::Minus1)? / self.shape.hidden_size as f64)?;
        stream
            .broadcast_mul(&(mean + self.shape.rms_norm_eps)?.sqrt()?.recip()?)?
            .broadcast_mul(weight)
    }

    fn attend(
        &self,
        block: &Block,
        input: &Tensor,
        batch: usize,
        length: usize,
        mask: &Tensor,
    ) -> Result<Tensor> {
        let (heads, shared, size) = (
            self.shape.num_attention_heads,
            self.shape.num_key_value_heads,
            self.shape.head_size(),
        );
        let split = |weight: &Tensor, heads: usize| {
            linear(input, weight)?
                .reshape((batch, length, heads, size))?
                .transpose(1, 2)?
                .contiguous()
        };
        let query = (self.rotate(&split(&block.query, heads)?, length)? * (size as f64).sqrt().recip())?;
        let key = repeat(&self.rotate(&split(&block.key, shared)?, length)?, heads / shared)?;
        let value = repeat(&split(&block.value, shared)?, heads / shared)?;
        let scores = query.matmul(&key.t()?)?.broadcast_add(mask)?;
        let mixed = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&value)?;
        linear(
            &mixed.transpose(1, 2)?.reshape((batch * length, heads * size))?,
            &block.output,
        )
    }

    /// Turns the first half of each head against its second half, by an angle that grows with the position.
    fn rotate(&self, heads: &Tensor, length: usize) -> Result<Tensor> {
        let half = self.shape.head_size() / 2;
        let (cosines, sines) = (
            self.cosines.narrow(0, 0, length)?,
            self.sines.narrow(0, 0, length)?,
        );
        let (first, second) = (
            heads.narrow(D::Minus1, 0, half)?,
            heads.narrow(D::Minus1, half, half)?,
        );
        let turned = Tensor::cat(&[&second.neg()?, &first], D::Minus1)?;
        heads.broadcast_mul(&cosines)? + turned.broadcast_mul(&sines)?
    }
}

fn linear(input: &Tensor, weight: &Tensor) -> Result<Tensor> {
    input.matmul(&weight.t()?)
}

fn repeat(heads: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(heads.clone());
    }
    let (batch, shared, length, size) = heads.dims4()?;
    heads
        .unsqueeze(2)?
        .broadcast_as((batch, shared, times, length, size))?
        .reshape((batch, shared * times, length, size))
}

fn causal_mask(length: usize) -> Result<Tensor> {
    let mask: Vec<f32> = (0..length)
        .flat_map(|row| (0..length).map(move |column| if column > row { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    Tensor::from_vec(mask, (length, length), &Device::Cpu)
}

/// Cosine and sine for every position, each angle written twice: once per half of a head.
fn rotations(shape: &Shape) -> Result<(Tensor, Tensor)> {
    let half = shape.head_size() / 2;
    let angles: Vec<f32> = (0..shape.max_position_embeddings)
        .flat_map(|position| {
            (0..2 * half).map(move |index| {
                let exponent = (index % half) as f32 / half as f32;
                position as f32 / shape.rope_theta.powf(exponent)
            })
        })
        .collect();
    let angles = Tensor::from_vec(angles, (shape.max_position_embeddings, 2 * half), &Device::Cpu)?;
    Ok((angles.cos()?, angles.sin()?))
}

/// Normally distributed values (Box and Muller 1958).
fn normal(rows: usize, columns: usize, width: f32, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let values: Vec<f32> = (0..rows * columns)
        .map(|_| {
            let radius = (-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt();
            radius * (std::f32::consts::TAU * rng.random::<f32>()).cos() * width
        })
        .collect();
    Tensor::from_vec(values, (rows, columns), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use candle_core::IndexOp;
    use candle_nn::VarBuilder;
    use candle_transformers::models::llama::{Cache, Llama as Reference, LlamaConfig};
    use rand::SeedableRng;

    use super::*;

    fn shape(shared: usize) -> Shape {
        Shape {
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: shared,
            vocab_size: 50,
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
        }
    }

    #[test]
    fn logits_agree_with_the_llama_that_users_load() {
        for shared in [4, 2, 1] {
            let shape = shape(shared);
            let model = Llama::new(&shape, &mut ChaCha8Rng::seed_from_u64(5)).unwrap();
            let folder = tempfile::tempdir().unwrap();
            super::super::files::write_weights(&model, &folder.path().join("model.safetensors"), DType::F32)
                .unwrap();
            super::super::files::write_config(&shape, &folder.path().join("config.json")).unwrap();

            let config: LlamaConfig =
                serde_json::from_slice(&std::fs::read(folder.path().join("config.json")).unwrap()).unwrap();
            let config = config.into_config(false);
            let bytes = std::fs::read(folder.path().join("model.safetensors")).unwrap();
            let builder = VarBuilder::from_buffered_safetensors(bytes, DType::F32, &Device::Cpu).unwrap();
            let reference = Reference::load(builder, &config).unwrap();

            let ids: Vec<u32> = (0..40).map(|index| (index * 7 + index * index) % 50).collect();
            let ids = Tensor::from_vec(ids, (1, 40), &Device::Cpu).unwrap();
            let ours = model.logits(&model.states(&ids).unwrap()).unwrap();
            for length in [1, 2, 17, 40] {
                let mut cache = Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
                let theirs = reference
                    .forward(&ids.i((.., ..length)).unwrap(), 0, &mut cache)
                    .unwrap();
                let difference = (ours.i(length - 1).unwrap() - theirs.i(0).unwrap())
                    .unwrap()
                    .abs()
                    .unwrap();
                let worst = difference.max(0).unwrap().to_scalar::<f32>().unwrap();
                assert!(worst < 1e-3, "{shared} shared heads, {length} tokens: {worst}");
                let spread = theirs
                    .i(0)
                    .unwrap()
                    .abs()
                    .unwrap()
                    .max(0)
                    .unwrap()
                    .to_scalar::<f32>()
                    .unwrap();
                assert!(spread > 0.05, "logits of {spread} show nothing");
            }
        }
    }

    #[test]
    fn every_weight_learns() {
        let model = Llama::new(&shape(2), &mut ChaCha8Rng::seed_from_u64(5)).unwrap();
        let ids = Tensor::from_vec((0..20u32).collect(), (2, 10), &Device::Cpu).unwrap();
        let logits = model.logits(&model.states(&ids).unwrap()).unwrap();
        let loss = candle_nn::loss::cross_entropy(&logits, &ids.flatten_all().unwrap()).unwrap();
        let gradients = loss.backward().unwrap();
        for (name, var) in model.weights() {
            let gradient = gradients
                .get(var)
                .unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(
                gradient
                    .abs()
                    .unwrap()
                    .max_all()
                    .unwrap()
                    .to_scalar::<f32>()
                    .unwrap()
                    > 0.0,
                "{name} stands still"
            );
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_weights() {
        let first = |seed| {
            let model = Llama::new(&shape(2), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
            model.weights()["model.layers.0.mlp.up_proj.weight"]
                .as_tensor()
                .i(0)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
