//! What the node offers now: its engines, and the catalogue of what they can run.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use gristmill_protocol::listing::Offer;
use gristmill_protocol::usage::Price;
use tokio::sync::watch;

use crate::core::catalogue::{EngineModels, Omission, catalogue};
use crate::engine::{Engine, Engines};
use crate::settings::Prices;

/// What is on offer, and who serves it.
#[derive(Default)]
pub(crate) struct Catalogue {
    /// The offers.
    pub(crate) offers: Vec<Offer>,
    /// The engine of each offer.
    engines: Engines,
}

impl Catalogue {
    /// The engine of an offer.
    pub(crate) fn engine(&self, offer: usize) -> Arc<dyn Engine> {
        Arc::clone(&self.engines[offer])
    }

    /// The name of the engine of an offer.
    pub(crate) fn engine_name(&self, offer: usize) -> &str {
        self.engines[offer].name()
    }
}

/// An engine, and what its owner asks for it.
#[derive(Clone)]
pub(crate) struct PricedEngine {
    pub(crate) engine: Arc<dyn Engine>,
    /// The price of all its models, where one was set for it.
    pub(crate) price: Option<Price>,
}

impl From<Arc<dyn Engine>> for PricedEngine {
    fn from(engine: Arc<dyn Engine>) -> Self {
        Self { engine, price: None }
    }
}

/// The engines of a node and what follows from them.
pub(crate) struct Offering {
    prices: Prices,
    /// Engines that are there from start to end.
    fixed: Vec<PricedEngine>,
    /// What is offered as long as nothing else is.
    fallback: Option<PricedEngine>,
    state: Mutex<State>,
    catalogue: watch::Sender<Arc<Catalogue>>,
}

#[derive(Default)]
struct State {
    upstreams: Engines,
    /// What the owner was told already.
    told: BTreeSet<Omission>,
}

impl Offering {
    pub(crate) fn new(prices: Prices, fixed: Vec<PricedEngine>, fallback: Option<PricedEngine>) -> Self {
        let catalogue = watch::Sender::new(Arc::default());
        let offering = Self {
            prices,
            fixed,
            fallback,
            state: Mutex::default(),
            catalogue,
        };
        offering.refresh();
        offering
    }

    /// Follows the catalogue.
    pub(crate) fn catalogue(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.catalogue.subscribe()
    }

    /// The names of the engines that offer something now.
    pub(crate) fn engine_names(&self) -> BTreeSet<String> {
        let catalogue = self.catalogue.borrow();
        let engines = catalogue.engines.iter();
        engines.map(|engine| engine.name().to_owned()).collect()
    }

    /// Replaces the upstream engines.
    pub(crate) fn set_upstreams(&self, upstreams: Engines) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .upstreams = upstreams;
        self.refresh();
    }

    /// Asks every engine again what it can run.
    pub(crate) fn refresh(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut engines = self.fixed.clone();
        engines.extend(state.upstreams.iter().cloned().map(PricedEngine::from));
        let (mut next, mut omissions) = self.assemble(&engines);
        if next.offers.is_empty()
            && let Some(fallback) = &self.fallback
        {
            (next, omissions) = self.assemble(std::slice::from_ref(fallback));
        }
        for omission in omissions.difference(&state.told) {
            tracing::warn!("not on offer: {omission}");
        }
        state.told = omissions;
        self.catalogue.send_if_modified(|current| {
            let same_engines = current.engines.len() == next.engines.len()
                && current
                    .engines
                    .iter()
                    .zip(&next.engines)
                    .all(|(one, other)| Arc::ptr_eq(one, other));
            let changed = !same_engines || current.offers != next.offers;
            if changed {
                *current = Arc::new(next);
            }
            changed
        });
    }

    fn assemble(&self, engines: &[PricedEngine]) -> (Catalogue, BTreeSet<Omission>) {
        let models: Vec<_> = engines
            .iter()
            .map(|priced| EngineModels {
                models: priced.engine.models(),
                price: priced.price.clone(),
            })
            .collect();
        let (entries, omissions) = catalogue(&models, &self.prices);
        let mut assembled = Catalogue::default();
        for entry in entries {
            assembled.engines.push(Arc::clone(&engines[entry.engine].engine));
            assembled.offers.push(entry.offer);
        }
        (assembled, omissions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EngineError, EngineModel, EngineOutput, EngineRequest};
    use crate::settings::Settings;
    use gristmill_protocol::job::JobKind;
    use gristmill_protocol::usage::Usage;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    /// An engine whose models can be changed.
    struct Changing(Mutex<Vec<&'static str>>);

    #[async_trait::async_trait]
    impl Engine for Changing {
        fn name(&self) -> &str {
            "changing"
        }
        fn models(&self) -> Vec<EngineModel> {
            let model = |name: &&str| EngineModel {
                name: (*name).into(),
                kind: JobKind::ChatCompletions,
                weights_digest: None,
                quantization: String::new(),
                context_length: 1,
                capabilities: vec![],
            };
            self.0.lock().unwrap().iter().map(model).collect()
        }
        async fn run(
            &self,
            _: EngineRequest,
            _: mpsc::Sender<EngineOutput>,
            _: CancellationToken,
        ) -> Result<Usage, EngineError> {
            Ok(Usage::new())
        }
    }

    fn engine(names: &[&'static str]) -> Arc<Changing> {
        Arc::new(Changing(Mutex::new(names.to_vec())))
    }

    fn names(catalogue: &watch::Receiver<Arc<Catalogue>>) -> Vec<String> {
        catalogue
            .borrow()
            .offers
            .iter()
            .map(|offer| offer.model.clone())
            .collect()
    }

    #[test]
    fn the_fallback_is_offered_only_while_nothing_else_is() {
        let fallback: Arc<dyn Engine> = engine(&["guide"]);
        let offering = Offering::new(Settings::default().prices, Vec::new(), Some(fallback.into()));
        let catalogue = offering.catalogue();
        assert_eq!(names(&catalogue), ["guide"]);
        let upstream = engine(&["llama"]);
        offering.set_upstreams(vec![upstream.clone()]);
        assert_eq!(names(&catalogue), ["llama"]);
        upstream.0.lock().unwrap().clear();
        offering.refresh();
        assert_eq!(names(&catalogue), ["guide"]);
    }

    #[test]
    fn only_changes_are_told() {
        let fixed = engine(&["a"]);
        let priced: Arc<dyn Engine> = fixed.clone();
        let offering = Offering::new(Settings::default().prices, vec![priced.into()], None);
        let mut catalogue = offering.catalogue();
        catalogue.mark_unchanged();
        offering.refresh();
        assert!(!catalogue.has_changed().unwrap());
        fixed.0.lock().unwrap().push("b");
        offering.refresh();
        assert!(catalogue.has_changed().unwrap());
        assert_eq!(catalogue.borrow().engine_name(1), "changing");
    }
}
