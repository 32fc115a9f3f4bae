//! Putting the swarm together, and looking whether a port is free.

use std::net::{SocketAddr, TcpListener, UdpSocket};

use gristmill_protocol::identity::Keypair;
use libp2p::core::upgrade::Version;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm, swarm};

use super::behaviour::MeshBehaviour;
use super::{MeshConfig, MeshError, addresses};
use crate::job_stream::behaviour::Acceptor;
use crate::peer_identity::libp2p_keypair;

/// The swarm of a mesh peer, which listens nowhere yet.
pub(super) fn swarm(
    keypair: &Keypair,
    config: &MeshConfig,
    acceptor: Acceptor,
) -> Result<Swarm<MeshBehaviour>, MeshError> {
    let keypair = libp2p_keypair(keypair).map_err(|error| MeshError::Setup(format!("identity: {error}")))?;
    let transport = super::transport::transport(&keypair, config)?;
    let behaviour = MeshBehaviour::new(&keypair, config, acceptor)?;
    let swarm_config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(config.idle_timeout)
        // QUIC gets a head start, TCP follows a moment later (RFC 8305).
        .with_smart_dial()
        // A stream's first frame travels with its negotiation, one round trip earlier. Each of our streams
        // proposes a single protocol, which this needs.
        .with_substream_upgrade_protocol_override(Version::V1Lazy);
    Ok(Swarm::new(
        transport,
        behaviour,
        keypair.public().to_peer_id(),
        swarm_config,
    ))
}

/// Tells a port that another program has before libp2p wraps the error, or (TCP, where it sets `SO_REUSEPORT`)
/// does not notice.
pub(super) fn check_free(address: &Multiaddr) -> Result<(), MeshError> {
    let expected = "listen address; they look like /ip4/0.0.0.0/udp/7410/quic-v1 or /ip4/0.0.0.0/tcp/7410";
    let unusable = || MeshError::Address {
        address: address.clone(),
        expected,
    };
    let ip = addresses::ip(address).ok_or_else(unusable)?;
    let outcome = match address.iter().nth(1) {
        _ if !addresses::is_supported(address) => return Err(unusable()),
        Some(Protocol::Udp(port)) => UdpSocket::bind(SocketAddr::new(ip, port)).map(drop),
        Some(Protocol::Tcp(port)) => TcpListener::bind(SocketAddr::new(ip, port)).map(drop),
        _ => return Err(unusable()),
    };
    outcome.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => MeshError::AddressInUse {
            address: address.clone(),
        },
        _ => MeshError::Listen {
            address: address.clone(),
            reason: error.to_string(),
        },
    })
}
