//! Where the files of a model come from: a folder or a GGUF file on disk, the Hugging Face hub, or memory.
//!
//! The built-in engines load from [`ModelFiles`] alone, so an embedded model goes the same way as one on disk.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::MODEL_NAME_MAX_BYTES;
use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(crate) mod device;
mod error;
mod hub;

pub use error::LoadError;
pub use hub::Hub;

/// Most bytes of a file that is not weights: the largest tokenizers have about 40 MB.
const DOCUMENT_MAX_BYTES: u64 = 256 * 1024 * 1024;
/// Folders below a model's folder that hold parts of it, as sentence-transformers writes them.
const FOLDER_DEPTH_MAX: usize = 2;
/// Most files looked at in a model's folder.
const FOLDER_FILES_MAX: usize = 4_096;

/// Where a model is to be taken from, as an owner writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder with `config.json`, or a GGUF file.
    Path(PathBuf),
    /// A repository on the Hugging Face hub.
    Hub {
        /// `organisation/name`.
        repository: String,
        /// The GGUF file in it, where the model is not the whole repository.
        file: Option<String>,
    },
}

impl ModelSource {
    /// Reads `path/to/folder`, `path/to/file.gguf`, `organisation/name` or `organisation/name:file.gguf`.
    ///
    /// What exists on disk is taken from there; a text of the form of a hub name is one otherwise.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let path = PathBuf::from(text);
        if path.exists() {
            return Self::Path(path);
        }
        let (repository, file) = match text.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (text, None),
        };
        let names_file =
            file.is_none_or(|file| has_extension(file, "gguf") && file.split('/').all(is_hub_word));
        match repository.split_once('/') {
            Some((organisation, name))
                if is_hub_word(organisation)
                    && is_hub_word(name)
                    && !has_extension(name, "gguf")
                    && names_file =>
            {
                Self::Hub {
                    repository: repository.to_owned(),
                    file: file.map(str::to_owned),
                }
            }
            _ => Self::Path(path),
        }
    }

    /// Finds the files, downloading them where they are on the hub and not here yet. Shows the progress of a
    /// download on stderr.
    ///
    /// # Errors
    /// [`LoadError`] where the files are not there or can't be had.
    pub async fn fetch(&self) -> Result<ModelFiles, LoadError> {
        match self {
            Self::Path(path) => ModelFiles::open(path),
            Self::Hub { repository, file } => {
                Hub::from_environment()?.fetch(repository, file.as_deref()).await
            }
        }
    }
}

impl FromStr for ModelSource {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::parse(text))
    }
}

fn is_hub_word(word: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !word.is_empty() && word.bytes().all(allowed) && word.bytes().any(|byte| byte != b'.')
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Something weights can be read from out of order.
pub(crate) trait WeightsReader: Read + Seek {}
impl<R: Read + Seek> WeightsReader for R {}

#[derive(Clone, Debug)]
enum Part {
    OnDisk(PathBuf),
    InMemory(&'static [u8]),
}

/// The files of one model by their names, with `/` between a folder and a file in it.
#[derive(Clone, Debug)]
pub struct ModelFiles {
    name: String,
    parts: BTreeMap<String, Part>,
    gguf: Option<String>,
}

impl ModelFiles {
    /// The model in a folder, or the one in a GGUF file.
    ///
    /// # Errors
    /// [`LoadError`] where there is no such model.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        if !path.exists() {
            return Err(LoadError::NotFound {
                path: path.to_owned(),
            });
        }
        if path.is_dir() {
            Self::open_folder(path)
        } else {
            Self::open_gguf(path)
        }
    }

    /// A model whose files are part of the program.
    pub fn in_memory(name: &str, parts: impl IntoIterator<Item = (&'static str, &'static [u8])>) -> Self {
        let parts: BTreeMap<_, _> = parts
            .into_iter()
            .map(|(file, bytes)| (file.to_owned(), Part::InMemory(bytes)))
            .collect();
        let gguf = parts.keys().find(|file| has_extension(file, "gguf")).cloned();
        Self {
            name: name.to_owned(),
            parts,
            gguf,
        }
    }

    fn open_folder(folder: &Path) -> Result<Self, LoadError> {
        let mut parts = BTreeMap::new();
        collect_files(folder, "", FOLDER_DEPTH_MAX, &mut parts)?;
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
            .unwrap_or_else(|| folder.display().to_string());
        let mut files = Self {
            name,
            parts,
            gguf: None,
        };
        if !files.has("config.json") {
            files.gguf = Some(files.only_gguf(folder)?);
        }
        Ok(files)
    }

    fn open_gguf(path: &Path) -> Result<Self, LoadError> {
        let file_name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if !has_extension(&file_name, "gguf") {
            return Err(LoadError::NotAModel {
                path: path.to_owned(),
            });
        }
        let name = path
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        let mut parts = BTreeMap::new();
        // What lies beside the file takes precedence over what it says about its own tokenizer.
        for beside in [
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "generation_config.json",
        ] {
            let beside_path = path.with_file_name(beside);
            if beside_path.is_file() {
                parts.insert(beside.to_owned(), Part::OnDisk(beside_path));
            }
        }
        parts.insert(file_name.clone(), Part::OnDisk(path.to_owned()));
        Ok(Self {
            name,
            parts,
            gguf: Some(file_name),
        })
    }

    fn only_gguf(&self, folder: &Path) -> Result<String, LoadError> {
        let mut found = self.parts.keys().filter(|file| has_extension(file, "gguf"));
        match (found.next(), found.next()) {
            (Some(only), None) => Ok(only.clone()),
            (Some(_), Some(_)) => Err(LoadError::SeveralGgufFiles {
                path: folder.to_owned(),
            }),
            (None, _) => Err(LoadError::NotAModel {
                path: folder.to_owned(),
            }),
        }
    }

    pub(crate) fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// What the model is called where nobody gave it another name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the model can be asked to do, from its configuration.
    ///
    /// # Errors
    /// [`LoadError`] where the configuration can't be read.
    pub fn kind(&self) -> Result<JobKind, LoadError> {
        #[derive(Deserialize)]
        struct Kind {
            model_type: Option<String>,
        }
        if self.gguf.is_some() {
            return Ok(JobKind::ChatCompletions);
        }
        let Kind { model_type } = self.require_json("config.json")?;
        let encoder = self.has("modules.json") || model_type.as_deref().is_some_and(|kind| kind == "bert");
        Ok(if encoder {
            JobKind::Embeddings
        } else {
            JobKind::ChatCompletions
        })
    }

    /// The GGUF file, where the model is one.
    pub(crate) fn gguf(&self) -> Option<&str> {
        self.gguf.as_deref()
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        self.parts.contains_key(file)
    }

    /// A whole file that is not weights, or nothing where there is no such file.
    pub(crate) fn document(&self, file: &str) -> Result<Option<Cow<'static, [u8]>>, LoadError> {
        match self.parts.get(file) {
            None => Ok(None),
            Some(Part::InMemory(bytes)) => Ok(Some(Cow::Borrowed(bytes))),
            Some(Part::OnDisk(path)) => read_bounded(path).map(Some),
        }
    }

    /// A JSON document, or nothing where there is no such file.
    pub(crate) fn json<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>, LoadError> {
        let Some(bytes) = self.document(file)? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| self.damaged(file, error))
    }

    /// A JSON document that the model can't be without.
    pub(crate) fn require_json<T: DeserializeOwned>(&self, file: &str) -> Result<T, LoadError> {
        self.json(file)?.ok_or_else(|| self.missing(file))
    }

    /// The weight files in the order of their names.
    pub(crate) fn weight_files(&self) -> Result<Vec<String>, LoadError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        if let Some(gguf) = &self.gguf {
            return Ok(vec![gguf.clone()]);
        }
        if let Some(index) = self.json::<Index>("model.safetensors.index.json")? {
            let mut files: Vec<_> = index.weight_map.into_values().collect();
            files.sort_unstable();
            files.dedup();
            return match files.iter().find(|file| !self.has(file)) {
                Some(absent) => Err(self.missing(absent)),
                None => Ok(files),
            };
        }
        if self.has("model.safetensors") {
            return Ok(vec!["model.safetensors".to_owned()]);
        }
        let top_level = |file: &&String| has_extension(file, "safetensors") && !file.contains('/');
        let files: Vec<_> = self.parts.keys().filter(top_level).cloned().collect();
        if files.is_empty() {
            Err(self.missing("model.safetensors"))
        } else {
            Ok(files)
        }
    }

    /// A whole weight file.
    pub(crate) fn weights(&self, file: &str) -> Result<Cow<'static, [u8]>, LoadError> {
        match self.parts.get(file) {
            None => Err(self.missing(file)),
            Some(Part::InMemory(bytes)) => Ok(Cow::Borrowed(bytes)),
            Some(Part::OnDisk(path)) => {
                std::fs::read(path)
                    .map(Cow::Owned)
                    .map_err(|source| LoadError::Unreadable {
                        path: path.clone(),
                        source,
                    })
            }
        }
    }

    /// A weight file to be read in parts.
    pub(crate) fn weights_reader(&self, file: &str) -> Result<Box<dyn WeightsReader>, LoadError> {
        match self.parts.get(file) {
            None => Err(self.missing(file)),
            Some(Part::InMemory(bytes)) => Ok(Box::new(Cursor::new(*bytes))),
            Some(Part::OnDisk(path)) => match File::open(path) {
                Ok(file) => Ok(Box::new(BufReader::new(file))),
                Err(source) => Err(LoadError::Unreadable {
                    path: path.clone(),
                    source,
                }),
            },
        }
    }

    /// A weight file's BLAKE3 state, for files that are not read as a whole.
    pub(crate) fn digest(&self, file: &str) -> Result<[u8; 32], LoadError> {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(self.weights_reader(file)?)
            .map_err(|source| LoadError::Unreadable {
                path: PathBuf::from(file),
                source,
            })?;
        Ok(*hasher.finalize().as_bytes())
    }

    /// A file of this model is not what it should be.
    pub(crate) fn damaged(&self, file: &str, problem: impl std::fmt::Display) -> LoadError {
        LoadError::Damaged {
            model: self.name.clone(),
            file: file.to_owned(),
            problem: problem.to_string(),
        }
    }

    /// A file that this model can't be without is not there.
    pub(crate) fn missing(&self, file: &str) -> LoadError {
        LoadError::MissingFile {
            model: self.name.clone(),
            file: file.to_owned(),
        }
    }

    /// The model is sound, but of a kind that the built-in engines can't run.
    pub(crate) fn unsupported(&self, problem: impl Into<String>) -> LoadError {
        LoadError::Unsupported {
            model: self.name.clone(),
            problem: problem.into(),
        }
    }

    /// The name under which the model is offered: the owner's choice, or the model's own.
    pub(crate) fn public_name(&self, chosen: Option<&str>) -> Result<String, LoadError> {
        let name = chosen.unwrap_or(&self.name);
        if name.is_empty() || name.len() > MODEL_NAME_MAX_BYTES || name.chars().any(char::is_control) {
            return Err(LoadError::Name {
                name: name.escape_debug().to_string(),
            });
        }
        Ok(name.to_owned())
    }
}

fn collect_files(
    folder: &Path,
    prefix: &str,
    depth: usize,
    parts: &mut BTreeMap<String, Part>,
) -> Result<(), LoadError> {
    let unreadable = |source| LoadError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let Some(file_name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let name = format!("{prefix}{file_name}");
        if path.is_dir() {
            if depth > 1 && !file_name.starts_with('.') {
                collect_files(&path, &format!("{name}/"), depth - 1, parts)?;
            }
        } else if parts.len() < FOLDER_FILES_MAX {
            parts.insert(name, Part::OnDisk(path));
        }
    }
    Ok(())
}

fn read_bounded(path: &Path) -> Result<Cow<'static, [u8]>, LoadError> {
    let unreadable = |source| LoadError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(DOCUMENT_MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > DOCUMENT_MAX_BYTES {
        return Err(LoadError::TooLarge {
            path: path.to_owned(),
            limit_bytes: DOCUMENT_MAX_BYTES,
        });
    }
    Ok(Cow::Owned(bytes))
}

#[cfg(test)]
mod tests;
