//! How a mesh peer is set up.

use std::net::IpAddr;
use std::time::Duration;

use gristmill_protocol::board::BOARD_PROVIDERS_MAX;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// The port of the mesh, UDP for QUIC and TCP for the fallback, unless configured otherwise.
pub const DEFAULT_MESH_PORT: u16 = 7410;

/// QUIC and its TCP fallback on one IP address. With port zero the system chooses two free ports.
#[must_use]
pub fn listen_addresses(ip: IpAddr, port: u16) -> Vec<Multiaddr> {
    let ip = Multiaddr::from(ip);
    vec![
        ip.clone().with(Protocol::Udp(port)).with(Protocol::QuicV1),
        ip.with(Protocol::Tcp(port)),
    ]
}

/// The setup of a mesh peer. The default listens on loopback at free ports and knows nobody.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Where to listen, `/ip4/…/udp/…/quic-v1` or `/ip4/…/tcp/…`. Default: loopback, free ports. Empty: nowhere.
    pub listen: Vec<Multiaddr>,
    /// Addresses at which others reach this peer beyond those it listens on, as behind a forwarded port.
    /// Default: none.
    pub external: Vec<Multiaddr>,
    /// Peers to dial first and whenever they are not connected, each with its `/p2p/…` part. Default: none.
    pub bootstrap: Vec<Multiaddr>,
    /// Whether to find peers on the local network by multicast DNS. Without effect for a peer that listens on
    /// loopback only. Default: off.
    pub mdns: bool,
    /// Whether to answer others' Kademlia look-ups. Default: where it listens on, or announces, an address that
    /// is neither private nor loopback.
    pub kademlia_server: Option<bool>,
    /// Most connections in all. Default: 256.
    pub connections_max: u32,
    /// Most connections to one peer. Default: 4.
    pub connections_per_peer_max: u32,
    /// Most incoming job streams open at once. One over it is dropped. Default: 256.
    pub incoming_streams_max: usize,
    /// Most incoming job streams of one peer open at once. One over it is dropped. Default: 64.
    pub incoming_streams_per_peer_max: usize,
    /// Longest time to establish a connection. Default: 10 s.
    pub dial_timeout: Duration,
    /// Longest time to open a job stream, dialling included. Default: 10 s.
    pub open_timeout: Duration,
    /// How long a connection lives that carries neither a job nor gossip. Default: 60 s.
    pub idle_timeout: Duration,
    /// Most providers on the board. Default: [`BOARD_PROVIDERS_MAX`].
    pub board_providers_max: usize,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            listen: listen_addresses(IpAddr::from([127, 0, 0, 1]), 0),
            external: Vec::new(),
            bootstrap: Vec::new(),
            mdns: false,
            kademlia_server: None,
            connections_max: 256,
            connections_per_peer_max: 4,
            incoming_streams_max: 256,
            incoming_streams_per_peer_max: 64,
            dial_timeout: Duration::from_secs(10),
            open_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            board_providers_max: BOARD_PROVIDERS_MAX,
        }
    }
}
