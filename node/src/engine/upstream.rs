//! Sells what an OpenAI-compatible server on the owner's machine can run: Ollama, vLLM, SGLang, llama.cpp, LM Studio,
//! or any other.
//!
//! Requests are passed through as they are, except that text always streams and always comes with usage. The server
//! is on loopback or where its owner allowed; whoever sends a request has no say about its address.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::Usage;
use reqwest::{Client, Url};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, EngineError, EngineModel, EngineOutput, EngineRequest, RequestBody};
use crate::settings::UpstreamModelSetting;

mod answers;
mod body;
mod capabilities;
mod chunks;
mod continuation;
mod dialects;
mod errors;
mod kinds;
mod models;
mod pieces;
mod probe;
mod reach;
mod sse;
mod trials;

pub use models::{CONTEXT_LENGTH, UpstreamKind};
pub use reach::{AllowedHosts, UpstreamNotAllowed};

use answers::UpstreamJob;
use models::UpstreamModel;
use pieces::Pieces;
use probe::{Found, ProbeError, innermost};
use trials::{Trial, Trials, Verdict};

/// Longest time of one question of a trial.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Most chunks of an answer to a trial that wait to be read.
const TRIAL_QUEUE_CHUNKS: usize = 64;
/// What owners' settings of models say for every model.
const EVERY_MODEL: &str = "*";

/// Why an upstream can't be used.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// It is where none may be.
    #[error(transparent)]
    NotAllowed(#[from] UpstreamNotAllowed),
    /// The system has no HTTP client for it.
    #[error("an HTTP client can't be set up: {0}")]
    Client(String),
}

/// One upstream server.
#[derive(Debug)]
pub struct UpstreamEngine {
    name: String,
    base: Url,
    client: Client,
    settings: BTreeMap<String, UpstreamModelSetting>,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    kind: UpstreamKind,
    models: Vec<Arc<UpstreamModel>>,
    trials: Trials,
}

impl UpstreamEngine {
    /// An engine for the server at `base`, which offers nothing before [`UpstreamEngine::refresh`] has found it.
    ///
    /// # Errors
    /// [`UpstreamError`] where the server is not on this machine or an allowed host.
    pub fn new(base: Url, allowed: &AllowedHosts) -> Result<Self, UpstreamError> {
        allowed.check(&base)?;
        let client = allowed
            .client()
            .map_err(|error| UpstreamError::Client(innermost(&error)))?;
        let state = RwLock::new(State {
            kind: UpstreamKind::Other,
            models: Vec::new(),
            trials: Trials::default(),
        });
        Ok(Self {
            name: base.to_string(),
            base,
            client,
            settings: BTreeMap::new(),
            state,
        })
    }

    /// The same, with what its owner says about its models: by their names on offer, or `*` for all of them.
    #[must_use]
    pub fn with_settings(mut self, settings: BTreeMap<String, UpstreamModelSetting>) -> Self {
        self.settings = settings;
        self
    }

    /// Where the server is.
    #[must_use]
    pub const fn base(&self) -> &Url {
        &self.base
    }

    /// Which server it is, as far as is known.
    #[must_use]
    pub fn kind(&self) -> UpstreamKind {
        self.state.read().unwrap_or_else(PoisonError::into_inner).kind
    }

    /// Asks the server what models it has. Returns whether it is there.
    pub async fn refresh(&self) -> bool {
        let found = probe::probe(&self.client, &self.base).await;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let was_there = !state.models.is_empty();
        let is_there = match found {
            Ok(found) => {
                if !was_there && !found.models.is_empty() {
                    tracing::info!(
                        url = self.name,
                        server = found.kind.name(),
                        models = found.models.len(),
                        "upstream found"
                    );
                }
                state.kind = found.kind;
                state.models = self.adjusted(found);
                true
            }
            Err(error) => {
                if was_there {
                    tracing::warn!(%error, "an upstream is gone; its models are off the market until it is back");
                } else if matches!(error, ProbeError::NotAnUpstream { .. }) {
                    tracing::debug!(%error, "no upstream");
                }
                state.models.clear();
                false
            }
        };
        let State { models, trials, .. } = &mut *state;
        trials.keep(models);
        is_there
    }

    /// Asks the server how many models it has, and remembers nothing of it.
    ///
    /// # Errors
    /// Why it has none to tell of, for people.
    pub(crate) async fn count_models(&self) -> Result<usize, String> {
        let found = probe::probe(&self.client, &self.base).await;
        found
            .map(|found| found.models.len())
            .map_err(|error| error.to_string())
    }

    /// The models that were found, as their owner wants them.
    fn adjusted(&self, found: Found) -> Vec<Arc<UpstreamModel>> {
        let adjusted = |model: UpstreamModel| {
            let of_name = self
                .settings
                .get(&model.name)
                .or_else(|| self.settings.get(&model.id));
            match of_name.or_else(|| self.settings.get(EVERY_MODEL)) {
                Some(setting) => model.adjusted(setting),
                None => model,
            }
        };
        found.models.into_iter().map(adjusted).map(Arc::new).collect()
    }

    /// Tries what can only be known by trying, as far as it was not tried before. Returns whether the models can do
    /// more than was known.
    pub async fn try_abilities(&self, now_ms: u64) -> bool {
        let due = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.trials.due(state.kind, &state.models, now_ms)
        };
        let mut has_news = false;
        for (model, trial) in due {
            let verdict = self.hold(&model, trial).await;
            tracing::debug!(
                url = self.name,
                model = model.name,
                ?trial,
                ?verdict,
                "upstream tried"
            );
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            has_news |= state.trials.note(&model.id, trial, verdict, now_ms);
        }
        has_news
    }

    async fn hold(&self, model: &UpstreamModel, trial: Trial) -> Verdict {
        match trial {
            Trial::Tools => match self.ask(model, trials::tools_body()).await {
                Ok(_) => Verdict::Can,
                Err(verdict) => verdict,
            },
            Trial::Continuation => {
                for case in continuation::CASES {
                    match self.ask(model, case.body()).await {
                        Ok(chunks) if case.is_continued_by(&chunks) => {}
                        Ok(_) => return Verdict::Cannot,
                        Err(verdict) => return verdict,
                    }
                }
                Verdict::Can
            }
        }
    }

    /// Asks one question of a trial in the way of a job, and gives the chunks of the answer.
    async fn ask(&self, model: &UpstreamModel, body: Value) -> Result<Vec<Value>, Verdict> {
        let request = EngineRequest {
            request_id: "trial".to_owned(),
            kind: JobKind::ChatCompletions,
            model: model.name.clone(),
            body: RequestBody::Json(body),
            trace_parent: None,
        };
        let (sender, mut receiver) = mpsc::channel(TRIAL_QUEUE_CHUNKS);
        let pieces = Pieces::new(sender);
        let run = async {
            let result = self.job(model, &request).run(&pieces).await;
            drop(pieces);
            result
        };
        let read = async {
            let mut chunks = Vec::new();
            while let Some(piece) = receiver.recv().await {
                chunks.push(serde_json::from_slice(&piece.message).unwrap_or_default());
            }
            chunks
        };
        let both = async { tokio::join!(run, read) };
        match tokio::time::timeout(TRIAL_TIMEOUT, both).await {
            Ok((Ok(_), chunks)) => Ok(chunks),
            Ok((Err(error), _)) => Err(Verdict::of_refusal(error.status)),
            Err(_) => Err(Verdict::Unknown),
        }
    }

    fn job<'a>(&'a self, model: &'a UpstreamModel, request: &'a EngineRequest) -> UpstreamJob<'a> {
        UpstreamJob {
            client: &self.client,
            base: &self.base,
            software: self.kind(),
            model,
            request,
        }
    }

    fn model(&self, request: &EngineRequest) -> Result<Arc<UpstreamModel>, EngineError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let asked = |model: &&Arc<UpstreamModel>| model.serves(request.kind) && model.name == request.model;
        let gone = || EngineError {
            status: 404,
            code: "model_not_found".to_owned(),
            message: format!(
                "the provider's server no longer has the model '{}'",
                request.model
            ),
            param: Some("model".to_owned()),
        };
        state.models.iter().find(asked).cloned().ok_or_else(gone)
    }
}

#[async_trait]
impl Engine for UpstreamEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn models(&self) -> Vec<EngineModel> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let offers = state.models.iter().flat_map(|model| {
            let tried = state.trials.seen(&model.id);
            let kinds = model.kinds.iter();
            kinds.map(move |kind| model.offer(*kind, &tried))
        });
        offers.collect()
    }

    async fn run(
        &self,
        request: EngineRequest,
        output: mpsc::Sender<EngineOutput>,
        cancel: CancellationToken,
    ) -> Result<Usage, EngineError> {
        let pieces = Pieces::new(output);
        let model = self.model(&request)?;
        let job = self.job(&model, &request);
        // Dropping the request closes its connection, which is how an upstream hears that nobody listens any more.
        tokio::select! {
            result = job.run(&pieces) => result,
            () = cancel.cancelled() => Ok(pieces.used()),
            () = pieces.closed() => Ok(pieces.used()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_elsewhere_is_not_set_up() {
        let elsewhere = Url::parse("http://169.254.169.254/").unwrap();
        let error = UpstreamEngine::new(elsewhere, &AllowedHosts::default()).unwrap_err();
        assert!(error.to_string().contains("allowed_upstream_hosts"), "{error}");
    }
}
