//! What is still to happen, in order.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

use super::NodeId;

/// An event, to whom it happens, and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry<E> {
    /// When, in microseconds of virtual time.
    pub at_us: u64,
    /// The order among events of one moment; no two of a run are alike.
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
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.order().cmp(&self.order())
    }
}

/// Entries by their time and tie.
#[derive(Debug)]
pub struct Queue<E>(BinaryHeap<Entry<E>>);

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<E> Queue<E> {
    /// Adds an entry, not before the last one that was taken.
    pub fn push(&mut self, entry: Entry<E>) {
        self.0.push(entry);
    }

    /// Takes the first entry before `end_us`.
    pub fn pop_before(&mut self, end_us: u64) -> Option<Entry<E>> {
        if self.0.peek()?.at_us >= end_us {
            return None;
        }
        self.0.pop()
    }

    /// When the first entry happens.
    pub fn peek_at_us(&mut self) -> Option<u64> {
        self.0.peek().map(|entry| entry.at_us)
    }

    /// How many entries wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that wait, in any order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry<E>> {
        self.0.iter()
    }
}
