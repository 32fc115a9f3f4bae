//! A node's place on the gossip mesh: the state machine of gossipsub, its links and its post.

use super::MarketWorld;
use super::event::{Event, Gossip};
use super::tally::Tally;
use crate::engine::{Context, NodeId};
use crate::gossip::wire::frame_bytes;
use crate::gossip::{Effect, Link, Message, Peer, Step, Verdict};

/// Bytes of closing a QUIC connection, and of opening one with its certificates.
const CLOSING_BYTES: u64 = 60;
const OPENING_BYTES: u64 = 3_000;

/// What an event of the mesh needs beside the peer.
pub(crate) struct Mesh<'a, 'c> {
    pub(crate) world: &'a MarketWorld,
    pub(crate) context: &'a mut Context<'c, Event>,
    pub(crate) tally: &'a mut Tally,
    pub(crate) uplink_us: &'a mut u64,
}

impl Mesh<'_, '_> {
    /// Lets a peer take a step, and sends what it wants sent.
    fn step(&mut self, take: impl FnOnce(&mut Step<'_, crate::engine::Random>)) {
        let mut effects = Vec::new();
        take(&mut Step {
            settings: &self.world.gossip,
            now_us: self.context.now_us(),
            random: self.context.random(),
            effects: &mut effects,
        });
        let node = self.context.node();
        for effect in effects {
            match effect {
                Effect::Send { link, payload } => {
                    let to = self.world.graph.peer(node, link);
                    let bytes = frame_bytes(&payload);
                    self.send(to, bytes, Gossip::new(link, payload));
                }
                Effect::Wake { at_us, beat } => {
                    let delay_us = at_us.saturating_sub(self.context.now_us());
                    self.context.after(delay_us, Event::Heartbeat(beat));
                }
            }
        }
    }

    fn send(&mut self, to: NodeId, bytes: u64, gossip: Gossip) {
        let (node, now_us) = (self.context.node(), self.context.now_us());
        let random = self.context.random();
        match self
            .world
            .links
            .delay_us((node, to), bytes, now_us, self.uplink_us, random)
        {
            Some(delay_us) => self.context.send(to, delay_us, Event::Gossip(gossip)),
            None => self.tally.lost += 1,
        }
    }

    /// Connects to all neighbours.
    pub(crate) fn join(&mut self, peer: &mut Peer) {
        self.tally.past_gossip_bytes += peer.traffic().sent_bytes;
        *peer = Peer::new(self.context.now_us());
        let node = self.context.node();
        for (link, _, dials) in self.world.graph.links(node) {
            self.step(|step| peer.connect(link, dials, step));
        }
    }

    /// Neighbours see that the connection is gone: at once, or after a silence where the node crashed.
    pub(crate) fn leave(&mut self, crash: bool) {
        let node = self.context.node();
        for (link, neighbour, _) in self.world.graph.links(node) {
            if crash {
                let silence_us = self.world.links.silence_us();
                self.context
                    .send(neighbour, silence_us, Event::Gossip(Gossip::Gone(link)));
            } else {
                self.send(neighbour, CLOSING_BYTES, Gossip::Gone(link));
            }
        }
    }

    /// Connects to all neighbours after it was away; they greet it as a newcomer.
    pub(crate) fn rejoin(&mut self, peer: &mut Peer) {
        let node = self.context.node();
        for (link, neighbour, dials) in self.world.graph.links(node) {
            self.send(neighbour, OPENING_BYTES, Gossip::Back(link, !dials));
        }
        self.join(peer);
    }

    /// Something came over a link. `validate` is asked about a message that is new.
    pub(crate) fn receive(
        &mut self,
        peer: &mut Peer,
        gossip: Gossip,
        validate: impl FnOnce(crate::gossip::MessageId) -> Verdict,
    ) {
        match gossip.unpack() {
            Ok((link, payload)) => self.step(|step| peer.receive(link, payload, validate, step)),
            Err(Gossip::Back(link, dials)) => {
                self.step(|step| peer.disconnect(link, step));
                self.step(|step| peer.connect(link, dials, step));
            }
            Err(Gossip::Gone(link)) => self.step(|step| peer.disconnect(link, step)),
            Err(_) => {}
        }
    }

    pub(crate) fn heartbeat(&mut self, peer: &mut Peer, beat: u32) {
        self.step(|step| peer.heartbeat(beat, step));
    }

    pub(crate) fn publish(&mut self, peer: &mut Peer, message: Message) {
        self.step(|step| {
            peer.publish(message, step);
        });
    }
}

/// The most links that a scenario can ask for.
pub(crate) fn degree(links: u64) -> Link {
    Link::try_from(links).unwrap_or(crate::gossip::LINKS_MAX)
}
