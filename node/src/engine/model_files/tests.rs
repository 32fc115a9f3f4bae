use super::*;

#[test]
fn sources_are_told_apart_by_their_form() {
    let hub = |repository: &str, file: Option<&str>| ModelSource::Hub {
        repository: repository.to_owned(),
        file: file.map(str::to_owned),
    };
    assert_eq!(
        ModelSource::parse("Qwen/Qwen3-0.6B"),
        hub("Qwen/Qwen3-0.6B", None)
    );
    assert_eq!(ModelSource::parse("a/b:c-q4.gguf"), hub("a/b", Some("c-q4.gguf")));
    assert_eq!(
        ModelSource::parse("a/b:sub/c.gguf"),
        hub("a/b", Some("sub/c.gguf"))
    );
    for path in [
        "./a/b",
        "/a/b",
        "../b",
        "a/b/c",
        "b",
        "a/b.gguf",
        "a/b:c.bin",
        "a/b:../c.gguf",
        "C:\\m",
        "",
    ] {
        assert_eq!(ModelSource::parse(path), ModelSource::Path(path.into()), "{path}");
    }
}

#[test]
fn what_is_on_disk_wins_over_a_hub_name() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().to_str().unwrap();
    assert_eq!(ModelSource::parse(text), ModelSource::Path(text.into()));
}

#[test]
fn a_folder_without_a_model_says_so() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        ModelFiles::open(folder.path()),
        Err(LoadError::NotAModel { .. })
    ));
    let nowhere = folder.path().join("nowhere");
    assert!(matches!(
        ModelFiles::open(&nowhere),
        Err(LoadError::NotFound { .. })
    ));
    std::fs::write(folder.path().join("a.gguf"), b"").unwrap();
    assert!(ModelFiles::open(folder.path()).unwrap().gguf().is_some());
    std::fs::write(folder.path().join("b.gguf"), b"").unwrap();
    assert!(matches!(
        ModelFiles::open(folder.path()),
        Err(LoadError::SeveralGgufFiles { .. })
    ));
}

#[test]
fn an_index_can_only_name_files_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    let index = r#"{"weight_map":{"a":"../../etc/passwd"}}"#;
    std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    let files = ModelFiles::open(folder.path()).unwrap();
    assert!(matches!(files.weight_files(), Err(LoadError::MissingFile { .. })));
}

#[test]
fn names_have_bounds() {
    let files = ModelFiles::in_memory("m", []);
    assert_eq!(files.public_name(None).unwrap(), "m");
    assert_eq!(
        files
            .public_name(Some(&"x".repeat(MODEL_NAME_MAX_BYTES)))
            .unwrap()
            .len(),
        MODEL_NAME_MAX_BYTES
    );
    for wrong in ["", "a\nb", &"x".repeat(MODEL_NAME_MAX_BYTES + 1)] {
        assert!(matches!(
            files.public_name(Some(wrong)),
            Err(LoadError::Name { .. })
        ));
    }
}
