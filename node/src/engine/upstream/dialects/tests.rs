use serde_json::json;

use super::super::models::{entries, kind_of};
use super::*;

fn entry(model: Value) -> ModelEntry {
    entries(&json!({"object": "list", "data": [model]}))
        .unwrap()
        .remove(0)
}

fn has(model: &UpstreamModel, capability: Capability) -> bool {
    model.capabilities.contains(&capability)
}

const CHAT: [JobKind; 2] = [JobKind::ChatCompletions, JobKind::Completions];

fn kinds(model: &UpstreamModel) -> Vec<JobKind> {
    model.kinds.iter().copied().collect()
}

#[test]
fn vllm_tells_its_context_length_and_its_endpoints() {
    let told = entry(json!({"id": "Qwen/Qwen3-8B", "owned_by": "vllm", "max_model_len": 32_768}));
    assert_eq!(kind_of(std::slice::from_ref(&told)), Some(UpstreamKind::Vllm));
    let model = vllm(&told, &BTreeSet::from(CHAT));
    assert_eq!(
        (model.context_length, model.name.as_str()),
        (32_768, "Qwen/Qwen3-8B")
    );
    assert_eq!(kinds(&model), CHAT);
    assert!(has(&model, Capability::ForcedTools) && !has(&model, Capability::Tools));
    assert!(!has(&model, Capability::ImageInput) && !has(&model, Capability::Passthrough));
    let speech = BTreeSet::from([JobKind::AudioTranscriptions]);
    assert_eq!(
        kinds(&vllm(&entry(json!({"id": "a"})), &speech)),
        [JobKind::AudioTranscriptions]
    );
    for unknown in [json!({"id": "a"}), json!({"id": "a", "max_model_len": 0})] {
        assert_eq!(vllm(&entry(unknown), &speech).context_length, CONTEXT_LENGTH);
    }
}

#[test]
fn sglang_tells_what_its_model_is_and_how_it_was_started() {
    let told = entry(json!({"id": "m", "owned_by": "sglang", "max_model_len": 8_192}));
    assert_eq!(kind_of(std::slice::from_ref(&told)), Some(UpstreamKind::SgLang));
    let model =
        json!({"is_generation": true, "has_image_understanding": true, "has_audio_understanding": false});
    let server = json!({"tool_call_parser": "qwen25", "enable_deterministic_inference": true});
    let able = sglang(&told, Some(&model), Some(&server));
    assert_eq!((able.context_length, kinds(&able)), (8_192, CHAT.to_vec()));
    for capability in [Capability::Tools, Capability::Seed, Capability::ImageInput] {
        assert!(has(&able, capability), "{capability:?}");
    }
    assert!(!has(&able, Capability::AudioInput));
    let bare = json!({"tool_call_parser": null});
    let plain = sglang(&told, None, Some(&bare));
    assert!(!has(&plain, Capability::Tools) && !has(&plain, Capability::Seed));
    let pooling = sglang(&told, Some(&json!({"is_generation": false})), None);
    assert_eq!(kinds(&pooling), [JobKind::Embeddings]);
}

#[test]
fn llama_cpp_has_room_for_what_it_says_and_takes_what_it_says() {
    let told = entry(json!({
        "id": "/home/me/qwen3-8b-q4.gguf", "owned_by": "llamacpp", "meta": {"n_ctx_train": 40_960},
    }));
    assert_eq!(kind_of(std::slice::from_ref(&told)), Some(UpstreamKind::LlamaCpp));
    let props = json!({"default_generation_settings": {"n_ctx": 8_192}, "modalities": {"vision": true, "audio": false}});
    let model = llama_cpp(&told, Some(&props));
    assert_eq!(
        (model.name.as_str(), model.context_length),
        ("qwen3-8b-q4", 8_192)
    );
    assert!(has(&model, Capability::ImageInput) && !has(&model, Capability::AudioInput));
    assert!(!has(&model, Capability::ForcedTools) && model.is_loaded);
    assert_eq!(llama_cpp(&told, None).context_length, CONTEXT_LENGTH);
    let routed = entry(json!({
        "id": "m", "owned_by": "llamacpp", "status": {"value": "unloaded"},
        "architecture": {"input_modalities": ["text", "audio"]},
    }));
    let model = llama_cpp(&routed, None);
    assert!(has(&model, Capability::AudioInput) && !model.is_loaded);
}

#[test]
fn lm_studio_tells_kind_quantization_room_and_abilities() {
    let answer = json!({"data": [
        {"id": "a", "type": "vlm", "quantization": "Q4_K_M", "max_context_length": 32_768, "state": "loaded",
         "loaded_context_length": 8_000, "capabilities": ["tool_use"]},
        {"id": "b", "type": "embeddings", "max_context_length": 512, "state": "not-loaded"},
    ]});
    let chat = lm_studio(&entry(json!({"id": "a"})), &answer);
    assert_eq!(
        (kinds(&chat), chat.context_length, chat.quantization.as_str()),
        (CHAT.to_vec(), 8_000, "q4_k_m")
    );
    assert!(has(&chat, Capability::Tools) && has(&chat, Capability::ImageInput) && chat.is_loaded);
    let embeddings = lm_studio(&entry(json!({"id": "b"})), &answer);
    assert_eq!(
        (
            kinds(&embeddings),
            embeddings.context_length,
            embeddings.is_loaded
        ),
        (vec![JobKind::Embeddings], 512, false)
    );
    let unknown = lm_studio(&entry(json!({"id": "c"})), &answer);
    assert_eq!(unknown.context_length, CONTEXT_LENGTH);
    assert!(!has(&unknown, Capability::Tools));
}

fn shown(parameters: &str, capabilities: Value) -> Value {
    json!({
        "parameters": parameters,
        "details": {"quantization_level": "Q4_K_M"},
        "model_info": {"general.architecture": "llama", "llama.context_length": 131_072},
        "capabilities": capabilities,
    })
}

#[test]
fn ollama_has_room_for_its_setting_not_for_what_the_model_was_trained_for() {
    let llama = entry(json!({"id": "llama3.2:3b", "owned_by": "library"}));
    let context = |shown: Option<&Value>, running: Option<&Value>| {
        let server = OllamaServer {
            running,
            version: None,
        };
        ollama(&llama, shown, server).context_length
    };
    let plain = shown("stop \"<|eot_id|>\"", json!(["completion", "tools"]));
    assert_eq!(context(Some(&plain), None), CONTEXT_LENGTH);
    let set = shown(
        "num_ctx                        16384\nstop x",
        json!(["completion"]),
    );
    assert_eq!(context(Some(&set), None), 16_384);
    let running = json!({"models": [{"name": "llama3.2:3b", "context_length": 65_536}]});
    assert_eq!(context(Some(&set), Some(&running)), 65_536);
    assert_eq!(context(None, None), CONTEXT_LENGTH);
}

#[test]
fn ollama_tells_what_its_models_can_do() {
    let llama = entry(json!({"id": "llama3.2:3b", "owned_by": "library"}));
    let model = |words: Value, version: &str| {
        let (shown, version) = (shown("", words), json!({"version": version}));
        let server = OllamaServer {
            running: None,
            version: Some(&version),
        };
        ollama(&llama, Some(&shown), server)
    };
    let able = model(json!(["completion", "tools", "vision"]), "0.40.12");
    assert_eq!(
        (kinds(&able), able.quantization.as_str()),
        (CHAT.to_vec(), "q4_k_m")
    );
    for capability in [Capability::Tools, Capability::ImageInput, Capability::Logprobs] {
        assert!(has(&able, capability), "{capability:?}");
    }
    assert!(!has(&able, Capability::ForcedTools) && !able.is_loaded);
    let plain = model(json!(["completion"]), "0.12.10");
    assert!(!has(&plain, Capability::Tools) && !has(&plain, Capability::Logprobs));
    assert!(has(
        &model(json!(["completion"]), "0.12.11-rc1"),
        Capability::Logprobs
    ));
    assert_eq!(kinds(&model(json!(["embedding"]), "")), [JobKind::Embeddings]);
    assert_eq!(kinds(&model(json!(["image"]), "")), [JobKind::ImageGenerations]);
}

#[test]
fn other_servers_tell_tasks_and_completions_only_where_they_are_listed() {
    let whisper = entry(json!({"id": "m", "task": "automatic-speech-recognition"}));
    assert_eq!(
        kinds(&other(&whisper, &BTreeSet::from(CHAT))),
        [JobKind::AudioTranscriptions]
    );
    let chat = entry(json!({"id": "m", "max_model_len": 100}));
    assert_eq!(kinds(&other(&chat, &BTreeSet::new())), [JobKind::ChatCompletions]);
    let both = other(&chat, &BTreeSet::from(CHAT));
    assert_eq!((kinds(&both), both.context_length), (CHAT.to_vec(), 100));
    assert!(has(&both, Capability::Passthrough));
}
