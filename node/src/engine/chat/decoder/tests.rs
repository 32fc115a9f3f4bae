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
fn a_memory_can_be_shortened_and_copied_and_each_position_has_its_logits() {
    let model = folder_model(TinyFamily::Qwen3);
    let decoder = &model.decoder;
    let tokens = prompt();
    let mut memory = decoder.memory();
    let each = decoder.read_each(&tokens, &mut memory).unwrap();
    for count in [1, 20, tokens.len()] {
        let expected = logits(&model, &tokens[..count]);
        assert!(farthest(&each[count - 1], &expected) < 1e-3, "{count}");
        let mut shorter = memory.first(count - 1).unwrap();
        let found = decoder.read(&tokens[count - 1..count], &mut shorter).unwrap();
        assert!(farthest(&found, &expected) < 1e-3, "{count}");
        assert_eq!(shorter.tokens(), count);
    }
    // What the copies read has not touched the memory they came from.
    let before = decoder.read(&[7], &mut memory.first(99).unwrap()).unwrap();
    decoder.read(&[8], &mut memory.first(99).unwrap()).unwrap();
    assert_eq!(decoder.read(&[7], &mut memory).unwrap(), before);
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
        assert_eq!(model.quantization, "q8_0");
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
    for (dtype, shards, tolerance) in [(DType::F32, 2, 1e-6), (DType::F16, 1, 0.1), (DType::BF16, 3, 0.8)] {
        let folder = tempfile::tempdir().unwrap();
        tiny_models::write_folder(folder.path(), TinyFamily::Llama, SEED, dtype, shards);
        let model = load(folder.path());
        assert_eq!(model.quantization, dtype.as_str());
        let found = farthest(&expected, &logits(&model, &prompt()));
        assert!(found <= tolerance, "{dtype:?}: {found}");
    }
}
