//! Who could serve whom now, as everybody truly is: what [`crate::checkers::liveness`] decides by.
//!
//! In doubt somebody is not able: a provider that lies, whose clock is wrong, whose line is busy, or that cannot serve four
//! such answers in a program's patience is no witness, and neither is one beside so many others of whom nothing good is known that
//! the shipped policy may ask them first.

use gristmill_protocol::channel::window_part;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::usage::{Unit, Usage};

use super::super::MarketWorld;
use super::super::config::{ConsumerGroup, FaultKind, ProviderGroup};
use super::super::node::{Node, Role, Shard};
use super::super::roster::Part;
use crate::checkers::liveness::{self, Broken, ConsumerView, FailedJob, Witness};
use crate::engine::{Breach, NodeId, shard_of, slot_of};
use crate::people::consumer::Consumer;
use crate::people::consumer::attempts::INPUT_TOKENS_BESIDE;
use crate::people::consumer::funding::{CALL_US, CALLS_MAX};
use crate::people::coordinator::{Coordinator, amount};
use crate::people::job_text;
use crate::people::popularity::ModelSize;
use crate::people::provider::{self, Provider};

/// A clock that is off by more is wrong, in milliseconds.
const CLOCK_OFF_MAX_MS: u64 = 1_000;
/// A line that is busy for longer is too busy, in microseconds.
const LINE_BUSY_MAX_US: u64 = 200_000;
/// So many answers of the kind fit into a program's patience.
const ANSWERS_IN_PATIENCE: u64 = 4;

/// Everybody, between two epochs.
pub(super) struct Market<'a> {
    world: &'a MarketWorld,
    shards: &'a [&'a mut Shard],
    now_us: u64,
}

/// A provider that is honest, there, and has a free slot.
struct Able<'a> {
    node: NodeId,
    provider: &'a Provider,
    group: &'a ProviderGroup,
    since_us: u64,
}

/// A consumer that is honest and has something to complain about.
struct Unserved<'a> {
    node: NodeId,
    consumer: &'a Consumer,
    group: &'a ConsumerGroup,
}

impl<'a> Market<'a> {
    pub(super) const fn new(world: &'a MarketWorld, shards: &'a [&'a mut Shard], now_us: u64) -> Self {
        Self {
            world,
            shards,
            now_us,
        }
    }

    fn node(&self, node: NodeId) -> Option<&'a Node> {
        self.shards.get(shard_of(node))?.nodes.get(slot_of(node))
    }

    fn role(&self, node: NodeId) -> Option<&'a Role> {
        self.node(node)?.role.as_deref()
    }

    /// The consumers with failed jobs, and who could have served them.
    ///
    /// # Errors
    /// A program that is told nothing, a slot that is held for ever, or output that is held back.
    pub(super) fn complaints(&self) -> Result<Vec<ConsumerView>, Breach> {
        let able = self.able()?;
        let mut views = Vec::new();
        for node in self.world.roster.consumers() {
            let (Some(Role::Consumer(consumer)), Part::Consumer(group)) =
                (self.role(node), self.world.roster.part(node))
            else {
                continue;
            };
            let Some(group) = self.world.config.consumers.get(group) else {
                continue;
            };
            if let Some((model, asked_us)) = consumer.longest_waiting() {
                let patience_us = group.patience_s.get() * 1_000_000;
                liveness::is_told(model, asked_us, patience_us, node, self.now_us)?;
            }
            if group.lie.is_none() && consumer.history.complains() {
                let unserved = Unserved {
                    node,
                    consumer,
                    group,
                };
                views.push(self.view(&unserved, &able));
            }
        }
        Ok(views)
    }

    /// The providers that could serve somebody.
    fn able(&self) -> Result<Vec<Able<'a>>, Breach> {
        let mut able = Vec::new();
        for node in self.world.roster.providers() {
            let (Some(Role::Provider(provider)), Part::Provider(group)) =
                (self.role(node), self.world.roster.part(node))
            else {
                continue;
            };
            if let Some(taken_us) = provider.oldest_job_us() {
                liveness::frees_slot(taken_us, node, self.now_us)?;
            }
            if let Some(paid_us) = provider.holds_back_since_us() {
                liveness::goes_on(paid_us, node, self.now_us)?;
            }
            let Some(group) = self.world.config.providers.get(group) else {
                continue;
            };
            if group.lie.is_none()
                && self.is_well(node)
                && let Some(since_us) = provider.has_room_since_us(group)
            {
                able.push(Able {
                    node,
                    provider,
                    group,
                    since_us,
                });
            }
        }
        Ok(able)
    }

    /// Whether a node is online, with a clock that is about right and a line that is about free.
    fn is_well(&self, node: NodeId) -> bool {
        let skew_ms = self.world.links.clock_skew_ms(node).unsigned_abs();
        skew_ms <= CLOCK_OFF_MAX_MS
            && self.node(node).is_some_and(|state| {
                !state.is_down && state.uplink_us <= self.now_us.saturating_add(LINE_BUSY_MAX_US)
            })
    }

    fn view(&self, unserved: &Unserved<'_>, able: &[Able<'_>]) -> ConsumerView {
        let mut view = ConsumerView {
            node: unserved.node,
            witnesses: Vec::new(),
            broken: Vec::new(),
        };
        let Some((balance, pays_since_us)) = self.pays_since_us(unserved) else {
            return view;
        };
        for able in able {
            let Some(unable_us) = self.apart_us(unserved.node, able.node) else {
                continue;
            };
            let unable_us = unable_us.max(able.since_us);
            let broken = unserved.consumer.history.broken();
            let is_excused = |broken: &Broken| broken.provider != able.node || broken.since_us <= unable_us;
            view.broken.extend(broken.filter(|broken| !is_excused(broken)));
            let failed = unserved.consumer.history.failed();
            let could_serve: Vec<FailedJob> = failed
                .filter(|job| job.cost_max <= balance && self.could_serve(unserved, able, job))
                .copied()
                .collect();
            if !could_serve.is_empty() {
                view.witnesses.push(Witness {
                    provider: able.node,
                    unable_us: unable_us
                        .max(pays_since_us)
                        .max(unserved.consumer.history.shunned_until_us(able.node)),
                    could_serve,
                });
            }
        }
        let witnesses = view.witnesses.len() as u64;
        view.witnesses
            .retain_mut(|witness| self.is_reached(unserved, witnesses, &mut witness.could_serve));
        view
    }

    /// Where a consumer can pay: what with, in microcredits, and since when the coordinator has been there.
    fn pays_since_us(&self, unserved: &Unserved<'_>) -> Option<(u64, u64)> {
        let Some(Role::Coordinator(coordinator)) = self.role(0) else {
            return None;
        };
        let (group, config) = (unserved.group, &self.world.config.coordinator);
        let balance = balance(coordinator, self.world, unserved.node);
        let can_open = group.channel_limit.get() <= config.channel_limit_max.get().min(balance)
            && group.channel_life_s.get() <= config.channel_life_max_s.get();
        let is_there = coordinator.answers_within(CALL_US / 2, self.now_us) && self.is_well(unserved.node);
        let apart_us = self.apart_us(unserved.node, 0)?;
        let outages =
            self.world.config.faults.iter().filter(|fault| {
                fault.kind == FaultKind::Outage && fault.at_s.get() * 1_000_000 <= self.now_us
            });
        let back_us = outages
            .map(|fault| (fault.at_s.get() + fault.for_s.get()) * 1_000_000)
            .max();
        // A call from before may still be repeated, and jobs wait for it together.
        let calls_us = CALL_US * u64::from(CALLS_MAX);
        let since_us = apart_us.max(back_us.unwrap_or(0)) + calls_us;
        (can_open && is_there).then_some((balance.min(config.channel_limit_max.get()), since_us))
    }

    /// Where two nodes reach each other now: until when a partition kept them apart, in microseconds.
    fn apart_us(&self, one: NodeId, other: NodeId) -> Option<u64> {
        let until_us = self.world.links.last_partitioned_us(one, other, self.now_us);
        // Whoever sent something before finds out only after a silence that it was lost.
        let until_us = until_us.map_or(0, |until_us| until_us + self.world.links.silence_us());
        (until_us <= self.now_us && self.world.is_reachable(one, other)).then_some(until_us)
    }

    /// Whether a provider that has room could serve this job of a consumer that hears its listing.
    fn could_serve(&self, unserved: &Unserved<'_>, able: &Able<'_>, job: &FailedJob) -> bool {
        let patience_us = unserved.group.patience_s.get() * 1_000_000;
        // Who is honest has the device that it says it has.
        let device = able.group.device;
        let takes_us = able.group.reading_us(device, job.model, job.input_tokens)
            + able.group.writing_us(device, job.model, job.output_tokens);
        let Some(price) = able.provider.price_of(job.model) else {
            return false;
        };
        // The part of the window that is extended to prompts has room for some such jobs side by side.
        let prompt_tokens = job_text::body_bytes(job.input_tokens) as u64 + INPUT_TOKENS_BESIDE;
        let prompts = Usage::tokens(ANSWERS_IN_PATIENCE * prompt_tokens, 0);
        let is_within_window = provider::price_of(price)
            .cost(&prompts)
            .is_ok_and(|cost| cost <= window_part(amount(able.group.credit_window.get())));
        let cap = unserved.group.max_price.get();
        let now_ms = self.world.clock_ms(unserved.node, self.now_us);
        let board = unserved.consumer.board.awake();
        let listing = board.and_then(|board| board.listing(&self.world.account(able.node), now_ms));
        let is_listed = listing.is_some_and(|listing| {
            let mut offers = listing.offers.iter();
            offers.any(|offer| {
                offer.model == job.model.name() && price <= offer.price.coefficient(Unit::OutputToken)
            })
        });
        let asked_ms = self.world.clock_ms(unserved.node, job.asked_us);
        let account = self.world.account(able.node);
        takes_us * ANSWERS_IN_PATIENCE <= patience_us
            && unserved.consumer.accepts_since(&account, asked_ms, now_ms)
            && is_within_window
            && (cap == 0 || price.microcredits() <= cap)
            && is_listed
            && job.held_by.is_none_or(|held_by| held_by == able.node)
    }

    /// Leaves those jobs that must have reached a witness, whomever their plans asked first. False where none is left.
    fn is_reached(&self, unserved: &Unserved<'_>, witnesses: u64, jobs: &mut Vec<FailedJob>) -> bool {
        let group = unserved.group;
        let patience_us = group.patience_s.get() * 1_000_000;
        let others = ModelSize::ALL.map(|model| self.listed(unserved, model).saturating_sub(witnesses));
        jobs.retain(|job| {
            let index = ModelSize::ALL.iter().position(|model| *model == job.model);
            let others = index.and_then(|index| others.get(index)).copied().unwrap_or(0);
            let asking_us = others * self.world.links.silence_us() + liveness::retry_waits_us();
            let opening_us = CALL_US * u64::from(CALLS_MAX);
            others <= liveness::wasted_max(group.attempts.get())
                && asking_us + opening_us + patience_us / ANSWERS_IN_PATIENCE <= patience_us
        });
        !jobs.is_empty()
    }

    /// How many providers a consumer may ask for a model.
    fn listed(&self, unserved: &Unserved<'_>, model: ModelSize) -> u64 {
        let now_ms = self.world.clock_ms(unserved.node, self.now_us);
        let coordinator = self.world.coordinator_account();
        let cap = unserved.group.max_price.get();
        unserved.consumer.board.awake().map_or(0, |board| {
            let kind = JobKind::ChatCompletions;
            let offers = board.candidates(kind, model.name(), coordinator, now_ms);
            let prices = offers.map(|candidate| candidate.offer.price.coefficient(Unit::OutputToken));
            prices
                .filter(|price| cap == 0 || price.microcredits() <= cap)
                .count() as u64
        })
    }
}

fn balance(coordinator: &Coordinator, world: &MarketWorld, node: NodeId) -> u64 {
    let balance = coordinator.book.balance(&world.account(node));
    balance.available.microcredits()
}
