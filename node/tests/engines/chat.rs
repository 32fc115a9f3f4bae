//! Chat with tiny random models.

use std::sync::Arc;
use std::time::Duration;

use candle_core::DType;
use candle_core::quantized::GgmlDType;
use gristmill_node::engine::chat::ChatEngine;
use gristmill_node::engine::model_files::{LoadError, ModelFiles, ModelSource};
use gristmill_node::engine::{Engine, EngineOutput};
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use gristmill_protocol::usage::{Unit, Usage};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::asking::{self, ask, load_chat, question, tiny_chat};
use crate::tiny_models::{self, CONTEXT, Family, GgufOptions};

const SEED: u64 = 5;

#[tokio::test]
async fn every_format_of_a_model_gives_the_same_greedy_answer() {
    for family in Family::ALL {
        let folder = tempfile::tempdir().unwrap();
        tiny_models::write_folder(folder.path(), family, SEED, DType::F32, 1);
        let parts = tempfile::tempdir().unwrap();
        tiny_models::write_folder(parts.path(), family, SEED, DType::F32, 3);
        let beside = tempfile::tempdir().unwrap();
        let gguf = tiny_models::write_gguf(beside.path(), family, SEED, GgufOptions::default());
        let ask = async |engine: ChatEngine| {
            let request = question("What is a mill?", json!({"temperature": 0, "max_tokens": 12}));
            ask(&engine, request).await.unwrap().text
        };
        let expected = ask(load_chat(folder.path())).await;
        assert!(!expected.is_empty());
        assert_eq!(ask(load_chat(folder.path())).await, expected);
        assert_eq!(ask(load_chat(parts.path())).await, expected);
        assert_eq!(ask(load_chat(&gguf)).await, expected);
        // A folder that holds one GGUF file and no config.json is that file.
        assert_eq!(ask(load_chat(beside.path())).await, expected);
        let source = ModelSource::parse(folder.path().to_str().unwrap());
        assert_eq!(
            ask(ChatEngine::load(&source, Some(asking::MODEL)).await.unwrap()).await,
            expected
        );
    }
}

#[tokio::test]
async fn the_offer_says_what_the_files_are() {
    let folder = tempfile::tempdir().unwrap();
    tiny_models::write_folder(folder.path(), Family::Qwen2, SEED, DType::BF16, 2);
    let engine = ChatEngine::from_files(&ModelFiles::open(folder.path()).unwrap(), None).unwrap();
    let [model, raw] = &engine.models()[..] else {
        panic!("one model, for two kinds of jobs")
    };
    assert_eq!(model.name, folder.path().file_name().unwrap().to_str().unwrap());
    assert_eq!(
        (model.kind, model.quantization.as_str()),
        (JobKind::ChatCompletions, "bf16")
    );
    assert_eq!(model.context_length as usize, CONTEXT);
    let of_all = [
        Capability::Logprobs,
        Capability::ManyChoices,
        Capability::LogitBias,
        Capability::Seed,
        Capability::Continuation,
    ];
    // Its template, ChatML, shows no tools.
    let of_chat = [Capability::StructuredOutput, Capability::StrictSchema];
    assert_eq!(model.capabilities, [&of_all[..], &of_chat].concat());
    // It has no tokens that lay out a gap, so there is no suffix.
    let of_text = [Capability::TokenInput, Capability::Echo];
    assert_eq!(raw.capabilities, [&of_all[..], &of_text].concat());
    assert_eq!(
        (raw.kind, raw.name.as_str(), raw.weights_digest),
        (JobKind::Completions, model.name.as_str(), model.weights_digest)
    );
    let mut hasher = blake3::Hasher::new();
    for part in [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ] {
        hasher.update(&std::fs::read(folder.path().join(part)).unwrap());
    }
    assert_eq!(model.weights_digest, Some(*hasher.finalize().as_bytes()));

    let options = GgufOptions {
        projections: GgmlDType::Q8_0,
        ..GgufOptions::default()
    };
    let gguf = tiny_models::write_gguf(folder.path(), Family::Llama, SEED, options);
    let [model, _raw] = &load_chat(&gguf).models()[..] else {
        panic!("one model, for two kinds of jobs")
    };
    assert_eq!(
        (model.name.as_str(), model.quantization.as_str()),
        ("tiny", "q8_0")
    );
    assert_eq!(
        model.weights_digest,
        Some(*blake3::hash(&std::fs::read(&gguf).unwrap()).as_bytes())
    );
}

#[tokio::test]
async fn an_answer_is_a_stream_of_whole_chunks() {
    let engine = tiny_chat(Family::Llama);
    let answer = ask(&engine, question("hi", json!({"max_tokens": 9, "seed": 3})))
        .await
        .unwrap();
    let choice = |chunk: &Value| chunk["choices"][0].clone();
    assert_eq!(
        choice(&answer.chunks[0])["delta"],
        json!({"role": "assistant", "content": ""})
    );
    for chunk in &answer.chunks {
        assert_eq!(
            (chunk["id"].as_str(), chunk["model"].as_str()),
            (Some("chatcmpl-req_1"), Some("tiny"))
        );
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert!(chunk["created"].is_u64() && chunk.get("usage").is_none());
        assert_eq!(choice(chunk)["index"], 0);
    }
    let (last, others) = answer.chunks.split_last().unwrap();
    assert!(
        others
            .iter()
            .all(|chunk| choice(chunk)["finish_reason"].is_null())
    );
    assert_eq!(
        (
            choice(last)["delta"].clone(),
            choice(last)["finish_reason"].clone()
        ),
        (json!({}), json!("length"))
    );
    // The prompt in ChatML, byte by byte: two turns' starts and one end are special tokens.
    let prompt_tokens = "user\nhi\nassistant\n".len() + 3;
    assert!(
        answer
            .meters
            .iter()
            .all(|meter| meter.count(Unit::InputToken) == prompt_tokens as u64)
    );
    assert!(answer.meters.windows(2).all(|pair| pair[1].covers(&pair[0])));
    assert_eq!(answer.usage, Usage::tokens(prompt_tokens as u64, 9));
    assert_eq!(answer.meters.last(), Some(&answer.usage));
}

#[tokio::test]
async fn seeds_repeat_answers_and_their_absence_does_not() {
    let engine = tiny_chat(Family::Qwen3);
    let sampled = async |fields: Value| ask(&engine, question("hi", fields)).await.unwrap().text;
    let seeded = async |seed: i64| sampled(json!({"seed": seed, "temperature": 2, "max_tokens": 20})).await;
    assert_eq!(seeded(1).await, seeded(1).await);
    assert_ne!(seeded(1).await, seeded(2).await);
    let free = async || sampled(json!({"temperature": 2, "max_tokens": 20})).await;
    assert_ne!(free().await, free().await);
    let greedy = sampled(json!({"temperature": 0, "max_tokens": 20})).await;
    assert_eq!(sampled(json!({"top_p": 0, "max_tokens": 20})).await, greedy);
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_never_shows() {
    let engine = tiny_chat(Family::Qwen2);
    let fields = |stop: Value| json!({"seed": 4, "max_tokens": 40, "stop": stop});
    let whole = ask(&engine, question("hi", fields(Value::Null))).await.unwrap();
    assert_eq!(whole.finish_reason.as_deref(), Some("length"));
    let characters: Vec<(usize, char)> = whole.text.char_indices().collect();
    for (from, count) in [(0, 1), (3, 2), (7, 4)] {
        let (start, _) = characters[from];
        let (end, _) = characters[from + count];
        let stop = &whole.text[start..end];
        let stopped = ask(&engine, question("hi", fields(json!([stop, "never there"]))))
            .await
            .unwrap();
        assert_eq!(stopped.text, whole.text[..whole.text.find(stop).unwrap()]);
        assert_eq!(stopped.finish_reason.as_deref(), Some("stop"));
        assert!(stopped.usage.count(Unit::OutputToken) < whole.usage.count(Unit::OutputToken));
    }
}

#[tokio::test]
async fn an_end_token_ends_the_answer_uncounted() {
    // With all weights of the output projection zero but one row's, that token is the likeliest always.
    let folder = tempfile::tempdir().unwrap();
    tiny_models::write_folder(folder.path(), Family::Llama, SEED, DType::F32, 1);
    let mut tensors = tiny_models::tensors(Family::Llama, SEED);
    let shape = (tiny_models::VOCABULARY, tiny_models::HIDDEN);
    let zeros = candle_core::Tensor::zeros(shape, DType::F32, &candle_core::Device::Cpu).unwrap();
    tensors.insert("lm_head.weight".to_owned(), zeros);
    tiny_models::write_safetensors(folder.path(), tensors, DType::F32, 1);
    // All logits are equal then, and the first token wins: so that one is made the end.
    let mut config = tiny_models::config(Family::Llama);
    config["eos_token_id"] = json!([0, 257]);
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let answer = ask(
        &load_chat(folder.path()),
        question("hi", json!({"temperature": 0})),
    )
    .await
    .unwrap();
    assert_eq!(
        (answer.text.as_str(), answer.finish_reason.as_deref()),
        ("", Some("stop"))
    );
    assert_eq!(
        (answer.usage.count(Unit::OutputToken), answer.chunks.len()),
        (0, 2)
    );
}

#[tokio::test]
async fn a_prompt_that_does_not_fit_is_refused_and_an_answer_that_does_not_is_cut() {
    let engine = tiny_chat(Family::Llama);
    let frame = "user\n\nassistant\n".len() + 3;
    let fits = "x".repeat(CONTEXT - frame - 2);
    let answer = ask(&engine, question(&fits, json!({"max_tokens": 100})))
        .await
        .unwrap();
    assert_eq!(answer.usage, Usage::tokens(CONTEXT as u64 - 2, 2));
    assert_eq!(answer.finish_reason.as_deref(), Some("length"));
    let last = "x".repeat(CONTEXT - frame - 1);
    assert_eq!(
        ask(&engine, question(&last, json!({})))
            .await
            .unwrap()
            .usage
            .count(Unit::OutputToken),
        1
    );
    let over = "x".repeat(CONTEXT - frame);
    let error = ask(&engine, question(&over, json!({}))).await.unwrap_err();
    assert_eq!(
        (error.status, error.code.as_str()),
        (400, "context_length_exceeded")
    );
    assert!(
        error.message.contains("511") && error.message.contains("512"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn what_can_not_be_honoured_is_refused_by_name() {
    let engine = tiny_chat(Family::Llama);
    for (field, value) in [
        ("n", json!(129)),
        ("tools", json!([{"type": "function", "function": {"name": "f"}}])),
        ("audio", json!({"voice": "x"})),
        ("temperature", json!(9)),
    ] {
        let mut fields = json!({});
        fields[field] = value;
        let error = ask(&engine, question("hi", fields)).await.unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some(field)));
    }
    let mut other_model = question("hi", json!({}));
    other_model.model = "other".to_owned();
    assert_eq!(
        ask(&engine, other_model).await.unwrap_err().code,
        "model_not_found"
    );
    let other_kind = asking::request(JobKind::Embeddings, json!({"input": "x"}));
    assert_eq!(ask(&engine, other_kind).await.unwrap_err().status, 404);
}

#[tokio::test]
async fn no_answer_knows_of_another() {
    let engine = Arc::new(tiny_chat(Family::Qwen2));
    let mine = || question("mine", json!({"seed": 8, "max_tokens": 30}));
    let alone = ask(&*engine, mine()).await.unwrap().text;
    // Another's answer that was cut off in the middle, and several at once.
    let (output, mut receiver) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let cut_off = async {
        receiver.recv().await.unwrap();
        cancel.cancel();
    };
    let (_, ()) = tokio::join!(
        engine.run(question("their secret", json!({})), output, cancel.clone()),
        cut_off
    );
    assert_eq!(ask(&*engine, mine()).await.unwrap().text, alone);
    let ask_mine = |engine: Arc<ChatEngine>| async move { ask(&*engine, mine()).await.unwrap().text };
    let theirs = ask(&*engine, question("their secret", json!({"max_tokens": 30})));
    let (a, _, b) = tokio::join!(
        ask_mine(Arc::clone(&engine)),
        theirs,
        ask_mine(Arc::clone(&engine))
    );
    assert_eq!((a.as_str(), b.as_str()), (alone.as_str(), alone.as_str()));
}

/// Starts a long answer whose consumer takes `taken` messages and then calls `give_up`; returns what was metered.
async fn give_up_after(
    taken: usize,
    give_up: impl FnOnce(mpsc::Receiver<EngineOutput>, CancellationToken),
) -> (u64, Usage) {
    let engine = tiny_chat(Family::Llama);
    let (output, mut receiver) = mpsc::channel::<EngineOutput>(1);
    let cancel = CancellationToken::new();
    let consumer = async {
        let mut metered = 0;
        for _ in 0..taken {
            metered = receiver.recv().await.unwrap().meter.count(Unit::OutputToken);
        }
        // By now the engine most likely waits before the full queue, which is the harder case; both must hold.
        tokio::time::sleep(Duration::from_millis(100)).await;
        give_up(receiver, cancel.clone());
        metered
    };
    let job = engine.run(question("hi", json!({"seed": 1})), output, cancel.clone());
    let both = async { tokio::join!(job, consumer) };
    let (usage, metered) = tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .expect("the job stopped");
    (metered, usage.unwrap())
}

#[tokio::test]
async fn a_cancelled_answer_stops_within_a_token_and_says_what_it_used() {
    let mut held = None;
    // The receiver is kept and takes nothing more: only the cancelling can end the wait.
    let (metered, usage) = give_up_after(10, |receiver, cancel| {
        held = Some(receiver);
        cancel.cancel();
    })
    .await;
    let used = usage.count(Unit::OutputToken);
    // One message lies in the queue and one waits before it; tokens within a character may add to each.
    assert!(
        used >= metered && used <= metered + 10,
        "{metered} metered, {used} used"
    );
}

#[tokio::test]
async fn an_answer_that_nobody_takes_stops() {
    let (metered, usage) = give_up_after(5, |receiver, _| drop(receiver)).await;
    let used = usage.count(Unit::OutputToken);
    assert!(
        used >= metered && used <= metered + 10,
        "{metered} metered, {used} used"
    );
}

#[tokio::test]
async fn a_dropped_job_gives_its_turn_back() {
    let engine = tiny_chat(Family::Llama);
    let (output, mut receiver) = mpsc::channel(1);
    let mut job = engine.run(
        question("hi", json!({"seed": 1})),
        output,
        CancellationToken::new(),
    );
    tokio::select! {
        _ = &mut job => panic!("the answer is longer than its queue"),
        first = receiver.recv() => assert!(first.is_some()),
    }
    drop(job);
    // The receiver is still there and takes nothing: only the drop can have ended the job.
    let next = ask(&engine, question("hi", json!({"max_tokens": 3})));
    let next = tokio::time::timeout(Duration::from_secs(60), next)
        .await
        .expect("the turn came back");
    assert_eq!(next.unwrap().usage.count(Unit::OutputToken), 3);
}

#[tokio::test]
async fn a_job_cancelled_before_its_turn_uses_nothing() {
    let engine = tiny_chat(Family::Llama);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (output, mut receiver) = mpsc::channel(1);
    let usage = engine
        .run(question("hi", json!({})), output, cancel)
        .await
        .unwrap();
    assert_eq!((usage, receiver.recv().await), (Usage::new(), None));
}

#[tokio::test]
async fn the_models_own_template_and_defaults_are_used() {
    let folder = tempfile::tempdir().unwrap();
    tiny_models::write_folder(folder.path(), Family::Llama, SEED, DType::F32, 1);
    let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
    write(
        "chat_template.jinja",
        "{% if messages | length > 1 %}{{ raise_exception('one only') }}{% endif %}Q:{{ messages[0].content }}",
    );
    write("generation_config.json", r#"{"do_sample": false}"#);
    let engine = load_chat(folder.path());
    let ask_twice = async || {
        ask(&engine, question("abc", json!({"max_tokens": 15})))
            .await
            .unwrap()
    };
    let (first, second) = (ask_twice().await, ask_twice().await);
    assert_eq!(
        (&first.text, first.usage.count(Unit::InputToken)),
        (&second.text, 5)
    );
    let message = json!({"role": "user", "content": "x"});
    let error = ask(&engine, question("", json!({"messages": [message, message]})))
        .await
        .unwrap_err();
    assert_eq!((error.status, error.param.as_deref()), (400, Some("messages")));
    assert!(error.message.contains("one only"));
}

#[tokio::test]
async fn a_model_that_can_not_be_asked_in_messages_says_so() {
    let folder = tempfile::tempdir().unwrap();
    tiny_models::write_folder(folder.path(), Family::Llama, SEED, DType::F32, 1);
    let mut tokenizer = tiny_models::tokenizer_document();
    tokenizer["added_tokens"] = json!([]);
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let error = ChatEngine::from_files(&ModelFiles::open(folder.path()).unwrap(), None)
        .err()
        .unwrap();
    assert!(
        matches!(&error, LoadError::Unsupported { problem, .. } if problem.contains("chat_template.jinja")),
        "{error}"
    );
}

#[tokio::test]
async fn a_gguf_file_without_its_tokenizer_takes_the_one_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let options = GgufOptions {
        with_tokenizer: false,
        ..GgufOptions::default()
    };
    let gguf = tiny_models::write_gguf(folder.path(), Family::Qwen2, SEED, options);
    let error = ChatEngine::from_files(&ModelFiles::open(&gguf).unwrap(), None)
        .err()
        .unwrap();
    assert!(
        matches!(&error, LoadError::Unsupported { problem, .. } if problem.contains("tokenizer.json")),
        "{error}"
    );
    let tokenizer = tiny_models::tokenizer_document().to_string();
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
    assert!(
        !ask(&load_chat(&gguf), question("hi", json!({"max_tokens": 9})))
            .await
            .unwrap()
            .text
            .is_empty()
    );
}
