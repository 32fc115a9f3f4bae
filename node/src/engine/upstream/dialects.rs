//! What an upstream says about its models, in each server's own dialect.

use std::collections::BTreeSet;

use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use serde_json::Value;

use super::capabilities;
use super::kinds;
use super::models::{CONTEXT_LENGTH, ModelEntry, UpstreamKind, UpstreamModel, length, words};

/// The first version of Ollama whose OpenAI endpoints give logprobs.
const OLLAMA_LOGPROBS: [u64; 3] = [0, 12, 11];

/// A model of a server of which little more than `/v1/models` is known. Whether it writes plain completions too shows
/// in its OpenAPI document, where it has one.
pub(super) fn other(entry: &ModelEntry, endpoints: &BTreeSet<JobKind>) -> UpstreamModel {
    let task = entry.task.as_deref().and_then(kinds::by_task);
    let kind = task.unwrap_or_else(|| kinds::by_name(&entry.id));
    let mut kinds = kinds::with_completions(kind);
    if !endpoints.contains(&JobKind::Completions) {
        kinds.remove(&JobKind::Completions);
    }
    UpstreamModel::new(entry, UpstreamKind::Other, kinds, entry.max_model_len)
}

/// A model of vLLM, whose OpenAPI document lists the endpoints that the model can serve.
pub(super) fn vllm(entry: &ModelEntry, endpoints: &BTreeSet<JobKind>) -> UpstreamModel {
    let kinds = kinds::of_vllm(&entry.id, endpoints);
    UpstreamModel::new(entry, UpstreamKind::Vllm, kinds, entry.max_model_len)
        .with(Capability::ImageInput, capabilities::sees(&entry.id))
}

/// A model of SGLang, with what `/get_model_info` says about it and `/get_server_info` about how it was started.
pub(super) fn sglang(entry: &ModelEntry, model: Option<&Value>, server: Option<&Value>) -> UpstreamModel {
    let says = |name: &str| model.and_then(|model| model.get(name)).and_then(Value::as_bool);
    let kind = match says("is_generation") {
        Some(true) => JobKind::ChatCompletions,
        Some(false) if kinds::by_name(&entry.id) == JobKind::Rerank => JobKind::Rerank,
        Some(false) => JobKind::Embeddings,
        None => kinds::by_name(&entry.id),
    };
    let set = |name: &str| server.and_then(|server| server.get(name));
    let parses_tools = set("tool_call_parser").is_some_and(Value::is_string);
    let is_deterministic = set("enable_deterministic_inference").and_then(Value::as_bool);
    let kinds = kinds::with_completions(kind);
    UpstreamModel::new(entry, UpstreamKind::SgLang, kinds, entry.max_model_len)
        .with(Capability::Tools, parses_tools)
        .with(Capability::Seed, is_deterministic == Some(true))
        .with(
            Capability::ImageInput,
            says("has_image_understanding") == Some(true),
        )
        .with(
            Capability::AudioInput,
            says("has_audio_understanding") == Some(true),
        )
}

/// A model of llama.cpp, with what `/props` says about the context it has room for and what it takes besides text.
pub(super) fn llama_cpp(entry: &ModelEntry, props: Option<&Value>) -> UpstreamModel {
    let said = |pointer: &str| props.and_then(|props| props.pointer(pointer));
    let room = said("/default_generation_settings/n_ctx").and_then(length);
    let context = match (room, entry.trained_context) {
        (Some(room), Some(trained)) => Some(room.min(trained)),
        (room, trained) => room.or(trained.map(|trained| trained.min(CONTEXT_LENGTH))),
    };
    let takes = |modality: &str, listed: &str| {
        let said = said(&format!("/modalities/{modality}")).and_then(Value::as_bool);
        said == Some(true) || entry.input_modalities.iter().any(|word| word == listed)
    };
    let kinds = kinds::with_completions(kinds::by_name(&entry.id));
    let mut model = UpstreamModel::new(entry, UpstreamKind::LlamaCpp, kinds, context)
        .with(Capability::ImageInput, takes("vision", "image"))
        .with(Capability::AudioInput, takes("audio", "audio"));
    model.is_loaded = !entry.is_unloaded;
    model
}

/// A model of LM Studio, with what `/api/v0/models` says about it.
pub(super) fn lm_studio(entry: &ModelEntry, answer: &Value) -> UpstreamModel {
    let models = answer.get("data").and_then(Value::as_array);
    let known = models
        .into_iter()
        .flatten()
        .find(|model| model.get("id").and_then(Value::as_str) == Some(&entry.id));
    let number = |name: &str| known.and_then(|known| known.get(name)).and_then(length);
    let text = |name: &str| {
        known
            .and_then(|known| known.get(name)?.as_str())
            .unwrap_or_default()
    };
    let kind = match text("type") {
        "embeddings" => JobKind::Embeddings,
        "" => kinds::by_name(&entry.id),
        _ => JobKind::ChatCompletions,
    };
    // A model that is not loaded yet gets room for less than it was trained for.
    let context = number("loaded_context_length")
        .or_else(|| number("max_context_length").map(|trained| trained.min(CONTEXT_LENGTH)));
    let abilities = words(known.and_then(|known| known.get("capabilities")));
    let mut model = UpstreamModel::new(
        entry,
        UpstreamKind::LmStudio,
        kinds::with_completions(kind),
        context,
    )
    .with(Capability::Tools, abilities.iter().any(|word| word == "tool_use"))
    .with(Capability::ImageInput, text("type") == "vlm");
    model.quantization = text("quantization").to_lowercase();
    model.is_loaded = text("state") != "not-loaded";
    model
}

/// What Ollama says about itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OllamaServer<'a> {
    /// `/api/ps`: what is loaded.
    pub(super) running: Option<&'a Value>,
    /// `/api/version`.
    pub(super) version: Option<&'a Value>,
}

impl OllamaServer<'_> {
    fn gives_logprobs(&self) -> bool {
        let version = self.version.and_then(|answer| answer.get("version")?.as_str());
        let Some(version) = version else { return false };
        let mut numbers = version
            .split(['.', '-', '+'])
            .map(|part| part.parse::<u64>().unwrap_or(0));
        [(); 3].map(|()| numbers.next().unwrap_or(0)) >= OLLAMA_LOGPROBS
    }

    fn loaded(&self, id: &str) -> Option<&Value> {
        let models = self.running?.get("models")?.as_array()?;
        models
            .iter()
            .find(|model| model.get("name").and_then(Value::as_str) == Some(id))
    }
}

/// A model of Ollama, with what `/api/show` says about it.
pub(super) fn ollama(entry: &ModelEntry, shown: Option<&Value>, server: OllamaServer<'_>) -> UpstreamModel {
    let text = |pointer: &str| {
        shown
            .and_then(|shown| shown.pointer(pointer)?.as_str())
            .unwrap_or_default()
    };
    let abilities = words(shown.and_then(|shown| shown.get("capabilities")));
    let can = |word: &str| abilities.iter().any(|ability| ability == word);
    let kind = match &abilities {
        _ if can("completion") => JobKind::ChatCompletions,
        _ if can("embedding") => JobKind::Embeddings,
        _ if can("image") => JobKind::ImageGenerations,
        _ => kinds::by_name(&entry.id),
    };
    let asked = text("/parameters").lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("num_ctx")).then(|| words.next()?.parse().ok())?
    });
    let loaded = server.loaded(&entry.id);
    let room = loaded.and_then(|model| length(model.get("context_length")?));
    let information = shown.and_then(|shown| shown.get("model_info")?.as_object());
    let trained = information
        .into_iter()
        .flatten()
        .find_map(|(name, value)| name.ends_with(".context_length").then(|| length(value))?);
    let context = match room.or(asked) {
        Some(room) => Some(room.min(trained.unwrap_or(u32::MAX))),
        None => Some(trained.unwrap_or(CONTEXT_LENGTH).min(CONTEXT_LENGTH)),
    };
    let mut model = UpstreamModel::new(
        entry,
        UpstreamKind::Ollama,
        kinds::with_completions(kind),
        context,
    )
    .with(Capability::Tools, can("tools"))
    .with(Capability::ImageInput, can("vision"))
    .with(Capability::Suffix, can("insert"))
    .with(Capability::Logprobs, server.gives_logprobs());
    model.quantization = text("/details/quantization_level").to_lowercase();
    model.is_loaded = loaded.is_some();
    model
}

#[cfg(test)]
mod tests;
