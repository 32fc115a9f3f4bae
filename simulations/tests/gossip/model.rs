//! A network of model peers with one latency for all links, driven by a heap of events.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use gristmill_simulations::engine::random::Random;
use gristmill_simulations::gossip::graph::Graph;
use gristmill_simulations::gossip::{
    Effect, GossipConfig, Link, Message, MessageId, Payload, Peer, Settings, Step, Verdict,
};

use crate::observed::Observed;

/// What can happen to a peer.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Connect(Link, bool),
    Disconnect(Link),
    Receive(Link, Payload),
    Heartbeat(u32),
    Publish(Message),
}

/// One reception of a new message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reception {
    pub(crate) node: u32,
    pub(crate) id: MessageId,
    pub(crate) hops: u8,
    pub(crate) asked: bool,
}

/// The network.
pub(crate) struct Network {
    pub(crate) settings: Settings,
    pub(crate) graph: Graph,
    pub(crate) peers: Vec<Peer>,
    pub(crate) latency_us: u64,
    pub(crate) now_us: u64,
    pub(crate) receptions: Vec<Reception>,
    /// What each node thinks of messages; `Accept` where nothing is said.
    pub(crate) verdicts: BTreeMap<MessageId, Verdict>,
    /// Links that carry nothing, by both ends.
    pub(crate) cut: BTreeSet<(u32, Link)>,
    /// Frames of each kind, and heartbeats.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// When a message was sent from one to the other.
    sent: BTreeMap<(u32, u32, MessageId), u64>,
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: BTreeMap<u64, Event>,
    next: u64,
    random: Random,
}

impl Network {
    pub(crate) fn new(config: GossipConfig, graph: Graph, nodes: u32, seed: u64, latency_us: u64) -> Self {
        Self {
            settings: Settings::new(config),
            graph,
            peers: (0..nodes).map(|_| Peer::new(0)).collect(),
            latency_us,
            now_us: 0,
            receptions: Vec::new(),
            verdicts: BTreeMap::new(),
            cut: BTreeSet::new(),
            counts: BTreeMap::new(),
            sent: BTreeMap::new(),
            heap: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            random: Random::of_purpose(seed, "model network", 0),
        }
    }

    /// Lets something happen to a peer later.
    pub(crate) fn after(&mut self, delay_us: u64, node: u32, event: Event) {
        self.heap.push(Reverse((self.now_us + delay_us, self.next, node)));
        self.events.insert(self.next, event);
        self.next += 1;
    }

    /// Connects a node to those of its neighbours that are below it, as if they had been there before.
    pub(crate) fn join(&mut self, node: u32) {
        let links: Vec<_> = self
            .graph
            .links(node)
            .filter(|(_, peer, _)| *peer < node)
            .collect();
        for (link, peer, dials) in links {
            let delay_us = 1 + self.random.below(self.latency_us);
            self.after(delay_us, node, Event::Connect(link, dials));
            self.after(delay_us, peer, Event::Connect(link, !dials));
        }
    }

    /// Lets so much time pass.
    pub(crate) fn run_for(&mut self, us: u64) {
        let until_us = self.now_us + us;
        while let Some(Reverse((at_us, number, node))) = self.heap.peek().copied()
            && at_us <= until_us
        {
            self.heap.pop();
            self.now_us = at_us;
            let event = self.events.remove(&number).unwrap();
            self.handle(node, event);
        }
        self.now_us = until_us;
    }

    fn handle(&mut self, node: u32, event: Event) {
        let mut effects = Vec::new();
        let mut random = self.random.clone();
        let mut step = Step {
            settings: &self.settings,
            now_us: self.now_us,
            random: &mut random,
            effects: &mut effects,
        };
        let peer = &mut self.peers[node as usize];
        match event {
            Event::Connect(link, dialled) => peer.connect(link, dialled, &mut step),
            Event::Disconnect(link) => peer.disconnect(link, &mut step),
            Event::Heartbeat(beat) => {
                *self.counts.entry("heartbeat").or_default() += 1;
                peer.heartbeat(beat, &mut step);
            }
            Event::Publish(message) => assert!(peer.publish(message, &mut step)),
            Event::Receive(link, payload) => {
                let of = match payload {
                    Payload::Publish { hops, asked, .. } => (hops, asked),
                    _ => (0, false),
                };
                let (verdicts, receptions) = (&self.verdicts, &mut self.receptions);
                let validate = |id| {
                    receptions.push(Reception {
                        node,
                        id,
                        hops: of.0,
                        asked: of.1,
                    });
                    verdicts.get(&id).copied().unwrap_or(Verdict::Accept)
                };
                peer.receive(link, payload, validate, &mut step);
            }
        }
        self.random = random;
        for effect in effects {
            self.carry_out(node, effect);
        }
    }

    fn carry_out(&mut self, node: u32, effect: Effect) {
        match effect {
            Effect::Wake { at_us, beat } => {
                assert!(at_us >= self.now_us, "a heartbeat of the past");
                self.after(at_us - self.now_us, node, Event::Heartbeat(beat));
            }
            Effect::Send { link, payload } => {
                let peer = self.graph.peer(node, link);
                *self.counts.entry(kind(&payload)).or_default() += 1;
                if let Payload::Publish { message, .. } = &payload {
                    self.sent.insert((node, peer, message.id), self.now_us);
                }
                if !self.cut.contains(&(node, link)) {
                    self.after(self.latency_us, peer, Event::Receive(link, payload));
                }
            }
        }
    }

    /// Cuts all links between two groups, or mends them.
    pub(crate) fn part(&mut self, cut: bool, in_first: impl Fn(u32) -> bool) {
        for node in 0..self.peers.len() as u32 {
            let links: Vec<_> = self.graph.links(node).collect();
            for (link, peer, dials) in links {
                if in_first(node) == in_first(peer) {
                    continue;
                }
                if cut {
                    self.cut.insert((node, link));
                    self.after(1, node, Event::Disconnect(link));
                } else {
                    self.cut.remove(&(node, link));
                    self.after(1, node, Event::Connect(link, dials));
                }
            }
        }
    }

    /// What has been seen of some messages by all but newcomers. A message that crosses another copy of itself on its link is no
    /// duplicate: the real run lets who has it twice at one moment know that before it forwards.
    pub(crate) fn observed(&self, messages: u64) -> Observed {
        let mut observed = Observed {
            messages,
            ..Observed::default()
        };
        for reception in self.receptions.iter().filter(|reception| !reception.asked) {
            *observed.hops.entry(reception.hops.into()).or_default() += 1;
        }
        let crossing = self.sent.iter().filter(|((from, to, id), at_us)| {
            let back = self.sent.get(&(*to, *from, *id));
            back.is_some_and(|back_us| back_us + self.latency_us == **at_us)
        });
        let again: u64 = self
            .peers
            .iter()
            .map(|peer| u64::from(peer.traffic().duplicates))
            .sum();
        observed.duplicates = again - crossing.count() as u64;
        for peer in self.peers.iter().filter(|peer| !peer.neighbours().is_empty()) {
            *observed.mesh.entry(peer.mesh().len().into()).or_default() += 1;
        }
        observed
    }

    /// Whom a message has reached, its publisher not counted.
    pub(crate) fn reached(&self, id: MessageId) -> BTreeSet<u32> {
        let receptions = self.receptions.iter().filter(|reception| reception.id == id);
        receptions.map(|reception| reception.node).collect()
    }

    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.counts.get(kind).copied().unwrap_or_default()
    }
}

const fn kind(payload: &Payload) -> &'static str {
    match payload {
        Payload::Subscribe => "subscribe",
        Payload::Publish { .. } => "publish",
        Payload::IHave(_) => "ihave",
        Payload::IWant(_) => "iwant",
        Payload::IDontWant(_) => "idontwant",
        Payload::Graft => "graft",
        Payload::Prune { .. } => "prune",
    }
}
