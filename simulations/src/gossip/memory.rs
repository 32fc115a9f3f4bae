//! What a peer remembers of messages and neighbours for a while. A peer in a quiet network has none of it.

use serde::{Deserialize, Serialize};

use super::scores::Standing;
use super::{Link, Message, MessageId};

/// One unit of the times that messages are remembered with: ten milliseconds. In 32 bits it lasts for 497 days of virtual time.
const TICK_US: u64 = 10_000;

/// A message that has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    id: MessageId,
    until: u32,
    invalid: bool,
}

/// A place of the table with nothing in it.
const VACANT: Seen = Seen {
    id: MessageId(u64::MAX),
    until: 0,
    invalid: false,
};

/// The messages seen lately: a hash table with open addressing, 16 bytes a place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct SeenMessages {
    places: Vec<Seen>,
    used: u32,
    latest: u32,
}

fn ticks(us: u64) -> u32 {
    u32::try_from(us / TICK_US).unwrap_or(u32::MAX)
}

impl SeenMessages {
    fn place(&self, id: MessageId) -> usize {
        let mask = self.places.len() - 1;
        // Fibonacci hashing; the upper half is the better mixed one.
        let hash = id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let mut place = usize::try_from(hash).unwrap_or(0) & mask;
        while self.places[place].id != id && self.places[place].id != VACANT.id {
            place = (place + 1) & mask;
        }
        place
    }

    /// Whether a message has been seen and is not forgotten, and if so whether it was invalid.
    pub(super) fn get(&self, id: MessageId, now_us: u64) -> Option<bool> {
        if self.places.is_empty() {
            return None;
        }
        let seen = self.places[self.place(id)];
        (seen.id == id && seen.until > ticks(now_us)).then_some(seen.invalid)
    }

    /// Remembers a message.
    pub(super) fn insert(&mut self, id: MessageId, now_us: u64, until_us: u64) {
        if (self.used as usize + 1) * 4 > self.places.len() * 3 {
            self.rebuild(now_us);
        }
        let place = self.place(id);
        self.used += u32::from(self.places[place].id != id);
        self.places[place] = Seen {
            id,
            until: ticks(until_us),
            invalid: false,
        };
        self.latest = self.latest.max(ticks(until_us));
    }

    /// Remembers that a message is invalid.
    pub(super) fn mark_invalid(&mut self, id: MessageId) {
        if !self.places.is_empty() {
            let place = self.place(id);
            if self.places[place].id == id {
                self.places[place].invalid = true;
            }
        }
    }

    /// Forgets what is due, and makes room for one more.
    fn rebuild(&mut self, now_us: u64) {
        let now = ticks(now_us);
        let kept: Vec<Seen> = self
            .places
            .iter()
            .filter(|seen| seen.id != VACANT.id && seen.until > now)
            .copied()
            .collect();
        let capacity = (kept.len() * 2 + 2).next_power_of_two();
        self.places = vec![VACANT; capacity];
        self.used = u32::try_from(kept.len()).unwrap_or(u32::MAX);
        for seen in kept {
            let place = self.place(seen.id);
            self.places[place] = seen;
        }
    }

    /// When the last one is forgotten, in microseconds.
    pub(super) fn all_forgotten_at_us(&self) -> u64 {
        (u64::from(self.latest) + 1) * TICK_US
    }

    /// Whether none is left.
    pub(super) fn is_empty(&self, now_us: u64) -> bool {
        self.latest <= ticks(now_us)
    }
}

/// A message that others may still ask for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Recent {
    pub(super) message: Message,
    /// Over how many links it came here.
    pub(super) hops: u8,
    /// The number of the last heartbeat when it came.
    pub(super) beat: u32,
}

/// A message that a neighbour was asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Promise {
    pub(super) id: MessageId,
    pub(super) link: Link,
    pub(super) until_us: u64,
}

/// A message that a neighbour does not want.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Unwanted {
    pub(super) id: MessageId,
    pub(super) link: Link,
    pub(super) until_us: u64,
}

/// A neighbour that must not be grafted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Backoff {
    pub(super) link: Link,
    /// Until when its own grafts are bad manners.
    pub(super) until_us: u64,
    /// The heartbeat from which on it may be grafted: one later, as clocks differ.
    pub(super) free_at_beat: u32,
}

/// What a neighbour announced since the last heartbeat.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Hearsay {
    pub(super) link: Link,
    pub(super) beat: u32,
    pub(super) ihaves: u32,
}

/// How often a neighbour asked for a message.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) id: MessageId,
    pub(super) link: Link,
    pub(super) times: u32,
}

/// All that a peer remembers for a while.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Memory {
    pub(super) seen: SeenMessages,
    pub(super) recent: Vec<Recent>,
    pub(super) promises: Vec<Promise>,
    pub(super) unwanted: Vec<Unwanted>,
    pub(super) backoffs: Vec<Backoff>,
    pub(super) hearsay: Vec<Hearsay>,
    pub(super) answered: Vec<Answered>,
    pub(super) standings: Vec<Standing>,
}

/// How long a message that a neighbour does not want is not sent to it (libp2p's `IDONTWANT_TIMEOUT`).
pub(super) const UNWANTED_US: u64 = 3_000_000;

impl Memory {
    /// Forgets what is due at a heartbeat.
    pub(super) fn forget(&mut self, beat: u32, now_us: u64, history_length: u32) {
        self.recent
            .retain(|recent| beat < recent.beat.saturating_add(history_length));
        let recent = &self.recent;
        self.answered
            .retain(|answered| recent.iter().any(|recent| recent.message.id == answered.id));
        self.unwanted.retain(|unwanted| unwanted.until_us > now_us);
        self.backoffs.retain(|backoff| backoff.free_at_beat > beat);
        self.hearsay.retain(|hearsay| hearsay.beat == beat);
    }

    /// Bytes that it takes, on the heap too.
    pub(super) const fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.seen.places.capacity() * size_of::<Seen>()
            + self.recent.capacity() * size_of::<Recent>()
            + self.promises.capacity() * size_of::<Promise>()
            + self.unwanted.capacity() * size_of::<Unwanted>()
            + self.backoffs.capacity() * size_of::<Backoff>()
            + self.hearsay.capacity() * size_of::<Hearsay>()
            + self.answered.capacity() * size_of::<Answered>()
            + self.standings.capacity() * size_of::<Standing>()
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self, now_us: u64) -> bool {
        self.seen.is_empty(now_us)
            && self.recent.is_empty()
            && self.promises.is_empty()
            && self.unwanted.is_empty()
            && self.backoffs.is_empty()
            && self.standings.is_empty()
    }

    /// Whether a neighbour has said that it does not want a message.
    pub(super) fn is_unwanted(&self, link: Link, id: MessageId, now_us: u64) -> bool {
        self.unwanted
            .iter()
            .any(|unwanted| (unwanted.link, unwanted.id) == (link, id) && unwanted.until_us > now_us)
    }

    /// Counts an IHAVE of a neighbour since the last heartbeat.
    pub(super) fn count_ihave(&mut self, link: Link, beat: u32) -> u32 {
        self.hearsay.retain(|hearsay| hearsay.beat == beat);
        if let Some(hearsay) = self.hearsay.iter_mut().find(|hearsay| hearsay.link == link) {
            hearsay.ihaves += 1;
            return hearsay.ihaves;
        }
        self.hearsay.push(Hearsay {
            link,
            beat,
            ihaves: 1,
        });
        1
    }

    /// Counts how often a neighbour asked for a message.
    pub(super) fn count_answer(&mut self, link: Link, id: MessageId) -> u32 {
        let found = self
            .answered
            .iter_mut()
            .find(|answered| (answered.link, answered.id) == (link, id));
        if let Some(answered) = found {
            answered.times += 1;
            return answered.times;
        }
        self.answered.push(Answered { id, link, times: 1 });
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Like a map from ids to when they are forgotten, of times to a hundredth of a second.
        #[test]
        fn seen_messages_are_those_of_the_last_seconds(
            steps in proptest::collection::vec((0u64..40, 0u64..3), 0..300)
        ) {
            let (mut seen, mut expected, mut now_us) = (SeenMessages::default(), BTreeMap::new(), 0);
            for (id, seconds) in steps {
                now_us += seconds * 1_000_000;
                let id = MessageId(id);
                let known = expected.get(&id).is_some_and(|until| *until > now_us);
                prop_assert_eq!(seen.get(id, now_us).is_some(), known);
                if !known {
                    seen.insert(id, now_us, now_us + 20_000_000);
                    expected.insert(id, now_us + 20_000_000);
                }
            }
            prop_assert!(seen.places.len() <= 128);
        }
    }
}
