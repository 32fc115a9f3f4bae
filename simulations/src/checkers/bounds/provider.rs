//! What a provider may lose.

use std::collections::{BTreeMap, VecDeque};

use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::ChannelId;
use serde::{Deserialize, Serialize};

use crate::checkers::Place;
use crate::engine::Breach;

/// The rule's name for providers.
pub const PROVIDER_RULE: &str = "provider's loss";
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
    /// The most that the channel can pay; zero where it is not known.
    limit: u64,
    /// What the channel's machine should have counted: less than was delivered, once power was lost.
    counted: u64,
}

/// What a provider may lose, counted for each of its channels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderBounds {
    channels: BTreeMap<ChannelId, Delivered>,
}

impl ProviderBounds {
    /// A channel was opened with a limit.
    pub fn opened(&mut self, channel: ChannelId, limit: Credits) {
        self.channels.entry(channel).or_default().limit = limit.microcredits();
    }

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
        entry.counted = entry.counted.saturating_add(cost.microcredits());
        if entry.limit > 0 && entry.counted > entry.limit {
            let message = format!(
                "channel {channel} has {} microcredits of work, its limit is {}",
                entry.counted, entry.limit
            );
            return Err(place.breach(PROVIDER_RULE, message));
        }
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
        // What is promised beyond what the machine remembers pays for what it forgot when it lost its power.
        entry.counted = entry.counted.max(entry.vouchered);
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
        entry.counted = kept;
        entry.young.clear();
        Ok(())
    }

    /// What the channel's machine counts itself, once an event is over.
    ///
    /// # Errors
    /// The breach, where it counts other work than was delivered, or holds less than the highest voucher that came.
    pub fn holds(
        &self,
        channel: ChannelId,
        delivered: Credits,
        vouchered: Credits,
        place: Place,
    ) -> Result<(), Breach> {
        let Some(entry) = self.channels.get(&channel) else {
            return Ok(());
        };
        let (delivered, vouchered) = (delivered.microcredits(), vouchered.microcredits());
        let message = if delivered != entry.counted {
            format!(
                "channel {channel} counts {delivered} microcredits of work, {} were delivered",
                entry.counted
            )
        } else if vouchered < entry.vouchered {
            format!(
                "channel {channel} holds a voucher of {vouchered} microcredits, one of {} came",
                entry.vouchered
            )
        } else {
            return Ok(());
        };
        Err(place.breach(PROVIDER_RULE, message))
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
    fn what_the_machine_counts_is_what_was_delivered() {
        let mut bounds = ProviderBounds::default();
        let amount = Credits::micro;
        bounds.opened(channel(1), amount(900));
        bounds.delivered(channel(1), amount(500), WINDOW, HERE).unwrap();
        bounds.vouchered(channel(1), amount(500), 0);
        let holds =
            |delivered, vouchered| bounds.holds(channel(1), amount(delivered), amount(vouchered), HERE);
        assert_eq!(holds(500, 500), Ok(()));
        assert!(holds(1_000, 500).is_err());
        assert!(holds(500, 499).is_err());
        let beyond = bounds.clone().delivered(channel(1), amount(401), WINDOW, HERE);
        assert!(beyond.unwrap_err().message.contains("limit"));
        // After a loss of power the machine goes on from the voucher that it kept.
        bounds.lost_power(channel(1), amount(500), 300_000, HERE).unwrap();
        assert_eq!(bounds.holds(channel(1), amount(500), amount(500), HERE), Ok(()));
        // A voucher of before the loss, shown again, pays for what the machine forgot.
        bounds.vouchered(channel(1), amount(600), 400_000);
        assert_eq!(bounds.holds(channel(1), amount(600), amount(600), HERE), Ok(()));
    }
}
