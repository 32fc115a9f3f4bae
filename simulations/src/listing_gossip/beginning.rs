//! How a world begins: who is there, who is connected to whom, and what each will do first.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::seq::SliceRandom;

use super::actors::{Liar, Provider, Terms, keypair};
use super::checker::Checker;
use super::peer::{Forwarding, Peer};
use super::report::Figures;
use super::{Event, IN_TIME_US, Link, ListingGossip, count};
use crate::heap_engine::{Scheduler, stream};
use crate::scenario::Scenario;
use crate::topology::{NoGraph, random_regular};

impl ListingGossip {
    pub(super) fn new(
        scenario: &Scenario,
        seed: u64,
        forwarding: Forwarding,
        scheduler: &mut Scheduler<Event>,
    ) -> Result<Self, NoGraph> {
        let peers = count(scenario.peers());
        let (providers, liars) = (scenario.providers.count.get(), scenario.liars.count.get());
        let providers: Vec<Provider> = (0..providers).map(|index| Provider::new(seed, index)).collect();
        let index_of = |(index, provider): (usize, &Provider)| (provider.keypair.account(), index);
        let mut world = Self {
            seed,
            terms: Terms {
                coordinator: keypair(seed, "coordinator key", 0).account(),
                ttl_ms: scenario.providers.ttl_s.get() * 1_000,
            },
            peers: (0..peers).map(|_| Peer::new(forwarding)).collect(),
            links: links(scenario, seed, peers)?,
            network_rngs: (0..peers as u64)
                .map(|peer| stream(seed, "network", peer))
                .collect(),
            stops_at_us: vec![u64::MAX; peers],
            provider_indexes: providers.iter().enumerate().map(index_of).collect(),
            providers,
            liars: (0..liars).map(|index| Liar::new(seed, index)).collect(),
            publications: BTreeMap::new(),
            checker: Checker::default(),
            figures: Figures::default(),
            scenario: scenario.clone(),
        };
        world.schedule_departures(scheduler);
        world.schedule_actors(scheduler);
        Ok(world)
    }

    fn schedule_departures(&mut self, scheduler: &mut Scheduler<Event>) {
        let mut rng = stream(self.seed, "departures", 0);
        let mut providers: Vec<usize> = (0..self.providers.len()).collect();
        providers.shuffle(&mut rng);
        let leaving = count(self.scenario.providers.leaving.get());
        let crashing = count(self.scenario.providers.crashing.get_ref().get());
        let first_us = self.publish_every_us().min(self.end_us() - 1);
        for (place, provider) in providers.into_iter().take(leaving + crashing).enumerate() {
            let at_us = rng.random_range(first_us..self.end_us());
            self.stops_at_us[provider] = at_us;
            let event = if place < leaving {
                Event::Leave { provider }
            } else {
                Event::Crash { provider }
            };
            scheduler.schedule_after(at_us, event);
        }
    }

    /// Everyone begins at a random moment of the own interval. Consumers wait until each provider has published.
    fn schedule_actors(&mut self, scheduler: &mut Scheduler<Event>) {
        let mut rng = stream(self.seed, "beginnings", 0);
        let (publish_us, lie_us, ask_us) =
            (self.publish_every_us(), self.lie_every_us(), self.ask_every_us());
        for provider in 0..self.providers.len() {
            scheduler.schedule_after(rng.random_range(0..publish_us), Event::Publish { provider });
        }
        for liar in self.providers.len()..self.first_consumer() {
            scheduler.schedule_after(rng.random_range(0..lie_us), Event::Lie { liar });
        }
        for consumer in self.first_consumer()..self.peers.len() {
            let begin_us = publish_us + IN_TIME_US;
            scheduler.schedule_after(begin_us + rng.random_range(0..ask_us), Event::Ask { consumer });
        }
    }
}

/// Links in both directions, each pair of peers with its own latency.
fn links(scenario: &Scenario, seed: u64, peers: usize) -> Result<Vec<Vec<Link>>, NoGraph> {
    let mut rng = stream(seed, "graph", 0);
    let graph = random_regular(peers, count(scenario.network.degree.get_ref().get()), &mut rng)?;
    let (min_ms, max_ms) = (
        scenario.network.latency_min_ms.get(),
        scenario.network.latency_max_ms.get_ref().get(),
    );
    let mut links = vec![Vec::new(); peers];
    for (one, neighbours) in graph.iter().enumerate() {
        for other in neighbours.iter().copied().filter(|other| one < *other) {
            let latency_us = rng.random_range(min_ms * 1_000..=max_ms * 1_000);
            links[one].push(Link {
                to: other,
                latency_us,
            });
            links[other].push(Link { to: one, latency_us });
        }
    }
    Ok(links)
}
