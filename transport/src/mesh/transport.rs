//! The transports: QUIC, and TCP with noise and yamux where UDP is blocked.

use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeout;
use libp2p::core::transport::{Boxed, OrTransport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::{PeerId, dns, noise, quic, tcp, yamux};

use super::MeshError;
use super::configuration::MeshConfig;

/// What a peer may send on one stream ahead of its reader. With [`CONNECTION_WINDOW_BYTES`] it bounds what a slow
/// reader costs, and a stream's throughput to this much per round trip.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What a peer may send on all streams of a connection ahead of their readers.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Streams for gossip, Kademlia, identify and ping, beside the jobs of a connection.
const SERVICE_STREAMS: usize = 64;

/// The transport of a mesh peer, with names looked up where the system can.
pub(super) fn transport(
    keypair: &Keypair,
    config: &MeshConfig,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, MeshError> {
    let timeout = config.dial_timeout;
    match dns::tokio::Transport::system(quic_or_tcp(keypair, config)?) {
        Ok(with_names) => Ok(TransportTimeout::new(with_names, timeout).boxed()),
        Err(error) => {
            tracing::warn!(%error, "no DNS configuration; only numeric addresses can be dialled");
            Ok(TransportTimeout::new(quic_or_tcp(keypair, config)?, timeout).boxed())
        }
    }
}

type Connection = Boxed<(PeerId, StreamMuxerBox)>;

fn quic_or_tcp(keypair: &Keypair, config: &MeshConfig) -> Result<Connection, MeshError> {
    let streams_max = config
        .incoming_streams_per_peer_max
        .saturating_mul(2)
        .saturating_add(SERVICE_STREAMS);
    let mut quic_config = quic::Config::new(keypair);
    quic_config.handshake_timeout = config.dial_timeout;
    quic_config.max_stream_data = STREAM_WINDOW_BYTES;
    quic_config.max_connection_data = CONNECTION_WINDOW_BYTES;
    quic_config.max_concurrent_stream_limit = u32::try_from(streams_max).unwrap_or(u32::MAX);
    let quic = quic::tokio::Transport::new(quic_config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));

    let noise = noise::Config::new(keypair).map_err(|error| MeshError::Setup(format!("noise: {error}")))?;
    let mut yamux_config = yamux::Config::default();
    yamux_config.set_max_num_streams(streams_max);
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux_config)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)));

    Ok(OrTransport::new(quic, tcp)
        .map(|either, _| either.into_inner())
        .boxed())
}
