//! What surrounds a node while one event happens to it: the market, its clock, its neighbours and its post.

use gristmill_protocol::identity::{AccountId, Keypair};

use super::MarketWorld;
use super::event::{Envelope, Event, JobId, Message, StreamId, Timer};
use super::overlay::Mesh;
use super::tally::Tally;
use crate::checkers::Place;
use crate::engine::random::Random;
use crate::engine::{Breach, Context, NodeId};
use crate::gossip::{Message as Listing, MessageId, Peer};

/// What surrounds a node while one event happens to it.
pub struct Scene<'a, 'c> {
    /// What is the same for all.
    pub world: &'a MarketWorld,
    /// What is counted.
    pub tally: &'a mut Tally,
    pub(super) context: &'a mut Context<'c, Event>,
    pub(super) peer: &'a mut Peer,
    pub(super) uplink_us: &'a mut u64,
}

impl<'c> Scene<'_, 'c> {
    /// Which node it is.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.context.node()
    }

    /// Microseconds since the run began.
    #[must_use]
    pub const fn now_us(&self) -> u64 {
        self.context.now_us()
    }

    /// What the node's clock says, Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.world.clock_ms(self.node(), self.context.now_us())
    }

    /// The node's key.
    #[must_use]
    pub fn keypair(&self) -> Keypair {
        self.world.keys.keypair(self.node())
    }

    /// The node's account.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.world.keys.account(self.node())
    }

    /// Random numbers of this event.
    pub fn random(&mut self) -> &mut Random {
        self.context.random()
    }

    /// Waits for so many microseconds.
    pub fn after(&mut self, delay_us: u64, timer: Timer) {
        self.context.after(delay_us, Event::Timer(timer));
    }

    /// Waits until the node's clock says so, Unix milliseconds.
    pub fn at_ms(&mut self, at_ms: u64, timer: Timer) {
        let wait_us = at_ms.saturating_sub(self.now_ms()).saturating_mul(1_000);
        self.after(wait_us.max(1), timer);
    }

    /// Sends a message of its own connection.
    pub fn send(&mut self, to: NodeId, message: Message) {
        let mut earliest_us = 0;
        self.send_after(to, message, &mut earliest_us);
    }

    /// Sends a message that must not overtake those before it: `arrives_us` is when the last one arrives.
    pub fn send_after(&mut self, to: NodeId, message: Message, arrives_us: &mut u64) {
        let bytes = message.bytes();
        self.tally.message_bytes += bytes;
        let (from, now_us) = (self.node(), self.now_us());
        let is_reachable = self.world.is_reachable(from, to);
        let random = self.context.random();
        let links = &self.world.links;
        let delay_us =
            is_reachable.then(|| links.delay_us((from, to), bytes, now_us, self.uplink_us, random));
        match delay_us.flatten() {
            Some(delay_us) => {
                let at_us = (now_us + delay_us).max(*arrives_us + 1);
                *arrives_us = at_us;
                let envelope = Box::new(Envelope { from, message });
                self.context.send(to, at_us - now_us, Event::Message(envelope));
            }
            None => {
                self.tally.lost += 1;
                if let Some(stream) = message.stream() {
                    self.break_stream(to, stream);
                }
            }
        }
    }

    /// Both ends of a stream find out by themselves that it is broken, once nothing has come for a while.
    pub fn break_stream(&mut self, other: NodeId, stream: StreamId) {
        let silence_us = self.world.links.silence_us();
        let closed = |from| {
            let message = Message::StreamClosed { stream };
            Event::Message(Box::new(Envelope { from, message }))
        };
        let node = self.node();
        self.context.after(silence_us, closed(other));
        self.context.send(other, silence_us, closed(node));
    }

    /// Publishes a listing.
    ///
    /// `is_genuine` says whether it is what its signer may say: what boards find out by themselves.
    pub fn publish(&mut self, sequence: u32, sealed: Vec<u8>, is_genuine: bool) {
        let id = MessageId::new(self.node(), sequence);
        let bytes = self.world.catalogue.add(id, self.now_us(), sealed, is_genuine);
        if is_genuine {
            self.tally.published += 1;
        }
        self.context.trace(PUBLISHED, id.0);
        let (peer, mut mesh) = self.mesh();
        mesh.publish(peer, Listing { id, bytes });
    }

    /// The node's place on the gossip mesh.
    fn mesh(&mut self) -> (&mut Peer, Mesh<'_, 'c>) {
        let mesh = Mesh {
            world: self.world,
            context: self.context,
            tally: self.tally,
            uplink_us: self.uplink_us,
        };
        (self.peer, mesh)
    }

    /// Its neighbours lose it.
    pub fn leave_mesh(&mut self, crash: bool) {
        self.mesh().1.leave(crash);
    }

    /// It connects to its neighbours, for the first time or anew.
    pub fn join_mesh(&mut self) {
        let (peer, mut mesh) = self.mesh();
        mesh.rejoin(peer);
    }

    /// Adds to the digest what was decided.
    pub fn trace(&mut self, what: u64, value: u64) {
        self.context.trace(what, value);
    }

    /// Tells what happens, where somebody wants to know.
    pub fn tell(&mut self, job: Option<JobId>, words: impl FnOnce() -> String) {
        self.context.tell(job.map(|job| job.0), words);
    }

    /// Where and when this is.
    #[must_use]
    pub const fn place(&self) -> Place {
        Place {
            node: self.node(),
            at_us: self.now_us(),
        }
    }

    /// A rule that this node breaks.
    #[must_use]
    pub fn breach(&self, rule: &str, message: String) -> Breach {
        Breach {
            rule: rule.to_owned(),
            message,
            node: self.node(),
            at_us: self.now_us(),
        }
    }
}

/// What a trace says of a publication.
const PUBLISHED: u64 = 1;
