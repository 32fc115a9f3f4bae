//! What devices can do: round numbers of published measurements.
//!
//! Speeds are those of llama.cpp with Llama 3 8B in four bits (Q4_K_M), one stream, prompts and answers of 1,024 tokens:
//! X. Dai, "GPU-Benchmarks-on-LLM-Inference" (github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference), May 2024. The
//! processor's: llama.cpp issue 5619. Multiply-adds per second are half of what the makers' data sheets give as
//! operations in f32, and power is the board's or package's, from the same sheets.
//!
//! Larger models are derived: an answer is bound by reading the weights, a prompt by computing with them. Held against
//! the same source's figures for Llama 3 70B in a test.

use serde::{Deserialize, Serialize};

use super::popularity::ModelSize;

/// A kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceClass {
    /// A desktop's processor, without a GPU.
    Processor,
    /// Apple M1, 7 GPU cores, 8 GB.
    M1,
    /// NVIDIA RTX 3070, 8 GB.
    Rtx3070,
    /// NVIDIA RTX 4070 Ti, 12 GB.
    Rtx4070Ti,
    /// NVIDIA RTX 3090, 24 GB.
    Rtx3090,
    /// NVIDIA RTX 4090, 24 GB.
    Rtx4090,
    /// Apple M3 Max, 40 GPU cores, 64 GB.
    M3Max,
    /// Apple M2 Ultra, 76 GPU cores, 192 GB.
    M2Ultra,
    /// NVIDIA A100 PCIe, 80 GB.
    A100,
    /// NVIDIA H100 PCIe, 80 GB.
    H100,
}

/// What is known of a kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceFigures {
    /// Its name in listings and claims.
    pub name: &'static str,
    /// Bytes of memory that models can be in.
    pub memory_bytes: u64,
    /// Output tokens per second of the small model.
    pub output_tokens_per_s: u64,
    /// Input tokens per second of the small model.
    pub input_tokens_per_s: u64,
    /// Watts at work.
    pub watts: u64,
    /// Multiply-adds per second in f32, in units of 10^9.
    pub giga_multiply_adds_per_s: u64,
    /// How many times as fast as in f32 it multiplies in bf16, where it has units for that; 1 where it has none.
    pub bf16_times: u64,
    /// How many jobs it runs side by side at nearly the speed of one: an answer waits for memory, not for arithmetic.
    pub slots: u16,
}

impl DeviceClass {
    /// From slow to fast.
    pub const ALL: [Self; 10] = [
        Self::Processor,
        Self::M1,
        Self::Rtx3070,
        Self::Rtx4070Ti,
        Self::Rtx3090,
        Self::Rtx4090,
        Self::M3Max,
        Self::M2Ultra,
        Self::A100,
        Self::H100,
    ];

    /// What is known of it.
    #[must_use]
    pub const fn figures(self) -> DeviceFigures {
        match self {
            Self::Processor => row("desktop processor", 16, 8, 40, 100, 300, 1),
            Self::M1 => row("Apple M1", 6, 10, 87, 20, 1_300, 1),
            Self::Rtx3070 => row("NVIDIA GeForce RTX 3070", 8, 71, 2_280, 220, 10_100, 2).with_bf16(2),
            Self::Rtx4070Ti => row("NVIDIA GeForce RTX 4070 Ti", 12, 82, 3_650, 285, 20_000, 2).with_bf16(2),
            Self::Rtx3090 => row("NVIDIA GeForce RTX 3090", 24, 112, 3_860, 350, 17_800, 4).with_bf16(2),
            Self::Rtx4090 => row("NVIDIA GeForce RTX 4090", 24, 128, 6_900, 450, 41_300, 4).with_bf16(2),
            Self::M3Max => row("Apple M3 Max", 48, 51, 678, 60, 7_000, 2),
            Self::M2Ultra => row("Apple M2 Ultra", 150, 76, 1_020, 150, 13_600, 4),
            Self::A100 => row("NVIDIA A100 80GB PCIe", 80, 138, 5_800, 300, 9_700, 8).with_bf16(16),
            Self::H100 => row("NVIDIA H100 PCIe", 80, 144, 7_760, 350, 25_600, 8).with_bf16(15),
        }
    }

    /// Whether a model's weights fit into nine tenths of its memory; the rest is for what is being read and written.
    #[must_use]
    pub const fn fits(self, model: ModelSize) -> bool {
        model.weights_bytes() * 10 <= self.figures().memory_bytes * 9
    }

    /// The largest model that fits; the small one where none does, which then is read from disk ever again.
    #[must_use]
    pub fn largest_model(self) -> ModelSize {
        let fitting = ModelSize::ALL.into_iter().rev().find(|model| self.fits(*model));
        fitting.unwrap_or(ModelSize::Small)
    }

    /// Microseconds for one output token of a model, of one stream.
    #[must_use]
    pub const fn output_token_us(self, model: ModelSize) -> u64 {
        let small_us = 1_000_000 / self.figures().output_tokens_per_s;
        match model {
            ModelSize::Small => small_us,
            // Reading twice the weights takes less than twice as long: three quarters of what is read more.
            larger => {
                let weights = larger.weights_bytes() / 1_000_000;
                small_us * weights * 3 / (ModelSize::Small.weights_bytes() / 1_000_000 * 4)
            }
        }
    }

    /// Microseconds for reading so many input tokens with a model.
    #[must_use]
    pub const fn input_us(self, model: ModelSize, tokens: u64) -> u64 {
        let parameters = tokens.saturating_mul(model.billions()) / ModelSize::Small.billions();
        parameters.saturating_mul(1_000_000) / self.figures().input_tokens_per_s
    }
}

const fn row(
    name: &'static str,
    memory_gb: u64,
    output_tokens_per_s: u64,
    input_tokens_per_s: u64,
    watts: u64,
    giga_multiply_adds_per_s: u64,
    slots: u16,
) -> DeviceFigures {
    DeviceFigures {
        name,
        memory_bytes: memory_gb * 1_000_000_000,
        output_tokens_per_s,
        input_tokens_per_s,
        watts,
        giga_multiply_adds_per_s,
        bf16_times: 1,
        slots,
    }
}

impl DeviceFigures {
    /// The same with units for bf16, dense, as the data sheets have them; tf32 is half as fast.
    const fn with_bf16(self, times: u64) -> Self {
        Self {
            bf16_times: times,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same source's figures for Llama 3 70B: output and input tokens per second.
    const LARGE: [(DeviceClass, u64, u64); 4] = [
        (DeviceClass::A100, 22, 727),
        (DeviceClass::H100, 25, 984),
        (DeviceClass::M2Ultra, 12, 117),
        (DeviceClass::M3Max, 8, 63),
    ];

    #[test]
    fn what_is_derived_for_large_models_is_near_what_was_measured() {
        for (class, output, input) in LARGE {
            let derived = 1_000_000 / class.output_token_us(ModelSize::Large);
            assert!(
                derived.abs_diff(output) * 5 <= output,
                "{class:?}: {derived} {output}"
            );
            let derived = 1_000_000_000 / class.input_us(ModelSize::Large, 1_000);
            assert!(
                derived.abs_diff(input) * 4 <= input,
                "{class:?}: {derived} {input}"
            );
        }
    }

    #[test]
    fn a_device_holds_what_fits() {
        assert_eq!(DeviceClass::Rtx3070.largest_model(), ModelSize::Small);
        assert_eq!(DeviceClass::Rtx4090.largest_model(), ModelSize::Medium);
        assert_eq!(DeviceClass::H100.largest_model(), ModelSize::Large);
        assert!(DeviceClass::ALL.iter().all(|class| class.fits(ModelSize::Small)));
        assert!(
            DeviceClass::ALL
                .iter()
                .all(|class| class.output_token_us(ModelSize::Small) > 0)
        );
    }
}
