//! The market: nodes that gossip, and people among them who serve, pay and keep the ledger with the shipped machines.
//!
//! A million bystanders or two hundred providers and consumers are the same code. Models are here: latency, engines,
//! gossip and disks. The real things are: listings and boards, tickets, channels, vouchers, job sessions, routing, and
//! the ledger's book, with all their signatures.

mod build;
pub mod catalogue;
pub mod config;
pub mod event;
mod figures;
pub(crate) mod kept;
pub mod links;
pub mod node;
pub mod overlay;
pub mod roster;
pub mod scene;
mod survey;
pub mod tally;

use gristmill_protocol::board::Insertion;
use gristmill_protocol::identity::AccountId;
use serde::{Deserialize, Serialize};

pub use self::build::build;
use self::catalogue::{Catalogue, MessageId, StoredMessage};
use self::config::{ConsumerGroup, FaultKind, MarketConfig, ProviderGroup};
use self::event::{Envelope, Event, Timer};
pub use self::figures::{Figures, figures};
use self::links::Links;
use self::node::{Node, Role, Shard};
use self::roster::{Keys, Roster};
use self::scene::Scene;
use self::survey::Surveyed;
use self::tally::Tally;
use crate::engine::{Breach, Context, NodeId, World, shard_of, slot_of};

/// When virtual time begins, as Unix time in milliseconds (January 2027).
pub const EPOCH_MS: u64 = 1_800_000_000_000;

/// A market.
#[derive(Debug)]
pub struct MarketWorld {
    pub(crate) config: MarketConfig,
    pub(crate) seed: u64,
    pub(crate) roster: Roster,
    pub(crate) keys: Keys,
    pub(crate) links: Links,
    pub(crate) catalogue: Catalogue,
    surveyed: Surveyed,
}

/// What all shards share, in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub struct Shared {
    messages: Vec<StoredMessage>,
    surveyed: Surveyed,
}

impl MarketWorld {
    /// A market before anything has happened.
    #[must_use]
    pub fn new(config: MarketConfig, seed: u64) -> Self {
        let roster = Roster::new(&config);
        Self {
            seed,
            keys: Keys::new(seed, roster.keyed()),
            links: Links::new(&config.links, seed),
            catalogue: Catalogue::new(roster.keyed()),
            surveyed: Surveyed::default(),
            roster,
            config,
        }
    }

    /// The account of a node.
    #[must_use]
    pub fn account(&self, node: NodeId) -> AccountId {
        self.keys.account(node)
    }

    /// Who signs tickets.
    #[must_use]
    pub fn coordinator_account(&self) -> AccountId {
        self.keys.account(0)
    }

    pub(crate) fn provider_group(&self, group: u16) -> &ProviderGroup {
        // Groups are numbered as they were read.
        &self.config.providers[usize::from(group)]
    }

    pub(crate) fn consumer_group(&self, group: u16) -> &ConsumerGroup {
        // Groups are numbered as they were read.
        &self.config.consumers[usize::from(group)]
    }

    /// A listing arrived from a neighbour.
    fn hear(&self, node: &mut Node, id: MessageId, tally: &mut Tally, context: &mut Context<'_, Event>) {
        if !node.overlay.hear(id, tally) {
            return;
        }
        let Some(published) = self.catalogue.get(id) else {
            return;
        };
        tally
            .delivery_ms
            .add((context.now_us() - published.at_us) / 1_000);
        let Ok(opened) = published.opened else {
            return;
        };
        let board = match node.role.as_deref_mut() {
            Some(Role::Consumer(consumer)) => consumer.board.awake_mut(),
            Some(Role::Reader(board)) => board.awake_mut(),
            _ => None,
        };
        let now_ms = EPOCH_MS + context.now_us() / 1_000;
        let is_news = board.is_none_or(|board| board.post(&opened, now_ms).is_ok_and(Insertion::is_news));
        if is_news {
            overlay::forward(self, id, context, tally);
        }
    }

    fn fault(&self, role: &mut Role, fault: u32, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let Some(config) = self.config.faults.get(fault as usize) else {
            return Ok(());
        };
        match (config.kind, role) {
            (FaultKind::Outage, Role::Coordinator(coordinator)) => {
                coordinator.goes_down(scene);
                scene.after(config.for_s.get() * 1_000_000, Timer::Up);
            }
            (FaultKind::Crash, Role::Provider(_)) => {
                if scene.random().chance(config.share.get()) {
                    scene.after(0, Timer::Down { crash: true });
                    scene.after(config.for_s.get() * 1_000_000, Timer::Up);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// What happens to somebody who has a role.
fn act(role: &mut Role, is_down: &mut bool, event: Event, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
    match (role, event) {
        (Role::Coordinator(coordinator), Event::Timer(Timer::Up)) => coordinator.comes_back(scene),
        (Role::Provider(provider), Event::Timer(Timer::Up)) => {
            if std::mem::take(is_down) {
                provider.comes_back(scene)?;
                build::plan_departure(provider.group, scene);
            }
            Ok(())
        }
        (_, _) if *is_down => Ok(()),
        (Role::Provider(provider), Event::Timer(Timer::Down { crash })) => {
            *is_down = true;
            provider.goes_down(crash, scene)
        }
        (Role::Coordinator(coordinator), Event::Message(envelope)) => {
            coordinator.message(*envelope, scene);
            Ok(())
        }
        (Role::Coordinator(coordinator), Event::Timer(timer)) => coordinator.timer(timer, scene),
        (Role::Provider(provider), Event::Message(envelope)) => provider.message(*envelope, scene),
        (Role::Provider(provider), Event::Timer(timer)) => provider.timer(timer, scene),
        (Role::Consumer(consumer), Event::Message(envelope)) => consumer.message(*envelope, scene),
        (Role::Consumer(consumer), Event::Timer(timer)) => consumer.timer(timer, scene),
        (Role::Publisher(publisher), Event::Timer(Timer::Listing)) => publisher.timer(scene),
        (Role::Publisher(_) | Role::Reader(_), _) | (_, Event::Gossip(_) | Event::Fault(_)) => Ok(()),
    }
}

impl World for MarketWorld {
    type Event = Event;
    type Shard = Shard;
    type Shared = Shared;

    fn lookahead_us(&self) -> u64 {
        self.links.least_us()
    }

    fn handle(
        &self,
        shard: &mut Shard,
        node: NodeId,
        event: Event,
        context: &mut Context<'_, Event>,
    ) -> Result<(), Breach> {
        survey::wake_shard(self, shard_of(node), shard, context.now_us())?;
        let Some(state) = shard.nodes.get_mut(slot_of(node)) else {
            return Ok(());
        };
        if let Event::Gossip(id) = event {
            if !state.is_down {
                self.hear(state, id, &mut shard.tally, context);
            }
            return Ok(());
        }
        let Some(role) = state.role.as_deref_mut() else {
            return Ok(());
        };
        let mut scene = Scene {
            world: self,
            tally: &mut shard.tally,
            context,
            overlay: &mut state.overlay,
        };
        if let Event::Fault(fault) = event {
            return self.fault(role, fault, &mut scene);
        }
        if state.is_down
            && let Event::Message(envelope) = &event
        {
            scene.tally.lost += 1;
            if let (Envelope { from, message }, false) = (envelope.as_ref(), is_closing(&envelope.message))
                && let Some(stream) = message.stream()
            {
                scene.break_stream(*from, stream);
            }
        }
        act(role, &mut state.is_down, event, &mut scene)
    }

    fn survey(&mut self, shards: &mut [&mut Shard], now_us: u64) -> Result<(), Breach> {
        survey::survey(self, shards, now_us)
    }

    fn shared(&self) -> Shared {
        Shared {
            messages: self.catalogue.stored(),
            surveyed: self.surveyed.clone(),
        }
    }

    fn restore(&mut self, shared: Shared) {
        self.catalogue.restore(shared.messages);
        self.surveyed = shared.surveyed;
    }
}

/// Whether a message needs no answer when nobody is there to hear it.
const fn is_closing(message: &event::Message) -> bool {
    matches!(message, event::Message::StreamClosed { .. })
}

#[cfg(test)]
mod tests;
