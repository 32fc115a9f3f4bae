//! Tiny models with random weights, written as real model files.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "used by the unit tests of the library and by its tests in part"
)]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::gguf_file::{self, Value as GgufValue};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

pub const VOCABULARY: usize = 272;
/// The tokens of the guide.
pub const WORDS: usize = 1536;
pub const HIDDEN: usize = 64;
pub const FEED_FORWARD: usize = 96;
pub const LAYERS: usize = 2;
pub const HEADS: usize = 4;
pub const KEY_VALUE_HEADS: usize = 2;
pub const CONTEXT: usize = 512;
pub const START: &str = "<|im_start|>";
pub const END: &str = "<|im_end|>";

/// A family of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Llama,
    Qwen2,
    Qwen3,
}

impl Family {
    pub const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Qwen3];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    const fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// Qwen3's heads are wider than the hidden size divided by their number.
    pub const fn head_dimension(self) -> usize {
        match self {
            Self::Qwen3 => 32,
            _ => HIDDEN / HEADS,
        }
    }
}

/// `config.json`, with all fields that candle-transformers wants too.
pub fn config(family: Family) -> Value {
    json!({
        "architectures": [family.architecture()],
        "model_type": family.name(),
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "head_dim": family.head_dimension(),
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": CONTEXT,
        "hidden_act": "silu",
        "tie_word_embeddings": false,
        "attention_bias": family == Family::Qwen2,
        "use_sliding_window": false,
        "sliding_window": CONTEXT,
        "max_window_layers": LAYERS,
        "eos_token_id": 257,
    })
}

/// Random tensors under their safetensors names.
pub fn tensors(family: Family, seed: u64) -> BTreeMap<String, Tensor> {
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    let mut tensors = BTreeMap::new();
    let wide = HEADS * family.head_dimension();
    let narrow = KEY_VALUE_HEADS * family.head_dimension();
    let mut add = |name: String, shape: &[usize], center: f32, spread: f32| {
        let count = shape.iter().product();
        let uniform = |random: &mut ChaCha12Rng| random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0;
        let numbers: Vec<f32> = (0..count)
            .map(|_| center + spread * uniform(&mut random))
            .collect();
        tensors.insert(name, Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap());
    };
    add(
        "model.embed_tokens.weight".to_owned(),
        &[VOCABULARY, HIDDEN],
        0.0,
        1.0,
    );
    add("model.norm.weight".to_owned(), &[HIDDEN], 1.0, 0.2);
    add("lm_head.weight".to_owned(), &[VOCABULARY, HIDDEN], 0.0, 0.5);
    for layer in 0..LAYERS {
        let mut part = |name: &str, shape: &[usize], center: f32, spread: f32| {
            add(format!("model.layers.{layer}.{name}"), shape, center, spread);
        };
        part("input_layernorm.weight", &[HIDDEN], 1.0, 0.2);
        part("post_attention_layernorm.weight", &[HIDDEN], 1.0, 0.2);
        for (name, size) in [("q_proj", wide), ("k_proj", narrow), ("v_proj", narrow)] {
            part(&format!("self_attn.{name}.weight"), &[size, HIDDEN], 0.0, 0.3);
            if family == Family::Qwen2 {
                part(&format!("self_attn.{name}.bias"), &[size], 0.0, 0.3);
            }
        }
        part("self_attn.o_proj.weight", &[HIDDEN, wide], 0.0, 0.3);
        if family == Family::Qwen3 {
            part("self_attn.q_norm.weight", &[family.head_dimension()], 1.0, 0.2);
            part("self_attn.k_norm.weight", &[family.head_dimension()], 1.0, 0.2);
        }
        part("mlp.gate_proj.weight", &[FEED_FORWARD, HIDDEN], 0.0, 0.3);
        part("mlp.up_proj.weight", &[FEED_FORWARD, HIDDEN], 0.0, 0.3);
        part("mlp.down_proj.weight", &[HIDDEN, FEED_FORWARD], 0.0, 0.3);
    }
    tensors
}

/// The characters that stand for bytes in byte-level tokenizers (GPT-2's `bytes_to_unicode`).
fn byte_characters() -> Vec<String> {
    let printable =
        |byte: u32| (33..=126).contains(&byte) || (161..=172).contains(&byte) || (174..=255).contains(&byte);
    let mut stand_in = 256;
    (0..256u32)
        .map(|byte| {
            let code = if printable(byte) {
                byte
            } else {
                stand_in += 1;
                stand_in - 1
            };
            char::from_u32(code).unwrap().to_string()
        })
        .collect()
}

/// A tokenizer with a token for each byte and two for turns.
pub fn tokenizer_document() -> Value {
    let vocabulary: serde_json::Map<String, Value> = byte_characters()
        .into_iter()
        .enumerate()
        .map(|(id, text)| (text, json!(id)))
        .collect();
    let special = |id: usize, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(256, START), special(257, END)],
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "vocab": vocabulary, "merges": []},
    })
}

pub fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(tokenizer_document().to_string()).unwrap()
}

fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}

/// Writes a model as a folder, in one safetensors file or in two with an index.
pub fn write_folder(folder: &Path, family: Family, seed: u64, dtype: DType, shards: usize) {
    write_json(&folder.join("config.json"), &config(family));
    write_json(&folder.join("tokenizer.json"), &tokenizer_document());
    let config = json!({"eos_token": END, "bos_token": null});
    write_json(&folder.join("tokenizer_config.json"), &config);
    write_safetensors(folder, tensors(family, seed), dtype, shards);
}

/// Writes a model with the tokenizer of the guide, whose tokens are parts of words. With a template of its own it has
/// a token for each marker of tool calls too, as Qwen's models have.
pub fn write_wordy_folder(folder: &Path, family: Family, seed: u64, template: Option<&str>) {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("guide");
    let tokenizer = std::fs::read(guide.join("tokenizer.json")).unwrap();
    let mut tokenizer: Value = serde_json::from_slice(&tokenizer).unwrap();
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    let markers = template.map_or(&[][..], |_| &["<tool_call>", "</tool_call>"]);
    let words = WORDS + markers.len();
    for (id, marker) in (WORDS..).zip(markers) {
        added.push(
            json!({"id": id, "content": marker, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": false}),
        );
    }
    write_json(&folder.join("tokenizer.json"), &tokenizer);
    let mut text = json!({"eos_token": END, "bos_token": START});
    if let Some(template) = template {
        text["chat_template"] = json!(template);
    }
    write_json(&folder.join("tokenizer_config.json"), &text);
    let mut whole = config(family);
    whole["vocab_size"] = json!(words);
    whole["eos_token_id"] = json!(2);
    write_json(&folder.join("config.json"), &whole);
    let mut tensors = tensors(family, seed);
    let mut random = ChaCha12Rng::seed_from_u64(seed);
    for (name, spread) in [("model.embed_tokens.weight", 1.0), ("lm_head.weight", 0.5)] {
        let numbers: Vec<f32> = (0..words * HIDDEN)
            .map(|_| spread * (random.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0))
            .collect();
        let tensor = Tensor::from_vec(numbers, (words, HIDDEN), &Device::Cpu).unwrap();
        tensors.insert(name.to_owned(), tensor);
    }
    write_safetensors(folder, tensors, DType::F32, 1);
}

pub fn write_safetensors(folder: &Path, tensors: BTreeMap<String, Tensor>, dtype: DType, shards: usize) {
    let mut parts: Vec<HashMap<String, Tensor>> = vec![HashMap::new(); shards];
    for (index, (name, tensor)) in tensors.into_iter().enumerate() {
        parts[index % shards].insert(name, tensor.to_dtype(dtype).unwrap());
    }
    if let [only] = parts.as_slice() {
        candle_core::safetensors::save(only, folder.join("model.safetensors")).unwrap();
        return;
    }
    let mut weight_map = serde_json::Map::new();
    for (index, part) in parts.iter().enumerate() {
        let file = format!("model-{:05}-of-{shards:05}.safetensors", index + 1);
        candle_core::safetensors::save(part, folder.join(&file)).unwrap();
        weight_map.extend(part.keys().map(|name| (name.clone(), json!(file))));
    }
    write_json(
        &folder.join("model.safetensors.index.json"),
        &json!({"weight_map": weight_map}),
    );
}

/// What a GGUF file is to hold beside the weights.
#[derive(Clone, Copy, Debug)]
pub struct GgufOptions {
    pub projections: GgmlDType,
    pub with_tokenizer: bool,
    pub rope_divisor: Option<f32>,
}

impl Default for GgufOptions {
    fn default() -> Self {
        Self {
            projections: GgmlDType::F32,
            with_tokenizer: true,
            rope_divisor: None,
        }
    }
}

/// Writes the same model as [`write_folder`] as a GGUF file.
pub fn write_gguf(folder: &Path, family: Family, seed: u64, options: GgufOptions) -> PathBuf {
    let mut metadata = gguf_metadata(family);
    if options.with_tokenizer {
        metadata.extend(gguf_tokenizer());
    }
    let mut stored = Vec::new();
    for (name, tensor) in tensors(family, seed) {
        let tensor = if family == Family::Llama {
            interleave(&name, &tensor)
        } else {
            tensor
        };
        let quantized = tensor.rank() == 2 && name.contains("layers");
        let dtype = if quantized {
            options.projections
        } else {
            GgmlDType::F32
        };
        stored.push((gguf_name(&name), QTensor::quantize(&tensor, dtype).unwrap()));
    }
    if let Some(divisor) = options.rope_divisor {
        let factors = Tensor::full(divisor, family.head_dimension() / 2, &Device::Cpu).unwrap();
        stored.push((
            "rope_freqs.weight".to_owned(),
            QTensor::quantize(&factors, GgmlDType::F32).unwrap(),
        ));
    }
    let path = folder.join(format!("tiny-{}.gguf", family.name()));
    let metadata: Vec<_> = metadata
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let stored: Vec<_> = stored
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &stored).unwrap();
    path
}

fn gguf_metadata(family: Family) -> Vec<(String, GgufValue)> {
    let key = |name: &str| format!("{}.{name}", family.name());
    let number = |value: usize| GgufValue::U32(u32::try_from(value).unwrap());
    vec![
        (
            "general.architecture".to_owned(),
            GgufValue::String(family.name().to_owned()),
        ),
        (key("context_length"), number(CONTEXT)),
        (key("embedding_length"), number(HIDDEN)),
        (key("block_count"), number(LAYERS)),
        (key("feed_forward_length"), number(FEED_FORWARD)),
        (key("attention.head_count"), number(HEADS)),
        (key("attention.head_count_kv"), number(KEY_VALUE_HEADS)),
        (key("attention.key_length"), number(family.head_dimension())),
        (key("attention.layer_norm_rms_epsilon"), GgufValue::F32(1e-5)),
        (key("rope.freq_base"), GgufValue::F32(10000.0)),
        (key("rope.dimension_count"), number(family.head_dimension())),
    ]
}

fn gguf_tokenizer() -> Vec<(String, GgufValue)> {
    let mut tokens = byte_characters();
    tokens.extend([START.to_owned(), END.to_owned()]);
    let types = tokens
        .iter()
        .map(|token| GgufValue::I32(if token.starts_with("<|") { 3 } else { 1 }))
        .collect();
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let text = |text: &str| GgufValue::String(text.to_owned());
    vec![
        (key("model"), text("gpt2")),
        (key("pre"), text("qwen2")),
        (
            key("tokens"),
            GgufValue::Array(tokens.into_iter().map(GgufValue::String).collect()),
        ),
        (key("token_type"), GgufValue::Array(types)),
        (key("merges"), GgufValue::Array(Vec::new())),
        (key("eos_token_id"), GgufValue::U32(257)),
    ]
}

/// Llama's GGUF files have the rows of a head's two halves in turns, as llama.cpp's converter writes them.
fn interleave(name: &str, tensor: &Tensor) -> Tensor {
    let heads = match name {
        _ if name.ends_with("q_proj.weight") => HEADS,
        _ if name.ends_with("k_proj.weight") => KEY_VALUE_HEADS,
        _ => return tensor.clone(),
    };
    let (rows, columns) = tensor.dims2().unwrap();
    let halves = tensor.reshape((heads, 2, rows / heads / 2, columns)).unwrap();
    halves
        .transpose(1, 2)
        .unwrap()
        .contiguous()
        .unwrap()
        .reshape((rows, columns))
        .unwrap()
}

fn gguf_name(name: &str) -> String {
    let mut name = name.to_owned();
    for (from, to) in [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(from, to);
    }
    name
}
