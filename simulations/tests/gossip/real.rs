//! A network of libp2p peers in this process: the shipped parameters, memory for wires, and one thread that runs until nobody has
//! anything left to do. Time plays no part in what is compared: a message moves one link at a time, as every peer says that a
//! message is valid only when the whole network has fallen silent.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::executor::LocalPool;
use futures::task::LocalSpawnExt as _;
use gristmill_protocol::listing::LISTINGS_TOPIC;
use gristmill_simulations::gossip::graph::Graph;
use gristmill_transport::mesh::{gossip_parameters, gossip_scores};
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageAuthenticity, MessageId};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Config, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, Transport as _, identity, noise, yamux};

use crate::observed::Observed;

/// A peer and what has happened to it.
struct Peer {
    swarm: Swarm<gossipsub::Behaviour>,
    waker: Option<Waker>,
    /// Messages that wait for a word on them.
    waiting: Vec<(MessageId, PeerId)>,
    /// How many copies of messages have come, counted where libp2p works out their ids.
    copies: Arc<AtomicU64>,
    seen: BTreeSet<MessageId>,
}

/// The network.
pub(crate) struct Network {
    pool: LocalPool,
    graph: Graph,
    peers: Vec<Rc<RefCell<Peer>>>,
    address: u64,
    started: Instant,
    interval: Duration,
    lazy: usize,
    published: u64,
}

/// Addresses in memory are of the whole process.
static ADDRESSES: AtomicU64 = AtomicU64::new(1_000);

impl Network {
    /// Starts so many peers that know nobody.
    pub(crate) fn new(graph: Graph, nodes: u32, interval: Duration, lazy: usize) -> Self {
        let address = ADDRESSES.fetch_add(u64::from(nodes), Ordering::Relaxed);
        let mut network = Self {
            pool: LocalPool::new(),
            graph,
            peers: Vec::new(),
            address,
            started: Instant::now(),
            interval,
            lazy,
            published: 0,
        };
        for node in 0..nodes {
            let peer = Rc::new(RefCell::new(network.peer(node)));
            network.peers.push(Rc::clone(&peer));
            let run = futures::future::poll_fn(move |context| {
                let mut peer = peer.borrow_mut();
                peer.waker = Some(context.waker().clone());
                while let Poll::Ready(Some(event)) = peer.swarm.poll_next_unpin(context) {
                    peer.on_event(event);
                }
                Poll::<()>::Pending
            });
            network.pool.spawner().spawn_local(run).unwrap();
        }
        network.settle();
        network
    }

    fn address(&self, node: u32) -> Multiaddr {
        format!("/memory/{}", self.address + u64::from(node))
            .parse()
            .unwrap()
    }

    fn peer(&self, node: u32) -> Peer {
        let keypair = identity::Keypair::generate_ed25519();
        let transport = MemoryTransport::default()
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&keypair).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let copies = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&copies);
        let config = gossip_parameters()
            .heartbeat_initial_delay(Duration::ZERO)
            .heartbeat_interval(self.interval)
            .gossip_lazy(self.lazy)
            .gossip_factor(0.0)
            .message_id_fn(move |message| {
                counted.fetch_add(1, Ordering::Relaxed);
                MessageId::new(blake3::hash(&message.data).as_bytes())
            })
            .build()
            .unwrap();
        let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config).unwrap();
        let (scores, thresholds) = gossip_scores();
        gossip.with_peer_score(scores, thresholds).unwrap();
        gossip.subscribe(&IdentTopic::new(LISTINGS_TOPIC)).unwrap();
        let config = Config::without_executor().with_idle_connection_timeout(Duration::from_secs(600));
        let mut swarm = Swarm::new(transport, gossip, keypair.public().to_peer_id(), config);
        swarm.listen_on(self.address(node)).unwrap();
        Peer {
            swarm,
            waker: None,
            waiting: Vec::new(),
            copies,
            seen: BTreeSet::new(),
        }
    }

    /// Runs until nobody has anything left to do.
    fn settle(&mut self) {
        self.pool.run_until_stalled();
    }

    /// Connects a node to those of its neighbours that are below it.
    fn dial(&mut self, node: u32) {
        let links: Vec<_> = self
            .graph
            .links(node)
            .filter(|(_, peer, _)| *peer < node)
            .collect();
        for (_, peer, dials) in links {
            let (from, to) = if dials { (node, peer) } else { (peer, node) };
            let id = *self.peers[to as usize].borrow().swarm.local_peer_id();
            let options = DialOpts::peer_id(id).addresses(vec![self.address(to)]).build();
            self.peers[from as usize]
                .borrow_mut()
                .act(|swarm| swarm.dial(options).unwrap());
        }
    }

    /// Joins some nodes, one after the other.
    pub(crate) fn join(&mut self, nodes: std::ops::Range<u32>) {
        let joined = nodes.end;
        for node in nodes {
            self.dial(node);
            self.settle();
        }
        let links = (0..joined).map(|node| {
            self.graph
                .links(node)
                .filter(|(_, peer, _)| *peer < joined)
                .count()
        });
        assert_eq!(self.connections(), links.sum::<usize>());
    }

    /// How many connections there are, each counted at both ends.
    fn connections(&self) -> usize {
        let peers = self.peers.iter();
        peers
            .map(|peer| peer.borrow().swarm.connected_peers().count())
            .sum()
    }

    /// Whether a heartbeat is still to come.
    pub(crate) fn is_before(&self, heartbeat: u32) -> bool {
        self.started.elapsed() < self.interval * heartbeat
    }

    /// Waits until a heartbeat is over.
    pub(crate) fn pass_heartbeat(&mut self, heartbeat: u32) {
        // Peers start within moments of each other, and a timer that comes later still is no harm.
        while self.started.elapsed() < self.interval * heartbeat + Duration::from_secs(1) {
            std::thread::sleep(Duration::from_millis(20));
            self.settle();
        }
    }

    /// Publishes a message and lets it travel one link at a time until all is said.
    pub(crate) fn publish(&mut self, node: u32, observed: &mut Observed) {
        self.published += 1;
        let mut data = vec![0; 600];
        data[..8].copy_from_slice(&self.published.to_le_bytes());
        let before: u64 = self.copies();
        self.peers[node as usize].borrow_mut().act(|swarm| {
            let gossip = swarm.behaviour_mut();
            gossip.publish(IdentTopic::new(LISTINGS_TOPIC), data).unwrap();
        });
        self.settle();
        let mut all = 0;
        for hops in 1.. {
            let mut received = 0;
            for peer in &self.peers {
                let mut peer = peer.borrow_mut();
                for (id, from) in std::mem::take(&mut peer.waiting) {
                    received += 1;
                    peer.act(|swarm| {
                        let gossip = swarm.behaviour_mut();
                        gossip.report_message_validation_result(&id, &from, MessageAcceptance::Accept);
                    });
                }
            }
            if received == 0 {
                break;
            }
            *observed.hops.entry(hops).or_default() += received;
            all += received;
            self.settle();
        }
        observed.messages += 1;
        // The publisher worked an id out, too.
        observed.duplicates += self.copies() - before - 1 - all;
    }

    fn copies(&self) -> u64 {
        let peers = self.peers.iter();
        peers
            .map(|peer| peer.borrow().copies.load(Ordering::Relaxed))
            .sum()
    }

    /// The sizes of the meshes of some nodes.
    pub(crate) fn meshes(&self, nodes: std::ops::Range<u32>) -> BTreeMap<u64, u64> {
        let topic = IdentTopic::new(LISTINGS_TOPIC).hash();
        let mut sizes = BTreeMap::new();
        for node in nodes {
            let size = self.peers[node as usize]
                .borrow()
                .swarm
                .behaviour()
                .mesh_peers(&topic)
                .count() as u64;
            *sizes.entry(size).or_default() += 1;
        }
        sizes
    }

    /// How many messages some nodes have got.
    pub(crate) fn messages_of(&self, nodes: std::ops::Range<u32>) -> u64 {
        nodes
            .map(|node| self.peers[node as usize].borrow().seen.len() as u64)
            .sum()
    }
}

impl Peer {
    fn act(&mut self, action: impl FnOnce(&mut Swarm<gossipsub::Behaviour>)) {
        action(&mut self.swarm);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_event(&mut self, event: SwarmEvent<gossipsub::Event>) {
        if let SwarmEvent::Behaviour(gossipsub::Event::Message {
            propagation_source,
            message_id,
            ..
        }) = event
        {
            self.seen.insert(message_id.clone());
            self.waiting.push((message_id, propagation_source));
        }
    }
}
