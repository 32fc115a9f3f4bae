//! A little below the cheapest other one, down to what electricity costs: a price war where several do it. Where the
//! floor is reached, it goes back to the most that it would like and lets the others sell out, as repricing programs of
//! sellers do: the cycle that F. Y. Edgeworth foresaw ("La teoria pura del monopolio", 1897).

use gristmill_protocol::credits::Credits;
use serde::{Deserialize, Serialize};

use super::{Pricing, PricingView, per_mille};

/// A little below the cheapest other one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undercutting {
    /// By how many parts of a thousand.
    pub below_per_mille: u32,
    /// What it asks where nobody else offers, and where undercutting would be at a loss; microcredits per million.
    pub most: u32,
    /// Whether it stays at its floor instead of going back up.
    #[serde(default)]
    pub stays_at_floor: bool,
}

impl Pricing for Undercutting {
    fn price(&mut self, view: &PricingView) -> Option<Credits> {
        let most = Credits::micro(self.most).max(view.floor);
        let Some(cheapest) = view.cheapest_other else {
            return Some(most);
        };
        let parts = 1_000 - u64::from(self.below_per_mille.min(1_000));
        let below = per_mille(cheapest, parts).min(most);
        Some(match below > view.floor {
            true => below,
            false if self.stays_at_floor => view.floor,
            false => most,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::view;
    use super::*;

    fn strategy(stays_at_floor: bool) -> Undercutting {
        Undercutting {
            below_per_mille: 50,
            most: 800_000,
            stays_at_floor,
        }
    }

    #[test]
    fn it_goes_below_the_cheapest_but_never_at_a_loss() {
        assert_eq!(strategy(false).price(&view()), Some(Credits::micro(380_000)));
        let at_floor = PricingView {
            cheapest_other: Some(Credits::micro(100_001)),
            ..view()
        };
        assert_eq!(strategy(true).price(&at_floor), Some(Credits::micro(100_000)));
        assert_eq!(strategy(false).price(&at_floor), Some(Credits::micro(800_000)));
        let alone = PricingView {
            cheapest_other: None,
            ..view()
        };
        assert_eq!(strategy(false).price(&alone), Some(Credits::micro(800_000)));
    }

    /// Two of them against each other: the price falls to the floor within so many turns, then it jumps.
    #[test]
    fn two_of_them_make_a_price_war() {
        let (mut prices, mut lowest, mut jumps) = ([Credits::micro(800_000); 2], Credits::MAX, 0);
        for turn in 0..200 {
            let (me, other) = (turn % 2, 1 - turn % 2);
            let seen = PricingView {
                cheapest_other: Some(prices[other]),
                own: prices[me],
                ..view()
            };
            let price = strategy(false).price(&seen).unwrap();
            jumps += u32::from(price > prices[me]);
            (prices[me], lowest) = (price, lowest.min(price));
            assert!(price >= view().floor);
        }
        assert!(lowest < Credits::micro(110_000), "{lowest}");
        assert!(jumps >= 3, "{jumps}");
    }
}
