//! What the driver does when the swarm says something.

use libp2p::gossipsub::{self, Event as GossipEvent, MessageAcceptance, TopicHash};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, SwarmEvent};
use libp2p::{PeerId, identify, mdns};

use super::Driver;
use crate::mesh::addresses;
use crate::mesh::behaviour::{KADEMLIA_PROTOCOL, MeshBehaviourEvent};
use crate::mesh::gossip::{acceptance, checkpoints_topic, judged, listings_topic};
use crate::peer_identity::account_of;

impl Driver {
    pub(super) fn on_swarm_event(&mut self, event: SwarmEvent<MeshBehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour_event(event),
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "mesh listens");
                self.shared.listening.send_modify(|listening| {
                    if !listening.contains(&address) {
                        listening.push(address);
                    }
                });
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.shared
                    .listening
                    .send_modify(|listening| listening.retain(|known| *known != address));
            }
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => {
                match reason {
                    Ok(()) => tracing::debug!(?addresses, "mesh listener closed"),
                    Err(error) => tracing::warn!(?addresses, %error, "mesh listener broke"),
                }
                self.shared
                    .listening
                    .send_modify(|listening| listening.retain(|known| !addresses.contains(known)));
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => {
                self.remotes
                    .insert(connection_id, endpoint.get_remote_address().clone());
                self.bootstrap.on_connected(&peer_id);
                if let Ok(account) = account_of(&peer_id) {
                    self.shared.peers.send_if_modified(|peers| peers.insert(account));
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                cause,
                ..
            } => {
                tracing::debug!(%peer_id, ?cause, "connection closed");
                self.remotes.remove(&connection_id);
                if num_established == 0 {
                    self.on_disconnected(&peer_id);
                }
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => {
                tracing::debug!(%peer, %error, "dial failed");
                if !self.swarm.is_connected(&peer) {
                    self.on_bootstrap_lost(&peer);
                }
            }
            _ => {}
        }
    }

    fn on_deaf(&self, peer: &PeerId) {
        if let Ok(account) = account_of(peer) {
            self.shared
                .listeners
                .send_if_modified(|listeners| listeners.remove(&account));
        }
    }

    fn on_disconnected(&mut self, peer: &PeerId) {
        self.on_bootstrap_lost(peer);
        self.on_deaf(peer);
        if let Ok(account) = account_of(peer) {
            self.shared.peers.send_if_modified(|peers| peers.remove(&account));
        }
    }

    fn on_behaviour_event(&mut self, event: MeshBehaviourEvent) {
        match event {
            MeshBehaviourEvent::Gossip(GossipEvent::Message {
                propagation_source,
                message_id,
                message,
            }) => {
                let acceptance = self.acceptance(&propagation_source, &message);
                self.swarm
                    .behaviour_mut()
                    .gossip
                    .report_message_validation_result(&message_id, &propagation_source, acceptance);
            }
            MeshBehaviourEvent::Gossip(GossipEvent::Subscribed { peer_id, topic, .. }) => {
                self.on_listener(&peer_id, &topic);
            }
            MeshBehaviourEvent::Gossip(GossipEvent::Unsubscribed { peer_id, topic })
                if topic == listings_topic().hash() =>
            {
                self.on_deaf(&peer_id);
            }
            MeshBehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                connection_id,
                info,
            }) => {
                self.on_identified(peer_id, connection_id, info);
            }
            MeshBehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                for (peer, address) in found {
                    self.swarm
                        .behaviour_mut()
                        .kademlia
                        .add_address(&peer, address.clone());
                    let opts = DialOpts::peer_id(peer).addresses(vec![address]).build();
                    if let Err(error) = self.swarm.dial(opts) {
                        tracing::debug!(%peer, %error, "peer on the local network not dialled");
                    }
                }
            }
            _ => {}
        }
    }

    /// What to do with a message, after taking in what it says.
    fn acceptance(&self, from: &PeerId, message: &gossipsub::Message) -> MessageAcceptance {
        if message.topic == listings_topic().hash() {
            let outcome = self.shared.insert(&message.data, (self.clock)());
            if let Err(error) = &outcome {
                tracing::debug!(peer = %from, %error, "listing refused");
            }
            return acceptance(&outcome);
        }
        let Ok(from) = account_of(from) else {
            return MessageAcceptance::Ignore;
        };
        let judgement = self
            .shared
            .checkpoints()
            .judge(&message.data, from, self.elapsed_ms());
        tracing::trace!(peer = %from, ?judgement, "heard of a log");
        judged(judgement)
    }

    fn on_listener(&mut self, peer: &PeerId, topic: &TopicHash) {
        if *topic == checkpoints_topic().hash() {
            self.announcements.somebody_came();
            self.send_announcements();
            return;
        }
        if let Ok(account) = account_of(peer) {
            self.shared
                .listeners
                .send_if_modified(|listeners| listeners.insert(account));
        }
        self.send_unheard();
    }

    fn on_identified(&mut self, peer: PeerId, connection: ConnectionId, info: identify::Info) {
        let Some(remote) = self.remotes.get(&connection) else {
            return;
        };
        if !info.protocols.contains(&KADEMLIA_PROTOCOL) {
            return;
        }
        for address in addresses::believable(remote, info.listen_addrs) {
            self.swarm.behaviour_mut().kademlia.add_address(&peer, address);
        }
    }
}
