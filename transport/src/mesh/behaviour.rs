//! Everything that the swarm does, put together.

use libp2p::identity::Keypair;
use libp2p::kad::store::MemoryStore;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, connection_limits, identify, kad, mdns, ping};

use super::MeshError;
use super::addresses::Reach;
use super::configuration::MeshConfig;
use super::gossip::{Gossip, gossip};
use crate::job_stream::behaviour::{self as job_streams, Acceptor};

/// The Kademlia of this market.
pub(super) const KADEMLIA_PROTOCOL: StreamProtocol = StreamProtocol::new("/gristmill/kademlia/1");
const IDENTIFY_PROTOCOL: &str = "/gristmill/1";
const AGENT: &str = concat!("gristmill/", env!("CARGO_PKG_VERSION"));

/// The parts of the swarm. The limits come first, so that what they deny reaches nobody else.
#[derive(NetworkBehaviour)]
pub(super) struct MeshBehaviour {
    limits: connection_limits::Behaviour,
    pub(super) gossip: Gossip,
    pub(super) kademlia: kad::Behaviour<MemoryStore>,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) jobs: job_streams::Behaviour,
}

impl MeshBehaviour {
    pub(super) fn new(keypair: &Keypair, config: &MeshConfig, acceptor: Acceptor) -> Result<Self, MeshError> {
        let peer = keypair.public().to_peer_id();
        let identify = identify::Config::new(IDENTIFY_PROTOCOL.into(), keypair.public())
            .with_agent_version(AGENT.into());
        let mdns = if config.mdns
            && config
                .listen
                .iter()
                .any(|address| Reach::of(address) > Reach::Machine)
        {
            let behaviour = mdns::tokio::Behaviour::new(mdns::Config::default(), peer)
                .map_err(|error| MeshError::Setup(format!("multicast DNS: {error}; switch mdns off")))?;
            Some(behaviour)
        } else {
            None
        };
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits(config)),
            gossip: gossip().map_err(MeshError::Setup)?,
            kademlia: kademlia(peer, config),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping::Config::new()),
            mdns: Toggle::from(mdns),
            jobs: job_streams::Behaviour::new(acceptor, config.open_timeout),
        })
    }
}

fn limits(config: &MeshConfig) -> connection_limits::ConnectionLimits {
    let most = config.connections_max;
    connection_limits::ConnectionLimits::default()
        .with_max_established(Some(most))
        // Strangers cannot fill every place: some are left for those whom we dial.
        .with_max_established_incoming(Some(most - most / 4))
        .with_max_established_per_peer(Some(config.connections_per_peer_max))
        .with_max_pending_incoming(Some(most))
        .with_max_pending_outgoing(Some(most))
}

/// Finds peers. It stores nothing for anybody: listings travel by gossip.
fn kademlia(peer: libp2p::PeerId, config: &MeshConfig) -> kad::Behaviour<MemoryStore> {
    let mut kademlia_config = kad::Config::new(KADEMLIA_PROTOCOL);
    kademlia_config
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .disjoint_query_paths(true);
    let mut kademlia = kad::Behaviour::with_config(peer, MemoryStore::new(peer), kademlia_config);
    let reachable = || {
        config
            .listen
            .iter()
            .chain(&config.external)
            .any(|a| Reach::of(a) == Reach::Anywhere)
    };
    let serves = config.kademlia_server.unwrap_or_else(reachable);
    kademlia.set_mode(Some(if serves {
        kad::Mode::Server
    } else {
        kad::Mode::Client
    }));
    kademlia
}
