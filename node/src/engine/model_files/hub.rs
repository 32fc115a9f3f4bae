//! Models by name from the Hugging Face hub, through its own client and cache.

use std::path::PathBuf;
use std::sync::Arc;

use hf_hub::progress::{DownloadEvent, FileStatus, Progress, ProgressEvent, ProgressHandler};
use hf_hub::{HFClient, HFError};
use indicatif::{ProgressBar, ProgressStyle};
use tracing::warn;

use super::{LoadError, ModelFiles};

/// The files that the built-in engines read of a repository; others, such as weights of other frameworks, stay.
const WANTED: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*.json",
    "chat_template.*",
    "modules.json",
    "1_Pooling/config.json",
];
/// Settings of sentence-transformers models.
const WANTED_SETTINGS: [&str; 2] = ["sentence_bert_config.json", "special_tokens_map.json"];
/// What lies beside a GGUF file and says more about it.
const WANTED_BESIDE_GGUF: [&str; 4] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
];

/// The Hugging Face hub, or a server that speaks like it.
#[derive(Clone)]
pub struct Hub {
    client: HFClient,
}

impl Hub {
    /// The hub as Hugging Face's own tools find it: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME` and `HF_HUB_CACHE`.
    ///
    /// # Errors
    /// [`LoadError::Hub`] where these can't be used.
    pub fn from_environment() -> Result<Self, LoadError> {
        Self::build(HFClient::builder())
    }

    /// A hub at another address, with a cache of its own.
    ///
    /// # Errors
    /// [`LoadError::Hub`] where the address is none.
    pub fn at(endpoint: &str, cache_folder: impl Into<PathBuf>) -> Result<Self, LoadError> {
        Self::build(HFClient::builder().endpoint(endpoint).cache_dir(cache_folder))
    }

    fn build(builder: hf_hub::HFClientBuilder) -> Result<Self, LoadError> {
        let agent = concat!("gristmill/", env!("CARGO_PKG_VERSION"));
        let client = builder
            .user_agent(agent)
            .build()
            .map_err(|error| LoadError::Hub {
                repository: "models".to_owned(),
                problem: error.to_string(),
            })?;
        Ok(Self { client })
    }

    /// Finds the files of `organisation/name`, or one GGUF file of it, downloading what is not in the cache.
    ///
    /// Without a network, what is in the cache is used.
    ///
    /// # Errors
    /// [`LoadError::Hub`] where the model can't be had.
    pub async fn fetch(&self, repository: &str, file: Option<&str>) -> Result<ModelFiles, LoadError> {
        let failed = |error: HFError| LoadError::Hub {
            repository: repository.to_owned(),
            problem: error.to_string(),
        };
        let patterns: Vec<String> = match file {
            Some(file) => WANTED_BESIDE_GGUF
                .iter()
                .map(ToString::to_string)
                .chain([file.to_owned()])
                .collect(),
            None => WANTED
                .iter()
                .chain(&WANTED_SETTINGS)
                .map(ToString::to_string)
                .collect(),
        };
        let folder = match self.snapshot(repository, patterns.clone(), false).await {
            Ok(folder) => folder,
            Err(error @ (HFError::Request { .. } | HFError::Http { .. })) => {
                let cached = self
                    .snapshot(repository, patterns, true)
                    .await
                    .map_err(|_| failed(error))?;
                warn!(
                    repository,
                    "the Hugging Face hub can't be reached; using the copy in its cache"
                );
                cached
            }
            Err(error) => return Err(failed(error)),
        };
        let path = match file {
            Some(file) => folder.join(file),
            None => folder,
        };
        if file.is_none() && !path.join("config.json").exists() {
            let problem =
                format!("it has no config.json; to take a GGUF file of it, write {repository}:FILE.gguf");
            return Err(LoadError::Hub {
                repository: repository.to_owned(),
                problem,
            });
        }
        if !path.exists() {
            let problem = format!("it has no file {}", file.unwrap_or_default());
            return Err(LoadError::Hub {
                repository: repository.to_owned(),
                problem,
            });
        }
        Ok(ModelFiles::open(&path)?.named(repository))
    }

    async fn snapshot(
        &self,
        repository: &str,
        patterns: Vec<String>,
        cached: bool,
    ) -> Result<PathBuf, HFError> {
        let (owner, name) = hf_hub::split_id(repository);
        let progress: Arc<DownloadBar> = Arc::new(DownloadBar::new(repository));
        let model = self.client.model(owner, name);
        let download = model
            .snapshot_download()
            .allow_patterns(patterns)
            .local_files_only(cached)
            .progress(Progress::from(progress))
            .send();
        Box::pin(download).await
    }
}

/// A progress bar on stderr; none where stderr is no terminal.
struct DownloadBar {
    bar: ProgressBar,
    files: std::sync::Mutex<std::collections::BTreeMap<String, u64>>,
}

impl DownloadBar {
    fn new(repository: &str) -> Self {
        let bar = ProgressBar::no_length();
        let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.set_message(repository.to_owned());
        Self {
            bar,
            files: std::sync::Mutex::default(),
        }
    }
}

impl ProgressHandler for DownloadBar {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else {
            return;
        };
        match event {
            DownloadEvent::Start { total_bytes, .. } => self.bar.set_length(*total_bytes),
            DownloadEvent::Progress { files } => {
                // A poisoned lock only means that another update panicked: the sums are still good to show.
                let mut done = self
                    .files
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                for file in files {
                    let bytes = match file.status {
                        FileStatus::Complete => file.total_bytes.max(file.bytes_completed),
                        FileStatus::Started | FileStatus::InProgress => file.bytes_completed,
                    };
                    done.insert(file.filename.clone(), bytes);
                }
                self.bar.set_position(done.values().sum());
            }
            DownloadEvent::AggregateProgress { bytes_completed, .. } => {
                self.bar.set_position((*bytes_completed).max(self.bar.position()));
            }
            DownloadEvent::Complete => self.bar.finish_and_clear(),
        }
    }
}
