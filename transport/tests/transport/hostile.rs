//! A peer that speaks gossipsub and says whatever it likes.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt as _;
use gristmill_protocol::listing::LISTINGS_TOPIC;
use gristmill_transport::mesh::CHECKPOINTS_TOPIC;
use libp2p::gossipsub::{
    self, ConfigBuilder, Event, IdentTopic, MessageAuthenticity, MessageId, ValidationMode,
};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, SwarmBuilder, identity};
use tokio::sync::mpsc;

/// Sends messages without looking at them.
pub(crate) struct HostilePeer {
    messages: mpsc::Sender<(&'static str, Vec<u8>)>,
}

impl HostilePeer {
    /// Connects to a peer, and returns once that one listens to listings.
    pub(crate) async fn join(byte: u8, victim: Multiaddr) -> Self {
        Self::heard_on(LISTINGS_TOPIC, byte, victim).await
    }

    /// Connects to a peer, and returns once that one listens to checkpoints.
    pub(crate) async fn join_watching(byte: u8, victim: Multiaddr) -> Self {
        Self::heard_on(CHECKPOINTS_TOPIC, byte, victim).await
    }

    async fn heard_on(topic: &'static str, byte: u8, victim: Multiaddr) -> Self {
        let keypair = identity::Keypair::ed25519_from_bytes([byte; 32]).unwrap();
        let mut swarm = SwarmBuilder::with_existing_identity(keypair)
            .with_tokio()
            .with_quic()
            .with_behaviour(|_| {
                let config = ConfigBuilder::default()
                    .protocol_id_prefix("/gristmill/gossip")
                    .validation_mode(ValidationMode::Anonymous)
                    .message_id_fn(|message| MessageId::new(blake3::hash(&message.data).as_bytes()))
                    .max_transmit_size(1 << 20)
                    .build()
                    .unwrap();
                gossipsub::Behaviour::<gossipsub::IdentityTransform>::new(
                    MessageAuthenticity::Anonymous,
                    config,
                )
                .unwrap()
            })
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(600)))
            .build();
        for topic in [LISTINGS_TOPIC, CHECKPOINTS_TOPIC] {
            swarm.behaviour_mut().subscribe(&IdentTopic::new(topic)).unwrap();
        }
        swarm.dial(victim).unwrap();
        let mut listening = HashSet::new();
        while !listening.contains(&IdentTopic::new(topic).hash()) {
            if let SwarmEvent::Behaviour(Event::Subscribed { topic, .. }) = swarm.select_next_some().await {
                listening.insert(topic);
            }
        }
        let (messages, mut received) = mpsc::channel::<(&str, Vec<u8>)>(16);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = swarm.select_next_some() => {}
                    message = received.recv() => match message {
                        Some((topic, message)) => {
                            swarm.behaviour_mut().publish(IdentTopic::new(topic), message).unwrap();
                        }
                        None => break,
                    },
                }
            }
        });
        Self { messages }
    }

    /// Gossips any bytes as a listing.
    pub(crate) async fn send(&self, message: Vec<u8>) {
        self.messages.send((LISTINGS_TOPIC, message)).await.unwrap();
    }

    /// Gossips any bytes as a checkpoint.
    pub(crate) async fn send_checkpoint(&self, message: Vec<u8>) {
        self.messages.send((CHECKPOINTS_TOPIC, message)).await.unwrap();
    }
}
