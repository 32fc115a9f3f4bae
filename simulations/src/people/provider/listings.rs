//! When a provider publishes: every so often, and when its last slot is taken or the first one is free again.

use gristmill_protocol::listing::LISTING_INTERVAL_MIN_MS;

use super::Provider;
use crate::engine::Breach;
use crate::people::publisher::{self, TTL_MS};
use crate::world::event::Timer;
use crate::world::scene::Scene;

/// A renewal leaves this much time before the listing before it expires.
const RENEWED_BEFORE_MS: u64 = 15_000;

impl Provider {
    fn free_slots(&self, scene: &Scene<'_, '_>) -> u64 {
        self.config(scene)
            .slots
            .get()
            .saturating_sub(self.jobs.len() as u64)
    }

    /// Publishes where it is time to, or where what changed is worth it, and plans the next look. Called whenever
    /// something may have changed; to be called too often does nothing.
    pub(super) fn look_at_listing(&mut self, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let (now_us, has_free) = (scene.now_us(), self.free_slots(scene) > 0);
        let is_first = self.published == 0;
        let may_from_us = self.said_us + LISTING_INTERVAL_MIN_MS * 1_000;
        let changed = is_first || has_free != self.said_free;
        let is_due = changed || now_us >= self.renews_us;
        if is_due && (is_first || now_us >= may_from_us) {
            let every_us = self.config(scene).publish_every_s.get() * 1_000_000;
            // Without it all providers would keep the rhythm of the first round for ever.
            self.renews_us = now_us + every_us + scene.random().below(1_000_000);
            self.say(TTL_MS.max(every_us / 1_000 + RENEWED_BEFORE_MS), scene)?;
        }
        let next_us = if has_free == self.said_free {
            self.renews_us
        } else {
            may_from_us
        };
        let is_planned = self.looks_us > now_us && self.looks_us <= next_us;
        if !is_planned {
            self.looks_us = next_us.max(now_us + 1);
            scene.after(self.looks_us - now_us, Timer::Listing);
        }
        Ok(())
    }

    /// Says farewell.
    pub(super) fn take_leave(&mut self, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        if self.published > 0 {
            self.say(0, scene)?;
        }
        Ok(())
    }

    fn say(&mut self, ttl_ms: u64, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let config = self.config(scene);
        let free = self.free_slots(scene);
        let count = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
        let slots = (count(config.slots.get()), count(free));
        let listing = publisher::listing(scene, &config.models, &self.price, slots, ttl_ms);
        let sequence = self.published;
        self.published += 1;
        self.said_us = scene.now_us();
        self.said_free = free > 0;
        scene.tell(None, || format!("It publishes a listing: {free} free slots."));
        publisher::publish(scene, sequence, listing)
    }
}
