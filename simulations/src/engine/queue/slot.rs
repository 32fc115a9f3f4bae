//! Slots of a level, filled by chunks of fixed size that are used again.

use super::{DIGIT_BITS, Entry};

/// How many entries a chunk holds. A slot of one chunk is sorted, a larger one is dealt out to finer slots.
pub(super) const CHUNK: usize = 64;

/// Chunks that nothing is in.
#[derive(Debug)]
pub(super) struct Spare<E>(Vec<Vec<Entry<E>>>);

impl<E> Default for Spare<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E> Spare<E> {
    fn take(&mut self) -> Vec<Entry<E>> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }

    /// Keeps an emptied chunk for later; lets go of a `Vec` that never was one or has grown.
    pub(super) fn put(&mut self, chunk: Vec<Entry<E>>) {
        debug_assert!(chunk.is_empty(), "only emptied chunks are spare");
        if (CHUNK..2 * CHUNK).contains(&chunk.capacity()) {
            self.0.push(chunk);
        }
    }
}

/// Events that share all digits down to one level.
#[derive(Debug)]
pub(super) struct Slot<E> {
    first_at_us: u64,
    /// The chunk being filled; empty only where the slot is.
    filling: Vec<Entry<E>>,
    full: Vec<Vec<Entry<E>>>,
}

impl<E> Default for Slot<E> {
    fn default() -> Self {
        Self {
            first_at_us: u64::MAX,
            filling: Vec::new(),
            full: Vec::new(),
        }
    }
}

impl<E> Slot<E> {
    #[inline]
    fn push(&mut self, entry: Entry<E>, spare: &mut Spare<E>) {
        self.first_at_us = self.first_at_us.min(entry.at_us);
        if self.filling.len() == self.filling.capacity() {
            let filled = std::mem::replace(&mut self.filling, spare.take());
            if !filled.is_empty() {
                self.full.push(filled);
            }
        }
        self.filling.push(entry);
    }

    pub(super) const fn is_one_chunk(&self) -> bool {
        self.full.is_empty()
    }

    /// Takes a chunk, any one.
    pub(super) fn pop_chunk(&mut self) -> Option<Vec<Entry<E>>> {
        if self.filling.capacity() > 0 {
            return Some(std::mem::take(&mut self.filling));
        }
        self.full.pop()
    }

    /// Moves all to the empty `near`, the first to come last.
    pub(super) fn sort_into(mut self, near: &mut Vec<Entry<E>>, spare: &mut Spare<E>) {
        spare.put(std::mem::replace(near, self.filling));
        for mut chunk in self.full.drain(..) {
            near.append(&mut chunk);
            spare.put(chunk);
        }
        near.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.key()));
    }
}

/// The slots of one digit of a key.
#[derive(Debug)]
pub(super) struct Level<E> {
    /// A bit for each slot that holds anything.
    occupied: u64,
    /// None before the level is used for the first time.
    slots: Vec<Slot<E>>,
}

impl<E> Default for Level<E> {
    fn default() -> Self {
        Self {
            occupied: 0,
            slots: Vec::new(),
        }
    }
}

impl<E> Level<E> {
    #[inline]
    pub(super) fn push(&mut self, digit: usize, entry: Entry<E>, spare: &mut Spare<E>) {
        if self.slots.is_empty() {
            self.slots.resize_with(1 << DIGIT_BITS, Slot::default);
        }
        self.occupied |= 1 << digit;
        self.slots[digit].push(entry, spare);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    /// When the first event of the level happens.
    pub(super) fn first_at_us(&self) -> Option<u64> {
        self.slots
            .get(self.occupied.trailing_zeros() as usize)
            .map(|slot| slot.first_at_us)
    }

    /// Takes the first slot of those that hold anything, and its digit.
    pub(super) fn take_first(&mut self) -> (usize, Slot<E>) {
        let digit = self.occupied.trailing_zeros() as usize;
        self.occupied &= self.occupied.wrapping_sub(1);
        let slot = self.slots.get_mut(digit).map(std::mem::take);
        (digit, slot.unwrap_or_default())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<E>> {
        self.slots
            .iter()
            .flat_map(|slot| slot.full.iter().flatten().chain(&slot.filling))
    }
}
