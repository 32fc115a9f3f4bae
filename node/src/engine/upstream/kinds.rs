//! What a model is for: as its server says, or as its name does.

use std::collections::BTreeSet;

use gristmill_protocol::job::JobKind;
use serde_json::Value;

/// Every kind of job there is.
const ALL: [JobKind; 7] = [
    JobKind::ChatCompletions,
    JobKind::Completions,
    JobKind::Embeddings,
    JobKind::AudioTranscriptions,
    JobKind::AudioSpeech,
    JobKind::ImageGenerations,
    JobKind::Rerank,
];

/// Parts of names that tell what a model is for, the more telling ones first: rerankers are named after the embedding
/// models beside them.
const MARKS: [(&str, JobKind); 16] = [
    ("rerank", JobKind::Rerank),
    ("whisper", JobKind::AudioTranscriptions),
    ("parakeet", JobKind::AudioTranscriptions),
    ("-asr", JobKind::AudioTranscriptions),
    ("kokoro", JobKind::AudioSpeech),
    ("piper", JobKind::AudioSpeech),
    ("tts-", JobKind::AudioSpeech),
    ("-tts", JobKind::AudioSpeech),
    ("stable-diffusion", JobKind::ImageGenerations),
    ("sdxl", JobKind::ImageGenerations),
    ("flux.", JobKind::ImageGenerations),
    ("embed", JobKind::Embeddings),
    ("bge-", JobKind::Embeddings),
    ("e5-", JobKind::Embeddings),
    ("gte-", JobKind::Embeddings),
    ("minilm", JobKind::Embeddings),
];

/// The kind that a model's task stands for, in the words of the Hugging Face hub
/// (<https://huggingface.co/tasks>), which several servers put into `/v1/models`.
pub(super) fn by_task(task: &str) -> Option<JobKind> {
    match task {
        "text-generation" | "image-text-to-text" | "any-to-any" => Some(JobKind::ChatCompletions),
        "feature-extraction" | "sentence-similarity" => Some(JobKind::Embeddings),
        "automatic-speech-recognition" => Some(JobKind::AudioTranscriptions),
        "text-to-speech" | "text-to-audio" => Some(JobKind::AudioSpeech),
        "text-to-image" => Some(JobKind::ImageGenerations),
        "text-ranking" => Some(JobKind::Rerank),
        _ => None,
    }
}

/// The kind that a model's name stands for. Most servers don't say what a model is for.
pub(super) fn by_name(id: &str) -> JobKind {
    let id = id.to_lowercase();
    let marked = MARKS.iter().find(|(mark, _)| id.contains(mark));
    marked.map_or(JobKind::ChatCompletions, |(_, kind)| *kind)
}

/// A kind, and with chats the plain completions that the same model can write.
pub(super) fn with_completions(kind: JobKind) -> BTreeSet<JobKind> {
    let completions = (kind == JobKind::ChatCompletions).then_some(JobKind::Completions);
    completions.into_iter().chain([kind]).collect()
}

/// The kinds whose endpoints a server's own OpenAPI document lists.
pub(super) fn endpoints(openapi: &Value) -> BTreeSet<JobKind> {
    let has = |kind: &JobKind| {
        let path = format!("/v1{}", kind.path());
        openapi.get("paths").and_then(|paths| paths.get(path)).is_some()
    };
    ALL.into_iter().filter(has).collect()
}

/// The kinds of the model that vLLM serves. It lists the endpoints that its model can serve, and no others; older
/// versions always listed all of them.
pub(super) fn of_vllm(id: &str, endpoints: &BTreeSet<JobKind>) -> BTreeSet<JobKind> {
    let writes = endpoints.contains(&JobKind::ChatCompletions);
    let pools = endpoints.contains(&JobKind::Embeddings) || endpoints.contains(&JobKind::Rerank);
    if endpoints.is_empty() || (writes && pools) {
        with_completions(by_name(id))
    } else {
        endpoints.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_guessed_from_names_where_nothing_says() {
        for (id, kind) in [
            ("nomic-embed-text", JobKind::Embeddings),
            ("BAAI/bge-m3", JobKind::Embeddings),
            ("BAAI/bge-reranker-v2-m3", JobKind::Rerank),
            ("all-minilm:l6", JobKind::Embeddings),
            ("Systran/faster-whisper-large-v3", JobKind::AudioTranscriptions),
            ("hexgrad/Kokoro-82M", JobKind::AudioSpeech),
            ("black-forest-labs/FLUX.1-schnell", JobKind::ImageGenerations),
            ("qwen3:8b", JobKind::ChatCompletions),
        ] {
            assert_eq!(by_name(id), kind, "{id}");
        }
        assert_eq!(by_task("text-ranking"), Some(JobKind::Rerank));
        assert_eq!(by_task("text-classification"), None);
    }

    #[test]
    fn vllm_serves_what_it_lists_unless_it_lists_everything() {
        let listed = |paths: &[&str]| {
            let paths: serde_json::Map<_, _> =
                paths.iter().map(|path| ((*path).to_owned(), json!({}))).collect();
            of_vllm("some-whisper", &endpoints(&json!({"paths": paths})))
        };
        let chat = ["/v1/chat/completions", "/v1/completions", "/health"];
        assert_eq!(
            listed(&chat),
            BTreeSet::from([JobKind::ChatCompletions, JobKind::Completions])
        );
        assert_eq!(
            listed(&["/v1/rerank", "/rerank"]),
            BTreeSet::from([JobKind::Rerank])
        );
        let whisper = BTreeSet::from([JobKind::AudioTranscriptions]);
        assert_eq!(
            listed(&["/v1/chat/completions", "/v1/embeddings", "/v1/rerank"]),
            whisper
        );
        assert_eq!(listed(&[]), whisper);
    }
}
