//! Opens the node's ports. Where an owner chose none and the usual ones are taken, free ones do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use gristmill_protocol::identity::Keypair;
use gristmill_transport::mesh::listen_addresses;
use gristmill_transport::{Clock, IncomingJobs, Mesh, MeshConfig, MeshError};
use tokio::net::TcpListener;

use super::StartError;
use crate::settings::{LOCAL_API_PORT, LocalApi, MeshListen, Settings};

/// Streams beyond those of running and waiting jobs: being refused, being paid for, saying goodbye.
const OTHER_STREAMS: usize = 192;

/// The listener of the local API, and where it listens; `None` where it is off.
pub(super) async fn local_api(wanted: LocalApi) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, LOCAL_API_PORT));
    let (address, bound) = match wanted {
        LocalApi::Off => return Ok(None),
        LocalApi::At(address) => (address, TcpListener::bind(address).await),
        LocalApi::Default => match TcpListener::bind(usual).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                (free, TcpListener::bind(free).await)
            }
            bound => (usual, bound),
        },
    };
    let failed = |source| StartError::LocalApi { address, source };
    let listener = bound.map_err(failed)?;
    let actual = listener.local_addr().map_err(failed)?;
    if wanted == LocalApi::Default && actual != usual {
        tracing::warn!(%actual, "port {LOCAL_API_PORT} is taken by another program; the local API listens elsewhere");
    }
    Ok(Some((listener, actual)))
}

/// The mesh peer.
pub(super) async fn mesh(
    settings: &Settings,
    keypair: &Keypair,
    clock: Clock,
) -> Result<(Mesh, IncomingJobs), StartError> {
    let jobs = usize::from(settings.slots) + usize::from(settings.queue_length);
    let config = |listen| MeshConfig {
        listen,
        external: settings.public_addresses.clone(),
        mdns: settings.mdns,
        incoming_streams_max: jobs + OTHER_STREAMS,
        ..MeshConfig::default()
    };
    let preferred = config(settings.mesh_listen.preferred());
    match Mesh::start(keypair, preferred, clock.clone()).await {
        Err(MeshError::AddressInUse { address }) if settings.mesh_listen == MeshListen::Default => {
            tracing::warn!(%address, "taken by another program; the mesh listens on free ports instead");
            let free = config(listen_addresses(Ipv4Addr::LOCALHOST.into(), 0));
            Ok(Mesh::start(keypair, free, clock).await?)
        }
        started => Ok(started?),
    }
}
