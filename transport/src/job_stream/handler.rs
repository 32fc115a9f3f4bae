//! The job streams of one connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::PeerId;
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound, StreamUpgradeError,
};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, SubstreamProtocol};

use super::behaviour::{Acceptor, JobUpgrade, OpenFailure, OpenRequest, job_upgrade};

/// Opens a stream for every request, many at a time, and accepts those that the peer opens.
pub(crate) struct Handler {
    peer: PeerId,
    acceptor: Acceptor,
    open_timeout: Duration,
    requests: VecDeque<OpenRequest>,
    waker: Option<Waker>,
}

impl Handler {
    pub(super) const fn new(peer: PeerId, acceptor: Acceptor, open_timeout: Duration) -> Self {
        Self {
            peer,
            acceptor,
            open_timeout,
            requests: VecDeque::new(),
            waker: None,
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = OpenRequest;
    type ToBehaviour = Infallible;
    type InboundProtocol = JobUpgrade;
    type OutboundProtocol = JobUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenRequest;

    fn listen_protocol(&self) -> SubstreamProtocol<JobUpgrade> {
        SubstreamProtocol::new(job_upgrade(), ()).with_timeout(self.open_timeout)
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<JobUpgrade, OpenRequest, Infallible>> {
        while let Some(request) = self.requests.pop_front() {
            if !request.reply.is_closed() {
                let protocol = SubstreamProtocol::new(job_upgrade(), request).with_timeout(self.open_timeout);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
        }
        self.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, request: OpenRequest) {
        self.requests.push_back(request);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, JobUpgrade, JobUpgrade, (), OpenRequest>) {
        // A reply that cannot be sent: whoever waited has gone, and the stream goes with the reply.
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                self.acceptor.accept(self.peer, stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info,
            }) => {
                let _ = info.reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info }) => {
                let failure = match error {
                    StreamUpgradeError::Timeout => OpenFailure::Timeout,
                    StreamUpgradeError::NegotiationFailed => OpenFailure::Unsupported,
                    StreamUpgradeError::Io(error) => OpenFailure::Unreachable(error.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = info.reply.send(Err(failure));
            }
            _ => {}
        }
    }
}
