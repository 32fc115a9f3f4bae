//! The guide: a tiny model that is part of the program and answers questions about Gristmill.
//!
//! It makes the first run work without a download, a GPU or an account. It is loaded and run like every other model.

use crate::engine::chat::ChatEngine;
use crate::engine::model_files::{LoadError, ModelFiles};

/// The name under which the guide is offered.
pub const GUIDE_MODEL: &str = "gristmill-guide";

/// The guide's files.
#[must_use]
pub fn files() -> ModelFiles {
    let parts: [(&str, &[u8]); 5] = [
        ("config.json", include_bytes!("../../guide/config.json")),
        (
            "generation_config.json",
            include_bytes!("../../guide/generation_config.json"),
        ),
        (
            "model.safetensors",
            include_bytes!("../../guide/model.safetensors"),
        ),
        ("tokenizer.json", include_bytes!("../../guide/tokenizer.json")),
        (
            "tokenizer_config.json",
            include_bytes!("../../guide/tokenizer_config.json"),
        ),
    ];
    ModelFiles::in_memory(GUIDE_MODEL, parts)
}

/// Loads the guide. Takes a few milliseconds of computing.
///
/// # Errors
/// [`LoadError`] where the device can't be used.
pub fn load() -> Result<ChatEngine, LoadError> {
    ChatEngine::from_files(&files(), None)
}
