//! Model files that are missing, cut off or nonsense: typed errors that say what to do, and never a panic.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use gristmill_node::engine::chat::ChatEngine;
use gristmill_node::engine::embeddings::EmbeddingsEngine;
use gristmill_node::engine::model_files::{LoadError, ModelFiles};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::embeddings::write_tiny_bert;
use crate::tiny_models::{self, Family, GgufOptions};

const SEED: u64 = 5;

fn load(path: &Path) -> Result<ChatEngine, LoadError> {
    ChatEngine::from_files(&ModelFiles::open(path)?, None)
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny_models::write_folder(folder.path(), Family::Qwen3, SEED, DType::F32, 1);
    folder
}

fn error_of(path: &Path) -> LoadError {
    let error = load(path).err().expect("an error");
    // Every message says what to do after saying what happened.
    let text = error.to_string();
    assert!(text.contains(';') || text.contains(':'), "{text}");
    assert!(text.len() < 600, "{text}");
    error
}

#[test]
fn each_missing_file_is_named() {
    for file in ["tokenizer.json", "model.safetensors"] {
        let folder = folder();
        std::fs::remove_file(folder.path().join(file)).unwrap();
        let error = error_of(folder.path());
        assert!(
            matches!(&error, LoadError::MissingFile { file: missing, .. } if missing == file),
            "{error}"
        );
    }
    let folder = folder();
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    assert!(matches!(error_of(folder.path()), LoadError::NotAModel { .. }));
}

#[test]
fn each_file_of_nonsense_is_named() {
    for file in [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    ] {
        for nonsense in [
            "",
            "{",
            "[1,2]",
            "\u{0}\u{1}\u{2}garbage that is longer than a header is",
        ] {
            let folder = folder();
            std::fs::write(folder.path().join(file), nonsense).unwrap();
            let error = error_of(folder.path());
            assert!(
                matches!(&error, LoadError::Damaged { file: named, .. } if named == file),
                "{file}: {error}"
            );
        }
    }
    let folder = folder();
    std::fs::write(folder.path().join("chat_template.jinja"), "{% if %}").unwrap();
    assert!(matches!(error_of(folder.path()), LoadError::Damaged { .. }));
}

#[test]
fn a_file_that_can_not_be_read_is_named() {
    let folder = folder();
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    // A link to itself can't be opened by anybody, not even by root.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("model.safetensors", folder.path().join("model.safetensors")).unwrap();
        assert!(matches!(error_of(folder.path()), LoadError::Unreadable { .. }));
    }
}

#[test]
fn truncated_weights_are_damaged_wherever_they_end() {
    let folder = folder();
    let path = folder.path().join("model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 4, 8, 100, 1_000, 4_000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(
            matches!(error_of(folder.path()), LoadError::Damaged { .. }),
            "{length}"
        );
    }
}

#[test]
fn weights_of_another_shape_are_named() {
    let replace = |name: &str, with: Option<Tensor>| {
        let folder = folder();
        let mut tensors = tiny_models::tensors(Family::Qwen3, SEED);
        assert!(tensors.remove(name).is_some());
        if let Some(tensor) = with {
            tensors.insert(name.to_owned(), tensor);
        }
        tiny_models::write_safetensors(folder.path(), tensors, DType::F32, 1);
        error_of(folder.path())
    };
    for name in tiny_models::tensors(Family::Qwen3, SEED).into_keys() {
        let missing = replace(&name, None);
        assert!(
            matches!(&missing, LoadError::MissingTensor { tensor, .. } if tensor == &name),
            "{missing}"
        );
        let small = Tensor::zeros((3, 5), DType::F32, &Device::Cpu).unwrap();
        let wrong = replace(&name, Some(small));
        assert!(
            matches!(&wrong, LoadError::WrongShape { tensor, found, .. } if tensor == &name && found == &[3, 5]),
            "{wrong}"
        );
    }
}

#[test]
fn truncated_gguf_files_are_damaged_wherever_they_end() {
    for family in Family::ALL {
        let folder = tempfile::tempdir().unwrap();
        let path = tiny_models::write_gguf(folder.path(), family, SEED, GgufOptions::default());
        let whole = std::fs::read(&path).unwrap();
        for length in [
            0,
            3,
            4,
            8,
            16,
            24,
            200,
            1_000,
            5_000,
            whole.len() / 2,
            whole.len() - 64,
        ] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(
                matches!(error_of(&path), LoadError::Damaged { .. }),
                "{family:?} {length}"
            );
        }
    }
}

/// Changes random bytes near the beginning, where the structure is, and loads.
fn load_with_changed_bytes(path: &Path, load: impl Fn()) {
    let whole = std::fs::read(path).unwrap();
    let mut random = ChaCha12Rng::seed_from_u64(SEED);
    for round in 0..120 {
        let mut changed = whole.clone();
        let reach = whole.len().min(if round % 2 == 0 { 600 } else { 12_000 });
        for _ in 0..=(random.next_u32() % 3) {
            let position = random.next_u32() as usize % reach;
            changed[position] = match random.next_u32() % 4 {
                0 => 0,
                1 => 0xff,
                _ => random.next_u32() as u8,
            };
        }
        std::fs::write(path, changed).unwrap();
        load();
    }
}

#[test]
fn changed_bytes_never_bring_the_program_down() {
    let folder = folder();
    load_with_changed_bytes(&folder.path().join("model.safetensors"), || {
        drop(load(folder.path()));
    });
    load_with_changed_bytes(&folder.path().join("config.json"), || drop(load(folder.path())));
    for family in Family::ALL {
        let folder = tempfile::tempdir().unwrap();
        let path = tiny_models::write_gguf(folder.path(), family, SEED, GgufOptions::default());
        load_with_changed_bytes(&path, || drop(load(&path)));
    }
    let bert = tempfile::tempdir().unwrap();
    write_tiny_bert(bert.path());
    for file in ["config.json", "model.safetensors", "sentence_bert_config.json"] {
        let path = bert.path().join(file);
        let whole = std::fs::read(&path).unwrap();
        load_with_changed_bytes(&path, || {
            let files = ModelFiles::open(bert.path()).unwrap();
            drop(EmbeddingsEngine::from_files(&files, None));
        });
        std::fs::write(&path, whole).unwrap();
    }
}
