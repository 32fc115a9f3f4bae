//! The state of a node, and of a shard of them.

use gristmill_protocol::board::Board;
use serde::{Deserialize, Serialize};

use super::kept::Kept;
use super::tally::Tally;
use crate::checkers::forwarding::Forwarding;
use crate::gossip::Peer;
use crate::people::consumer::Consumer;
use crate::people::coordinator::Coordinator;
use crate::people::provider::Provider;
use crate::people::publisher::Publisher;

/// A node: its place on the gossip overlay, and what else it does.
#[derive(Debug, Serialize, Deserialize)]
pub struct Node {
    pub(crate) peer: Peer,
    /// When its line has sent what was sent so far, in microseconds.
    pub(crate) uplink_us: u64,
    /// Whether it is offline.
    pub(crate) is_down: bool,
    pub(crate) role: Option<Box<Role>>,
}

/// What a node does beside relaying gossip.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    Coordinator(Coordinator),
    Provider(Provider),
    Consumer(Consumer),
    Publisher(Publisher),
    /// Keeps what it hears, as real nodes do.
    Reader(Reader),
}

/// A bystander's board.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reader {
    pub(crate) board: Kept<Board>,
    pub(crate) forwarding: Forwarding,
}

/// The nodes of a shard, and what was counted there.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Shard {
    pub(crate) nodes: Vec<Node>,
    pub(crate) tally: Tally,
    /// Whether its machines are awake; not after a snapshot was read.
    #[serde(skip)]
    pub(crate) is_awake: bool,
}

/// What the engine keeps of each node beside its state: the count of events that it has scheduled.
const ENGINE_BYTES: usize = size_of::<u32>();

impl Node {
    /// Bytes of the engine and the overlay, heap included; nothing where it remembers what it heard lately.
    #[must_use]
    pub fn idle_bytes(&self) -> Option<usize> {
        self.peer
            .idle_bytes()
            .map(|bytes| ENGINE_BYTES + size_of::<Self>() - size_of::<Peer>() + bytes)
    }

    /// Bytes of what the node does beside, without the listings, which all boards share: the sizes of its structures
    /// and of the entries of its maps, without what the allocator adds.
    #[must_use]
    pub fn protocol_bytes(&self) -> usize {
        let Some(role) = self.role.as_deref() else {
            return 0;
        };
        size_of::<Role>()
            + match role {
                Role::Coordinator(_) | Role::Publisher(_) => 0,
                Role::Provider(provider) => provider.heap_bytes(),
                Role::Consumer(consumer) => consumer.heap_bytes(),
                Role::Reader(reader) => board_bytes(&reader.board),
            }
    }
}

/// Bytes of a board's entry: the account, the listing's place, when it came, and which certificates hold.
const POSTED_BYTES: usize = 120;

/// What a board takes on the heap.
pub(crate) fn board_bytes(board: &Kept<Board>) -> usize {
    board
        .awake()
        .map_or(0, |board| board.listings(0).count() * POSTED_BYTES)
}
