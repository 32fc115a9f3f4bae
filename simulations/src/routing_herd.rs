//! A herd of consumers with old views of the market, which choose providers with the shipped routing policy.
//!
//! Each consumer has its own [`ProviderRecords`] and asks [`choose`], over [`Board`]s of really signed listings.
//! Networks have no latency here, providers no failures, and who has no slot free says so at once: what is measured
//! is how choices spread.

mod report;
mod scenario;

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::board::Board;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::{Listing, ListingError, Offer, PrivacyTier};
use gristmill_protocol::routing::affinity::PrefixDigests;
use gristmill_protocol::routing::candidates::{Asker, Needs, fitting};
use gristmill_protocol::routing::choice::choose;
use gristmill_protocol::routing::constraints::Constraints;
use gristmill_protocol::routing::records::{ProviderRecords, RecordEvent};
use gristmill_protocol::routing::score::Rank;
use gristmill_protocol::usage::Price;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

pub use self::report::{PolicyReport, Report};
pub use self::scenario::{ROUTING_HERD, Scenario, ScenarioError};
use crate::heap_engine::{self as engine, LimitError, Limits, Scheduler, Trace, World, stream};

/// When virtual time begins, as Unix time in milliseconds (January 2027).
const EPOCH_MS: u64 = 1_800_000_000_000;
const SECOND_US: u64 = 1_000_000;
const MODEL: &str = "guide";
/// The price of the cheapest provider, in microcredits per million tokens.
const PRICE: u64 = 100_000;
/// How long a first output takes where a slot is free.
const FIRST_OUTPUT_MS: f64 = 200.0;
/// When a provider without a free slot says to come back, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;
const OUTPUT_TOKENS: u64 = 100;

/// Why a scenario could not be run to an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RunError {
    /// The run grew beyond its limits.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A provider could not make its listing.
    #[error("the simulator made a listing that the protocol refuses: {0}")]
    Listing(#[from] ListingError),
    /// The policy broke its own rule.
    #[error("event {event}: {breach}")]
    Breach {
        /// The event, counted from 1.
        event: u64,
        /// The rule.
        breach: Breach,
    },
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Breach {
    /// Nobody is asked twice for one request.
    #[error("provider {0} was chosen again for a request that it had refused")]
    AskedTwice(usize),
    /// A listing of our own making is out of bounds.
    #[error(transparent)]
    Listing(#[from] ListingError),
}

/// How providers are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    /// As clients do.
    Shipped,
    /// Always the one with the best score.
    AlwaysTheBest,
}

/// Runs a scenario with both policies.
///
/// # Errors
/// [`RunError`] where it cannot be run to an answer.
pub fn run(scenario: &Scenario, seed: u64) -> Result<Report, RunError> {
    let shipped = run_policy(scenario, seed, Policy::Shipped)?;
    let best = run_policy(scenario, seed, Policy::AlwaysTheBest)?;
    Ok(Report::new(scenario, seed, shipped, best))
}

fn run_policy(scenario: &Scenario, seed: u64, policy: Policy) -> Result<PolicyReport, RunError> {
    let mut scheduler = Scheduler::default();
    let mut world = Herd::new(scenario, seed, policy);
    world.publish(0)?;
    scheduler.schedule_after(
        scenario.providers.publish_every_s.get() * SECOND_US,
        Event::Publish,
    );
    for consumer in 0..world.consumers.len() {
        let wait_us = world.next_ask_us(consumer);
        scheduler.schedule_after(wait_us, Event::Ask { consumer });
    }
    let limits = Limits::until_us(scenario.duration_s.get() * SECOND_US);
    let outcome = engine::run(&mut world, &mut scheduler, limits)?;
    match outcome.breach {
        Some(breach) => Err(RunError::Breach {
            event: outcome.events,
            breach,
        }),
        None => Ok(world.figures.report(outcome.events, outcome.digest)),
    }
}

#[derive(Debug)]
enum Event {
    Publish,
    Ask {
        consumer: usize,
    },
    Done {
        consumer: usize,
        provider: usize,
        job_ms: u64,
    },
}

struct Provider {
    keypair: Keypair,
    price: Credits,
    running: u64,
}

struct Consumer {
    records: ProviderRecords,
    /// How much older than the newest what it sees is, in microseconds.
    view_age_us: u64,
    arrivals: ChaCha8Rng,
    choices: ChaCha8Rng,
}

struct Herd<'a> {
    scenario: &'a Scenario,
    policy: Policy,
    coordinator: AccountId,
    providers: Vec<Provider>,
    indexes: BTreeMap<AccountId, usize>,
    consumers: Vec<Consumer>,
    /// What could be seen from when on, in microseconds.
    boards: Vec<(u64, Board)>,
    figures: report::Figures,
}

impl<'a> Herd<'a> {
    fn new(scenario: &'a Scenario, seed: u64, policy: Policy) -> Self {
        let key = |purpose: &str, number: u64| {
            Keypair::from_secret(&stream(seed, purpose, number).random::<[u8; 32]>())
        };
        let count = scenario.providers.count.get();
        let spread = PRICE * scenario.providers.price_spread_percent.get() / 100;
        let providers: Vec<Provider> = (0..count)
            .map(|number| Provider {
                keypair: key("provider", number),
                price: Credits::from_microcredits(PRICE + spread * number / count.saturating_sub(1).max(1))
                    .unwrap_or(Credits::MAX),
                running: 0,
            })
            .collect();
        let view_age_max_us = scenario.consumers.view_age_max_s.get() * SECOND_US;
        let consumers = (0..scenario.consumers.count.get())
            .map(|number| Consumer {
                records: ProviderRecords::default(),
                view_age_us: stream(seed, "view", number).random_range(0..=view_age_max_us),
                arrivals: stream(seed, "arrivals", number),
                choices: stream(seed, "choices", number),
            })
            .collect();
        let accounts = providers.iter().map(|provider| provider.keypair.account());
        Self {
            scenario,
            policy,
            coordinator: key("coordinator", 0).account(),
            indexes: accounts.zip(0..).collect(),
            figures: report::Figures::new(providers.len()),
            providers,
            consumers,
            boards: Vec::new(),
        }
    }

    fn next_ask_us(&mut self, consumer: usize) -> u64 {
        let mean_us = self.scenario.consumers.ask_every_s.get() * SECOND_US;
        self.consumers[consumer].arrivals.random_range(0..=2 * mean_us)
    }

    /// Everybody says what it offers and how much room it has.
    fn publish(&mut self, now_us: u64) -> Result<(), ListingError> {
        let mut board = self
            .boards
            .last()
            .map_or_else(Board::default, |(_, board)| board.clone());
        let slots = self.scenario.providers.slots.get();
        for provider in &self.providers {
            let listing = Listing {
                provider: provider.keypair.account(),
                sequence: now_us + 1,
                issued_at_ms: now_ms(now_us),
                ttl_ms: 600_000,
                addresses: vec!["/ip4/192.0.2.1/udp/7410/quic-v1".into()],
                coordinators: vec![self.coordinator],
                region: String::new(),
                privacy: PrivacyTier::Standard,
                offers: vec![Offer {
                    kind: JobKind::ChatCompletions,
                    model: MODEL.into(),
                    weights_digest: None,
                    quantization: String::new(),
                    context_length: 8_192,
                    capabilities: Vec::new(),
                    price: Price::per_million_tokens(provider.price, provider.price),
                }],
                slots: u16::try_from(slots).unwrap_or(u16::MAX),
                free_slots: u16::try_from(slots.saturating_sub(provider.running)).unwrap_or(u16::MAX),
                certificates: vec![],
            };
            board.insert(&listing.seal(&provider.keypair)?, now_ms(now_us))?;
        }
        self.boards.push((now_us, board));
        Ok(())
    }

    /// What a consumer sees: the newest board that is as old as its view, or the first one.
    fn view(&self, consumer: usize, now_us: u64) -> usize {
        let seen_us = now_us.saturating_sub(self.consumers[consumer].view_age_us);
        let known = self.boards.partition_point(|(from_us, _)| *from_us <= seen_us);
        known.saturating_sub(1)
    }

    fn choose(&mut self, consumer: usize, tried: &BTreeSet<AccountId>, now_us: u64) -> Option<usize> {
        let view = self.view(consumer, now_us);
        let (constraints, prefix) = (Constraints::default(), PrefixDigests::default());
        let (capabilities, funded) = (BTreeMap::new(), BTreeSet::new());
        let needs = Needs {
            kind: JobKind::ChatCompletions,
            model: MODEL,
            capabilities: &capabilities,
            body_bytes: 2_000,
            output_tokens_max: Some(OUTPUT_TOKENS),
            choices: 1,
            context_length_above: 0,
            constraints: &constraints,
            prefix: &prefix,
        };
        let asker = Asker {
            account: self.coordinator,
            coordinator: self.coordinator,
            tried,
            funded: &funded,
        };
        let (board, now_ms) = (&self.boards[view].1, now_ms(now_us));
        let Consumer { records, choices, .. } = &mut self.consumers[consumer];
        let chosen = match self.policy {
            Policy::Shipped => choose(board, &needs, &asker, records, now_ms, choices)
                .ok()
                .map(|route| route.provider),
            Policy::AlwaysTheBest => best(board, &needs, &asker, records, now_ms),
        };
        chosen.and_then(|provider| self.indexes.get(&provider).copied())
    }

    fn note(&mut self, consumer: usize, provider: usize, event: RecordEvent, now_us: u64) {
        let account = self.providers[provider].keypair.account();
        self.consumers[consumer]
            .records
            .note(account, event, now_ms(now_us));
    }

    /// One request: one provider after the other is asked until one has a slot free.
    fn ask(
        &mut self,
        consumer: usize,
        scheduler: &mut Scheduler<Event>,
        trace: &mut Trace,
    ) -> Result<(), Breach> {
        let now_us = scheduler.now_us();
        let wait_us = self.next_ask_us(consumer);
        scheduler.schedule_after(wait_us, Event::Ask { consumer });
        let (least_ms, most_ms) = self.scenario.consumers.job_ms();
        let job_ms = self.consumers[consumer].arrivals.random_range(least_ms..=most_ms);
        let mut tried = BTreeSet::new();
        for _ in 0..self.scenario.consumers.attempts.get() {
            let Some(provider) = self.choose(consumer, &tried, now_us) else {
                break;
            };
            trace.actor(consumer).actor(provider);
            if !tried.insert(self.providers[provider].keypair.account()) {
                return Err(Breach::AskedTwice(provider));
            }
            let has_room = self.providers[provider].running < self.scenario.providers.slots.get();
            self.figures.asked(provider, now_us / SECOND_US, has_room);
            self.note(consumer, provider, RecordEvent::JobBegan, now_us);
            if has_room {
                self.providers[provider].running += 1;
                let done = Event::Done {
                    consumer,
                    provider,
                    job_ms,
                };
                scheduler.schedule_after(job_ms * 1_000, done);
                self.figures.request(true);
                return Ok(());
            }
            let busy = RecordEvent::Busy {
                retry_after_ms: RETRY_AFTER_MS,
            };
            self.note(consumer, provider, busy, now_us);
            self.note(consumer, provider, RecordEvent::JobEnded, now_us);
        }
        self.figures.request(false);
        Ok(())
    }

    fn done(&mut self, consumer: usize, provider: usize, job_ms: u64, now_us: u64) {
        self.providers[provider].running -= 1;
        let delivered = RecordEvent::Delivered {
            output_tokens: OUTPUT_TOKENS,
            output_ms: job_ms as f64 - FIRST_OUTPUT_MS,
        };
        let first = RecordEvent::FirstOutput {
            latency_ms: FIRST_OUTPUT_MS,
        };
        for event in [first, delivered, RecordEvent::JobEnded] {
            self.note(consumer, provider, event, now_us);
        }
    }
}

impl World for Herd<'_> {
    type Event = Event;
    type Breach = Breach;

    fn handle(
        &mut self,
        event: Event,
        scheduler: &mut Scheduler<Event>,
        trace: &mut Trace,
    ) -> Result<(), Breach> {
        match event {
            Event::Publish => {
                self.publish(scheduler.now_us())?;
                let every_us = self.scenario.providers.publish_every_s.get() * SECOND_US;
                scheduler.schedule_after(every_us, Event::Publish);
            }
            Event::Ask { consumer } => self.ask(consumer, scheduler, trace)?,
            Event::Done {
                consumer,
                provider,
                job_ms,
            } => {
                trace.actor(provider);
                self.done(consumer, provider, job_ms, scheduler.now_us());
            }
        }
        Ok(())
    }
}

/// The candidate with the best score, as a consumer without second thoughts would choose it.
fn best<'board>(
    board: &'board Board,
    needs: &Needs<'board>,
    asker: &Asker<'_>,
    records: &ProviderRecords,
    now_ms: u64,
) -> Option<AccountId> {
    let ranked = fitting(board, needs, asker, records, now_ms)
        .ok()?
        .into_iter()
        .map(|candidate| {
            let provider = candidate.listing.provider;
            let standing = records.standing(&provider, now_ms);
            (Rank::of(&candidate, needs, &standing, false), provider)
        });
    let best = ranked.min_by(|(one, _), (other, _)| {
        let classes = one.class().cmp(&other.class());
        classes.then(one.score.total_cmp(&other.score))
    });
    best.map(|(_, provider)| provider)
}

const fn now_ms(now_us: u64) -> u64 {
    EPOCH_MS + now_us / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seed: u64, duration_s: u64) -> Report {
        let text = ROUTING_HERD.replace("duration_s = 120", &format!("duration_s = {duration_s}"));
        run(&Scenario::parse(&text).unwrap(), seed).unwrap()
    }

    #[test]
    fn a_herd_with_old_views_is_spread_and_always_the_best_is_trampled() {
        let report = report(7, 120);
        let (shipped, best) = (&report.shipped, &report.always_the_best);
        // Twenty would get one in twenty each.
        assert!(
            shipped.largest_share.part * 100 <= shipped.largest_share.whole * 15,
            "{shipped:?}"
        );
        assert!(
            shipped.largest_share.part * 2 < best.largest_share.part,
            "{shipped:?} {best:?}"
        );
        assert!(
            shipped.most_in_a_second * 3 < best.most_in_a_second * 2,
            "{shipped:?} {best:?}"
        );
        assert!(
            shipped.refused.part * 2 < best.refused.part,
            "{shipped:?} {best:?}"
        );
        assert!(
            shipped.unserved.part * 4 < best.unserved.part,
            "{shipped:?} {best:?}"
        );
        assert_eq!(shipped.unserved.whole, best.unserved.whole, "the same requests");
    }

    #[test]
    fn the_same_seed_gives_the_same_run_and_another_one_another() {
        let (one, same, other) = (report(1, 20), report(1, 20), report(2, 20));
        assert_eq!(one, same);
        assert_ne!(one.shipped.digest, other.shipped.digest);
    }
}
