//! What a consumer may lose.

use std::collections::BTreeMap;

use gristmill_protocol::content::OUTPUT_TOKENS_WITHOUT_TEXT_MAX;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::ChannelId;
use serde::{Deserialize, Serialize};

use crate::checkers::Place;
use crate::engine::Breach;

/// The rule's name for consumers.
pub const CONSUMER_RULE: &str = "consumer's loss";

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

    /// What is owed once an event is over: a consumer that does not say so stalls the provider.
    ///
    /// # Errors
    /// The breach, where more than half of the provider's window is owed: a voucher is due at a quarter, and no slice
    /// is above one.
    pub fn owes(&self, channel: &ChannelId, window: Credits, place: Place) -> Result<(), Breach> {
        let Some(entry) = self.channels.get(channel) else {
            return Ok(());
        };
        let owed = entry.received.saturating_sub(entry.vouchered);
        if owed <= window.microcredits() / 2 {
            return Ok(());
        }
        let message = format!(
            "channel {channel} owes {owed} microcredits of a window of {window} and no voucher was sent"
        );
        Err(place.breach(CONSUMER_RULE, message))
    }

    /// What is left of the channel by its own count, while no job runs on it.
    ///
    /// # Errors
    /// The breach, where that is less than its limit without what came.
    pub fn at_rest(&self, channel: &ChannelId, left: Credits, place: Place) -> Result<(), Breach> {
        let Some(entry) = self.channels.get(channel) else {
            return Ok(());
        };
        let expected = entry.limit.saturating_sub(entry.received);
        if left.microcredits() >= expected {
            return Ok(());
        }
        let message = format!(
            "channel {channel} has {} microcredits left although no job runs, {expected} should be",
            left.microcredits()
        );
        Err(place.breach(CONSUMER_RULE, message))
    }

    /// The consumer takes in so many output tokens for so many bytes of text.
    ///
    /// # Errors
    /// The breach, where there can't be as many: a token is at least a byte.
    pub fn believes(output_tokens: u64, text_bytes: u64, place: Place) -> Result<(), Breach> {
        if output_tokens <= text_bytes.saturating_add(OUTPUT_TOKENS_WITHOUT_TEXT_MAX) {
            return Ok(());
        }
        let message = format!("{output_tokens} tokens were taken for {text_bytes} bytes of text");
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

    #[test]
    fn a_consumer_pays_in_time_and_keeps_nothing_aside() {
        let mut bounds = ConsumerBounds::default();
        let amount = Credits::micro;
        bounds.opened(channel(1), amount(10_000));
        bounds.received(channel(1), amount(500));
        assert_eq!(bounds.owes(&channel(1), WINDOW, HERE), Ok(()));
        bounds.received(channel(1), amount(1));
        assert!(bounds.owes(&channel(1), WINDOW, HERE).is_err());
        bounds.vouchered(channel(1), amount(501), HERE).unwrap();
        assert_eq!(bounds.owes(&channel(1), WINDOW, HERE), Ok(()));
        assert_eq!(bounds.at_rest(&channel(1), amount(9_499), HERE), Ok(()));
        assert!(bounds.at_rest(&channel(1), amount(9_498), HERE).is_err());
        assert_eq!(ConsumerBounds::believes(464, 400, HERE), Ok(()));
        assert!(ConsumerBounds::believes(465, 400, HERE).is_err());
    }
}
