//! Writes the guide as a Hugging Face model folder, so that any Llama loader takes it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use candle_core::{DType, Tensor};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::model::{Llama, Shape};
use super::tokens::{CHAT_TEMPLATE, END, END_ID, PADDING, PADDING_ID, START, START_ID};

/// Writes weights, configuration, tokenizer and chat template.
pub(crate) fn write_folder(
    model: &Llama,
    shape: &Shape,
    tokenizer: &Tokenizer,
    folder: &Path,
) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    write_weights(model, &folder.join("model.safetensors"), DType::F16)?;
    write_config(shape, &folder.join("config.json"))?;
    let text = tokenizer
        .to_string(false)
        .map_err(|error| anyhow!("writing the tokenizer: {error}"))?;
    write(&folder.join("tokenizer.json"), text.as_bytes())?;
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": START,
            "eos_token": END,
            "pad_token": PADDING,
            "add_bos_token": false,
            "clean_up_tokenization_spaces": false,
            "model_max_length": shape.max_position_embeddings,
            "chat_template": CHAT_TEMPLATE,
        }),
    )?;
    write_json(
        &folder.join("generation_config.json"),
        &json!({
            "bos_token_id": START_ID,
            "eos_token_id": END_ID,
            "pad_token_id": PADDING_ID,
            "do_sample": false,
            "max_new_tokens": 160,
        }),
    )
}

/// Writes the weights in the given precision under their Hugging Face names.
pub(crate) fn write_weights(model: &Llama, path: &Path, precision: DType) -> anyhow::Result<()> {
    let tensors = model
        .weights()
        .iter()
        .map(|(name, var)| Ok((name.clone(), var.as_tensor().to_dtype(precision)?)))
        .collect::<anyhow::Result<BTreeMap<String, Tensor>>>()?;
    // `transformers` refuses files that do not say which framework's layout they use.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(&tensors, Some(metadata)).context("laying out the weights")?;
    write(path, &bytes)
}

/// Writes `config.json`.
pub(crate) fn write_config(shape: &Shape, path: &Path) -> anyhow::Result<()> {
    let mut config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": true,
        "torch_dtype": "float16",
        "bos_token_id": START_ID,
        "eos_token_id": END_ID,
        "pad_token_id": PADDING_ID,
    });
    if let (Value::Object(config), Value::Object(shape)) = (&mut config, serde_json::to_value(shape)?) {
        config.extend(shape);
    }
    write_json(path, &config)
}

fn write_json(path: &Path, value: &Value) -> anyhow::Result<()> {
    write(path, (serde_json::to_string_pretty(value)? + "\n").as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
