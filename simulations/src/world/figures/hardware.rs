//! Figures of challenges, and of what liars and strategies earn.

use std::collections::BTreeMap;

use super::{Figures, number, share};
use crate::people::liars::Liar;
use crate::people::pricing::Strategy;
use crate::world::MarketWorld;
use crate::world::node::{Role, Shard};
use crate::world::tally::Tally;

/// What providers that are alike have come to.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    providers: u64,
    settled: u64,
    certified_us: u64,
}

impl Figures {
    /// What the coordinator has paid to honest providers and to each kind of liar, and by the strategies of prices: in all, and to
    /// each of them on average.
    pub(super) fn of_earnings(&mut self, world: &MarketWorld, shards: &[&mut Shard]) {
        let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
        for node in shards.iter().flat_map(|shard| &shard.nodes) {
            let Some(Role::Provider(provider)) = node.role.as_deref() else {
                continue;
            };
            let group = world.provider_group(provider.group);
            let kind = group.lie.as_ref().map_or("honest", Liar::name);
            let strategy = group.pricing.as_ref().map_or("fixed", Strategy::name);
            for name in [kind.to_owned(), format!("strategy_{strategy}")] {
                let sum = sums.entry(name).or_default();
                sum.providers += 1;
                sum.settled += provider.settled;
            }
        }
        for (name, sum) in sums {
            self.set(&format!("earned.{name}"), number(sum.settled));
            let mean = share(sum.settled, sum.providers);
            self.set(&format!("earned_per_provider.{name}"), mean);
        }
    }

    /// Challenges, certificates, and what they cost.
    pub(super) fn of_hardware(
        &mut self,
        world: &MarketWorld,
        shards: &[&mut Shard],
        tally: &Tally,
        now_us: u64,
    ) {
        if world.config.defences.challenges_per_day.is_none() {
            return;
        }
        let counts = &tally.hardware;
        let refused: u64 = counts.refused.values().sum();
        for (name, count) in [
            ("hardware_challenges", counts.challenges),
            ("hardware_challenges_interrupted", counts.interrupted),
            ("hardware_certificates", counts.given),
            ("hardware_renewals", counts.renewed),
            ("hardware_refusals", refused),
            ("hardware_refusals_of_honest", counts.honest_refused),
            ("hardware_rented_s", counts.rented_s),
        ] {
            self.set(name, number(count));
        }
        for (code, count) in &counts.refused {
            self.set(&format!("hardware_refusals_{code}"), number(*count));
        }
        self.set("hardware_shown_s", number(counts.shown_us) / 1e6);
        let mut groups: BTreeMap<&str, Sum> = BTreeMap::new();
        for node in shards.iter().flat_map(|shard| &shard.nodes) {
            if let Some(Role::Provider(provider)) = node.role.as_deref() {
                let name = world.provider_group(provider.group).name.as_str();
                let sum = groups.entry(name).or_default();
                sum.providers += 1;
                sum.certified_us += provider.showing.certified_us(now_us);
            }
        }
        let mut providers = 0;
        for (name, sum) in groups {
            providers += sum.providers;
            let certified = share(sum.certified_us, sum.providers * now_us);
            self.set(&format!("certified_share.{name}"), certified);
        }
        let time_us = providers * now_us;
        self.set("hardware_shown_share", share(counts.shown_us, time_us));
    }
}
