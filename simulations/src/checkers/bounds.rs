//! What a party can lose, whatever any other party does: the table of `market-protocol.md`, counted by the party itself
//! from what it truly did and got.
//!
//! - A provider: one credit window for each open channel, and after a loss of power what was vouchered in the 100 ms before.
//! - A consumer: what it vouchered for output that it then rejected, one chunk; nothing for what was not delivered.
//! - A coordinator: its starter budget; that is [`super::conservation`]'s, which sees all grants.

use std::collections::{BTreeMap, VecDeque};

use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::ChannelId;
use serde::{Deserialize, Serialize};

use super::Place;
use crate::engine::Breach;

/// The rule's name for providers.
pub const PROVIDER_RULE: &str = "provider's loss";
/// The rule's name for consumers.
pub const CONSUMER_RULE: &str = "consumer's loss";
/// How far behind the disk a provider's highest voucher may be, in microseconds.
pub const PERSISTED_WITHIN_US: u64 = 100_000;
/// Most vouchers of a channel that are remembered as young. One job sends a few in 100 ms; of more, the oldest one that is
/// remembered stands for those before it, which makes the rule stricter, never laxer.
const YOUNG_MAX: usize = 64;

/// One channel of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Delivered {
    /// The cost of everything that left the provider.
    delivered: u64,
    /// The highest voucher that it holds.
    vouchered: u64,
    /// The highest voucher before each that came in the last 100 ms: when it came, and what was held before.
    young: VecDeque<(u64, u64)>,
    /// What losses of power may have cost, in all.
    forgiven: u64,
}

/// What a provider may lose, counted for each of its channels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderBounds {
    channels: BTreeMap<ChannelId, Delivered>,
}

impl ProviderBounds {
    /// A chunk of this cost left for a channel of which the provider's credit window is `window`.
    ///
    /// # Errors
    /// The breach, where more is unpaid than the window.
    pub fn delivered(
        &mut self,
        channel: ChannelId,
        cost: Credits,
        window: Credits,
        place: Place,
    ) -> Result<(), Breach> {
        let entry = self.channels.entry(channel).or_default();
        entry.delivered = entry.delivered.saturating_add(cost.microcredits());
        let (unpaid, allowed) = (
            entry.delivered.saturating_sub(entry.vouchered),
            window.microcredits().saturating_add(entry.forgiven),
        );
        if unpaid <= allowed {
            return Ok(());
        }
        let message = format!(
            "channel {channel} has {unpaid} microcredits of unpaid work, its window and what losses of power took are {allowed}"
        );
        Err(place.breach(PROVIDER_RULE, message))
    }

    /// A voucher came and was found good.
    pub fn vouchered(&mut self, channel: ChannelId, cumulative: Credits, at_us: u64) {
        let entry = self.channels.entry(channel).or_default();
        if cumulative.microcredits() <= entry.vouchered {
            return;
        }
        entry
            .young
            .retain(|(came_us, _)| came_us + PERSISTED_WITHIN_US >= at_us);
        if entry.young.len() < YOUNG_MAX {
            entry.young.push_back((at_us, entry.vouchered));
        }
        entry.vouchered = cumulative.microcredits();
    }

    /// The provider lost power, and came back with this as its highest voucher of a channel.
    ///
    /// # Errors
    /// The breach, where it lost vouchers that were older than 100 ms.
    pub fn lost_power(
        &mut self,
        channel: ChannelId,
        kept: Credits,
        lost_at_us: u64,
        place: Place,
    ) -> Result<(), Breach> {
        let entry = self.channels.entry(channel).or_default();
        let is_young = |came_us: u64| came_us + PERSISTED_WITHIN_US >= lost_at_us;
        let first = entry.young.iter().find(|(came_us, _)| is_young(*came_us));
        let safe = first.map_or(entry.vouchered, |(_, before)| *before);
        let kept = kept.microcredits();
        if kept < safe {
            let message = format!(
                "channel {channel} came back with a voucher of {kept} microcredits, {safe} were older than 100 ms"
            );
            return Err(place.breach(PROVIDER_RULE, message));
        }
        entry.forgiven = entry
            .forgiven
            .saturating_add(entry.vouchered.saturating_sub(kept));
        entry.vouchered = kept;
        entry.young.clear();
        Ok(())
    }

    /// The channel ended: what it lost is over.
    pub fn closed(&mut self, channel: &ChannelId) -> Credits {
        let entry = self.channels.remove(channel).unwrap_or_default();
        let lost = entry.delivered.saturating_sub(entry.vouchered);
        Credits::from_microcredits(lost).unwrap_or(Credits::MAX)
    }

    /// What is unpaid on all open channels.
    #[must_use]
    pub fn unpaid(&self) -> u64 {
        let unpaid = self.channels.values();
        unpaid
            .map(|entry| entry.delivered.saturating_sub(entry.vouchered))
            .sum()
    }
}

/// One channel of a consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Received {
    /// The cost of everything that reached the consumer, by the provider's meter.
    received: u64,
    /// The cost of the newest chunk.
    newest: u64,
    /// The highest voucher that it signed.
    vouchered: u64,
    /// The most that it may ever owe.
    limit: u64,
}

/// What a consumer may lose, counted for each of its channels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerBounds {
    channels: BTreeMap<ChannelId, Received>,
}

impl ConsumerBounds {
    /// A channel was opened with a limit.
    pub fn opened(&mut self, channel: ChannelId, limit: Credits) {
        self.channels.entry(channel).or_default().limit = limit.microcredits();
    }

    /// A chunk arrived whose meter raises what is owed by this.
    pub fn received(&mut self, channel: ChannelId, cost: Credits) {
        let entry = self.channels.entry(channel).or_default();
        entry.newest = cost.microcredits();
        entry.received = entry.received.saturating_add(cost.microcredits());
    }

    /// The newest chunk is rejected: it is worth nothing.
    pub fn rejected(&mut self, channel: ChannelId) {
        let entry = self.channels.entry(channel).or_default();
        entry.received = entry.received.saturating_sub(entry.newest);
    }

    /// The consumer signed a voucher.
    ///
    /// # Errors
    /// The breach, where it promised what it did not get, beyond the one chunk that it may have rejected, or more than the
    /// channel's limit.
    pub fn vouchered(&mut self, channel: ChannelId, cumulative: Credits, place: Place) -> Result<(), Breach> {
        let entry = self.channels.entry(channel).or_default();
        entry.vouchered = entry.vouchered.max(cumulative.microcredits());
        let owed = entry.received.saturating_add(entry.newest);
        let message = if entry.vouchered > entry.limit {
            format!(
                "channel {channel} promises {} microcredits of a limit of {}",
                entry.vouchered, entry.limit
            )
        } else if entry.vouchered > owed {
            format!(
                "channel {channel} promises {} microcredits, what came is worth {} and the newest chunk {}",
                entry.vouchered, entry.received, entry.newest
            )
        } else {
            return Ok(());
        };
        Err(place.breach(CONSUMER_RULE, message))
    }

    /// The channel ended.
    pub fn closed(&mut self, channel: &ChannelId) {
        self.channels.remove(channel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place = Place { node: 3, at_us: 9 };
    const WINDOW: Credits = Credits::micro(1_000);

    fn channel(name: u8) -> ChannelId {
        ChannelId::from_bytes([name; 16])
    }

    #[test]
    fn a_provider_may_be_owed_one_window_and_no_more() {
        let mut bounds = ProviderBounds::default();
        let deliver = |bounds: &mut ProviderBounds, cost| {
            bounds.delivered(channel(1), Credits::micro(cost), WINDOW, HERE)
        };
        assert_eq!(deliver(&mut bounds, 1_000), Ok(()));
        bounds.vouchered(channel(1), Credits::micro(400), 5);
        bounds.vouchered(channel(1), Credits::micro(300), 6);
        assert_eq!(deliver(&mut bounds, 400), Ok(()));
        assert_eq!(bounds.unpaid(), 1_000);
        let breach = deliver(&mut bounds, 1).unwrap_err();
        assert_eq!(
            (breach.rule.as_str(), breach.node, breach.at_us),
            (PROVIDER_RULE, 3, 9)
        );
        // Each channel has a window of its own.
        assert_eq!(bounds.delivered(channel(2), WINDOW, WINDOW, HERE), Ok(()));
        assert_eq!(bounds.closed(&channel(2)), WINDOW);
    }

    #[test]
    fn a_loss_of_power_may_take_what_is_younger_than_100_ms() {
        let mut bounds = ProviderBounds::default();
        for (cumulative, at_us) in [(100, 0), (200, 50_000), (300, 150_000)] {
            bounds.vouchered(channel(1), Credits::micro(cumulative), at_us);
        }
        bounds
            .delivered(channel(1), Credits::micro(300), WINDOW, HERE)
            .unwrap();
        let mut second = bounds.clone();
        // At 200 ms the voucher of 150 ms is young, and so is that of 100 ms or later; 200 came at 50 ms.
        let kept = |credits| Credits::micro(credits);
        assert!(second.lost_power(channel(1), kept(199), 200_000, HERE).is_err());
        assert_eq!(bounds.lost_power(channel(1), kept(200), 200_000, HERE), Ok(()));
        assert_eq!(bounds.unpaid(), 100);
        assert_eq!(bounds.delivered(channel(1), WINDOW, WINDOW, HERE), Ok(()));
        assert!(
            bounds
                .delivered(channel(1), Credits::micro(1), WINDOW, HERE)
                .is_err()
        );
    }

    #[test]
    fn a_consumer_promises_what_came_and_one_chunk() {
        let mut bounds = ConsumerBounds::default();
        let promise =
            |bounds: &mut ConsumerBounds, amount| bounds.vouchered(channel(1), Credits::micro(amount), HERE);
        bounds.opened(channel(1), Credits::micro(450));
        bounds.received(channel(1), Credits::micro(300));
        bounds.received(channel(1), Credits::micro(100));
        assert_eq!(promise(&mut bounds, 400), Ok(()));
        bounds.rejected(channel(1));
        assert_eq!(promise(&mut bounds, 400), Ok(()));
        assert!(promise(&mut bounds, 401).is_err());
        bounds.received(channel(1), Credits::micro(200));
        let breach = promise(&mut bounds, 451).unwrap_err();
        assert!(breach.message.contains("limit"), "{breach}");
    }

    #[test]
    fn nothing_is_promised_for_nothing() {
        let mut bounds = ConsumerBounds::default();
        bounds.opened(channel(1), WINDOW);
        assert!(bounds.vouchered(channel(1), Credits::micro(1), HERE).is_err());
    }
}
