//! The training loop: AdamW, a warm-up and a cosine, clipped gradients, everything drawn from one seed.

use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use candle_core::backprop::GradStore;
use candle_core::{D, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::corpus::Corpus;
use super::model::{Llama, Shape};
use super::sampling::{Batch, Sampler};
use super::{evaluation, files, tokens};

/// Highest learning rate, reached after the warm-up.
const LEARNING_RATE: f64 = 3e-3;
/// Learning rate at the end, as a share of the highest.
const FINAL_SHARE: f64 = 0.02;
/// Steps over which the learning rate rises.
const WARM_UP: usize = 60;
/// Longest gradient; a longer one is scaled down to it.
const LONGEST_GRADIENT: f64 = 1.0;
/// Conversations of about two questions, and how many of them make a batch.
const SHORT: (usize, usize) = (20, 136);
/// Conversations as long as the context allows, and how many make a batch.
const LONG: (usize, usize) = (6, 500);
/// Share of batches with long conversations.
const LONG_SHARE: f64 = 0.1;

/// Trains a guide and writes its folder.
pub(crate) fn train(corpus: &Corpus, steps: usize, seed: u64, out: &Path) -> anyhow::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let tokenizer = tokens::train_tokenizer(&corpus.texts())?;
    let shape = Shape::guide(tokenizer.get_vocab_size(true));
    let model = Llama::new(&shape, &mut rng)?;
    let parameters: usize = model.weights().values().map(|var| var.elem_count()).sum();
    eprintln!(
        "{} facts, {} tokens in the vocabulary, {parameters} parameters, {steps} steps",
        corpus.facts.len(),
        shape.vocab_size
    );

    let sampler = Sampler::new(corpus, &tokenizer);
    let mut optimisers = optimisers(model.weights())?;
    let begun = Instant::now();
    let mut smooth: Option<f64> = None;
    for step in 0..steps {
        let (rows, length) = if rng.random_bool(LONG_SHARE) { LONG } else { SHORT };
        let batch = sampler.batch(rows, length, &mut rng)?;
        let rate = learning_rate(step, steps);
        let loss = one_step(&model, &mut optimisers, &batch, rate).with_context(|| format!("step {step}"))?;
        let mean = smooth.map_or(loss, |mean| 0.95 * mean + 0.05 * loss);
        smooth = Some(mean);
        if step % 20 == 19 || step + 1 == steps {
            let seconds = begun.elapsed().as_secs_f64();
            eprintln!(
                "step {:5}/{steps}  loss {mean:.4}  rate {rate:.5}  {:.2} s/step",
                step + 1,
                seconds / (step + 1) as f64
            );
        }
    }
    model.round_to_half()?;
    files::write_folder(&model, &shape, &tokenizer, out)?;
    evaluation::report(&model, corpus, &tokenizer)
}

fn optimisers(weights: &BTreeMap<String, Var>) -> anyhow::Result<Vec<AdamW>> {
    // Norm weights stay near one by themselves; only matrices are pulled towards zero.
    let (norms, matrices): (Vec<_>, Vec<_>) = weights.values().cloned().partition(|var| var.rank() == 1);
    [(matrices, 0.05), (norms, 0.0)]
        .into_iter()
        .map(|(vars, weight_decay)| {
            let settings = ParamsAdamW {
                lr: 0.0,
                beta1: 0.9,
                beta2: 0.98,
                eps: 1e-8,
                weight_decay,
            };
            Ok(AdamW::new(vars, settings)?)
        })
        .collect()
}

fn one_step(model: &Llama, optimisers: &mut [AdamW], batch: &Batch, rate: f64) -> anyhow::Result<f64> {
    let loss = loss(model, batch)?;
    let mut gradients = loss.backward()?;
    clip(&mut gradients, model.weights())?;
    for optimiser in optimisers {
        optimiser.set_learning_rate(rate);
        optimiser.step(&gradients)?;
    }
    Ok(f64::from(loss.to_scalar::<f32>()?))
}

fn loss(model: &Llama, batch: &Batch) -> anyhow::Result<Tensor> {
    let (logits, targets) = predictions(model, batch)?;
    let weights = Tensor::from_slice(&batch.weights, (batch.weights.len(), 1), &Device::Cpu)?;
    let right = candle_nn::ops::log_softmax(&logits, D::Minus1)?.gather(&targets.unsqueeze(1)?, 1)?;
    let total: f32 = batch.weights.iter().sum();
    Ok(((right * weights)?.sum_all()? * (-1.0 / f64::from(total)))?)
}

/// Logits at the places of a batch where an answer goes on, and the tokens that should follow.
pub(crate) fn predictions(model: &Llama, batch: &Batch) -> anyhow::Result<(Tensor, Tensor)> {
    let device = Device::Cpu;
    let inputs = Tensor::from_slice(&batch.inputs, (batch.rows, batch.length), &device)?;
    let places = Tensor::from_slice(&batch.places, batch.places.len(), &device)?;
    let targets = Tensor::from_slice(&batch.targets, batch.targets.len(), &device)?;
    Ok((
        model.logits(&model.states(&inputs)?.index_select(&places, 0)?)?,
        targets,
    ))
}

fn clip(gradients: &mut GradStore, weights: &BTreeMap<String, Var>) -> anyhow::Result<()> {
    let mut square = 0.0;
    for gradient in weights.values().filter_map(|var| gradients.get(var)) {
        square += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
    }
    let norm = square.sqrt();
    if norm > LONGEST_GRADIENT {
        for var in weights.values() {
            if let Some(gradient) = gradients.remove(var) {
                gradients.insert(var, (gradient * (LONGEST_GRADIENT / norm))?);
            }
        }
    }
    Ok(())
}

/// Rises in a straight line, then falls along half a cosine.
fn learning_rate(step: usize, steps: usize) -> f64 {
    if step < WARM_UP {
        return LEARNING_RATE * (step + 1) as f64 / WARM_UP as f64;
    }
    let progress = (step - WARM_UP) as f64 / steps.saturating_sub(WARM_UP).max(1) as f64;
    LEARNING_RATE * (FINAL_SHARE + (1.0 - FINAL_SHARE) * 0.5 * (1.0 + (PI * progress).cos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_and_falls() {
        assert!(learning_rate(0, 1000) < learning_rate(30, 1000));
        assert!((learning_rate(WARM_UP, 1000) - LEARNING_RATE).abs() < 1e-12);
        assert!(learning_rate(999, 1000) < 0.03 * LEARNING_RATE);
    }

    #[test]
    fn a_few_steps_lower_the_loss() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let shape = Shape {
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            ..Shape::guide(30)
        };
        let model = Llama::new(&shape, &mut rng).unwrap();
        let row = tokens::Row {
            ids: (0..24).map(|id| id * 5 % 30).collect(),
            said: vec![true; 24],
        };
        let batch = Batch::new(&[row]);
        let mut optimisers = optimisers(model.weights()).unwrap();
        let losses: Vec<f64> = (0..30)
            .map(|_| one_step(&model, &mut optimisers, &batch, 3e-3).unwrap())
            .collect();
        assert!(losses[29] < 0.3 * losses[0], "{losses:?}");
    }
}
