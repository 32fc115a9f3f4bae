//! Gossip as a model: what one peer of gossipsub's mesh does, as a state machine small enough for a million of them.
//!
//! It follows what the mesh of `gristmill-transport` runs: gossipsub v1.1 with v1.2's IDONTWANT, as `libp2p-gossipsub` 0.50 does
//! it (source: <https://github.com/libp2p/specs/tree/master/pubsub/gossipsub>), one topic, with the parameters and scores of the
//! shipped mesh as defaults. `tests/gossip.rs` runs the shipped behaviour and this model on the same graphs and compares them.
//!
//! A [`Peer`] knows its neighbours by the number of the [link](Link) to them, never by who they are: sets of links are bits of one
//! word. Who is at the other end is the [`graph`]'s to say. Content is not here either: a message is its [`MessageId`] and its
//! size, and whether it is valid is asked of the caller.
//!
//! What is left out: several topics, fan-out (every peer hears what it says), explicit peers, peer exchange, scores by address,
//! and queues between peers that IDONTWANT could still empty.

use serde::{Deserialize, Serialize};

pub mod configuration;
pub mod graph;
mod heartbeat;
mod links;
mod memory;
mod peer;
mod receiving;
mod scores;
pub mod wire;

pub use configuration::{GossipConfig, ScoreConfig, Settings};
pub use links::{LINKS_MAX, Link, Links};
pub use peer::{Peer, Traffic};

/// Which message: its publisher and the publisher's count of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId(pub u64);

impl MessageId {
    /// The message that a node published as its so-manieth.
    #[must_use]
    pub const fn new(publisher: u32, sequence: u32) -> Self {
        Self((publisher as u64) << 32 | sequence as u64)
    }

    /// The node that published it.
    #[must_use]
    pub const fn publisher(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// A message as gossip sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Which.
    pub id: MessageId,
    /// Bytes of its content.
    pub bytes: u32,
}

/// What the receiver of a message says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is news: forward it.
    Accept,
    /// It is of no use, but nobody is to blame.
    Ignore,
    /// No honest peer would have forwarded it: the sender loses score.
    Reject,
}

/// Several messages' ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids(pub Vec<MessageId>);

/// What travels from a peer to its neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// "I hear the topic", said when a connection is made.
    Subscribe,
    /// A message.
    Publish {
        /// Which, and how large.
        message: Message,
        /// Over how many links it has come, this one included. Only to measure with: real messages do not say it.
        hops: u8,
        /// Whether it answers an IWANT. Only to measure with.
        asked: bool,
    },
    /// "These I have."
    IHave(Box<Ids>),
    /// "Send me these."
    IWant(Box<Ids>),
    /// "Do not send me this one, I have it."
    IDontWant(MessageId),
    /// "You are in my mesh now."
    Graft,
    /// "You are not in my mesh; do not ask before so many seconds."
    Prune {
        /// Seconds.
        backoff_s: u16,
    },
}

/// What a peer wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// To be sent to a neighbour.
    Send {
        /// Over which link.
        link: Link,
        /// What.
        payload: Payload,
    },
    /// To be called at [`Peer::heartbeat`] with this number at this time. A later wish replaces it: the peer ignores numbers that
    /// it does not wait for.
    Wake {
        /// When, in microseconds of virtual time.
        at_us: u64,
        /// The number of the heartbeat.
        beat: u32,
    },
}

/// What surrounds a peer while one event happens to it.
#[derive(Debug)]
pub struct Step<'a, R> {
    /// The parameters of the mesh.
    pub settings: &'a Settings,
    /// Microseconds of virtual time.
    pub now_us: u64,
    /// Where chance comes from.
    pub random: &'a mut R,
    /// Where effects go.
    pub effects: &'a mut Vec<Effect>,
}

#[cfg(test)]
mod tests;
