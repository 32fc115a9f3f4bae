//! What a run has shown, for results: figures by name, time series and distributions.

mod hardware;

use std::collections::BTreeMap;

use super::MarketWorld;
use super::histogram::Histogram;
use super::node::{Role, Shard};
use super::survey::Point;
use super::tally::{Tally, Unserved};
use crate::engine::Simulation;

/// A figure over time.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeSeries {
    /// Its name.
    pub name: String,
    /// The unit of its values.
    pub unit: &'static str,
    /// Seconds of virtual time, and the value.
    pub points: Vec<(f64, f64)>,
}

/// How something is spread.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// Its name.
    pub name: String,
    /// The unit of its values.
    pub unit: &'static str,
    /// The upper end of each part, and how many are in it.
    pub parts: Vec<(f64, u64)>,
}

/// What a run has shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Single figures by name; the unit is part of it.
    pub metrics: BTreeMap<String, f64>,
    /// Figures over time.
    pub series: Vec<TimeSeries>,
    /// How things are spread.
    pub spreads: Vec<Spread>,
}

/// Everything that a run has shown so far.
#[must_use]
pub fn figures(simulation: &mut Simulation<MarketWorld>) -> Figures {
    let now_us = simulation.now_us();
    let (world, shards) = simulation.parts();
    let mut tally = Tally::default();
    shards.iter().for_each(|shard| tally.merge(&shard.tally));
    let mut figures = Figures::default();
    figures.of_jobs(&tally);
    figures.of_gossip(&tally, &shards);
    figures.of_money(world, &shards, &tally);
    figures.of_earnings(world, &shards);
    figures.of_hardware(world, &shards, &tally, now_us);
    figures.of_memory(&shards);
    figures.of_time(&world.surveyed.points);
    figures.set("duration_s", number(now_us) / 1e6);
    figures
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
const fn number(count: u64) -> f64 {
    count as f64
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        number(part) / number(whole)
    }
}

impl Figures {
    fn set(&mut self, name: &str, value: f64) {
        self.metrics.insert(name.to_owned(), value);
    }

    /// Mean and quantiles, and the whole spread.
    fn spread(&mut self, name: &str, unit: &'static str, histogram: &Histogram) {
        if let Some(mean) = histogram.mean() {
            self.set(&format!("{name}_mean"), mean);
        }
        for (label, at) in [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)] {
            if let Some(value) = histogram.quantile(at) {
                self.set(&format!("{name}_{label}"), number(value));
            }
        }
        self.spreads.push(Spread {
            name: name.to_owned(),
            unit,
            parts: histogram
                .parts()
                .map(|(upper, count)| (number(upper), count))
                .collect(),
        });
    }

    fn of_jobs(&mut self, tally: &Tally) {
        let unserved: u64 = tally.unserved.values().sum();
        for (name, count) in [
            ("jobs_asked", tally.asked),
            ("jobs_served", tally.served),
            ("jobs_unserved", unserved),
            ("attempts", tally.attempts),
            ("refusals", tally.refused),
            ("refusals_busy", tally.busy),
            ("retries", tally.retries),
            ("hedges", tally.hedges),
            ("continuations", tally.continuations),
            ("misbehaviour_seen", tally.misbehaved),
            ("output_tokens", tally.output_tokens),
            ("provider_departures", tally.departures),
            ("messages_lost", tally.lost),
            ("starter_given", tally.starter_given),
            ("starter_farmed", tally.farmed),
            ("consumers_vanished", tally.vanished),
            ("lies_found", tally.lies_found),
            ("inflated_tokens", tally.inflated_tokens),
        ] {
            self.set(name, number(count));
        }
        for why in Unserved::ALL {
            let count = tally.unserved.get(&why).copied().unwrap_or(0);
            self.set(&format!("jobs_unserved_{}", why.name()), number(count));
        }
        self.set("jobs_served_share", share(tally.served, tally.served + unserved));
        self.spread("first_token_ms", "ms", &tally.first_token_ms);
        self.spread("answer_ms", "ms", &tally.answer_ms);
        self.spread("listing_age_ms", "ms", &tally.listing_age_ms);
        self.spread(
            "chosen_price",
            "microcredits per million output tokens",
            &tally.price,
        );
        self.spread("coordinator_wait_us", "us", &tally.coordinator_wait_us);
    }

    fn of_gossip(&mut self, tally: &Tally, shards: &[&mut Shard]) {
        let (mut nodes, mut sent_bytes, mut duplicates) = (0_u64, tally.past_gossip_bytes, 0_u64);
        for node in shards.iter().flat_map(|shard| &shard.nodes) {
            let traffic = node.peer.traffic();
            nodes += 1;
            sent_bytes += traffic.sent_bytes;
            duplicates += u64::from(traffic.duplicates);
        }
        let others = number(nodes.saturating_sub(1).max(1));
        self.set("listings_published", number(tally.published));
        self.set("gossip_deliveries", number(tally.heard));
        self.set("gossip_invalid_heard", number(tally.invalid_heard));
        self.set("gossip_duplicates", number(duplicates));
        self.set("gossip_bytes", number(sent_bytes));
        self.set("gossip_bytes_per_node", share(sent_bytes, nodes));
        self.set("message_bytes", number(tally.message_bytes));
        if tally.published > 0 {
            self.set(
                "gossip_reach",
                number(tally.heard) / number(tally.published) / others,
            );
        }
        self.set("duplicates_per_delivery", share(duplicates, tally.heard));
        self.spread("gossip_delivery_ms", "ms", &tally.delivery_ms);
    }

    fn of_money(&mut self, world: &MarketWorld, shards: &[&mut Shard], tally: &Tally) {
        let (mut delivered, mut settled, mut unpaid, mut owed, mut unpromised, mut busy_us) =
            (0, 0, 0, 0, 0, 0);
        let mut of_group: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for node in shards.iter().flat_map(|shard| &shard.nodes) {
            match node.role.as_deref() {
                Some(Role::Provider(provider)) => {
                    delivered += provider.delivered;
                    settled += provider.settled;
                    unpaid += provider.unpaid();
                    busy_us += provider.busy_us;
                    let name = world.provider_group(provider.group).name.as_str();
                    let group = of_group.entry(name).or_default();
                    *group = (group.0 + provider.delivered, group.1 + provider.settled);
                }
                Some(Role::Consumer(consumer)) => {
                    owed += consumer.owed;
                    unpromised += consumer.unpromised();
                }
                Some(Role::Coordinator(coordinator)) => {
                    let totals = coordinator.book.totals();
                    self.set("book_issued", number(totals.issued.microcredits()));
                    self.set("book_fees", number(totals.fees.microcredits()));
                    self.set("book_settled", number(totals.settled.microcredits()));
                    self.set("book_held", number(totals.held.microcredits()));
                    self.set("book_entries", number(coordinator.book.sequence()));
                    self.set(
                        "coordinator_queue_most",
                        f64::from(crate::people::whole(coordinator.waiting_most as u64)),
                    );
                }
                _ => {}
            }
        }
        for (name, (delivered, settled)) in of_group {
            self.set(&format!("delivered.{name}"), number(delivered));
            self.set(&format!("settled.{name}"), number(settled));
        }
        self.set("delivered", number(delivered));
        self.set("settled", number(settled));
        self.set("owed", number(owed));
        self.set("provider_unpaid", number(unpaid + tally.unpaid));
        self.set("provider_lost_vouchers", number(tally.lost_vouchers));
        self.set("consumer_unpromised", number(unpromised));
        self.set("slots_busy_s", number(busy_us) / 1e6);
        if tally.output_tokens > 0 {
            let per_million = number(tally.paid) / number(tally.output_tokens) * 1e6;
            self.set("paid_per_million_output_tokens", per_million);
        }
    }

    /// `bytes_per_idle_node`: the engine's and the overlay's own for a node that relays gossip, does nothing else and
    /// has forgotten what it heard; left out where there is none. `protocol_bytes_per_node`: what the machines of the
    /// protocol take beside, on average.
    fn of_memory(&mut self, shards: &[&mut Shard]) {
        let (mut nodes, mut idle, mut idle_bytes, mut protocol_bytes) = (0_u64, 0_u64, 0_u64, 0_u64);
        for node in shards.iter().flat_map(|shard| &shard.nodes) {
            nodes += 1;
            protocol_bytes += node.protocol_bytes() as u64;
            if let (None, Some(bytes)) = (&node.role, node.idle_bytes()) {
                idle += 1;
                idle_bytes += bytes as u64;
            }
        }
        if idle > 0 {
            self.set("bytes_per_idle_node", share(idle_bytes, idle));
        }
        self.set("protocol_bytes_per_node", share(protocol_bytes, nodes));
    }

    fn of_time(&mut self, points: &[Point]) {
        let mut add = |name: &str, unit, value: fn(&Point) -> u64| {
            let at = |point: &Point| (number(point.at_us) / 1e6, number(value(point)));
            self.series.push(TimeSeries {
                name: name.to_owned(),
                unit,
                points: points.iter().map(at).collect(),
            });
        };
        add("jobs_asked", "jobs", |point| point.asked);
        add("jobs_served", "jobs", |point| point.served);
        add("jobs_unserved", "jobs", |point| point.unserved);
        add("jobs_at_providers", "jobs", |point| point.jobs);
        add("providers_online", "providers", |point| point.providers_online);
        add("coordinator_queue", "calls", |point| point.queue);
        add("settled", "microcredits", |point| point.settled);
        add("paid", "microcredits", |point| point.paid);
        add("output_tokens", "tokens", |point| point.output_tokens);
        add("gossip_deliveries", "messages", |point| point.heard);
    }
}
