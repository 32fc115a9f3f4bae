//! A device and its way to the coordinator, as numbers.

use rand::{Rng, RngExt as _};

/// Multiply-adds per second that an honest device of the self-test reaches: four rounds of the smallest dimension in
/// the three seconds of a stage.
pub(super) const RATE: u64 = 24_000_000;
/// Bytes per second that it folds of what stayed in its memory.
const FOLDED_PER_SECOND: u64 = 8_000_000;

/// What a device really can do.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// Multiply-adds per second.
    rate: u64,
    /// Until when it is busy, in milliseconds: what several listings ask of it, it does one after the other.
    busy_until_ms: u64,
}

/// What is asked of a device.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Multiply-adds.
    pub(super) multiply_adds: u64,
    /// Bytes of its memory to fold.
    pub(super) folded_bytes: u64,
}

impl Device {
    pub(super) const fn new(rate: u64) -> Self {
        Self {
            rate,
            busy_until_ms: 0,
        }
    }

    /// Whether it has something to do until after `at_ms`.
    pub(super) const fn is_busy_until(&self, at_ms: u64) -> bool {
        self.busy_until_ms > at_ms
    }

    /// When work is done that could begin at `now_ms`. It takes up to 3 % longer, by chance.
    pub(super) fn done_ms(&mut self, work: Work, now_ms: u64, rng: &mut dyn Rng) -> u64 {
        let computed_us = u128::from(work.multiply_adds) * 1_000_000 / u128::from(self.rate.max(1));
        let folded_us = u128::from(work.folded_bytes) * 1_000_000 / u128::from(FOLDED_PER_SECOND);
        let longer_us = (computed_us + folded_us) * u128::from(rng.random_range(1_000..=1_030_u32)) / 1_000;
        let takes_ms = u64::try_from(longer_us.div_ceil(1_000)).unwrap_or(u64::MAX);
        if takes_ms == 0 {
            return now_ms;
        }
        self.busy_until_ms = self.busy_until_ms.max(now_ms).saturating_add(takes_ms);
        self.busy_until_ms
    }
}

/// The way from a provider to the coordinator: some milliseconds, which vary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    shortest_ms: u64,
    varies_ms: u64,
}

impl Way {
    pub(super) fn draw(rng: &mut dyn Rng) -> Self {
        Self {
            shortest_ms: rng.random_range(1..=120),
            varies_ms: rng.random_range(0..=60),
        }
    }

    /// How long one message is under way.
    pub(super) fn takes_ms(self, rng: &mut dyn Rng) -> u64 {
        self.shortest_ms + rng.random_range(0..=self.varies_ms)
    }
}
