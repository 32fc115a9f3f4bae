//! One price for ever: what most owners set once and forget.

use gristmill_protocol::credits::Credits;
use serde::{Deserialize, Serialize};

use super::{Pricing, PricingView};

/// One price for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixed {
    /// Microcredits per million output tokens.
    pub price: u32,
}

impl Pricing for Fixed {
    fn price(&mut self, _view: &PricingView) -> Option<Credits> {
        Some(Credits::micro(self.price))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::view;
    use super::*;

    #[test]
    fn nothing_moves_it() {
        let mut strategy = Fixed { price: 7 };
        assert_eq!(strategy.price(&view()), Some(Credits::micro(7)));
        let alone = PricingView {
            cheapest_other: None,
            utilization_per_mille: 1_000,
            ..view()
        };
        assert_eq!(strategy.price(&alone), Some(Credits::micro(7)));
    }
}
