//! A node's place on the gossip overlay: its neighbours, and what it has heard.

use serde::{Deserialize, Serialize};

use super::MarketWorld;
use super::catalogue::MessageId;
use super::event::Event;
use super::tally::Tally;
use crate::engine::random::Random;
use crate::engine::{Context, NodeId};

/// How many messages are remembered as heard.
const HEARD_MAX: usize = 512;
/// Bytes around a listing on the wire: topic, framing, sender.
const FRAME_BYTES: u64 = 60;

/// What a node remembers of gossip.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Overlay {
    heard: Vec<MessageId>,
    next: u32,
}

impl Overlay {
    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.heard.capacity() * size_of::<MessageId>()
    }

    fn is_new(&mut self, id: MessageId) -> bool {
        if self.heard.contains(&id) {
            return false;
        }
        if self.heard.len() < HEARD_MAX {
            self.heard.push(id);
        } else if let Some(oldest) = self.heard.get_mut(self.next as usize % HEARD_MAX) {
            *oldest = id;
        }
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Sends a message of this node's own to all neighbours.
    pub(super) fn publish(
        &mut self,
        world: &MarketWorld,
        id: MessageId,
        context: &mut Context<'_, Event>,
        tally: &mut Tally,
    ) {
        self.is_new(id);
        forward(world, id, context, tally);
    }

    /// A message arrived; says whether for the first time.
    pub(super) fn hear(&mut self, id: MessageId, tally: &mut Tally) -> bool {
        let is_new = self.is_new(id);
        if is_new {
            tally.heard += 1;
        } else {
            tally.heard_again += 1;
        }
        is_new
    }
}

/// Sends a message to all neighbours.
pub(super) fn forward(
    world: &MarketWorld,
    id: MessageId,
    context: &mut Context<'_, Event>,
    tally: &mut Tally,
) {
    let bytes = world
        .catalogue
        .get(id)
        .map_or(0, |published| u64::from(published.bytes));
    let node = context.node();
    for neighbour in neighbours(world, node) {
        tally.gossip_bytes += bytes + FRAME_BYTES;
        match world.links.delay_us(node, neighbour, context.random()) {
            Some(delay_us) => context.send(neighbour, delay_us, Event::Gossip(id)),
            None => tally.lost += 1,
        }
    }
}

/// The neighbours of a node: at distances that are the same for all, so that nobody has to remember them.
fn neighbours(world: &MarketWorld, node: NodeId) -> impl Iterator<Item = NodeId> {
    let nodes = world.roster.nodes().max(1);
    let pairs = world.config.links.degree.get() / 2;
    let seed = world.seed;
    (0..pairs).flat_map(move |pair| {
        let mut random = Random::of_purpose(seed, "distance of neighbours", pair);
        let distance = if pair == 0 {
            1
        } else {
            1 + random.below(u64::from(nodes).saturating_sub(1).max(1))
        };
        let distance = NodeId::try_from(distance).unwrap_or(1);
        let forth = (u64::from(node) + u64::from(distance)) % u64::from(nodes);
        let back = (u64::from(node) + u64::from(nodes - distance % nodes)) % u64::from(nodes);
        [forth, back]
            .into_iter()
            .filter_map(|neighbour| NodeId::try_from(neighbour).ok())
            .filter(move |neighbour| *neighbour != node)
    })
}
