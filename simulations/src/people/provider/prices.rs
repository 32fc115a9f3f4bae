//! What a provider asks: its strategy is asked each time it publishes.

use gristmill_protocol::board::Board;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::usage::Unit;

use super::Provider;
use crate::people::popularity::ModelSize;
use crate::people::pricing::{Pricing, PricingView, floor_per_million};
use crate::people::whole;
use crate::world::kept::Kept;
use crate::world::scene::Scene;

const DAY_MINUTES: i64 = 1_440;

impl Provider {
    /// Sets the prices of all models on offer.
    pub(super) fn set_prices(&mut self, scene: &Scene<'_, '_>) {
        let config = self.config(scene);
        let (now_us, now_ms) = (scene.now_us(), scene.now_ms());
        let passed_us = now_us.saturating_sub(self.priced_us) * config.slots();
        let used_us = self.busy_us.saturating_sub(self.busy_when_priced_us);
        let utilization = (used_us * 1_000).checked_div(passed_us).unwrap_or(0).min(1_000);
        self.priced_us = now_us;
        self.busy_when_priced_us = self.busy_us;
        let board = self.board.as_ref().and_then(Kept::awake);
        for offered in &mut self.offers {
            let Some(strategy) = &mut offered.strategy else {
                continue;
            };
            let model = offered.model;
            let view = PricingView {
                now_us,
                local_minute: local_minute(now_us, config.utc_offset_minutes),
                utilization_per_mille: whole(utilization),
                cheapest_other: board.and_then(|board| cheapest(board, model, &scene.account(), now_ms)),
                own: offered.price.unwrap_or(offered.usual),
                floor: floor_per_million(config.device, model, whole(config.power_price.get())),
            };
            let before = offered.price;
            offered.price = strategy.price(&view);
            if offered.price > before {
                self.unable_us = now_us;
            }
            offered.usual = offered.price.unwrap_or(offered.usual);
        }
    }
}

/// The lowest price that anybody else lists for a model.
fn cheapest(board: &Board, model: ModelSize, own: &AccountId, now_ms: u64) -> Option<Credits> {
    let others = board.listings(now_ms).filter(|listing| listing.provider != *own);
    let offers = others
        .flat_map(|listing| &listing.offers)
        .filter(|offer| offer.model == model.name());
    offers
        .map(|offer| offer.price.coefficient(Unit::OutputToken))
        .min()
}

fn local_minute(now_us: u64, utc_offset_minutes: i32) -> u32 {
    let minute = i64::try_from(now_us / 60_000_000).unwrap_or(0) + i64::from(utc_offset_minutes);
    u32::try_from(minute.rem_euclid(DAY_MINUTES)).unwrap_or(0)
}
