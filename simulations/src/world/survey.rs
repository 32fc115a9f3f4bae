//! A look at the whole market between epochs: sums that must hold, and time series.

use gristmill_protocol::board::Board;
use serde::{Deserialize, Serialize};

mod able;

use self::able::Market;
use super::config::Boards;
use super::kept::Kept;
use super::node::{Role, Shard};
use super::{EPOCH_MS, MarketWorld};
use crate::checkers::Place;
use crate::checkers::liveness::Liveness;
use crate::engine::{Breach, SHARDS, node_at};
use crate::people::provider::Wakening;

/// Microseconds between two points of a series at least, and points at most.
const POINT_EVERY_US: u64 = 1_000_000;
const POINTS_MAX: u64 = 400;
/// Microseconds between two times at which old listings are forgotten.
const FORGET_EVERY_US: u64 = 60_000_000;

/// Microseconds between two looks at who was not served, for each crowd of so many; a larger market is looked at less often.
const COMPLAINTS_EVERY_US: u64 = 1_000_000;
const CROWD: u64 = 10_000;

/// What was seen so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Surveyed {
    next_point_us: u64,
    next_forgetting_us: u64,
    next_complaints_us: u64,
    liveness: Liveness,
    pub(super) points: Vec<Point>,
}

/// The market at one moment. Counts are since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) at_us: u64,
    pub(super) asked: u64,
    pub(super) served: u64,
    pub(super) unserved: u64,
    /// Jobs that run or wait at providers.
    pub(super) jobs: u64,
    pub(super) providers_online: u64,
    /// Calls that wait for the coordinator's disk.
    pub(super) queue: u64,
    pub(super) settled: u64,
    pub(super) paid: u64,
    pub(super) output_tokens: u64,
    pub(super) heard: u64,
}

pub(super) fn survey(world: &mut MarketWorld, shards: &mut [&mut Shard], now_us: u64) -> Result<(), Breach> {
    for (number, shard) in shards.iter_mut().enumerate() {
        wake_shard(world, number, shard, now_us)?;
    }
    if now_us >= world.surveyed.next_forgetting_us {
        world.surveyed.next_forgetting_us = now_us + FORGET_EVERY_US;
        world.catalogue.forget_before(now_us);
        let with_boards = match world.config.boards {
            Boards::Consumers => world.roster.keyed() as usize / SHARDS + 1,
            Boards::Everyone => usize::MAX,
        };
        forget(shards, with_boards, now_us);
    }
    if now_us >= world.surveyed.next_complaints_us {
        let crowds = 1 + u64::from(world.roster.keyed()) / CROWD;
        world.surveyed.next_complaints_us = now_us + COMPLAINTS_EVERY_US * crowds;
        let complaints = Market::new(world, shards, now_us).complaints()?;
        world.surveyed.liveness.survey(now_us, complaints)?;
    }
    if now_us >= world.surveyed.next_point_us {
        check(shards, now_us)?;
        let duration_us = world.config.duration_s.get() * 1_000_000;
        world.surveyed.next_point_us = now_us + (duration_us / POINTS_MAX).max(POINT_EVERY_US);
        let with_roles = world.roster.keyed() as usize / SHARDS + 1;
        let point = point(shards, with_roles, now_us);
        world.surveyed.points.push(point);
    }
    Ok(())
}

/// Boards forget listings that can't live any more.
fn forget(shards: &mut [&mut Shard], with_boards: usize, now_us: u64) {
    let now_ms = EPOCH_MS + now_us / 1_000;
    for node in shards
        .iter_mut()
        .flat_map(|shard| shard.nodes.iter_mut().take(with_boards))
    {
        let board = match node.role.as_deref_mut() {
            Some(Role::Consumer(consumer)) => consumer.board.awake_mut(),
            Some(Role::Reader(reader)) => reader.board.awake_mut(),
            Some(Role::Provider(provider)) => provider.board.as_mut().and_then(Kept::awake_mut),
            _ => None,
        };
        if let Some(board) = board {
            board.expire(now_ms);
        }
    }
}

/// The books of the coordinator agree at any time.
fn check(shards: &[&mut Shard], now_us: u64) -> Result<(), Breach> {
    let first = shards.first().and_then(|shard| shard.nodes.first());
    match first.and_then(|node| node.role.as_deref()) {
        Some(Role::Coordinator(coordinator)) => coordinator.survey(Place {
            node: 0,
            at_us: now_us,
        }),
        _ => Ok(()),
    }
}

/// Only the first nodes of each shard have roles to look at.
fn point(shards: &[&mut Shard], with_roles: usize, now_us: u64) -> Point {
    let mut point = Point {
        at_us: now_us,
        ..Point::default()
    };
    for shard in shards {
        let tally = &shard.tally;
        point.asked += tally.asked;
        point.served += tally.served;
        point.unserved += tally.unserved.values().sum::<u64>();
        point.paid += tally.paid;
        point.output_tokens += tally.output_tokens;
        point.heard += tally.heard;
        for node in shard.nodes.iter().take(with_roles) {
            match node.role.as_deref() {
                Some(Role::Provider(provider)) => {
                    point.jobs += provider.jobs() as u64;
                    point.settled += provider.settled;
                    point.providers_online += u64::from(!node.is_down);
                }
                Some(Role::Coordinator(coordinator)) => point.queue += coordinator.queue() as u64,
                _ => {}
            }
        }
    }
    point
}

/// Wakes the machines of a shard that was read from a snapshot.
///
/// # Errors
/// Where they do not fit the scenario that they are woken in.
pub(super) fn wake_shard(
    world: &MarketWorld,
    number: usize,
    shard: &mut Shard,
    now_us: u64,
) -> Result<(), Breach> {
    if shard.is_awake {
        return Ok(());
    }
    for (slot, state) in shard.nodes.iter_mut().enumerate() {
        let node = node_at(number, slot);
        let wakening = Wakening { world, node };
        let woken = match state.role.as_deref_mut() {
            Some(Role::Provider(provider)) => provider.wake(&wakening),
            Some(Role::Consumer(consumer)) => consumer.wake(&wakening),
            Some(Role::Reader(reader)) => reader
                .board
                .wake(|snapshot| Board::restore(snapshot, |digest| world.catalogue.by_digest(digest)))
                .map_err(|error| error.to_string()),
            _ => Ok(()),
        };
        woken.map_err(|message| Breach {
            rule: "snapshot".to_owned(),
            message,
            node,
            at_us: now_us,
        })?;
    }
    shard.is_awake = true;
    Ok(())
}
