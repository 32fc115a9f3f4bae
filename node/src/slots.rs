//! Places for jobs: so many run at once, so many wait for their turn, first come, first served.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The places of a node.
#[derive(Debug)]
pub(crate) struct Slots {
    running: Arc<Semaphore>,
    /// How many jobs run or wait.
    jobs: watch::Sender<u32>,
    slots: u32,
    queue_length: u32,
}

/// A job's place, from when it is taken until its engine is done.
#[derive(Debug)]
pub(crate) struct JobPlace(Arc<Slots>);

impl Slots {
    pub(crate) fn new(slots: u16, queue_length: u16) -> Arc<Self> {
        Arc::new(Self {
            running: Arc::new(Semaphore::new(slots.into())),
            jobs: watch::Sender::new(0),
            slots: slots.into(),
            queue_length: queue_length.into(),
        })
    }

    /// How many jobs run at once.
    pub(crate) const fn slots(&self) -> u32 {
        self.slots
    }

    /// How many jobs may wait.
    pub(crate) const fn queue_length(&self) -> u32 {
        self.queue_length
    }

    /// How many jobs run or wait now.
    pub(crate) fn jobs(&self) -> u32 {
        *self.jobs.borrow()
    }

    /// Follows how many jobs run or wait.
    pub(crate) fn changes(&self) -> watch::Receiver<u32> {
        self.jobs.subscribe()
    }

    /// A place for one more job; `None` where all are taken.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<JobPlace> {
        let entered = self.jobs.send_if_modified(|jobs| {
            let free = *jobs < self.slots.saturating_add(self.queue_length);
            if free {
                *jobs += 1;
            }
            free
        });
        entered.then(|| JobPlace(Arc::clone(self)))
    }
}

impl JobPlace {
    /// Waits for the job's turn. `None` never comes: the places are not closed while a job has one.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.running).acquire_owned().await.ok()
    }
}

impl Drop for JobPlace {
    fn drop(&mut self) {
        self.0.jobs.send_modify(|jobs| *jobs = jobs.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn jobs_run_wait_and_are_turned_away() {
        let slots = Slots::new(1, 1);
        let (first, second) = (slots.enter().unwrap(), slots.enter().unwrap());
        assert!(slots.enter().is_none(), "a third job");
        let running = first.turn().await;
        let mut waiting = Box::pin(second.turn());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        assert!(slots.enter().is_some(), "a place came back");
        drop(running);
        assert!(waiting.await.is_some());
    }

    #[tokio::test]
    async fn turns_come_in_the_order_of_asking() {
        let slots = Slots::new(1, 3);
        let places: Vec<_> = std::iter::from_fn(|| slots.enter()).collect();
        assert_eq!(places.len(), 4);
        let mut running = places[0].turn().await;
        let mut waiting: Vec<_> = places[1..].iter().map(|place| Box::pin(place.turn())).collect();
        for turn in &mut waiting {
            assert!(turn.as_mut().now_or_never().is_none());
        }
        while !waiting.is_empty() {
            drop(running);
            for later in &mut waiting[1..] {
                assert!(later.as_mut().now_or_never().is_none(), "it is not its turn");
            }
            running = waiting.remove(0).await;
        }
    }
}
