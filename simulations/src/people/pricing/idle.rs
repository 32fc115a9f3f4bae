//! Cheap, and only while the owner does not need the device: a gaming machine at night.

use gristmill_protocol::credits::Credits;
use serde::{Deserialize, Serialize};

use super::{Pricing, PricingView, per_mille};

/// Only while the owner does not need the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnlyWhenIdle {
    /// From which minute of the local day the owner needs it.
    pub busy_from_minute: u32,
    /// Until which; before the first one where it is past midnight.
    pub busy_until_minute: u32,
    /// What it asks over what electricity costs, in parts of a thousand of that.
    pub margin_per_mille: u32,
}

impl OnlyWhenIdle {
    const fn is_busy(&self, minute: u32) -> bool {
        if self.busy_from_minute <= self.busy_until_minute {
            minute >= self.busy_from_minute && minute < self.busy_until_minute
        } else {
            minute >= self.busy_from_minute || minute < self.busy_until_minute
        }
    }
}

impl Pricing for OnlyWhenIdle {
    fn price(&mut self, view: &PricingView) -> Option<Credits> {
        let price = per_mille(view.floor, 1_000 + u64::from(self.margin_per_mille));
        (!self.is_busy(view.local_minute)).then_some(price)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::view;
    use super::*;

    fn price(busy: (u32, u32), local_minute: u32) -> Option<Credits> {
        let mut strategy = OnlyWhenIdle {
            busy_from_minute: busy.0,
            busy_until_minute: busy.1,
            margin_per_mille: 200,
        };
        strategy.price(&PricingView {
            local_minute,
            ..view()
        })
    }

    #[test]
    fn the_owner_comes_first() {
        let evening = (17 * 60, 60);
        assert_eq!(price(evening, 16 * 60 + 59), Some(Credits::micro(120_000)));
        assert_eq!(price(evening, 17 * 60), None);
        assert_eq!(price(evening, 59), None);
        assert_eq!(price(evening, 60), Some(Credits::micro(120_000)));
        assert_eq!(price((9 * 60, 17 * 60), 12 * 60), None);
        assert!(price((0, 0), 0).is_some());
    }
}
