//! When a provider publishes: every so often, and when its last slot is taken or the first one is free again.

use gristmill_protocol::identity::Keypair;
use gristmill_protocol::listing::{LISTING_INTERVAL_MIN_MS, LISTING_TTL_MAX_MS, Listing, ListingError};

use super::{Provider, price_of};
use crate::engine::Breach;
use crate::people::conduct::Flood;
use crate::people::publisher::{self, TTL_MS};
use crate::people::whole;
use crate::world::event::Timer;
use crate::world::scene::Scene;

/// When the first listing after a start is published a second time.
const REPEAT_AFTER_US: u64 = (LISTING_INTERVAL_MIN_MS + 1_000) * 1_000;
/// A renewal leaves this much time before the listing before it expires.
const RENEWED_BEFORE_MS: u64 = 15_000;
/// How much older than the newest one a farewell is that somebody sends again.
const STALE_BY_MS: u64 = 1_000;

impl Provider {
    fn free_slots(&self, scene: &Scene<'_, '_>) -> u64 {
        self.config(scene).slots().saturating_sub(self.jobs.len() as u64)
    }

    /// Publishes where it is time to, or where what changed is worth it, and plans the next look. Called whenever
    /// something may have changed; to be called too often does nothing.
    pub(super) fn look_at_listing(&mut self, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let (now_us, has_free) = (scene.now_us(), self.free_slots(scene) > 0);
        let is_first = self.published == 0;
        let may_from_us = self.said_us + LISTING_INTERVAL_MIN_MS * 1_000;
        let has_news = has_free != self.said_free || self.showing.has_news();
        let changed = is_first || has_news;
        let is_due = changed || now_us >= self.renews_us;
        if is_due && (is_first || now_us >= may_from_us) {
            let every_us = self.config(scene).publish_every_s.get() * 1_000_000;
            // Without it all providers would keep the rhythm of the first round for ever.
            // As in nodes: peers that have just connected have missed the first listing.
            let next_us = if std::mem::take(&mut self.is_fresh) {
                REPEAT_AFTER_US
            } else {
                every_us
            };
            self.renews_us = now_us + next_us + scene.random().below(1_000_000);
            self.set_prices(scene);
            let ttl_ms = TTL_MS.max(every_us / 1_000 + RENEWED_BEFORE_MS);
            self.say(ttl_ms.min(LISTING_TTL_MAX_MS), scene)?;
        }
        let is_said = has_free == self.said_free && !self.showing.has_news();
        let next_us = if is_said { self.renews_us } else { may_from_us };
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
        let slots = (count(config.slots()), count(free));
        let offered = self
            .offers
            .iter()
            .filter_map(|offered| Some((offered.model.name(), price_of(offered.price?))));
        let offers: Vec<_> = offered.collect();
        // Who offers nothing now takes leave.
        let ttl_ms = if offers.is_empty() { 0 } else { ttl_ms };
        let listing = publisher::listing(scene, &offers, slots, ttl_ms, self.showing.say());
        self.said_us = scene.now_us();
        self.said_free = free > 0;
        scene.tell(None, || format!("It publishes a listing: {free} free slots."));
        let flood = config.conduct().listings_to_flood();
        publisher::publish(scene, self.next_sequence(), listing.clone())?;
        self.flood(flood, &listing, scene)
    }

    fn next_sequence(&mut self) -> u32 {
        let sequence = self.published;
        self.published += 1;
        sequence
    }

    /// What a liar sends beside: listings that nobody should pass on, and valid ones of keys that it makes up.
    fn flood(&mut self, flood: Flood, listing: &Listing, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let broken =
            |scene: &Scene<'_, '_>, error: ListingError| scene.breach("own listing", error.to_string());
        for number in 0..u64::from(flood.hasty) {
            let hasty = Listing {
                sequence: listing.sequence + 1 + number,
                ..listing.clone()
            };
            let sealed = hasty
                .seal(&scene.keypair())
                .map_err(|error| broken(scene, error))?;
            scene.publish(self.next_sequence(), sealed, true);
        }
        for number in 0..u64::from(flood.stale) {
            let stale = Listing {
                sequence: listing.sequence.saturating_sub(STALE_BY_MS + number),
                issued_at_ms: listing.issued_at_ms.saturating_sub(STALE_BY_MS),
                ttl_ms: 0,
                ..listing.clone()
            };
            let sealed = stale
                .seal(&scene.keypair())
                .map_err(|error| broken(scene, error))?;
            scene.publish(self.next_sequence(), sealed, true);
        }
        for number in 0..u64::from(flood.forged) {
            let victims = scene.world.roster.providers();
            let victim = victims.start + whole(number) % whole(victims.len() as u64).max(1);
            if victim == scene.node() {
                continue;
            }
            let forged = Listing {
                provider: scene.world.account(victim),
                ..listing.clone()
            };
            let sealed = forged
                .seal(&scene.keypair())
                .map_err(|error| broken(scene, error))?;
            scene.publish(self.next_sequence(), sealed, false);
        }
        for _ in 0..flood.of_new_keys {
            let keypair = Keypair::from_secret(
                scene
                    .world
                    .account_of(scene.node(), self.published.max(1))
                    .public_key(),
            );
            let made_up = Listing {
                provider: keypair.account(),
                ..listing.clone()
            };
            let sealed = made_up.seal(&keypair).map_err(|error| broken(scene, error))?;
            scene.publish(self.next_sequence(), sealed, true);
        }
        Ok(())
    }
}
