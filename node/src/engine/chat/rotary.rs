//! Rotary position embeddings: each pair of a head's numbers is turned by an angle that grows with the position.

use std::f64::consts::TAU;

use candle_core::{DType, Device, Result, Tensor};

use super::configuration::{Configuration, RopeScaling};

/// The cosines and sines of every position.
pub(super) struct Rotary {
    cosines: Tensor,
    sines: Tensor,
    interleaved: bool,
}

impl Rotary {
    /// Tables for all positions of the context. `divisors` are the factors of a GGUF file's `rope_freqs`.
    pub(super) fn new(
        configuration: &Configuration,
        divisors: Option<&[f32]>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let mut frequencies = frequencies(configuration);
        for (frequency, divisor) in frequencies.iter_mut().zip(divisors.unwrap_or_default()) {
            *frequency /= divisor;
        }
        let half = frequencies.len();
        let frequencies = Tensor::from_vec(frequencies, (1, half), device)?;
        // Angles are computed in single precision whatever the weights are: half precision can't count to 4,096.
        let positions = u32::try_from(configuration.context_length).unwrap_or(u32::MAX);
        let positions = Tensor::arange(0, positions, device)?
            .to_dtype(DType::F32)?
            .reshape((configuration.context_length, 1))?;
        let angles = positions.matmul(&frequencies)?;
        Ok(Self {
            cosines: angles.cos()?.to_dtype(dtype)?,
            sines: angles.sin()?.to_dtype(dtype)?,
            interleaved: configuration.rope_interleaved,
        })
    }

    /// Turns `[1, heads, tokens, head]` whose first token is at `position`.
    pub(super) fn apply(&self, states: &Tensor, position: usize) -> Result<Tensor> {
        let tokens = states.dim(2)?;
        let cosines = self.cosines.narrow(0, position, tokens)?;
        let sines = self.sines.narrow(0, position, tokens)?;
        if self.interleaved {
            candle_nn::rotary_emb::rope_i(states, &cosines, &sines)
        } else {
            candle_nn::rotary_emb::rope(states, &cosines, &sines)
        }
    }
}

/// By how much each pair turns from one position to the next, in radians.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the tables are of single precision"
)]
#[expect(clippy::cast_precision_loss, reason = "heads are far smaller than 2^52")]
fn frequencies(configuration: &Configuration) -> Vec<f32> {
    let size = configuration.head_dimension;
    (0..size / 2)
        .map(|pair| configuration.rope_theta.powf(-2.0 * pair as f64 / size as f64))
        .map(|frequency| scaled(frequency, &configuration.rope_scaling) as f32)
        .collect()
}

fn scaled(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 {
            factor,
            low_frequency_factor,
            high_frequency_factor,
            original_context,
        } => {
            let turns = original_context * frequency / TAU;
            if turns < low_frequency_factor {
                frequency / factor
            } else if turns > high_frequency_factor {
                frequency
            } else {
                let kept = (turns - low_frequency_factor) / (high_frequency_factor - low_frequency_factor);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_high_frequencies_divides_low_ones_and_joins_them_smoothly() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_frequency_factor: 1.0,
            high_frequency_factor: 4.0,
            original_context: 8192.0,
        };
        let turning = |turns: f64| turns * TAU / 8192.0;
        let ratio = |turns: f64| scaled(turning(turns), &scaling) / turning(turns);
        assert!((ratio(5.0) - 1.0).abs() < 1e-12);
        assert!((ratio(4.0) - 1.0).abs() < 1e-12);
        assert!((ratio(1.0) - 0.125).abs() < 1e-12);
        assert!((ratio(0.5) - 0.125).abs() < 1e-12);
        assert!((ratio(2.5) - 0.5625).abs() < 1e-12);
    }
}
