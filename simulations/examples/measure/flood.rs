//! The model that other simulators run too: messages flood a random network. Each node passes on what it sees for the
//! first time to its neighbours, but not back, and drops what it has seen.

use std::time::Instant;

use anyhow::ensure;
use gristmill_simulations::engine::{
    Breach, Context, Limits, NodeId, Random, Simulation, Stop, World, nodes_of_shard, slot_of,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::process::{peak_memory_bytes, processor_seconds};

/// Neighbours of a node.
const DEGREE: usize = 8;
/// Within which time messages are published.
const PUBLISHED_WITHIN_US: u64 = 1_000_000;
/// What a message takes to a node, in microseconds: drawn once for each node. With a latency for each pair, messages
/// would overtake each other on the way to a node, which the mailboxes of one of the peers cannot show.
const ACCESS_LATENCY_US: (u64, u64) = (10_000, 150_000);

/// Who is whose neighbour, how far, and what is published.
pub(crate) struct Network {
    access_us: Vec<u32>,
    neighbours: Vec<[NodeId; DEGREE]>,
    /// Publisher and time in microseconds of each message.
    messages: Vec<(NodeId, u32)>,
}

impl Network {
    /// A random regular network: the links of some random circles through all nodes.
    pub(crate) fn new(nodes: NodeId, messages: u16) -> anyhow::Result<Self> {
        ensure!(
            nodes > 16,
            "a network of neighbours needs over 16 nodes, not {nodes}"
        );
        ensure!(messages <= 64, "at most 64 messages, not {messages}");
        let mut random = Random::of_purpose(1, "flood", nodes.into());
        let access_us = (0..nodes)
            .map(|_| u32::try_from(random.between(ACCESS_LATENCY_US.0, ACCESS_LATENCY_US.1)))
            .collect::<Result<_, _>>()?;
        let mut neighbours = vec![[0; DEGREE]; nodes as usize];
        for circle in 0..DEGREE / 2 {
            let mut order: Vec<NodeId> = (0..nodes).collect();
            for place in (1..order.len()).rev() {
                order.swap(place, usize::try_from(random.below(place as u64 + 1))?);
            }
            for (place, node) in order.iter().enumerate() {
                let next = order[(place + 1) % order.len()];
                neighbours[*node as usize][2 * circle] = next;
                neighbours[next as usize][2 * circle + 1] = *node;
            }
        }
        let messages = (0..messages)
            .map(|_| {
                Ok((
                    NodeId::try_from(random.below(nodes.into()))?,
                    u32::try_from(random.below(PUBLISHED_WITHIN_US))?,
                ))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            access_us,
            neighbours,
            messages,
        })
    }

    /// Nodes, messages, each node's access latency, each node's neighbours, each message's publisher and time.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let sizes = [self.neighbours.len(), self.messages.len()].map(|size| u32::try_from(size).unwrap_or(0));
        sizes
            .into_iter()
            .chain(self.access_us.iter().copied())
            .chain(self.neighbours.iter().flatten().copied())
            .chain(self.messages.iter().flat_map(|(node, at_us)| [*node, *at_us]))
            .flat_map(u32::to_le_bytes)
            .collect()
    }
}

/// A message reaches a node.
#[derive(Serialize, Deserialize)]
pub(crate) struct Receipt {
    message: u16,
    /// The publisher has it from itself.
    from: NodeId,
}

/// What the nodes of a shard have seen, and what was counted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Seen {
    /// A bit for each message, by node.
    seen: Vec<u64>,
    deliveries: u64,
    duplicates: u64,
    /// Over all deliveries, in microseconds since the beginning: the same in every simulator that runs the same model.
    delivered_us_sum: u64,
}

impl World for Network {
    type Event = Receipt;
    type Shard = Seen;
    type Shared = ();

    fn lookahead_us(&self) -> u64 {
        ACCESS_LATENCY_US.0
    }

    fn handle(
        &self,
        shard: &mut Seen,
        node: NodeId,
        receipt: Receipt,
        context: &mut Context<'_, Receipt>,
    ) -> Result<(), Breach> {
        let seen = &mut shard.seen[slot_of(node)];
        if *seen >> receipt.message & 1 == 1 {
            shard.duplicates += 1;
            return Ok(());
        }
        *seen |= 1 << receipt.message;
        shard.deliveries += 1;
        shard.delivered_us_sum += context.now_us();
        for neighbour in self.neighbours[node as usize] {
            if neighbour != receipt.from {
                let delay_us = self.access_us[neighbour as usize].into();
                let message = receipt.message;
                context.send(neighbour, delay_us, Receipt { message, from: node });
            }
        }
        Ok(())
    }

    fn survey(&mut self, _shards: &mut [&mut Seen], _now_us: u64) -> Result<(), Breach> {
        Ok(())
    }

    fn shared(&self) {}

    fn restore(&mut self, (): ()) {}
}

/// Floods a network and tells how long it took.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a run takes is what is measured"
)]
pub(crate) fn measure(nodes: NodeId, messages: u16, threads: usize) -> anyhow::Result<Value> {
    let network = Network::new(nodes, messages)?;
    let published = network.messages.clone();
    let mut simulation = Simulation::new(network, 1, nodes, |shard| Seen {
        seen: vec![0; nodes_of_shard(nodes, shard)],
        deliveries: 0,
        duplicates: 0,
        delivered_us_sum: 0,
    });
    for (message, (node, at_us)) in (0..).zip(published) {
        simulation.schedule(at_us.into(), node, Receipt { message, from: node });
    }
    let stop = Stop {
        requested: &crate::NEVER,
        threads,
        interest: None,
    };
    let (started, used) = (Instant::now(), processor_seconds()?);
    simulation.run(Limits::until_us(3_600_000_000), stop, |_, _| ())?;
    let (wall_s, processor_s) = (started.elapsed().as_secs_f64(), processor_seconds()? - used);
    let (events, digest) = (simulation.events(), simulation.digest());
    let (_, shards) = simulation.parts();
    let sum = |of: fn(&Seen) -> u64| shards.iter().map(|shard| of(shard)).sum::<u64>();
    Ok(json!({
        "nodes": nodes,
        "messages": messages,
        "threads": threads,
        "events": events,
        "deliveries": sum(|seen| seen.deliveries),
        "duplicates": sum(|seen| seen.duplicates),
        "delivered_us_sum": sum(|seen| seen.delivered_us_sum),
        "complete": true,
        "wall_s": wall_s,
        "processor_s": processor_s,
        "peak_memory_bytes": peak_memory_bytes()?,
        "digest": digest,
    }))
}
