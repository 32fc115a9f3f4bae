//! The tensors of a model by their roles, from safetensors or GGUF, each checked against the shape it must have.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Content;
use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use candle_nn::Linear;

use crate::engine::model_files::{LoadError, ModelFiles, WeightsReader, device};

/// A role in a layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum LayerPart {
    AttentionNorm,
    Query,
    Key,
    Value,
    Output,
    QueryNorm,
    KeyNorm,
    FeedForwardNorm,
    Gate,
    Up,
    Down,
}

impl LayerPart {
    /// The names in safetensors and in GGUF files.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::AttentionNorm => ("input_layernorm", "attn_norm"),
            Self::Query => ("self_attn.q_proj", "attn_q"),
            Self::Key => ("self_attn.k_proj", "attn_k"),
            Self::Value => ("self_attn.v_proj", "attn_v"),
            Self::Output => ("self_attn.o_proj", "attn_output"),
            Self::QueryNorm => ("self_attn.q_norm", "attn_q_norm"),
            Self::KeyNorm => ("self_attn.k_norm", "attn_k_norm"),
            Self::FeedForwardNorm => ("post_attention_layernorm", "ffn_norm"),
            Self::Gate => ("mlp.gate_proj", "ffn_gate"),
            Self::Up => ("mlp.up_proj", "ffn_up"),
            Self::Down => ("mlp.down_proj", "ffn_down"),
        }
    }
}

/// A role in a model.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    Embedding,
    FinalNorm,
    Head,
    Layer(usize, LayerPart),
}

/// A linear map with weights as they are stored or as they compute best.
pub(super) enum Projection {
    Dense(Linear),
    Quantized(QMatMul, Option<Tensor>),
}

impl Module for Projection {
    fn forward(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Dense(linear) => linear.forward(input),
            Self::Quantized(weights, None) => weights.forward(input),
            Self::Quantized(weights, Some(bias)) => weights.forward(input)?.broadcast_add(bias),
        }
    }
}

enum Source {
    Safetensors(HashMap<String, Tensor>),
    Gguf(Box<Content>, Box<dyn WeightsReader>),
}

/// The tensors of one model. Those that were taken are gone from here, so that nothing is held twice.
pub(super) struct Weights<'f> {
    files: &'f ModelFiles,
    source: Source,
    device: Device,
    dtype: DType,
    quantization: String,
    digest: [u8; 32],
}

impl<'f> Weights<'f> {
    /// Reads safetensors files one after the other.
    pub(super) fn from_safetensors(files: &'f ModelFiles, device: Device) -> Result<Self, LoadError> {
        let mut tensors = HashMap::new();
        let mut hasher = blake3::Hasher::new();
        for file in files.weight_files()? {
            let bytes = files.weights(&file)?;
            hasher.update(&bytes);
            let read = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
            tensors.extend(read.map_err(|error| files.damaged(&file, first_line(&error)))?);
        }
        let stored = tensors.get(Source::EMBEDDING).map_or(DType::F32, Tensor::dtype);
        let dtype = device::compute_type(stored, &device);
        Ok(Self {
            files,
            source: Source::Safetensors(tensors),
            device,
            dtype,
            quantization: stored.as_str().to_owned(),
            digest: *hasher.finalize().as_bytes(),
        })
    }

    /// Reads tensors from a GGUF file as they are asked for.
    pub(super) fn from_gguf(
        files: &'f ModelFiles,
        content: Content,
        reader: Box<dyn WeightsReader>,
        device: Device,
    ) -> Result<Self, LoadError> {
        let stored = content
            .tensor_infos
            .get("blk.0.ffn_up.weight")
            .map(|info| info.ggml_dtype);
        let quantization = gguf_quantization(&content, stored);
        let digest = files.digest(files.gguf().unwrap_or_default())?;
        // Quantized products are computed in single precision.
        let dtype = DType::F32;
        Ok(Self {
            files,
            source: Source::Gguf(Box::new(content), reader),
            device,
            dtype,
            quantization,
            digest,
        })
    }

    /// The type of everything that is computed.
    pub(super) const fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where everything is computed.
    pub(super) const fn device(&self) -> &Device {
        &self.device
    }

    /// How the weights are stored, in the words of [`crate::engine::EngineModel::quantization`].
    pub(super) fn quantization(&self) -> &str {
        &self.quantization
    }

    /// BLAKE3 over the weight files in the order of their names.
    pub(super) const fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The factors by which a GGUF file divides rotary frequencies, where it has any.
    pub(super) fn rope_divisors(&mut self, pairs: usize) -> Result<Option<Vec<f32>>, LoadError> {
        let has = match &self.source {
            Source::Safetensors(_) => false,
            Source::Gguf(content, _) => content.tensor_infos.contains_key("rope_freqs.weight"),
        };
        if !has {
            return Ok(None);
        }
        let tensor = self.plain("rope_freqs.weight", &[pairs])?;
        let divisors = tensor.to_vec1().map_err(|error| self.placement(&error))?;
        Ok(Some(divisors))
    }

    /// A whole tensor for use as it is: an embedding or a norm.
    pub(super) fn tensor(&mut self, part: Part, shape: &[usize]) -> Result<Tensor, LoadError> {
        let name = self.source.name(part, "weight");
        self.plain(&name, shape)
    }

    /// A linear map from `input` to `output` numbers.
    pub(super) fn projection(
        &mut self,
        part: Part,
        output: usize,
        input: usize,
        with_bias: bool,
    ) -> Result<Projection, LoadError> {
        let bias = if with_bias {
            let name = self.source.name(part, "bias");
            Some(self.plain(&name, &[output])?)
        } else {
            None
        };
        let name = self.source.name(part, "weight");
        if matches!(self.source, Source::Safetensors(_)) {
            return Ok(Projection::Dense(Linear::new(
                self.plain(&name, &[output, input])?,
                bias,
            )));
        }
        let stored = self.stored(&name, &[output, input])?;
        match stored.dtype() {
            GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 => {
                let dense = stored
                    .dequantize(&self.device)
                    .map_err(|error| self.placement(&error))?;
                Ok(Projection::Dense(Linear::new(dense, bias)))
            }
            _ => {
                let weights = QMatMul::from_qtensor(stored).map_err(|error| self.placement(&error))?;
                Ok(Projection::Quantized(weights, bias))
            }
        }
    }

    fn plain(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, LoadError> {
        let placed = match &mut self.source {
            Source::Safetensors(tensors) => {
                let Some(tensor) = tensors.remove(name) else {
                    return Err(self.missing(name));
                };
                self.check_shape(name, shape, tensor.dims())?;
                tensor
                    .to_device(&self.device)
                    .and_then(|tensor| tensor.to_dtype(self.dtype))
            }
            Source::Gguf(..) => self.stored(name, shape)?.dequantize(&self.device),
        };
        placed.map_err(|error| self.placement(&error))
    }

    fn stored(&mut self, name: &str, shape: &[usize]) -> Result<QTensor, LoadError> {
        let Source::Gguf(content, reader) = &mut self.source else {
            return Err(self.missing(name));
        };
        let Some(info) = content.tensor_infos.get(name) else {
            return Err(self.missing(name));
        };
        let found = info.shape.dims().to_vec();
        if found == shape {
            let read = info.read(reader, content.tensor_data_offset, &self.device);
            let file = self.files.gguf().unwrap_or_default();
            return read.map_err(|error| self.files.damaged(file, first_line(&error)));
        }
        self.check_shape(name, shape, &found)?;
        Err(self.missing(name))
    }

    fn check_shape(&self, name: &str, expected: &[usize], found: &[usize]) -> Result<(), LoadError> {
        if expected == found {
            return Ok(());
        }
        Err(LoadError::WrongShape {
            model: self.files.name().to_owned(),
            tensor: name.to_owned(),
            expected: expected.to_vec(),
            found: found.to_vec(),
        })
    }

    fn missing(&self, name: &str) -> LoadError {
        LoadError::MissingTensor {
            model: self.files.name().to_owned(),
            tensor: name.to_owned(),
        }
    }

    /// An error of the device, such as too little memory.
    pub(super) fn placement(&self, error: &candle_core::Error) -> LoadError {
        LoadError::Placement {
            model: self.files.name().to_owned(),
            problem: first_line(error),
        }
    }
}

impl Source {
    const EMBEDDING: &'static str = "model.embed_tokens.weight";

    fn name(&self, part: Part, kind: &str) -> String {
        let gguf = matches!(self, Self::Gguf(..));
        match part {
            Part::Embedding => if gguf {
                "token_embd.weight"
            } else {
                Self::EMBEDDING
            }
            .to_owned(),
            Part::FinalNorm => if gguf {
                "output_norm.weight"
            } else {
                "model.norm.weight"
            }
            .to_owned(),
            Part::Head => if gguf { "output.weight" } else { "lm_head.weight" }.to_owned(),
            Part::Layer(layer, part) if gguf => format!("blk.{layer}.{}.{kind}", part.names().1),
            Part::Layer(layer, part) => format!("model.layers.{layer}.{}.{kind}", part.names().0),
        }
    }
}

/// An error without the backtrace that it may carry.
pub(super) fn first_line(error: &impl ToString) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The name of a GGUF file's mixture of types, as `general.file_type` numbers it (ggml's `llama_ftype`).
fn gguf_quantization(content: &Content, stored: Option<GgmlDType>) -> String {
    let number = content
        .metadata
        .get("general.file_type")
        .and_then(|value| value.to_u32().ok());
    let name = match number {
        Some(0) => "f32",
        Some(1) => "f16",
        Some(2) => "q4_0",
        Some(3) => "q4_1",
        Some(7) => "q8_0",
        Some(8) => "q5_0",
        Some(9) => "q5_1",
        Some(10) => "q2_k",
        Some(11) => "q3_k_s",
        Some(12) => "q3_k_m",
        Some(13) => "q3_k_l",
        Some(14) => "q4_k_s",
        Some(15) => "q4_k_m",
        Some(16) => "q5_k_s",
        Some(17) => "q5_k_m",
        Some(18) => "q6_k",
        Some(32) => "bf16",
        _ => {
            return stored
                .map(|stored| format!("{stored:?}").to_lowercase())
                .unwrap_or_default();
        }
    };
    name.to_owned()
}
