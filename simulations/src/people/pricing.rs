//! What a provider asks. Each strategy is a small file of its own.

mod fixed;
mod idle;
mod power;
mod spot;
mod undercutting;

use gristmill_protocol::credits::Credits;
use serde::{Deserialize, Serialize};

pub use fixed::Fixed;
pub use idle::OnlyWhenIdle;
pub use power::{POWER_PRICES, floor_per_million};
pub use spot::SpotByUtilization;
pub use undercutting::Undercutting;

/// What a provider knows when it sets its price. Prices are per million output tokens of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PricingView {
    /// Microseconds of virtual time.
    pub now_us: u64,
    /// The minute of the day where the provider is, from 0 to 1,439.
    pub local_minute: u32,
    /// How much of its slots was in use since its last price, in parts of a thousand.
    pub utilization_per_mille: u32,
    /// The lowest price that anybody else lists for the model.
    pub cheapest_other: Option<Credits>,
    /// The price that it lists now.
    pub own: Credits,
    /// What a million tokens costs it in electricity: below that it loses by every job.
    pub floor: Credits,
}

/// How a provider sets its price.
pub trait Pricing {
    /// The price to list from now on; none: it offers nothing now.
    fn price(&mut self, view: &PricingView) -> Option<Credits>;
}

/// The strategies that scenarios name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "strategy", rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// One price for ever.
    Fixed(Fixed),
    /// A little below the cheapest other one.
    Undercutting(Undercutting),
    /// More where more is asked for.
    SpotByUtilization(SpotByUtilization),
    /// Cheap, and only while the owner does not need the device.
    OnlyWhenIdle(OnlyWhenIdle),
}

impl Pricing for Strategy {
    fn price(&mut self, view: &PricingView) -> Option<Credits> {
        match self {
            Self::Fixed(strategy) => strategy.price(view),
            Self::Undercutting(strategy) => strategy.price(view),
            Self::SpotByUtilization(strategy) => strategy.price(view),
            Self::OnlyWhenIdle(strategy) => strategy.price(view),
        }
    }
}

impl Strategy {
    /// Its name in figures.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Fixed(_) => "fixed",
            Self::Undercutting(_) => "undercutting",
            Self::SpotByUtilization(_) => "spot_by_utilization",
            Self::OnlyWhenIdle(_) => "only_when_idle",
        }
    }
}

/// So many parts of a thousand of an amount, rounded down; at most the largest amount there is.
pub(super) fn per_mille(amount: Credits, parts: u64) -> Credits {
    let scaled = u128::from(amount.microcredits()) * u128::from(parts) / 1_000;
    u64::try_from(scaled)
        .ok()
        .and_then(|microcredits| Credits::from_microcredits(microcredits).ok())
        .unwrap_or(Credits::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::people::pricing) fn view() -> PricingView {
        PricingView {
            now_us: 0,
            local_minute: 12 * 60,
            utilization_per_mille: 500,
            cheapest_other: Some(Credits::micro(400_000)),
            own: Credits::micro(500_000),
            floor: Credits::micro(100_000),
        }
    }

    #[test]
    fn a_share_of_an_amount_never_overflows() {
        assert_eq!(per_mille(Credits::micro(1_000), 950), Credits::micro(950));
        assert_eq!(per_mille(Credits::MAX, 2_000), Credits::MAX);
        assert_eq!(per_mille(Credits::ZERO, u64::MAX), Credits::ZERO);
    }

    #[test]
    fn scenarios_name_strategies() {
        let strategy: Strategy =
            toml::from_str("strategy = \"undercutting\"\nbelow_per_mille = 20\nmost = 900_000").unwrap();
        assert_eq!(strategy.name(), "undercutting");
        assert!(toml::from_str::<Strategy>("strategy = \"greedy\"").is_err());
    }
}
