//! Asks a server which one it is and what models it has.

use std::time::Duration;

use futures::future::join_all;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use thiserror::Error;

use super::dialects::{self, OllamaServer};
use super::kinds;
use super::models::{self, ModelEntry, UpstreamKind, UpstreamModel};

/// Longest time of one question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes of an answer: Ollama's `/api/show` includes templates and licences.
const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Why there is no upstream.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum ProbeError {
    /// Nobody listens there.
    #[error("nothing answers at {url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// What the system says.
        reason: String,
    },
    /// Something else listens there.
    #[error("{url} is no OpenAI-compatible server: its /v1/models is no list of models")]
    NotAnUpstream {
        /// Where.
        url: String,
    },
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: UpstreamKind,
    pub(super) models: Vec<UpstreamModel>,
}

/// Asks the server at `base`.
pub(super) async fn probe(client: &Client, base: &Url) -> Result<Found, ProbeError> {
    let answer = match ask(client, endpoint(base, "v1/models"), None).await {
        Ok(answer) => answer,
        Err(Some(reason)) => {
            return Err(ProbeError::Unreachable {
                url: base.to_string(),
                reason,
            });
        }
        Err(None) => {
            return Err(ProbeError::NotAnUpstream {
                url: base.to_string(),
            });
        }
    };
    let entries = models::entries(&answer).ok_or_else(|| ProbeError::NotAnUpstream {
        url: base.to_string(),
    })?;
    let kind = match models::kind_of(&entries) {
        Some(kind) => kind,
        None => identify(client, base).await,
    };
    let models = describe(client, base, kind, &entries).await;
    Ok(Found {
        kind,
        models: models::without_repetitions(models),
    })
}

/// Ollama and LM Studio show by endpoints of their own.
async fn identify(client: &Client, base: &Url) -> UpstreamKind {
    let has = async |path: &str, field: &str| {
        ask(client, endpoint(base, path), None)
            .await
            .is_ok_and(|answer| answer.get(field).is_some())
    };
    if has("api/tags", "models").await {
        UpstreamKind::Ollama
    } else if has("api/v0/models", "data").await {
        UpstreamKind::LmStudio
    } else {
        UpstreamKind::Other
    }
}

async fn describe(
    client: &Client,
    base: &Url,
    kind: UpstreamKind,
    entries: &[ModelEntry],
) -> Vec<UpstreamModel> {
    let get = async |path: &str| ask(client, endpoint(base, path), None).await.ok();
    let listed = async || kinds::endpoints(&get("openapi.json").await.unwrap_or_default());
    let each = entries.iter();
    match kind {
        UpstreamKind::Vllm => {
            let listed = listed().await;
            each.map(|entry| dialects::vllm(entry, &listed)).collect()
        }
        UpstreamKind::Other => {
            let listed = listed().await;
            each.map(|entry| dialects::other(entry, &listed)).collect()
        }
        UpstreamKind::SgLang => {
            let (model, server) = (get("get_model_info").await, get("get_server_info").await);
            each.map(|entry| dialects::sglang(entry, model.as_ref(), server.as_ref()))
                .collect()
        }
        UpstreamKind::LlamaCpp => {
            let props = get("props").await;
            each.map(|entry| dialects::llama_cpp(entry, props.as_ref()))
                .collect()
        }
        UpstreamKind::LmStudio => {
            let known = get("api/v0/models").await.unwrap_or_default();
            each.map(|entry| dialects::lm_studio(entry, &known)).collect()
        }
        UpstreamKind::Ollama => {
            let (running, version) = (get("api/ps").await, get("api/version").await);
            let server = OllamaServer {
                running: running.as_ref(),
                version: version.as_ref(),
            };
            let shown = entries.iter().map(|entry| {
                let question = json!({"model": entry.id});
                async move { ask(client, endpoint(base, "api/show"), Some(question)).await.ok() }
            });
            let shown = join_all(shown).await;
            each.zip(&shown)
                .map(|(entry, shown)| dialects::ollama(entry, shown.as_ref(), server))
                .collect()
        }
    }
}

/// The address of an endpoint below an upstream's own, which may or may not end in `/v1` already.
pub(super) fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let prefix = base.path().trim_end_matches('/');
    let prefix = prefix.strip_suffix("/v1").unwrap_or(prefix);
    url.set_path(&format!("{prefix}/{path}"));
    url
}

/// One question; the error says why nobody answered, or nothing where the answer is no JSON of success.
async fn ask(client: &Client, url: Url, question: Option<Value>) -> Result<Value, Option<String>> {
    let request = match question {
        Some(question) => client.post(url).json(&question),
        None => client.get(url),
    };
    let response = request
        .timeout(QUESTION_TIMEOUT)
        .send()
        .await
        .map_err(|error| Some(innermost(&error)))?;
    if !response.status().is_success() {
        return Err(None);
    }
    let body = read_body(response, ANSWER_MAX_BYTES).await.map_err(|_| None)?;
    serde_json::from_slice(&body).map_err(|_| None)
}

/// Why a body was not read.
#[derive(Debug, Error)]
pub(super) enum ReadBodyError {
    #[error("it has more than {0} bytes")]
    TooLarge(usize),
    #[error("it broke off")]
    Broken,
}

/// Reads at most `most` bytes, however many there are.
pub(super) async fn read_body(
    mut response: reqwest::Response,
    most: usize,
) -> Result<Vec<u8>, ReadBodyError> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(part)) if body.len() + part.len() > most => return Err(ReadBodyError::TooLarge(most)),
            Ok(Some(part)) => body.extend_from_slice(&part),
            Ok(None) => return Ok(body),
            Err(_) => return Err(ReadBodyError::Broken),
        }
    }
}

/// The innermost cause, which says more than reqwest's own "error sending request".
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_found_whether_or_not_the_address_ends_in_v1() {
        for base in ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"] {
            let url = endpoint(&Url::parse(base).unwrap(), "v1/models");
            assert_eq!(url.as_str(), "http://h:1/v1/models", "{base}");
        }
        let url = endpoint(&Url::parse("http://h/proxy/v1").unwrap(), "api/tags");
        assert_eq!(url.as_str(), "http://h/proxy/api/tags");
    }
}
