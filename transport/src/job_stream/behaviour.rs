//! The part of the swarm that opens and accepts job streams.
//!
//! libp2p-stream 0.5.0-alpha would be the library for this. It hands incoming streams over through a channel
//! of one place and drops those that come in a burst, negotiates outgoing streams of a connection one after the
//! other, and keeps an entry for every connection that ever was. A provider needs none of these.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use gristmill_protocol::job::JOB_PROTOCOL;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, Stream, StreamProtocol,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{mpsc, oneshot};

use super::ProviderJobStream;
use super::budget::StreamBudget;
use super::handler::Handler;
use crate::peer_identity::account_of;
use gristmill_protocol::identity::AccountId;

/// The protocol of job streams, as negotiated on each stream.
pub(super) type JobUpgrade = ReadyUpgrade<StreamProtocol>;

/// The upgrade of both directions.
pub(super) const fn job_upgrade() -> JobUpgrade {
    ReadyUpgrade::new(StreamProtocol::new(JOB_PROTOCOL))
}

/// Why a stream could not be opened.
#[derive(Clone, Debug)]
pub(crate) enum OpenFailure {
    /// No address of the peer answered.
    Unreachable(String),
    /// The peer is connected and does not accept job streams.
    Unsupported,
    /// The peer did not answer in time.
    Timeout,
}

/// Somebody waits for a stream to a peer.
pub(crate) struct OpenRequest {
    pub(crate) reply: oneshot::Sender<Result<Stream, OpenFailure>>,
}

impl fmt::Debug for OpenRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OpenRequest")
    }
}

/// Hands incoming streams to the provider. There is room for as many as the budget admits.
#[derive(Clone, Debug)]
pub(crate) struct Acceptor {
    pub(crate) budget: Arc<StreamBudget>,
    pub(crate) accepted: mpsc::Sender<(AccountId, ProviderJobStream)>,
}

impl Acceptor {
    /// Takes the stream, or drops it over a limit or where nobody serves.
    pub(super) fn accept(&self, peer: PeerId, stream: Stream) {
        let Ok(account) = account_of(&peer) else {
            tracing::debug!(%peer, "job stream dropped: the peer's key is not an Ed25519 key");
            return;
        };
        let Some(permit) = self.budget.admit(account) else {
            tracing::debug!(%account, "job stream dropped: too many are open");
            return;
        };
        let stream = ProviderJobStream::with_permit(stream, Some(permit));
        if self.accepted.try_send((account, stream)).is_err() {
            tracing::debug!(%account, "job stream dropped: nobody serves here");
        }
    }
}

/// A dial made for those who wait for a stream to a peer.
struct Dial {
    id: ConnectionId,
    waiting: Vec<OpenRequest>,
}

/// The behaviour.
pub(crate) struct Behaviour {
    acceptor: Acceptor,
    open_timeout: Duration,
    /// The connections of each peer, QUIC first, then older first.
    connections: HashMap<PeerId, Vec<(ConnectionId, bool)>>,
    dials: HashMap<PeerId, Dial>,
    effects: VecDeque<ToSwarm<Infallible, OpenRequest>>,
}

impl Behaviour {
    pub(crate) fn new(acceptor: Acceptor, open_timeout: Duration) -> Self {
        Self {
            acceptor,
            open_timeout,
            connections: HashMap::new(),
            dials: HashMap::new(),
            effects: VecDeque::new(),
        }
    }

    /// Opens a stream on a connection that there is, or on one made to these addresses.
    pub(crate) fn open(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, request: OpenRequest) {
        if let Some(connection) = self.best_connection(&peer) {
            self.request_on(peer, connection, request);
        } else if let Some(dial) = self.dials.get_mut(&peer) {
            dial.waiting.retain(|waiting| !waiting.reply.is_closed());
            dial.waiting.push(request);
        } else {
            let opts = DialOpts::peer_id(peer)
                .addresses(addresses)
                .extend_addresses_through_behaviour()
                .condition(PeerCondition::Disconnected)
                .build();
            self.dials.insert(
                peer,
                Dial {
                    id: opts.connection_id(),
                    waiting: vec![request],
                },
            );
            self.effects.push_back(ToSwarm::Dial { opts });
        }
    }

    fn best_connection(&self, peer: &PeerId) -> Option<ConnectionId> {
        self.connections
            .get(peer)
            .and_then(|connections| connections.first())
            .map(|(id, _)| *id)
    }

    fn request_on(&mut self, peer_id: PeerId, connection: ConnectionId, request: OpenRequest) {
        let handler = NotifyHandler::One(connection);
        self.effects.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler,
            event: request,
        });
    }

    fn on_established(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let is_quic = crate::mesh::addresses::is_quic(endpoint.get_remote_address());
        let connections = self.connections.entry(peer).or_default();
        connections.push((connection, is_quic));
        connections.sort_by_key(|(_, is_quic)| !is_quic);
        let waiting = self
            .dials
            .remove(&peer)
            .map(|dial| dial.waiting)
            .unwrap_or_default();
        for request in waiting {
            self.request_on(peer, connection, request);
        }
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(connections) = self.connections.get_mut(&peer) {
            connections.retain(|(id, _)| *id != connection);
            if connections.is_empty() {
                self.connections.remove(&peer);
            }
        }
    }

    fn on_dial_failure(&mut self, peer: PeerId, failure: &DialFailure<'_>) {
        if self
            .dials
            .get(&peer)
            .is_none_or(|dial| dial.id != failure.connection_id)
        {
            return;
        }
        let waiting = self
            .dials
            .remove(&peer)
            .map(|dial| dial.waiting)
            .unwrap_or_default();
        let reason = failure.error.to_string();
        for request in waiting {
            // Whoever waited may have gone.
            let _ = request.reply.send(Err(OpenFailure::Unreachable(reason.clone())));
        }
    }

    fn handler(&self, peer: PeerId) -> Handler {
        Handler::new(peer, self.acceptor.clone(), self.open_timeout)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _connection: ConnectionId,
        peer: PeerId,
        _remote: &Multiaddr,
        _role: Endpoint,
        _port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => self.on_established(peer_id, connection_id, endpoint),
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.on_closed(peer_id, connection_id);
            }
            FromSwarm::DialFailure(failure) => {
                if let Some(peer) = failure.peer_id {
                    self.on_dial_failure(peer, &failure);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _peer: PeerId,
        _connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _context: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // Effects arise only in the swarm's own task, which polls again after each of them.
        self.effects.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
