//! What an upstream says about its models, in each server's own dialect.

use std::collections::BTreeMap;

use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use serde_json::Value;

use crate::engine::EngineModel;

/// The context length of a model whose server does not tell it. Ollama's own default on most machines.
pub const CONTEXT_LENGTH: u32 = 4_096;
/// Most models taken from one upstream.
pub(super) const MODELS_MAX: usize = 32;
/// Who owns the models of a Gristmill proxy. A node that sold those would sell the market to itself.
const GRISTMILL_OWNER: &str = "gristmill";

/// Which server an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamKind {
    /// Ollama.
    Ollama,
    /// vLLM.
    Vllm,
    /// The server of llama.cpp.
    LlamaCpp,
    /// LM Studio.
    LmStudio,
    /// Any other OpenAI-compatible server.
    Other,
}

impl UpstreamKind {
    /// Its name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ollama => "Ollama",
            Self::Vllm => "vLLM",
            Self::LlamaCpp => "llama.cpp",
            Self::LmStudio => "LM Studio",
            Self::Other => "an OpenAI-compatible server",
        }
    }
}

/// A model of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UpstreamModel {
    /// What the upstream calls it.
    pub(super) id: String,
    /// What is offered.
    pub(super) offered: EngineModel,
}

/// What `/v1/models` says about one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelEntry {
    pub(super) id: String,
    owner: String,
    max_model_len: Option<u32>,
    trained_context: Option<u32>,
}

/// The models of `/v1/models`; `None` where this is no such answer.
pub(super) fn entries(answer: &Value) -> Option<Vec<ModelEntry>> {
    let read = |model: &Value| {
        let id = model.get("id")?.as_str().filter(|id| !id.is_empty())?;
        Some(ModelEntry {
            id: id.to_owned(),
            owner: model
                .get("owned_by")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            max_model_len: model.get("max_model_len").and_then(length),
            trained_context: model.pointer("/meta/n_ctx_train").and_then(length),
        })
    };
    let data = answer.get("data")?;
    // Ollama without models says null.
    let models = data
        .as_array()
        .map(Vec::as_slice)
        .or_else(|| data.is_null().then_some(&[][..]))?;
    let models = models
        .iter()
        .filter_map(read)
        .filter(|model| model.owner != GRISTMILL_OWNER);
    Some(models.take(MODELS_MAX).collect())
}

/// Which server says this on `/v1/models`; `None` where that does not show.
pub(super) fn kind_of(entries: &[ModelEntry]) -> Option<UpstreamKind> {
    let first = entries.first()?;
    match first.owner.as_str() {
        "vllm" => Some(UpstreamKind::Vllm),
        "llamacpp" => Some(UpstreamKind::LlamaCpp),
        _ if first.max_model_len.is_some() => Some(UpstreamKind::Vllm),
        _ => None,
    }
}

/// A model of which only `/v1/models` is known.
pub(super) fn plain(entry: &ModelEntry) -> UpstreamModel {
    let kind = kind_by_name(&entry.id);
    model(entry, kind, entry.max_model_len, String::new())
}

/// A model of llama.cpp, with what `/props` says about the context it has room for.
pub(super) fn llama_cpp(entry: &ModelEntry, props: Option<&Value>) -> UpstreamModel {
    let room = props
        .and_then(|props| props.pointer("/default_generation_settings/n_ctx"))
        .and_then(length);
    let context = match (room, entry.trained_context) {
        (Some(room), Some(trained)) => Some(room.min(trained)),
        (room, trained) => room.or(trained.map(|trained| trained.min(CONTEXT_LENGTH))),
    };
    model(entry, kind_by_name(&entry.id), context, String::new())
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
        "" => kind_by_name(&entry.id),
        _ => JobKind::ChatCompletions,
    };
    // A model that is not loaded yet gets room for less than it was trained for.
    let context = number("loaded_context_length")
        .or_else(|| number("max_context_length").map(|trained| trained.min(CONTEXT_LENGTH)));
    model(entry, kind, context, text("quantization").to_lowercase())
}

/// A model of Ollama, with what `/api/show` says about it and `/api/ps` about its loaded state.
pub(super) fn ollama(entry: &ModelEntry, shown: Option<&Value>, running: Option<&Value>) -> UpstreamModel {
    let text = |pointer: &str| {
        shown
            .and_then(|shown| shown.pointer(pointer)?.as_str())
            .unwrap_or_default()
    };
    let capabilities = shown.and_then(|shown| shown.get("capabilities")?.as_array());
    let kind = match capabilities {
        Some(words) if words.iter().any(|word| word == "completion") => JobKind::ChatCompletions,
        Some(words) if words.iter().any(|word| word == "embedding") => JobKind::Embeddings,
        _ => kind_by_name(&entry.id),
    };
    let asked = text("/parameters").lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("num_ctx")).then(|| words.next()?.parse().ok())?
    });
    let models = running.and_then(|running| running.get("models")?.as_array());
    let loaded = models
        .into_iter()
        .flatten()
        .find(|model| model.get("name").and_then(Value::as_str) == Some(&entry.id))
        .and_then(|model| length(model.get("context_length")?));
    let information = shown.and_then(|shown| shown.get("model_info")?.as_object());
    let trained = information
        .into_iter()
        .flatten()
        .find_map(|(name, value)| name.ends_with(".context_length").then(|| length(value))?);
    let context = match loaded.or(asked) {
        Some(room) => Some(room.min(trained.unwrap_or(u32::MAX))),
        None => Some(trained.unwrap_or(CONTEXT_LENGTH).min(CONTEXT_LENGTH)),
    };
    model(
        entry,
        kind,
        context,
        text("/details/quantization_level").to_lowercase(),
    )
}

fn model(entry: &ModelEntry, kind: JobKind, context: Option<u32>, quantization: String) -> UpstreamModel {
    UpstreamModel {
        id: entry.id.clone(),
        offered: EngineModel {
            name: public_name(&entry.id),
            kind,
            weights_digest: None,
            quantization,
            context_length: context.filter(|length| *length > 0).unwrap_or(CONTEXT_LENGTH),
            capabilities: vec![Capability::Passthrough],
        },
    }
}

/// The name on offer. llama.cpp names a model by the path of its file, which is the owner's own business.
fn public_name(id: &str) -> String {
    let is_path = id.starts_with(['/', '\\', '.', '~']) || id.contains(['\\']) || id.ends_with(".gguf");
    if !is_path {
        return id.to_owned();
    }
    let file = id.rsplit(['/', '\\']).next().unwrap_or(id);
    file.strip_suffix(".gguf").unwrap_or(file).to_owned()
}

/// Most servers don't say what a model is for; those for embeddings are named for it.
fn kind_by_name(id: &str) -> JobKind {
    let id = id.to_lowercase();
    let marks = ["embed", "bge-", "e5-", "gte-", "minilm"];
    if marks.iter().any(|mark| id.contains(mark)) {
        JobKind::Embeddings
    } else {
        JobKind::ChatCompletions
    }
}

fn length(value: &Value) -> Option<u32> {
    Some(u32::try_from(value.as_u64()?).unwrap_or(u32::MAX))
}

/// The offered models without two of one name and kind.
pub(super) fn without_repetitions(models: impl IntoIterator<Item = UpstreamModel>) -> Vec<UpstreamModel> {
    let mut by_name = BTreeMap::new();
    for model in models {
        by_name
            .entry((model.offered.kind, model.offered.name.clone()))
            .or_insert(model);
    }
    by_name.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(model: Value) -> ModelEntry {
        entries(&json!({"object": "list", "data": [model]}))
            .unwrap()
            .remove(0)
    }

    fn context(model: &UpstreamModel) -> u32 {
        model.offered.context_length
    }

    #[test]
    fn only_a_list_of_models_is_one() {
        for answer in [
            json!({}),
            json!([]),
            json!("x"),
            json!({"data": {}}),
            json!({"data": "x"}),
        ] {
            assert_eq!(entries(&answer), None, "{answer}");
        }
        assert_eq!(entries(&json!({"data": null})), Some(vec![]));
        let answer = json!({"data": [{"id": "a"}, {"id": ""}, {"name": "b"}, 7, {"id": "c", "owned_by": "gristmill"}]});
        assert_eq!(entries(&answer).unwrap().len(), 1);
        let many: Vec<_> = (0..40)
            .map(|number| json!({"id": format!("m{number}")}))
            .collect();
        assert_eq!(entries(&json!({"data": many})).unwrap().len(), MODELS_MAX);
    }

    #[test]
    fn vllm_tells_its_context_length() {
        let vllm = entry(json!({"id": "Qwen/Qwen3-8B", "owned_by": "vllm", "max_model_len": 32_768}));
        assert_eq!(kind_of(std::slice::from_ref(&vllm)), Some(UpstreamKind::Vllm));
        assert_eq!(
            (context(&plain(&vllm)), plain(&vllm).offered.name.as_str()),
            (32_768, "Qwen/Qwen3-8B")
        );
        assert_eq!(context(&plain(&entry(json!({"id": "a"})))), CONTEXT_LENGTH);
        assert_eq!(
            context(&plain(&entry(json!({"id": "a", "max_model_len": 0})))),
            CONTEXT_LENGTH
        );
    }

    #[test]
    fn llama_cpp_has_room_for_what_it_says_and_hides_no_path() {
        let llama = entry(
            json!({"id": "/home/me/qwen3-8b-q4.gguf", "owned_by": "llamacpp", "meta": {"n_ctx_train": 40_960}}),
        );
        assert_eq!(
            kind_of(std::slice::from_ref(&llama)),
            Some(UpstreamKind::LlamaCpp)
        );
        let props = json!({"default_generation_settings": {"n_ctx": 8_192}});
        let model = llama_cpp(&llama, Some(&props));
        assert_eq!(
            (model.id.as_str(), model.offered.name.as_str()),
            ("/home/me/qwen3-8b-q4.gguf", "qwen3-8b-q4")
        );
        assert_eq!(context(&model), 8_192);
        assert_eq!(context(&llama_cpp(&llama, None)), CONTEXT_LENGTH);
    }

    #[test]
    fn lm_studio_tells_kind_quantization_and_room() {
        let answer = json!({"data": [
            {"id": "a", "type": "llm", "quantization": "Q4_K_M", "max_context_length": 32_768, "loaded_context_length": 8_000},
            {"id": "b", "type": "embeddings", "max_context_length": 512},
        ]});
        let chat = lm_studio(&entry(json!({"id": "a"})), &answer).offered;
        assert_eq!(
            (chat.kind, chat.context_length, chat.quantization.as_str()),
            (JobKind::ChatCompletions, 8_000, "q4_k_m")
        );
        let embeddings = lm_studio(&entry(json!({"id": "b"})), &answer).offered;
        assert_eq!(
            (embeddings.kind, embeddings.context_length),
            (JobKind::Embeddings, 512)
        );
        assert_eq!(
            context(&lm_studio(&entry(json!({"id": "c"})), &answer)),
            CONTEXT_LENGTH
        );
    }

    #[test]
    fn ollama_has_room_for_its_setting_not_for_what_the_model_was_trained_for() {
        let llama = entry(json!({"id": "llama3.2:3b", "owned_by": "library"}));
        let shown = |parameters: &str, capabilities: Value| {
            json!({
                "parameters": parameters,
                "details": {"quantization_level": "Q4_K_M"},
                "model_info": {"general.architecture": "llama", "llama.context_length": 131_072},
                "capabilities": capabilities,
            })
        };
        let plain = shown("stop \"<|eot_id|>\"", json!(["completion", "tools"]));
        let model = ollama(&llama, Some(&plain), None);
        assert_eq!(
            (context(&model), model.offered.quantization.as_str()),
            (CONTEXT_LENGTH, "q4_k_m")
        );
        let set = shown(
            "num_ctx                        16384\nstop x",
            json!(["completion"]),
        );
        assert_eq!(context(&ollama(&llama, Some(&set), None)), 16_384);
        let running = json!({"models": [{"name": "llama3.2:3b", "context_length": 65_536}]});
        assert_eq!(context(&ollama(&llama, Some(&set), Some(&running))), 65_536);
        let embeddings = ollama(&llama, Some(&shown("", json!(["embedding"]))), None);
        assert_eq!(embeddings.offered.kind, JobKind::Embeddings);
        assert_eq!(context(&ollama(&llama, None, None)), CONTEXT_LENGTH);
    }

    #[test]
    fn kinds_are_guessed_from_names_where_nothing_says() {
        for (id, kind) in [
            ("nomic-embed-text", JobKind::Embeddings),
            ("BAAI/bge-m3", JobKind::Embeddings),
            ("all-minilm:l6", JobKind::Embeddings),
            ("qwen3:8b", JobKind::ChatCompletions),
        ] {
            assert_eq!(plain(&entry(json!({"id": id}))).offered.kind, kind, "{id}");
        }
    }

    #[test]
    fn two_models_of_one_public_name_are_one() {
        let models = ["/a/m.gguf", "/b/m.gguf"].map(|id| plain(&entry(json!({"id": id}))));
        assert_eq!(without_repetitions(models).len(), 1);
    }
}
