//! The models of an upstream: what `/v1/models` says about them, and what becomes of that on offer.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use serde_json::Value;

use super::capabilities;
use crate::engine::EngineModel;
use crate::settings::UpstreamModelSetting;

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
    /// SGLang.
    SgLang,
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
            Self::SgLang => "SGLang",
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
    /// The name on offer.
    pub(super) name: String,
    /// How its weights are stored; empty where unknown.
    pub(super) quantization: String,
    /// Most tokens of prompt and answer together.
    pub(super) context_length: u32,
    /// The kinds of jobs it serves.
    pub(super) kinds: BTreeSet<JobKind>,
    /// What is known about it, whichever kind it concerns.
    pub(super) capabilities: BTreeSet<Capability>,
    /// What its owner does not want to be offered, whatever is known.
    pub(super) refused: BTreeSet<Capability>,
    /// Whether it answers without being loaded first, as far as its server says.
    pub(super) is_loaded: bool,
}

impl UpstreamModel {
    /// A model of which the server's own words are still to come.
    pub(super) fn new(
        entry: &ModelEntry,
        software: UpstreamKind,
        kinds: BTreeSet<JobKind>,
        context_length: Option<u32>,
    ) -> Self {
        Self {
            id: entry.id.clone(),
            name: public_name(&entry.id),
            quantization: String::new(),
            context_length: context_length
                .filter(|length| *length > 0)
                .unwrap_or(CONTEXT_LENGTH),
            kinds,
            capabilities: capabilities::of_software(software).iter().copied().collect(),
            refused: BTreeSet::new(),
            is_loaded: true,
        }
    }

    /// The same, with a capability where it has it.
    pub(super) fn with(mut self, capability: Capability, has_it: bool) -> Self {
        if has_it {
            self.capabilities.insert(capability);
        }
        self
    }

    /// The same, as its owner wants it.
    pub(super) fn adjusted(mut self, setting: &UpstreamModelSetting) -> Self {
        if let Some(kinds) = &setting.kinds {
            self.kinds.clone_from(kinds);
        }
        self.capabilities.extend(&setting.added);
        self.refused.extend(&setting.removed);
        self
    }

    /// Whether it serves a kind of job.
    pub(super) fn serves(&self, kind: JobKind) -> bool {
        self.kinds.contains(&kind)
    }

    /// What is offered for a kind of job, with what was found out by trying.
    pub(super) fn offer(&self, kind: JobKind, tried: &BTreeSet<Capability>) -> EngineModel {
        let known = self.capabilities.union(tried);
        let known = known
            .copied()
            .filter(|known| !self.refused.contains(known))
            .collect();
        EngineModel {
            name: self.name.clone(),
            kind,
            weights_digest: None,
            quantization: self.quantization.clone(),
            context_length: self.context_length,
            capabilities: capabilities::of_offer(&known, kind),
        }
    }
}

/// What `/v1/models` says about one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ModelEntry {
    pub(super) id: String,
    pub(super) owner: String,
    /// Its task in the words of the Hugging Face hub.
    pub(super) task: Option<String>,
    pub(super) max_model_len: Option<u32>,
    pub(super) trained_context: Option<u32>,
    /// What it takes besides text, where the server says.
    pub(super) input_modalities: Vec<String>,
    /// Whether the server says that it has to be loaded first.
    pub(super) is_unloaded: bool,
}

impl ModelEntry {
    fn read(model: &Value) -> Option<Self> {
        let id = model.get("id")?.as_str().filter(|id| !id.is_empty())?;
        let text = |pointer: &str| model.pointer(pointer).and_then(Value::as_str);
        let modalities = model.pointer("/architecture/input_modalities");
        Some(Self {
            id: id.to_owned(),
            owner: text("/owned_by").unwrap_or_default().to_owned(),
            task: text("/task").map(str::to_owned),
            max_model_len: model.get("max_model_len").and_then(length),
            trained_context: model.pointer("/meta/n_ctx_train").and_then(length),
            input_modalities: words(modalities),
            is_unloaded: text("/status/value").is_some_and(|status| status != "loaded"),
        })
    }
}

/// The texts of a list.
pub(super) fn words(list: Option<&Value>) -> Vec<String> {
    let items = list.and_then(Value::as_array).into_iter().flatten();
    items
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// The models of `/v1/models`; `None` where this is no such answer.
pub(super) fn entries(answer: &Value) -> Option<Vec<ModelEntry>> {
    let data = answer.get("data")?;
    // Ollama without models says null.
    let models = data
        .as_array()
        .map(Vec::as_slice)
        .or_else(|| data.is_null().then_some(&[][..]))?;
    let models = models
        .iter()
        .filter_map(ModelEntry::read)
        .filter(|model| model.owner != GRISTMILL_OWNER);
    Some(models.take(MODELS_MAX).collect())
}

/// Which server says this on `/v1/models`; `None` where that does not show.
pub(super) fn kind_of(entries: &[ModelEntry]) -> Option<UpstreamKind> {
    match entries.first()?.owner.as_str() {
        "vllm" => Some(UpstreamKind::Vllm),
        "sglang" => Some(UpstreamKind::SgLang),
        "llamacpp" => Some(UpstreamKind::LlamaCpp),
        _ => None,
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

pub(super) fn length(value: &Value) -> Option<u32> {
    Some(u32::try_from(value.as_u64()?).unwrap_or(u32::MAX))
}

/// The models without two of one name.
pub(super) fn without_repetitions(models: impl IntoIterator<Item = UpstreamModel>) -> Vec<UpstreamModel> {
    let mut by_name = BTreeMap::new();
    for model in models {
        by_name.entry(model.name.clone()).or_insert(model);
    }
    by_name.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain(id: &str) -> UpstreamModel {
        let entry = entries(&json!({"data": [{"id": id}]})).unwrap().remove(0);
        let kinds = BTreeSet::from([JobKind::ChatCompletions, JobKind::Completions]);
        UpstreamModel::new(&entry, UpstreamKind::Other, kinds, None)
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
    fn two_models_of_one_public_name_are_one_and_paths_stay_at_home() {
        let models = ["/a/m.gguf", "/b/m.gguf"].map(plain);
        let models = without_repetitions(models);
        assert_eq!((models.len(), models[0].name.as_str()), (1, "m"));
        assert_eq!(models[0].id, "/a/m.gguf");
    }

    #[test]
    fn the_owner_has_the_last_word() {
        let setting = UpstreamModelSetting {
            kinds: Some(BTreeSet::from([JobKind::AudioSpeech, JobKind::ChatCompletions])),
            added: BTreeSet::from([Capability::Tools, Capability::ImageInput]),
            removed: BTreeSet::from([Capability::Passthrough, Capability::ImageInput]),
        };
        let model = plain("m").adjusted(&setting);
        assert!(model.serves(JobKind::AudioSpeech) && !model.serves(JobKind::Completions));
        let tried = BTreeSet::from([Capability::Continuation]);
        assert_eq!(
            model.offer(JobKind::ChatCompletions, &tried).capabilities,
            [Capability::Tools, Capability::Continuation]
        );
    }
}
