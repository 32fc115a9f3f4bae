//! Finds upstream servers, and looks again: they are started and stopped while the node runs.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{join, join_all};
use gristmill_service::clock::system_clock;
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::engine::upstream::{AllowedHosts, UpstreamEngine, UpstreamError};
use crate::offering::Offering;
use crate::settings::Upstreams;

/// How often upstreams are looked for.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How often engines are asked whether their models have changed.
const REFRESH: Duration = Duration::from_secs(5);
/// Where upstreams are by default: Ollama, vLLM, llama.cpp, LM Studio, SGLang.
const USUAL_PLACES: [&str; 5] = [
    "http://127.0.0.1:11434/",
    "http://127.0.0.1:8000/",
    "http://127.0.0.1:8080/",
    "http://127.0.0.1:1234/",
    "http://127.0.0.1:30000/",
];

/// The upstream servers of a node, those that are there and those that may come.
pub(crate) struct UpstreamWatch {
    candidates: Vec<Arc<UpstreamEngine>>,
}

impl UpstreamWatch {
    /// From what the owner named and, where wanted, the usual places.
    ///
    /// # Errors
    /// [`UpstreamError`] where a server is not on this machine or an allowed host.
    pub(crate) fn new(settings: &Upstreams) -> Result<Self, UpstreamError> {
        let allowed = AllowedHosts::new(&settings.allowed_hosts);
        let usual = USUAL_PLACES.iter().filter_map(|place| Url::parse(place).ok());
        let usual: Vec<_> = if settings.discover {
            usual.collect()
        } else {
            Vec::new()
        };
        let mut urls = settings.urls.clone();
        for url in usual {
            let is_named = urls.iter().any(|named| named.origin() == url.origin());
            if !is_named {
                urls.push(url);
            }
        }
        let candidates = urls
            .into_iter()
            .map(|url| UpstreamEngine::new(url, &allowed))
            .map(|engine| engine.map(|engine| Arc::new(engine.with_settings(settings.models.clone()))))
            .collect::<Result<_, _>>()?;
        Ok(Self { candidates })
    }

    /// Every server that is or may be there, those that the owner named first.
    pub(crate) fn candidates(&self) -> &[Arc<UpstreamEngine>] {
        &self.candidates
    }

    /// Asks every candidate, and gives those that are there.
    pub(crate) async fn look(&self) -> Vec<Arc<UpstreamEngine>> {
        let found = join_all(self.candidates.iter().map(|candidate| candidate.refresh())).await;
        let there = self
            .candidates
            .iter()
            .zip(found)
            .filter(|(_, is_there)| *is_there);
        there.map(|(candidate, _)| Arc::clone(candidate)).collect()
    }

    /// Looks again and again, tries what is new, and keeps the offering up to date.
    pub(crate) async fn run(self, offering: Arc<Offering>, stop: CancellationToken) {
        let trials = self
            .candidates
            .iter()
            .map(|candidate| try_on(candidate, &offering));
        tokio::select! {
            () = stop.cancelled() => {}
            ((), _) = join(self.keep_looking(&offering), join_all(trials)) => {}
        }
    }

    async fn keep_looking(&self, offering: &Offering) {
        let mut look = tokio::time::interval_at(tokio::time::Instant::now() + LOOK_AGAIN, LOOK_AGAIN);
        let mut refresh = tokio::time::interval(REFRESH);
        loop {
            tokio::select! {
                _ = look.tick() => offering.set_upstreams(as_engines(self.look().await)),
                _ = refresh.tick() => offering.refresh(),
            }
        }
    }
}

/// Tries the models of one upstream as they come. A slow one keeps nobody else waiting.
async fn try_on(upstream: &UpstreamEngine, offering: &Offering) {
    let mut again = tokio::time::interval(REFRESH);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let now_ms = system_clock();
    loop {
        again.tick().await;
        if upstream.try_abilities(now_ms()).await {
            offering.refresh();
        }
    }
}

/// The same engines behind the trait.
pub(crate) fn as_engines(upstreams: Vec<Arc<UpstreamEngine>>) -> Vec<Arc<dyn Engine>> {
    upstreams
        .into_iter()
        .map(|upstream| upstream as Arc<dyn Engine>)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn places(settings: &Upstreams) -> Vec<String> {
        let watch = UpstreamWatch::new(settings).unwrap();
        watch
            .candidates
            .iter()
            .map(|candidate| candidate.base().to_string())
            .collect()
    }

    #[test]
    fn the_usual_places_come_after_the_named_ones_and_none_twice() {
        let mut settings = Upstreams {
            discover: true,
            urls: vec![],
            allowed_hosts: vec![],
            models: BTreeMap::new(),
        };
        assert_eq!(places(&settings).len(), 5);
        settings.urls = vec![Url::parse("http://127.0.0.1:8000/v1").unwrap()];
        assert_eq!(places(&settings)[0], "http://127.0.0.1:8000/v1");
        assert_eq!(places(&settings).len(), 5);
        settings.discover = false;
        assert_eq!(places(&settings).len(), 1);
        settings.urls = vec![Url::parse("http://192.168.1.5:8000").unwrap()];
        assert!(UpstreamWatch::new(&settings).is_err());
        settings.allowed_hosts = vec!["192.168.1.5".into()];
        assert_eq!(places(&settings).len(), 1);
    }
}
