//! Why a model could not be loaded, and what its owner can do about it.

use std::path::PathBuf;

use gristmill_protocol::listing::MODEL_NAME_MAX_BYTES;
use thiserror::Error;

/// Why a model could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Nothing is at this path.
    #[error(
        "no model at {path}: give a folder with config.json, a GGUF file, or a hub name like \
         organisation/name or organisation/name:file.gguf", path = .path.display()
    )]
    NotFound {
        /// Where a model was looked for.
        path: PathBuf,
    },
    /// Something is at this path, but no model.
    #[error(
        "{path} is no model: it needs a folder with config.json, *.safetensors and tokenizer.json, or a \
         file that ends in .gguf", path = .path.display()
    )]
    NotAModel {
        /// Where a model was looked for.
        path: PathBuf,
    },
    /// More than one GGUF file is in a folder.
    #[error("{path} holds several GGUF files: give the path of the one to load", path = .path.display())]
    SeveralGgufFiles {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system refused to read a file.
    #[error("can't read {path}: {source}; check that it exists and may be read", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A document is larger than any model's is.
    #[error(
        "{path} is larger than {limit_bytes} bytes, too large for what its name says: check that it is the \
         right file", path = .path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Most bytes of such a file.
        limit_bytes: u64,
    },
    /// The model lacks a file.
    #[error("the model {model} has no {file}: download it again, or add the file")]
    MissingFile {
        /// The model.
        model: String,
        /// What is missing.
        file: String,
    },
    /// A file is truncated, or not what its name says.
    #[error("{file} of the model {model} is damaged or of the wrong kind: {problem}; download it again")]
    Damaged {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The weights do not have a tensor that the configuration asks for.
    #[error(
        "the weights of {model} have no tensor {tensor}, which its configuration asks for: weights and \
         configuration are of different models, or a part is missing; download it again"
    )]
    MissingTensor {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor does not have the shape that the configuration asks for.
    #[error(
        "the tensor {tensor} of {model} has the shape {found:?}, and its configuration asks for \
         {expected:?}: weights and configuration are of different models; download it again"
    )]
    WrongShape {
        /// The model.
        model: String,
        /// The tensor.
        tensor: String,
        /// What the configuration asks for.
        expected: Vec<usize>,
        /// What the weights have.
        found: Vec<usize>,
    },
    /// The model is of a kind that the built-in engine can't run.
    #[error(
        "the built-in engine can't run {model}: {problem}; serve it with Ollama, vLLM or llama.cpp, which \
         gristmill finds by itself"
    )]
    Unsupported {
        /// The model.
        model: String,
        /// What it would need.
        problem: String,
    },
    /// A name that can't be offered.
    #[error(
        "'{name}' can't be a model's name: use 1 to {MODEL_NAME_MAX_BYTES} bytes without control characters"
    )]
    Name {
        /// The name, escaped.
        name: String,
    },
    /// The hub could not be asked, or did not have the model.
    #[error(
        "can't get {repository} from the Hugging Face hub: {problem}; check the name and the network, set \
         HF_TOKEN where the model needs one, or give the path of a local copy"
    )]
    Hub {
        /// What was asked for.
        repository: String,
        /// What went wrong.
        problem: String,
    },
    /// The device can't be used.
    #[error("can't use the GPU: {problem}; check its driver, or use a build without GPU support")]
    Device {
        /// What the driver said.
        problem: String,
    },
    /// The device refused, such as for lack of memory.
    #[error("the model {model} could not be put in place: {problem}; check that enough memory is free")]
    Placement {
        /// The model.
        model: String,
        /// What went wrong.
        problem: String,
    },
}
