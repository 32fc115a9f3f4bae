//! Who is who: the numbers of nodes, and their keys.

use std::ops::Range;
use std::sync::OnceLock;

use gristmill_protocol::identity::{AccountId, Keypair};

use super::config::MarketConfig;
use crate::engine::NodeId;

/// What a node does in the market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Keeps the ledger.
    Coordinator,
    /// Serves jobs; the number of its group.
    Provider(usize),
    /// Asks; the number of its group.
    Consumer(usize),
    /// Publishes listings and nothing else.
    Publisher,
    /// Relays gossip.
    Bystander,
}

/// The numbers of nodes: the coordinator, then providers, consumers, publishers and bystanders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    has_coordinator: bool,
    /// Where each group of providers ends.
    providers: Vec<NodeId>,
    /// Where each group of consumers ends.
    consumers: Vec<NodeId>,
    publishers_end: NodeId,
    nodes: NodeId,
}

impl Roster {
    /// The numbers in a market.
    #[must_use]
    pub fn new(config: &MarketConfig) -> Self {
        let number = |count: u64| NodeId::try_from(count).unwrap_or(NodeId::MAX);
        let has_coordinator = !config.providers.is_empty() || !config.consumers.is_empty();
        let mut end = NodeId::from(has_coordinator);
        let mut after = |count: u64| {
            end = end.saturating_add(number(count));
            end
        };
        let providers = config
            .providers
            .iter()
            .map(|group| after(group.count.get()))
            .collect();
        let consumers = config
            .consumers
            .iter()
            .map(|group| after(group.count.get()))
            .collect();
        let publishers_end = after(config.publishers.count.get());
        let nodes = after(config.bystanders.get());
        Self {
            has_coordinator,
            providers,
            consumers,
            publishers_end,
            nodes,
        }
    }

    /// How many nodes there are.
    #[must_use]
    pub const fn nodes(&self) -> NodeId {
        self.nodes
    }

    /// All providers.
    #[must_use]
    pub fn providers(&self) -> Range<NodeId> {
        let begin = NodeId::from(self.has_coordinator);
        begin..self.providers.last().copied().unwrap_or(begin)
    }

    /// The providers of a group.
    #[must_use]
    pub fn provider_group(&self, group: usize) -> Range<NodeId> {
        let end_of = |group: usize| self.providers.get(group).copied();
        let begin = group.checked_sub(1).and_then(end_of);
        let begin = begin.unwrap_or(self.providers().start);
        begin..end_of(group).unwrap_or(begin)
    }

    /// All consumers.
    #[must_use]
    pub fn consumers(&self) -> Range<NodeId> {
        let begin = self.providers().end;
        begin..self.consumers.last().copied().unwrap_or(begin)
    }

    /// All who publish listings and do nothing else.
    #[must_use]
    pub fn publishers(&self) -> Range<NodeId> {
        self.consumers().end..self.publishers_end
    }

    /// Who has a key: all but bystanders.
    #[must_use]
    pub const fn keyed(&self) -> NodeId {
        self.publishers_end
    }

    /// What a node does.
    #[must_use]
    pub fn part(&self, node: NodeId) -> Part {
        if self.has_coordinator && node == 0 {
            Part::Coordinator
        } else if self.providers().contains(&node) {
            Part::Provider(self.providers.partition_point(|end| *end <= node))
        } else if self.consumers().contains(&node) {
            Part::Consumer(self.consumers.partition_point(|end| *end <= node))
        } else if self.publishers().contains(&node) {
            Part::Publisher
        } else {
            Part::Bystander
        }
    }
}

/// The keys of nodes, each made when it is first needed. They follow from the seed and are never written down.
#[derive(Debug)]
pub(crate) struct Keys {
    seed: u64,
    made: Vec<OnceLock<(Keypair, AccountId)>>,
}

impl Keys {
    pub(crate) fn new(seed: u64, nodes: NodeId) -> Self {
        Self {
            seed,
            made: (0..nodes).map(|_| OnceLock::new()).collect(),
        }
    }

    fn make(&self, node: NodeId) -> (Keypair, AccountId) {
        let mut hasher = blake3::Hasher::new_derive_key("gristmill simulations: key of a node");
        hasher
            .update(&self.seed.to_le_bytes())
            .update(&node.to_le_bytes());
        let keypair = Keypair::from_secret(hasher.finalize().as_bytes());
        let account = keypair.account();
        (keypair, account)
    }

    pub(crate) fn keypair(&self, node: NodeId) -> Keypair {
        match self.made.get(node as usize) {
            Some(made) => made.get_or_init(|| self.make(node)).0.clone(),
            None => self.make(node).0,
        }
    }

    pub(crate) fn account(&self, node: NodeId) -> AccountId {
        match self.made.get(node as usize) {
            Some(made) => made.get_or_init(|| self.make(node)).1,
            None => self.make(node).1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_one_part() {
        let config: MarketConfig = toml::from_str(
            "duration_s = 10\nbystanders = 5\n[[providers]]\nname = 'a'\ncount = 2\n[[providers]]\nname = 'b'\ncount = 1\n\
             [[consumers]]\nname = 'c'\ncount = 3\n[publishers]\ncount = 2\n",
        )
        .unwrap();
        let roster = Roster::new(&config);
        let parts: Vec<Part> = (0..roster.nodes()).map(|node| roster.part(node)).collect();
        let (p, c) = (Part::Provider, Part::Consumer);
        let (l, b) = (Part::Publisher, Part::Bystander);
        assert_eq!(
            parts,
            [
                Part::Coordinator,
                p(0),
                p(0),
                p(1),
                c(0),
                c(0),
                c(0),
                l,
                l,
                b,
                b,
                b,
                b,
                b
            ]
        );
        assert_eq!(roster.keyed(), 9);
        assert_eq!(
            [0, 1, 2].map(|group| roster.provider_group(group)),
            [1..3, 3..4, 4..4]
        );
        let keys = Keys::new(1, 9);
        assert_eq!(keys.keypair(3).account(), keys.account(3));
        assert!(keys.account(3) != Keys::new(2, 9).account(3) && keys.account(3) != keys.account(4));
    }
}
