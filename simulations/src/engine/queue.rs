//! What is still to happen, in order of time: a queue for events that never lie before the last one taken.
//!
//! A radix heap (Ahuja, Mehlhorn, Orlin and Tarjan, "Faster algorithms for the shortest path problem", Journal of
//! the ACM 37, 1990) with wide digits, which is also a timing wheel with as many wheels as there are digits. An event's
//! key is its time and its tie, 128 bits, cut into digits. An event waits on the level of the highest digit in which
//! it differs from where the queue stands, in the slot of its own digit there. The first slot of the lowest level
//! holds what comes next: few events are sorted and taken one by one, many are dealt out to the levels below. So an
//! event is moved a few times and compared with a few others, whatever waits: a heap compares it with one event per
//! doubling, each in another line of the cache.

use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

use super::NodeId;

mod slot;
#[cfg(test)]
mod tests;

use slot::{CHUNK, Level, Spare};

/// Bits of a digit.
const DIGIT_BITS: u32 = 6;
/// How many digits a key has.
const LEVELS: usize = 128_u32.div_ceil(DIGIT_BITS) as usize;
/// How many events may be pushed among those already sorted before these go back to finer slots.
const LATE_MAX: usize = 2 * CHUNK;

/// An event, to whom it happens, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<E> {
    /// When, in microseconds of virtual time.
    pub at_us: u64,
    /// The order among events of one moment; no two of them have the same.
    pub tie: u64,
    /// To whom.
    pub node: NodeId,
    /// What.
    pub event: E,
}

impl<E> Entry<E> {
    /// By this entries are ordered.
    #[must_use]
    pub const fn order(&self) -> (u64, u64) {
        (self.at_us, self.tie)
    }

    /// The same order as one number.
    #[inline]
    const fn key(&self) -> u128 {
        (self.at_us as u128) << 64 | self.tie as u128
    }
}

/// An entry that a heap gives back smallest key first.
#[derive(Debug)]
struct Late<E>(Entry<E>);

impl<E> PartialEq for Late<E> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<E> Eq for Late<E> {}

impl<E> PartialOrd for Late<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Late<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.key().cmp(&self.0.key())
    }
}

/// Events by time and then by tie. Memory follows the most that ever waited: an entry each, and a part-filled chunk
/// for each slot in use.
#[derive(Debug)]
pub struct Queue<E> {
    /// The next events, the very next one last; all keys are below `near_end`.
    near: Vec<Entry<E>>,
    /// Events below `near_end` that came after `near` was sorted.
    late: BinaryHeap<Late<E>>,
    /// No waiting key on any level is below; levels and slots are reckoned from here.
    base: u128,
    /// Where the levels begin: keys from here on wait in slots.
    near_end: u128,
    /// The level whose slot `near` came from.
    near_level: usize,
    levels: [Level<E>; LEVELS],
    /// A bit for each level that holds anything.
    occupied: u32,
    spare: Spare<E>,
    length: usize,
    last_popped_us: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            near: Vec::new(),
            late: BinaryHeap::new(),
            base: 0,
            near_end: 0,
            near_level: 0,
            levels: std::array::from_fn(|_| Level::default()),
            occupied: 0,
            spare: Spare::default(),
            length: 0,
            last_popped_us: 0,
        }
    }
}

impl<E> Queue<E> {
    /// Adds an entry, not before the last one that was taken. One that does lie before it is taken next.
    #[inline]
    pub fn push(&mut self, entry: Entry<E>) {
        self.length += 1;
        if entry.key() >= self.near_end {
            self.place(entry);
        } else {
            self.late.push(Late(entry));
            if self.late.len() > LATE_MAX && self.near_level > 0 {
                self.scatter_near();
            }
        }
    }

    /// The next event, if it happens before `limit_us`.
    #[inline]
    pub fn pop_before(&mut self, limit_us: u64) -> Option<Entry<E>> {
        if self.near.is_empty() && self.late.is_empty() && !self.refill(limit_us) {
            return None;
        }
        let late_first = match (self.near.last(), self.late.peek()) {
            (Some(near), Some(late)) => late.0.key() < near.key(),
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let next_us = if late_first {
            self.late.peek()?.0.at_us
        } else {
            self.near.last()?.at_us
        };
        if next_us >= limit_us {
            return None;
        }
        self.length -= 1;
        self.last_popped_us = next_us;
        if late_first {
            self.late.pop().map(|late| late.0)
        } else {
            self.near.pop()
        }
    }

    /// When the next event happens.
    #[must_use]
    pub fn peek_at_us(&self) -> Option<u64> {
        let near = self.near.last().map(|entry| entry.at_us);
        let late = self.late.peek().map(|late| late.0.at_us);
        match (near, late) {
            (Some(near), Some(late)) => Some(near.min(late)),
            (None, None) => {
                let level = self.levels.get(self.occupied.trailing_zeros() as usize)?;
                level.first_at_us()
            }
            (one, other) => one.or(other),
        }
    }

    /// How many events wait.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All that wait, in no order that means anything. Pushed into an empty queue they are popped as from this one.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<E>> {
        self.near
            .iter()
            .chain(self.late.iter().map(|late| &late.0))
            .chain(self.levels.iter().flat_map(Level::iter))
    }

    /// Puts an entry from `base` on into the slot where it belongs.
    #[inline]
    fn place(&mut self, entry: Entry<E>) {
        let key = entry.key();
        let level = (127 - ((key ^ self.base) | 1).leading_zeros()) / DIGIT_BITS;
        self.occupied |= 1 << level;
        self.levels[level as usize].push(digit(key, level), entry, &mut self.spare);
    }

    /// Sorts the next few events, if the first of them happens before `limit_us`.
    fn refill(&mut self, limit_us: u64) -> bool {
        loop {
            let level = self.occupied.trailing_zeros();
            let Some(slots) = self.levels.get_mut(level as usize) else {
                return false;
            };
            if slots.first_at_us().is_none_or(|at_us| at_us >= limit_us) {
                return false;
            }
            let (first, mut slot) = slots.take_first();
            if slots.is_empty() {
                self.occupied &= !(1 << level);
            }
            let above = self
                .base
                .checked_shr((level + 1) * DIGIT_BITS)
                .unwrap_or_default();
            let above = above.checked_shl((level + 1) * DIGIT_BITS).unwrap_or_default();
            self.base = above | (first as u128) << (level * DIGIT_BITS);
            if slot.is_one_chunk() || level == 0 {
                self.near_level = level as usize;
                self.near_end = self.base.saturating_add(1 << (level * DIGIT_BITS));
                slot.sort_into(&mut self.near, &mut self.spare);
                return true;
            }
            while let Some(mut chunk) = slot.pop_chunk() {
                for entry in chunk.drain(..) {
                    self.place(entry);
                }
                self.spare.put(chunk);
            }
        }
    }

    /// Gives the sorted events back to the levels, finer than they came from, because more and more are pushed among
    /// them. Events that lie before where the levels begin stay.
    #[cold]
    fn scatter_near(&mut self) {
        self.base = self.base.max(u128::from(self.last_popped_us) << 64);
        self.near_end = self.base;
        let mut near = std::mem::take(&mut self.near);
        let late = std::mem::take(&mut self.late).into_vec();
        for entry in near.drain(..).chain(late.into_iter().map(|late| late.0)) {
            if entry.key() >= self.base {
                self.place(entry);
            } else {
                self.late.push(Late(entry));
            }
        }
        self.spare.put(near);
    }
}

/// The digit of a key on a level.
#[inline]
const fn digit(key: u128, level: u32) -> usize {
    (key >> (level * DIGIT_BITS)) as usize & ((1 << DIGIT_BITS) - 1)
}
