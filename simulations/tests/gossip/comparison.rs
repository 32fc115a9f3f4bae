//! The model and libp2p on the same graphs.

use std::time::Duration;

use gristmill_simulations::gossip::graph::Graph;
use gristmill_simulations::gossip::{GossipConfig, Message, MessageId};
use gristmill_simulations::scenario::{Bounded, Fraction};

use crate::observed::{Observed, distance};
use crate::{model, real};

const DEGREE: u8 = 16;
const MESSAGES: u32 = 25;
/// Runs of the model that one run of libp2p is held against, each with a graph of its own.
const MODELS: u64 = 4;

/// What is run.
#[derive(Clone, Copy)]
struct Trial {
    /// Peers that are there when messages are published, and peers that come then.
    peers: u32,
    newcomers: u32,
    /// Time between heartbeats. The first is after it, and messages are published between the first and the second.
    interval: Duration,
    /// To how many others a peer says at a heartbeat what it has.
    lazy: usize,
}

impl Trial {
    const fn graph(&self, seed: u64) -> Graph {
        Graph::new(seed, self.peers + self.newcomers, DEGREE)
    }

    const fn publisher(&self, sequence: u32) -> u32 {
        sequence * 7 % self.peers
    }

    const fn all_peers(&self) -> std::ops::Range<u32> {
        0..self.peers + self.newcomers
    }

    const fn pairs(&self) -> u64 {
        self.newcomers as u64 * MESSAGES as u64
    }

    fn of_model(&self, seed: u64) -> Observed {
        let interval_us = self.interval.min(LONG).as_micros() as u64;
        let config = GossipConfig {
            heartbeat_initial_delay_ms: Bounded::nearest(0),
            heartbeat_ms: Bounded::nearest(interval_us / 1_000),
            lazy: Bounded::nearest(self.lazy as u64),
            lazy_share: Fraction::percent(0),
            ..GossipConfig::default()
        };
        let mut network = model::Network::new(config, self.graph(seed), self.all_peers().end, seed, 1_000);
        for node in 0..self.peers {
            network.join(node);
            network.run_for(interval_us / 2 / u64::from(self.peers));
        }
        if self.interval < LONG {
            network.run_for(interval_us);
        }
        for sequence in 0..MESSAGES {
            let publisher = self.publisher(sequence);
            let message = Message {
                id: MessageId::new(publisher, sequence),
                bytes: 600,
            };
            network.after(1, publisher, model::Event::Publish(message));
            network.run_for(10_000);
        }
        let mut observed = network.observed(MESSAGES.into());
        for node in self.peers..self.all_peers().end {
            network.join(node);
            network.run_for(5_000);
        }
        network.run_for(interval_us);
        let asked = network.receptions.iter().filter(|reception| reception.asked);
        observed.asked_of = (self.pairs(), asked.count() as u64);
        observed
    }

    /// Where the machine is too busy to do between two heartbeats what belongs there, once more and slower.
    fn of_libp2p(mut self, seed: u64) -> Observed {
        for _ in 0..5 {
            if let Some(observed) = self.in_time(seed) {
                return observed;
            }
            self.interval *= 2;
        }
        panic!(
            "{} peers are not connected within {:?}",
            self.peers, self.interval
        );
    }

    fn in_time(&self, seed: u64) -> Option<Observed> {
        let mut network =
            real::Network::new(self.graph(seed), self.all_peers().end, self.interval, self.lazy);
        network.join(0..self.peers);
        if !network.is_before(1) {
            return None;
        }
        if self.interval < LONG {
            network.pass_heartbeat(1);
        }
        let mut observed = Observed::default();
        for sequence in 0..MESSAGES {
            network.publish(self.publisher(sequence), &mut observed);
        }
        observed.mesh = network.meshes(0..self.peers);
        let newcomers = self.peers..self.all_peers().end;
        network.join(newcomers.clone());
        if !network.is_before(2) {
            return None;
        }
        if !newcomers.is_empty() {
            network.pass_heartbeat(2);
        }
        observed.asked_of = (self.pairs(), network.messages_of(newcomers));
        Some(observed)
    }

    fn compare(self, seed: u64) {
        let real = self.of_libp2p(seed);
        let mut model = Observed::default();
        for other in 0..MODELS {
            model.add(&self.of_model(seed + other));
        }
        let peers = self.peers;
        println!(
            "libp2p {peers}: {}\nmodel  {peers}: {}",
            real.curve(),
            model.curve()
        );
        println!(
            "meshes of libp2p {:?}\nmeshes of model  {:?}",
            real.mesh, model.mesh
        );
        println!(
            "distance {:.3} of hops, {:.3} of meshes; libp2p and model: duplicates {:.3} {:.3}, hops {:.3} {:.3}, asked {:.3} {:.3}",
            distance(&real.hops, &model.hops),
            distance(&real.mesh, &model.mesh),
            real.duplicates_per_reception(),
            model.duplicates_per_reception(),
            Observed::mean(&real.hops),
            Observed::mean(&model.hops),
            real.share_asked(),
            model.share_asked(),
        );
        let all = u64::from(peers - 1) * u64::from(MESSAGES);
        assert_eq!(real.receptions(), all, "libp2p reaches everybody");
        assert_eq!(model.receptions(), MODELS * all, "the model reaches everybody");
        assert!(distance(&real.hops, &model.hops) <= 0.1);
        assert!(distance(&real.mesh, &model.mesh) <= 0.25);
        let duplicates = model.duplicates_per_reception() / real.duplicates_per_reception();
        assert!((0.9..=1.1).contains(&duplicates), "{duplicates}");
        if self.newcomers > 0 {
            assert!((real.share_asked() - model.share_asked()).abs() <= 0.3);
        }
    }
}

/// The longest that the model allows between heartbeats; no run of it takes as long.
const LONG: Duration = Duration::from_secs(60);

/// One heartbeat trims the meshes, a second one tells newcomers of messages that they missed.
#[test]
fn fifty_peers_deliver_like_libp2p() {
    let trial = Trial {
        peers: 50,
        newcomers: 30,
        interval: Duration::from_secs(5),
        lazy: 1,
    };
    trial.compare(11);
}

/// Meshes as joining makes them.
#[test]
fn two_hundred_peers_deliver_like_libp2p() {
    let trial = Trial {
        peers: 200,
        newcomers: 0,
        interval: LONG * 60,
        lazy: 6,
    };
    trial.compare(12);
}
