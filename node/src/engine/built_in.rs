//! Loads whatever model an owner names into the built-in engine that can run it.

use std::sync::Arc;

use gristmill_protocol::job::JobKind;

use crate::engine::Engine;
use crate::engine::chat::ChatEngine;
use crate::engine::embeddings::EmbeddingsEngine;
use crate::engine::model_files::{LoadError, ModelSource};

/// Loads a model for chat or for embeddings, as its configuration says, under its own name or another one.
///
/// # Errors
/// [`LoadError`] saying what is wrong with the model and what to do.
pub async fn load(source: &ModelSource, public_name: Option<&str>) -> Result<Arc<dyn Engine>, LoadError> {
    let files = source.fetch().await?;
    let name = files.public_name(public_name)?;
    let load = move || -> Result<Arc<dyn Engine>, LoadError> {
        Ok(match files.kind()? {
            JobKind::Embeddings => Arc::new(EmbeddingsEngine::from_files(&files, Some(&name))?),
            _ => Arc::new(ChatEngine::from_files(&files, Some(&name))?),
        })
    };
    on_blocking_thread(load).await
}

/// Runs what reads files and computes for long, away from the threads that serve connections.
pub(crate) async fn on_blocking_thread<T: Send + 'static>(
    load: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(load).await.unwrap_or_else(|error| {
        Err(LoadError::Placement {
            model: "the model".to_owned(),
            problem: error.to_string(),
        })
    })
}
