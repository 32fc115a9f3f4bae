//! More where more is asked for: the price moves with how much of the device is in use, as spot prices of clouds do.

use gristmill_protocol::credits::Credits;
use serde::{Deserialize, Serialize};

use super::{Pricing, PricingView, per_mille};

/// More where more is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpotByUtilization {
    /// The utilization that it wants, in parts of a thousand: above it the price rises, below it falls.
    pub target_per_mille: u32,
    /// By how many parts of a thousand the price moves at each step at most.
    pub step_per_mille: u32,
    /// The highest price, in microcredits per million; the lowest is what electricity costs.
    pub most: u32,
}

impl Pricing for SpotByUtilization {
    fn price(&mut self, view: &PricingView) -> Option<Credits> {
        let (target, step) = (
            u64::from(self.target_per_mille.min(1_000)),
            u64::from(self.step_per_mille),
        );
        let used = u64::from(view.utilization_per_mille.min(1_000));
        let parts = if used >= target {
            1_000 + step * (used - target) / (1_000 - target).max(1)
        } else {
            1_000_u64.saturating_sub(step * (target - used) / target.max(1))
        };
        // A price of a few microcredits would round down to where it stands.
        let moved = per_mille(view.own, parts);
        let moved = match parts > 1_000 && moved == view.own {
            true => moved.checked_add(Credits::micro(1)).unwrap_or(moved),
            false => moved,
        };
        Some(moved.min(Credits::micro(self.most)).max(view.floor))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::view;
    use super::*;

    fn after(utilization_per_mille: u32, steps: u32) -> Credits {
        let mut strategy = SpotByUtilization {
            target_per_mille: 700,
            step_per_mille: 100,
            most: 2_000_000,
        };
        (0..steps).fold(view().own, |own, _| {
            let seen = PricingView {
                utilization_per_mille,
                own,
                ..view()
            };
            strategy.price(&seen).unwrap()
        })
    }

    #[test]
    fn the_price_follows_what_is_asked_for_within_its_bounds() {
        assert_eq!(after(700, 1), Credits::micro(500_000));
        assert_eq!(after(1_000, 1), Credits::micro(550_000));
        assert_eq!(after(0, 1), Credits::micro(450_000));
        assert_eq!(after(1_000, 100), Credits::micro(2_000_000));
        assert_eq!(after(0, 100), Credits::micro(100_000));
        assert_eq!(after(u32::MAX, 1), Credits::micro(550_000));
    }
}
