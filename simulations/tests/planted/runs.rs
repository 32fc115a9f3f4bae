//! Whole runs of a small market find each planted error: a rule breaks, as it would in a soak.

use std::sync::atomic::AtomicBool;

use gristmill_protocol::planted::{Bug, plant};
use gristmill_simulations::checkers::{bounds, conservation, forwarding, liveness};
use gristmill_simulations::engine::{Ended, Limits, Stop};
use gristmill_simulations::world::{self, config::MarketConfig};

/// Honest ones and liars of all kinds, jobs side by side, narrow windows, small and short channels, and an outage.
const BUSY: &str = include_str!("runs/busy.toml");
/// Cheap ones crash early, and their listings stay beside a dear one that is always there.
const CHEAP_AND_DEAD: &str = include_str!("runs/cheap-and-dead.toml");
/// The only provider crashes while everybody asks, and comes back for good.
const CRASHED: &str = include_str!("runs/crashed.toml");
/// Longer than all waits of a session together.
const LONG: &str = include_str!("runs/long.toml");
/// Answers are dearer than a window.
const NARROW: &str = include_str!("runs/narrow.toml");
/// Answers are dearer than a window, and come faster than vouchers for them can.
const DEAR: &str = include_str!("runs/dear.toml");
/// Many jobs share one channel, and vouchers overtake each other.
const SIDE_BY_SIDE: &str = include_str!("runs/side-by-side.toml");
/// All of them.
const MARKETS: [&str; 7] = [BUSY, CHEAP_AND_DEAD, CRASHED, LONG, NARROW, DEAR, SIDE_BY_SIDE];

const SEED: u64 = 7;

/// An error, the market in which it is found, and the rule that it breaks there.
type Case = (Bug, &'static str, &'static str);

const CASES: &[Case] = &[
    (Bug::OlderVoucherTaken, SIDE_BY_SIDE, bounds::PROVIDER_RULE),
    (Bug::WindowTooWide, NARROW, bounds::PROVIDER_RULE),
    (Bug::ChannelLimitIgnored, BUSY, bounds::PROVIDER_RULE),
    (Bug::CancelledOutputCountedTwice, BUSY, bounds::PROVIDER_RULE),
    (Bug::VoucherWakesNobody, DEAR, liveness::RULE),
    (Bug::SessionNeverEnds, LONG, liveness::RULE),
    (Bug::PaidBeforeOutput, BUSY, bounds::CONSUMER_RULE),
    (Bug::VoucherTooLate, BUSY, bounds::CONSUMER_RULE),
    (Bug::MeterNotChecked, BUSY, bounds::CONSUMER_RULE),
    (Bug::ReservationKept, BUSY, bounds::CONSUMER_RULE),
    (Bug::StaleListingTaken, BUSY, forwarding::RULE),
    (Bug::ListingIntervalIgnored, BUSY, forwarding::RULE),
    (Bug::ListingNeverExpires, BUSY, forwarding::RULE),
    (Bug::ForgedListingTaken, BUSY, forwarding::RULE),
    (Bug::BreakerStaysOpen, CRASHED, liveness::RULE),
    (Bug::TriedProviderAskedAgain, BUSY, "routing"),
    (Bug::OnlyCheapestLookedAt, CHEAP_AND_DEAD, liveness::RULE),
    (Bug::RetryWaitsADay, CHEAP_AND_DEAD, liveness::RULE),
    (Bug::NeverRetried, CHEAP_AND_DEAD, liveness::RULE),
    (Bug::VouchersAddedUp, BUSY, conservation::RULE),
    (Bug::FeeRoundedEachTime, BUSY, conservation::RULE),
    (Bug::FeeFromNothing, BUSY, conservation::RULE),
    (Bug::StarterBudgetIgnored, BUSY, conservation::RULE),
    (Bug::ExpiredTooEarly, BUSY, conservation::RULE),
    (Bug::DowntimeForgotten, BUSY, conservation::RULE),
    // The book's own sums do not hold, and it stops before the second book is asked.
    (Bug::HoldReturnedAgain, BUSY, "conservation of credits"),
];

/// Errors that no run can show, since nobody in the market does what they would let pass; they are tried at their places only.
const OUT_OF_REACH: &[Bug] = &[
    // No consumer signs above its channel's limit, and no provider takes such a voucher.
    Bug::SettledAboveLimit,
    // Nobody asks for the starter credits of one account under two names.
    Bug::StarterGrantedAgain,
];

/// The rule that a run breaks, with what is said of it.
fn breach(market: &str, seed: u64) -> Option<(String, String)> {
    let config: MarketConfig = toml::from_str(market).unwrap();
    let limits = Limits::until_us(config.duration_s.get() * 1_000_000);
    let stop = Stop {
        requested: &AtomicBool::new(false),
        threads: 2,
        interest: None,
    };
    match world::build(config, seed).run(limits, stop, |_, _| {}).unwrap() {
        Ended::Broken(breach) => Some((breach.rule, breach.message)),
        Ended::AtEnd | Ended::Stopped => None,
    }
}

#[test]
fn each_planted_error_breaks_a_rule_in_a_whole_run() {
    let mut covered: Vec<Bug> = CASES.iter().map(|(bug, ..)| *bug).collect();
    covered.extend(OUT_OF_REACH);
    covered.sort_unstable();
    assert_eq!(covered, Bug::ALL, "every error is looked for once");
    for (bug, market, rule) in CASES {
        let _planted = plant(Some(*bug));
        let found = breach(market, SEED);
        let broken = found.as_ref().map(|(rule, _)| rule.as_str());
        assert_eq!(broken, Some(*rule), "{bug:?}: {found:?}");
    }
}

#[test]
fn without_an_error_the_same_markets_break_no_rule() {
    let _planted = plant(None);
    for market in MARKETS {
        assert_eq!(breach(market, SEED), None, "{market}");
    }
}
