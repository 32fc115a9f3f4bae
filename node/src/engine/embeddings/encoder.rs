//! A BERT encoder with its tokenizer: from text to vectors.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::pooling::Head;
use crate::engine::model_files::{LoadError, ModelFiles, device};

/// Most of what a BERT's configuration may ask for, far above any that exists.
const SIZE_MAX: usize = 1 << 20;

/// A model, loaded and ready.
pub(super) struct Encoder {
    bert: BertModel,
    head: Head,
    tokenizer: Tokenizer,
    lowercase: bool,
    /// The special tokens before and after every text.
    frame: (Vec<u32>, Vec<u32>),
    tokens_max: usize,
    size: usize,
    vocabulary: usize,
    padding: u32,
    device: Device,
    digest: [u8; 32],
    quantization: String,
}

#[derive(Default, Deserialize)]
struct SentenceSettings {
    max_seq_length: Option<usize>,
    #[serde(default)]
    do_lower_case: bool,
}

impl Encoder {
    /// Reads a model as sentence-transformers writes it, or a plain BERT.
    pub(super) fn load(files: &ModelFiles) -> Result<Self, LoadError> {
        let config = configuration(files)?;
        let head = Head::from_files(files)?;
        let settings: SentenceSettings = files.json("sentence_bert_config.json")?.unwrap_or_default();
        let tokenizer = tokenizer(files)?;
        let frame =
            frame(&tokenizer).ok_or_else(|| files.damaged("tokenizer.json", "it can't read a word"))?;
        let device = device::choose()?;
        let weights = read_weights(files)?;
        let builder = VarBuilder::from_tensors(weights.tensors, DType::F32, &device);
        let bert = BertModel::load(builder, &config).map_err(|error| tensor_error(files, &error))?;
        let tokens_max = settings
            .max_seq_length
            .unwrap_or(usize::MAX)
            .min(config.max_position_embeddings);
        Ok(Self {
            bert,
            head,
            tokenizer,
            lowercase: settings.do_lower_case,
            frame,
            tokens_max,
            size: config.hidden_size,
            vocabulary: config.vocab_size,
            padding: u32::try_from(config.pad_token_id).unwrap_or(0),
            device,
            digest: weights.digest,
            quantization: weights.quantization,
        })
    }

    /// How many numbers a vector has.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// How many tokens there are.
    pub(super) const fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Most tokens of a text, special ones included.
    pub(super) const fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    /// BLAKE3 over the weight files in the order of their names.
    pub(super) const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// How the weights are stored.
    pub(super) fn quantization(&self) -> &str {
        &self.quantization
    }

    /// The tokens of a text, special ones included.
    pub(super) fn tokenize(&self, text: &str) -> Result<Vec<u32>, tokenizers::Error> {
        let lowered = self.lowercase.then(|| text.to_lowercase());
        let encoding = self
            .tokenizer
            .encode_fast(lowered.as_deref().unwrap_or(text), true)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens within the special ones, unless they have them already.
    pub(super) fn with_special_tokens(&self, tokens: Vec<u32>) -> Vec<u32> {
        let (before, after) = &self.frame;
        if tokens.starts_with(before) && tokens.ends_with(after) && tokens.len() >= before.len() + after.len()
        {
            return tokens;
        }
        [before.as_slice(), &tokens, after].concat()
    }

    /// The vectors of a batch of texts.
    pub(super) fn embed(&self, inputs: &[&[u32]]) -> candle_core::Result<Vec<Vec<f32>>> {
        let longest = inputs.iter().map(|input| input.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(inputs.len() * longest);
        let mut mask = Vec::with_capacity(inputs.len() * longest);
        for input in inputs {
            ids.extend_from_slice(input);
            ids.resize(ids.len() + longest - input.len(), self.padding);
            mask.extend((0..longest).map(|position| u32::from(position < input.len())));
        }
        let shape = (inputs.len(), longest);
        let ids = Tensor::from_vec(ids, shape, &self.device)?;
        let mask = Tensor::from_vec(mask, shape, &self.device)?;
        let states = self.bert.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        self.head.forward(&states, &mask)?.to_vec2()
    }
}

/// The configuration, with the parts that do not matter for computing filled in where they are missing.
fn configuration(files: &ModelFiles) -> Result<Config, LoadError> {
    let mut document: Value = files.require_json("config.json")?;
    let kind = document
        .get("model_type")
        .and_then(Value::as_str)
        .unwrap_or("unknown")
        .to_owned();
    if kind != "bert" {
        return Err(files.unsupported(format!("its model_type is {kind}, not bert")));
    }
    let Some(fields) = document.as_object_mut() else {
        return Err(files.damaged("config.json", "it is no JSON object"));
    };
    for (field, value) in [
        ("hidden_dropout_prob", json!(0.1)),
        ("initializer_range", json!(0.02)),
        ("pad_token_id", json!(0)),
        ("type_vocab_size", json!(2)),
    ] {
        fields.entry(field).or_insert(value);
    }
    // The names of one function in transformers; candle has its own.
    if fields
        .get("hidden_act")
        .is_some_and(|name| name == "gelu_new" || name == "gelu_pytorch_tanh")
    {
        fields.insert("hidden_act".to_owned(), json!("geluapproximate"));
    }
    let config: Config =
        serde_json::from_value(document).map_err(|error| files.damaged("config.json", error))?;
    let sizes = [
        config.vocab_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        config.max_position_embeddings,
        config.type_vocab_size,
    ];
    let sound = sizes.iter().all(|size| (1..=SIZE_MAX).contains(size))
        && config.hidden_size.is_multiple_of(config.num_attention_heads)
        && config.pad_token_id < config.vocab_size;
    if sound {
        Ok(config)
    } else {
        Err(files.damaged("config.json", "its sizes make no sense"))
    }
}

fn tokenizer(files: &ModelFiles) -> Result<Tokenizer, LoadError> {
    let bytes = files
        .document("tokenizer.json")?
        .ok_or_else(|| files.missing("tokenizer.json"))?;
    let damaged = |error: tokenizers::Error| files.damaged("tokenizer.json", error);
    let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(damaged)?;
    // Models come with the truncation and padding of their training; batches are padded here, and nothing is cut.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(damaged)?;
    Ok(tokenizer)
}

/// What the tokenizer puts before and after a text.
fn frame(tokenizer: &Tokenizer) -> Option<(Vec<u32>, Vec<u32>)> {
    let encode = |special| {
        tokenizer
            .encode_fast("a", special)
            .ok()
            .map(|encoding| encoding.get_ids().to_vec())
    };
    let (bare, framed) = (encode(false)?, encode(true)?);
    if bare.is_empty() {
        return None;
    }
    let start = framed.windows(bare.len()).position(|window| window == bare)?;
    Some((framed[..start].to_vec(), framed[start + bare.len()..].to_vec()))
}

struct StoredWeights {
    tensors: HashMap<String, Tensor>,
    digest: [u8; 32],
    quantization: String,
}

fn read_weights(files: &ModelFiles) -> Result<StoredWeights, LoadError> {
    let mut tensors = HashMap::new();
    let mut hasher = blake3::Hasher::new();
    for file in files.weight_files()? {
        let bytes = files.weights(&file)?;
        hasher.update(&bytes);
        let read = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
        tensors.extend(read.map_err(|error| files.damaged(&file, error))?);
    }
    let embedding = tensors
        .iter()
        .find(|(name, _)| name.ends_with("word_embeddings.weight"));
    let quantization = embedding
        .map(|(_, tensor)| tensor.dtype().as_str().to_owned())
        .unwrap_or_default();
    Ok(StoredWeights {
        tensors,
        digest: *hasher.finalize().as_bytes(),
        quantization,
    })
}

/// Says which tensor is missing or of the wrong shape.
fn tensor_error(files: &ModelFiles, error: &candle_core::Error) -> LoadError {
    use candle_core::Error;
    let model = files.name().to_owned();
    match error {
        Error::CannotFindTensor { path } => LoadError::MissingTensor {
            model,
            tensor: path.clone(),
        },
        Error::UnexpectedShape { msg, expected, got } => LoadError::WrongShape {
            model,
            tensor: msg.rsplit(' ').next().unwrap_or_default().to_owned(),
            expected: expected.dims().to_vec(),
            found: got.dims().to_vec(),
        },
        Error::WithBacktrace { inner, .. } | Error::WithPath { inner, .. } => tensor_error(files, inner),
        other => LoadError::Placement {
            model,
            problem: other.to_string().lines().next().unwrap_or_default().to_owned(),
        },
    }
}
