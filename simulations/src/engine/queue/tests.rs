use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::{Entry, Queue};

const fn entry<E>(at_us: u64, tie: u64, node: u32, event: E) -> Entry<E> {
    Entry {
        at_us,
        tie,
        node,
        event,
    }
}

/// The queue beside a plain heap: whatever is done to both must come out the same.
#[derive(Default)]
struct Pair {
    queue: Queue<u64>,
    heap: BinaryHeap<Reverse<(u64, u64, u32, u64)>>,
    now_us: u64,
    pushed: u64,
}

impl Pair {
    fn push(&mut self, delay_us: u64) {
        let at_us = self.now_us.saturating_add(delay_us);
        self.pushed += 1;
        // Ties in no order, some with all bits and some with few.
        let tie = match self.pushed % 3 {
            0 => self.pushed,
            1 => self.pushed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            _ => u64::MAX - self.pushed,
        };
        let node = self.pushed as u32;
        self.queue.push(entry(at_us, tie, node, self.pushed));
        self.heap.push(Reverse((at_us, tie, node, self.pushed)));
    }

    fn check_peek(&self) {
        assert_eq!(self.queue.len(), self.heap.len());
        assert_eq!(self.queue.is_empty(), self.heap.is_empty());
        assert_eq!(self.queue.peek_at_us(), self.heap.peek().map(|next| next.0.0));
    }

    /// Takes at most so many that happen before the limit.
    fn pop(&mut self, limit_us: u64, most: usize) {
        for _ in 0..most {
            self.check_peek();
            let expected = self
                .heap
                .peek()
                .is_some_and(|next| next.0.0 < limit_us)
                .then(|| self.heap.pop().unwrap().0);
            let popped = self.queue.pop_before(limit_us);
            let popped = popped.map(|entry| (entry.at_us, entry.tie, entry.node, entry.event));
            assert_eq!(popped, expected);
            let Some((at_us, ..)) = popped else { break };
            self.now_us = at_us;
        }
    }

    fn drain(&mut self) {
        self.pop(u64::MAX, usize::MAX);
        let at_the_very_end = self.heap.iter().all(|entry| entry.0.0 == u64::MAX);
        assert!(at_the_very_end, "only what lies at the end of time stays");
    }
}

#[derive(Clone, Debug)]
enum Act {
    Push(u64),
    /// So many after the same delay.
    Burst(u64, u16),
    /// So many, each so much later than the one before.
    Train(u64, u64, u16),
    /// All up to a limit from now.
    PopBefore(u64),
    PopSome(u16),
}

/// From the same moment up to the end of time, each magnitude as likely as another.
fn delay() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0_u32..38, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1)),
        1 => Just(86_400_000_000 * 3),
        1 => any::<u64>(),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => delay().prop_map(Act::Push),
        1 => (delay(), 1..300_u16).prop_map(|(delay, count)| Act::Burst(delay, count)),
        1 => (delay(), 0..5_000_u64, 1..300_u16).prop_map(|(delay, step, count)| Act::Train(delay, step, count)),
        2 => delay().prop_map(Act::PopBefore),
        2 => (1..300_u16).prop_map(Act::PopSome),
    ]
}

proptest! {
    #[test]
    fn events_come_as_from_a_heap(acts in proptest::collection::vec(act(), 0..60)) {
        let mut pair = Pair::default();
        for act in acts {
            match act {
                Act::Push(delay_us) => pair.push(delay_us),
                Act::Burst(delay_us, count) => (0..count).for_each(|_| pair.push(delay_us)),
                Act::Train(delay_us, step_us, count) => (0..u64::from(count))
                    .for_each(|at| pair.push(delay_us.saturating_add(at * step_us))),
                Act::PopBefore(delay_us) => pair.pop(pair.now_us.saturating_add(delay_us), usize::MAX),
                Act::PopSome(count) => pair.pop(u64::MAX, count.into()),
            }
            pair.check_peek();
        }
        pair.drain();
    }

    /// A snapshot is the waiting events in any order.
    #[test]
    fn a_queue_of_what_waits_is_the_same_queue(delays in proptest::collection::vec(delay(), 0..400), taken in 0..200_usize) {
        let mut pair = Pair::default();
        delays.iter().for_each(|delay_us| pair.push(*delay_us));
        pair.pop(u64::MAX, taken);
        let mut copy = Queue::default();
        for entry in pair.queue.iter() {
            copy.push(entry.clone());
        }
        prop_assert_eq!(copy.len(), pair.queue.len());
        pair.queue = copy;
        pair.drain();
    }
}

/// Many events within one slot that already was sorted: they go back to finer slots, and stay in order.
#[test]
fn a_crowd_among_sorted_events_stays_in_order() {
    let mut pair = Pair::default();
    pair.push(1_000_000_000);
    pair.push(1_000_100_000);
    pair.pop(u64::MAX, 1);
    for _ in 0..40 {
        (0..200).for_each(|at| pair.push(at * 37 % 90_000));
        pair.pop(u64::MAX, 100);
    }
    assert!(pair.queue.late.len() <= super::LATE_MAX);
    pair.drain();
}

#[test]
fn looking_ahead_leaves_room_before_what_was_seen() {
    let mut pair = Pair::default();
    (0..1_000).for_each(|at| pair.push(10_000_000 + at));
    pair.pop(10_000_000, usize::MAX);
    pair.pop(10_000_001, usize::MAX);
    pair.now_us = 5;
    (0..1_000).for_each(|at| pair.push(at % 7));
    pair.drain();
}

#[test]
fn what_lies_in_the_past_comes_next() {
    let mut queue = Queue::default();
    queue.push(entry(1_000, 1, 1, "later"));
    queue.push(entry(500, 1, 1, "now"));
    assert_eq!(queue.pop_before(u64::MAX).unwrap().event, "now");
    queue.push(entry(3, 1, 1, "past"));
    assert_eq!(queue.peek_at_us(), Some(3));
    assert_eq!(queue.pop_before(u64::MAX).unwrap().event, "past");
    assert_eq!(queue.pop_before(1_000), None);
    assert_eq!(queue.pop_before(1_001).unwrap().event, "later");
    assert!(queue.is_empty() && queue.peek_at_us().is_none());
}

#[test]
fn an_entry_is_its_event_and_three_words() {
    assert_eq!(size_of::<Entry<[u64; 3]>>(), 48);
    assert_eq!(size_of::<Entry<[u32; 5]>>(), 40);
}
