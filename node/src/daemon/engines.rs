//! Puts the engines of a node together.

use std::sync::Arc;

use super::{StartError, on_blocking_thread};
use crate::engine::{Engine, Engines, built_in, guide};
use crate::offering::{Offering, PricedEngine};
use crate::settings::{ModelChoice, ModelSetting, Settings};
use crate::upstreams::{UpstreamWatch, as_engines};

/// Loads the models of the settings, looks for upstreams once, and offers the guide where there is nothing else.
pub(crate) async fn build(
    settings: &Settings,
    extra: Engines,
    upstreams: &UpstreamWatch,
) -> Result<Offering, StartError> {
    let mut fixed: Vec<_> = extra.into_iter().map(PricedEngine::from).collect();
    for model in settings.models.iter().flatten() {
        let engine = load(model).await?;
        fixed.push(PricedEngine {
            engine,
            price: model.price.clone(),
        });
    }
    let nothing_configured =
        settings.models.is_none() && fixed.is_empty() && settings.upstreams.urls.is_empty();
    let fallback = if nothing_configured {
        Some(
            load(&ModelSetting {
                source: ModelChoice::Guide,
                name: None,
                price: None,
            })
            .await?
            .into(),
        )
    } else {
        None
    };
    let offering = Offering::new(settings.prices.clone(), fixed, fallback);
    offering.set_upstreams(as_engines(upstreams.look().await));
    Ok(offering)
}

async fn load(model: &ModelSetting) -> Result<Arc<dyn Engine>, StartError> {
    let name = model.name.clone();
    match &model.source {
        ModelChoice::Guide => {
            on_blocking_thread(move || {
                let files = guide::files();
                let engine = crate::engine::chat::ChatEngine::from_files(&files, name.as_deref());
                let engine: Arc<dyn Engine> = Arc::new(engine.map_err(|source| failed("guide", source))?);
                Ok(engine)
            })
            .await
        }
        ModelChoice::Files(source) => {
            let loaded = built_in::load(source, name.as_deref()).await;
            loaded.map_err(|error| failed(&format!("{source:?}"), error))
        }
    }
}

fn failed(model: &str, source: crate::engine::model_files::LoadError) -> StartError {
    StartError::Model {
        model: model.to_owned(),
        source: Box::new(source),
    }
}
