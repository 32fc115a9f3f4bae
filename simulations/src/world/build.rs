//! A market before its first event: nodes, endowments, and what is to happen first.

use gristmill_protocol::board::Board;
use gristmill_protocol::log::checkpoint::LogKeys;

use super::config::{Boards, FaultKind, MarketConfig};
use super::event::{Event, Timer};
use super::kept::Kept;
use super::node::{Node, Reader, Role, Shard};
use super::roster::Part;
use super::scene::Scene;
use super::{EPOCH_MS, MarketWorld};
use crate::checkers::forwarding::Forwarding;
use crate::engine::random::Random;
use crate::engine::{NodeId, Simulation, node_at, nodes_of_shard};
use crate::gossip::Peer;
use crate::network::Churn;
use crate::people::consumer::Consumer;
use crate::people::coordinator::{self, Coordinator};
use crate::people::hardware::{Desk, DeskConfig};
use crate::people::provider::Provider;
use crate::people::publisher::Publisher;

/// Consumers begin to ask after this, so that listings are there and gossip has found together, in microseconds.
const ASK_FROM_US: u64 = 20_000_000;
/// Shortest absence, in microseconds.
const AWAY_MIN_US: u64 = 8_000_000;

/// A market that is ready to run.
#[must_use]
pub fn build(config: MarketConfig, seed: u64) -> Simulation<MarketWorld> {
    let world = MarketWorld::new(config, seed);
    let nodes = world.roster.nodes();
    let mut states: Vec<Shard> = (0..crate::engine::SHARDS)
        .map(|shard| states_of(&world, shard))
        .collect();
    let mut simulation = Simulation::new(world, seed, nodes, |shard| {
        states.get_mut(shard).map(std::mem::take).unwrap_or_default()
    });
    schedule(&mut simulation, seed);
    simulation
}

fn states_of(world: &MarketWorld, shard: usize) -> Shard {
    let nodes = nodes_of_shard(world.roster.nodes(), shard);
    let state = |slot| {
        let role = role(world, node_at(shard, slot)).map(Box::new);
        Node {
            // Providers go online one after the other.
            is_down: matches!(role.as_deref(), Some(Role::Provider(_))),
            role,
            peer: Peer::new(0),
            uplink_us: 0,
        }
    };
    Shard {
        nodes: (0..nodes).map(state).collect(),
        is_awake: true,
        ..Shard::default()
    }
}

fn role(world: &MarketWorld, node: NodeId) -> Option<Role> {
    let number = |group: usize| u16::try_from(group).unwrap_or(u16::MAX);
    match world.roster.part(node) {
        Part::Coordinator => Some(Role::Coordinator(coordinator(world))),
        Part::Provider(group) => {
            let config = world.config.providers.get(group)?;
            Some(Role::Provider(Provider::new(number(group), config)))
        }
        Part::Consumer(group) => Some(Role::Consumer(consumer(world, node, number(group)))),
        Part::Publisher => Some(Role::Publisher(Publisher::default())),
        Part::Bystander => (world.config.boards == Boards::Everyone).then(|| {
            Role::Reader(Reader {
                board: Kept::Awake(Board::default()),
                forwarding: Forwarding::default(),
            })
        }),
    }
}

/// A consumer believes the coordinator's certificates, where there are any; some want nothing else.
fn consumer(world: &MarketWorld, node: NodeId, group: u16) -> Consumer {
    let mut consumer = Consumer::new(group);
    let defences = &world.config.defences;
    let mut random = Random::of_purpose(world.seed, "only verified", u64::from(node));
    consumer.only_verified = random.chance(defences.only_verified);
    if let (Some(_), Some(board)) = (defences.challenges_per_day, consumer.board.awake_mut()) {
        board.trust(LogKeys::new(world.coordinator_account()));
    }
    consumer
}

fn coordinator(world: &MarketWorld) -> Coordinator {
    let mut coordinator = Coordinator::default();
    let challenges_per_day = world.config.defences.challenges_per_day;
    coordinator.desk =
        challenges_per_day.map(|per_day| Desk::new(DeskConfig::of_challenges_per_day(per_day), world.seed));
    for node in world.roster.consumers() {
        if let Part::Consumer(group) = world.roster.part(node)
            && let Some(config) = world.config.consumers.get(group)
        {
            let amount = coordinator::amount(config.credits.get());
            // Refused only where all amounts together pass the largest one; the account is poor then.
            let _ = coordinator.endow(node, world.account(node), amount, EPOCH_MS);
        }
    }
    coordinator
}

fn schedule(simulation: &mut Simulation<MarketWorld>, seed: u64) {
    let (world, _) = simulation.parts();
    let (roster, config) = (world.roster.clone(), world.config.clone());
    for node in 0..roster.nodes() {
        if !matches!(roster.part(node), Part::Provider(_)) {
            simulation.schedule(0, node, Event::Join);
        }
        let mut random = Random::of_purpose(seed, "first event", u64::from(node));
        match roster.part(node) {
            Part::Coordinator => {
                let every_us = config.coordinator.sweep_every_s.get() * 1_000_000;
                simulation.schedule(every_us, node, Event::Timer(Timer::Sweep));
            }
            Part::Provider(_) => simulation.schedule(random.below(5_000_000), node, Event::Timer(Timer::Up)),
            Part::Consumer(group) => {
                let Some(group) = config.consumers.get(group) else {
                    continue;
                };
                let first_us = ASK_FROM_US + random.exponential(u64::from(group.demand.every_s) * 1_000_000);
                simulation.schedule(first_us, node, Event::Timer(Timer::Ask));
                if group.starter || group.conduct().farms_grants() > 0 {
                    simulation.schedule(random.below(10_000_000), node, Event::Timer(Timer::Starter));
                }
            }
            Part::Publisher => {
                let every_us = config.publishers.publish_every_s.get() * 1_000_000;
                simulation.schedule(random.below(every_us), node, Event::Timer(Timer::Listing));
            }
            Part::Bystander => {}
        }
    }
    for (number, fault) in (0_u32..).zip(&config.faults) {
        let at_us = fault.at_s.get() * 1_000_000;
        match fault.kind {
            FaultKind::Outage => simulation.schedule(at_us, 0, Event::Fault(number)),
            FaultKind::Crash => {
                for node in roster.providers() {
                    simulation.schedule(at_us, node, Event::Fault(number));
                }
            }
        }
    }
}

/// A provider that is online now goes offline some day, and comes back.
pub(super) fn plan_departure(group: u16, scene: &mut Scene<'_, '_>) {
    let config = scene.world.provider_group(group);
    let region = scene.world.links.region(scene.node());
    let now_us = scene.now_us();
    let random = scene.random();
    let (stays_us, away_us, crash) = match config.churn.clone().map(Churn::new) {
        Some(churn) => {
            let stays_us = churn.session_us(random);
            let away_us = churn.absence_us(region, now_us + stays_us, random);
            (stays_us, away_us, churn.crashes(random))
        }
        None if config.online_s.get() == 0 => return,
        None => (
            random.exponential(config.online_s.get() * 1_000_000),
            random.exponential(config.offline_s.get() * 1_000_000),
            random.chance(config.crashes.get()),
        ),
    };
    // Not so soon that its first listing comes too early after the last one.
    let (stays_us, away_us) = (stays_us.max(1), away_us.max(AWAY_MIN_US));
    scene.after(stays_us, Timer::Down { crash });
    scene.after(stays_us + away_us, Timer::Up);
}
