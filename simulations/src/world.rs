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
pub mod hardware_tally;
mod histogram;
pub(crate) mod kept;
pub mod links;
pub mod node;
pub mod overlay;
pub mod roster;
pub mod scene;
mod survey;
pub mod tally;

use gristmill_protocol::identity::AccountId;
use serde::{Deserialize, Serialize};

pub use self::build::build;
use self::catalogue::{Catalogue, StoredMessage};
use self::config::{ConsumerGroup, FaultKind, MarketConfig, ProviderGroup};
use self::event::{Envelope, Event, Gossip, Timer};
pub use self::figures::{Figures, figures};
use self::kept::Kept;
use self::links::Links;
use self::node::{Node, Role, Shard};
use self::overlay::Mesh;
use self::roster::{Keys, Part, Roster};
use self::scene::Scene;
use self::survey::Surveyed;
use crate::checkers::Place;
use crate::checkers::forwarding::Passed;
use crate::engine::{Breach, Context, NodeId, World, shard_of, slot_of};
use crate::gossip::graph::Graph;
use crate::gossip::{MessageId, Peer, Settings, Verdict};
use crate::people::conduct::Forwarding;
use crate::people::demand::Demand;

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
    /// How far the clocks of those with keys are ahead.
    skews_ms: Vec<i64>,
    pub(crate) graph: Graph,
    pub(crate) gossip: Settings,
    pub(crate) catalogue: Catalogue,
    /// When consumers ask, by group.
    pub(crate) demands: Vec<Demand>,
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
        let links = Links::new(&config, &roster, seed);
        Self {
            seed,
            keys: Keys::new(seed, roster.keyed()),
            skews_ms: (0..roster.keyed())
                .map(|node| links.clock_skew_ms(node))
                .collect(),
            links,
            graph: Graph::new(seed, roster.nodes(), overlay::degree(config.connections.get())),
            gossip: Settings::new(config.gossip.clone()),
            catalogue: Catalogue::new(roster.keyed()),
            demands: config
                .consumers
                .iter()
                .map(|group| Demand::new(&group.demand))
                .collect(),
            surveyed: Surveyed::default(),
            roster,
            config,
        }
    }

    /// What a node's clock says, Unix milliseconds.
    #[must_use]
    pub fn clock_ms(&self, node: NodeId, now_us: u64) -> u64 {
        let skew_ms = match self.skews_ms.get(node as usize) {
            Some(skew_ms) => *skew_ms,
            None => self.links.clock_skew_ms(node),
        };
        (EPOCH_MS + now_us / 1_000).saturating_add_signed(skew_ms)
    }

    /// Whether one can open streams to the other. Whoever has opened a port is reached by all.
    pub(crate) fn is_reachable(&self, from: NodeId, to: NodeId) -> bool {
        let is_behind_nat = |node| match self.roster.part(node) {
            Part::Provider(group) => self
                .config
                .providers
                .get(group)
                .is_some_and(|group| group.behind_nat),
            _ => false,
        };
        !(is_behind_nat(from) || is_behind_nat(to)) || self.links.can_connect(from, to)
    }

    /// The account of a node.
    #[must_use]
    pub fn account(&self, node: NodeId) -> AccountId {
        self.keys.account(node)
    }

    /// An account that a node has made up beside its own, which is number 0. Nobody ever signs with it.
    #[must_use]
    pub(crate) fn account_of(&self, node: NodeId, number: u32) -> AccountId {
        if number == 0 {
            return self.account(node);
        }
        let mut hasher = blake3::Hasher::new_derive_key("gristmill simulations: made-up account");
        hasher
            .update(&self.seed.to_le_bytes())
            .update(&node.to_le_bytes())
            .update(&number.to_le_bytes());
        AccountId::from_public_key(*hasher.finalize().as_bytes())
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

    /// What a node thinks of a listing that is new to it.
    fn judge(&self, role: Option<&mut Role>, id: MessageId, place: Place) -> Judged {
        let Some(published) = self.catalogue.get(id) else {
            return Ok((Verdict::Ignore, Heard::Nothing));
        };
        let heard = Heard::After {
            took_ms: place.at_us.saturating_sub(published.at_us) / 1_000,
        };
        let Ok(opened) = published.opened else {
            return Ok((Verdict::Reject, Heard::Invalid));
        };
        let (board, checker) = match role {
            Some(Role::Consumer(consumer)) => (consumer.board.awake_mut(), Some(&mut consumer.forwarding)),
            Some(Role::Reader(reader)) => (reader.board.awake_mut(), Some(&mut reader.forwarding)),
            Some(Role::Provider(provider)) => {
                let group = self.provider_group(provider.group);
                let is_accomplice = match group.conduct().forwards_gossip() {
                    Forwarding::Honest => true,
                    Forwarding::Nothing => false,
                    Forwarding::AccompliceOnly(from, to) => (from..to).contains(&id.publisher()),
                };
                if !is_accomplice {
                    return Ok((Verdict::Ignore, heard));
                }
                (provider.board.as_mut().and_then(Kept::awake_mut), None)
            }
            _ => (None, None),
        };
        let now_ms = if board.is_some() {
            self.clock_ms(place.node, place.at_us)
        } else {
            0
        };
        let verdict = match board.map(|board| board.post(&opened, now_ms)) {
            None => Verdict::Accept,
            Some(Ok(insertion)) if insertion.is_news() => Verdict::Accept,
            Some(Ok(_)) => Verdict::Ignore,
            Some(Err(_)) => Verdict::Reject,
        };
        let listing = opened.listing();
        // What a liar signs with keys that it makes up is of as many providers.
        let is_own = listing.provider == self.account(id.publisher());
        if let (Verdict::Accept, Some(checker)) = (verdict, checker)
            && (is_own || !published.is_genuine)
        {
            let passed = Passed {
                publisher: id.publisher(),
                sequence: listing.sequence,
                issued_at_ms: listing.issued_at_ms,
                ttl_ms: listing.ttl_ms,
                is_valid: published.is_genuine,
            };
            checker.passed(&passed, now_ms, place)?;
        }
        Ok((verdict, heard))
    }

    /// Something came from a neighbour on the mesh.
    fn gossip(
        &self,
        peer: &mut Peer,
        role: Option<&mut Role>,
        gossip: Gossip,
        mut mesh: Mesh<'_, '_>,
    ) -> Result<(), Breach> {
        let place = Place {
            node: mesh.context.node(),
            at_us: mesh.context.now_us(),
        };
        let (mut heard, mut breach) = (Heard::Nothing, None);
        let validate = |id| match self.judge(role, id, place) {
            Ok((verdict, new)) => {
                heard = new;
                verdict
            }
            Err(broken) => {
                breach = Some(broken);
                Verdict::Ignore
            }
        };
        mesh.receive(peer, gossip, validate);
        let tally = mesh.tally;
        match heard {
            Heard::Nothing => {}
            Heard::Invalid => tally.invalid_heard += 1,
            Heard::After { took_ms } => {
                tally.heard += 1;
                tally.delivery_ms.add(took_ms);
            }
        }
        breach.map_or(Ok(()), Err)
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
            (FaultKind::Crash, Role::Provider(_)) if scene.random().chance(config.share.get()) => {
                scene.after(0, Timer::Down { crash: true });
                scene.after(config.for_s.get() * 1_000_000, Timer::Up);
            }
            _ => {}
        }
        Ok(())
    }
}

/// What a node thinks of a listing, and what it has heard; or the rule that it broke.
type Judged = Result<(Verdict, Heard), Breach>;

/// What a node has just heard for the first time.
enum Heard {
    Nothing,
    Invalid,
    /// A listing, so long after it was published.
    After {
        took_ms: u64,
    },
}

/// What happens to somebody who has a role.
fn act(role: &mut Role, is_down: &mut bool, event: Event, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
    match (role, event) {
        (Role::Coordinator(coordinator), Event::Timer(Timer::Up)) => coordinator.comes_back(scene),
        (Role::Provider(provider), Event::Timer(Timer::Up)) => {
            if std::mem::take(is_down) {
                scene.join_mesh();
                provider.comes_back(scene)?;
                build::plan_departure(provider.group, scene);
            }
            Ok(())
        }
        (_, _) if *is_down => Ok(()),
        (Role::Provider(provider), Event::Timer(Timer::Down { crash })) => {
            *is_down = true;
            provider.goes_down(crash, scene)?;
            scene.leave_mesh(crash);
            Ok(())
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
        (Role::Publisher(_) | Role::Reader(_), _)
        | (_, Event::Gossip(_) | Event::Heartbeat(_) | Event::Join | Event::Fault(_)) => Ok(()),
    }
}

impl World for MarketWorld {
    type Event = Event;
    type Shard = Shard;
    type Shared = Shared;

    fn lookahead_us(&self) -> u64 {
        self.links.lookahead_us()
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
        let Node {
            peer,
            uplink_us,
            is_down,
            role,
        } = state;
        let (world, tally) = (self, &mut shard.tally);
        let event = match event {
            Event::Gossip(_) | Event::Heartbeat(_) | Event::Join => {
                let mut mesh = Mesh {
                    world,
                    context,
                    tally,
                    uplink_us,
                };
                match event {
                    _ if *is_down => {}
                    Event::Gossip(gossip) => return self.gossip(peer, role.as_deref_mut(), gossip, mesh),
                    Event::Heartbeat(beat) => mesh.heartbeat(peer, beat),
                    _ => mesh.join(peer),
                }
                return Ok(());
            }
            event => event,
        };
        let Some(role) = role.as_deref_mut() else {
            return Ok(());
        };
        let mut scene = Scene {
            world,
            tally,
            context,
            peer,
            uplink_us,
        };
        if let Event::Fault(fault) = event {
            return self.fault(role, fault, &mut scene);
        }
        if *is_down && let Event::Message(envelope) = &event {
            scene.tally.lost += 1;
            if let (Envelope { from, message }, false) = (envelope.as_ref(), is_closing(&envelope.message))
                && let Some(stream) = message.stream()
            {
                scene.break_stream(*from, stream);
            }
        }
        act(role, is_down, event, &mut scene)
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
