//! Places for jobs: so many run at once, so many wait for their turn, first come, first served. While there is no job,
//! the devices can be lent; they are given back as soon as one comes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How long a job waits for the devices to be given back. Whoever has them looks often enough to need a fraction of
/// this; where a driver hangs, the job goes on regardless.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(2);

/// The places of a node.
#[derive(Debug)]
pub(crate) struct Slots {
    running: Arc<Semaphore>,
    /// How many jobs run or wait.
    jobs: watch::Sender<u32>,
    /// Whether the devices are lent.
    lent: watch::Sender<bool>,
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
            lent: watch::Sender::new(false),
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

    /// Wakes those who follow, as a job does that comes and goes.
    #[cfg(test)]
    pub(crate) fn wake(&self) {
        self.jobs.send_modify(|_| {});
    }

    /// Lends the devices to something that is no job. `None` while a job is there, or they are lent already.
    pub(crate) fn lend(self: &Arc<Self>) -> Option<Lent> {
        // Said before looking for jobs, so that a job that comes now either is seen here or sees this.
        if self.lent.send_replace(true) {
            return None;
        }
        let lent = Lent(Arc::clone(self));
        (!lent.is_wanted_back()).then_some(lent)
    }
}

/// The devices, lent until this is dropped. Jobs wait for that, so it must be soon after they are wanted back.
#[derive(Debug)]
pub(crate) struct Lent(Arc<Slots>);

impl Lent {
    /// Whether a job is there.
    pub(crate) fn is_wanted_back(&self) -> bool {
        self.0.jobs() > 0
    }

    /// The places that they are lent by.
    pub(crate) const fn slots(&self) -> &Arc<Slots> {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.lent.send_replace(false);
    }
}

impl JobPlace {
    /// Waits for the job's turn, and for the devices where they are lent. `None` never comes: the places are not closed
    /// while a job has one.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let turn = Arc::clone(&self.0.running).acquire_owned().await.ok();
        let mut lent = self.0.lent.subscribe();
        let given_back = lent.wait_for(|lent| !lent);
        if tokio::time::timeout(GIVEN_BACK_WITHIN, given_back).await.is_err() {
            tracing::warn!("a device does not stop its proof of hardware; a job runs beside it");
        }
        turn
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
    async fn devices_are_lent_only_while_there_is_no_job_and_jobs_wait_for_them() {
        let slots = Slots::new(2, 0);
        let job = slots.enter().unwrap();
        assert!(slots.lend().is_none(), "beside a job");
        assert!(job.turn().now_or_never().is_some(), "what was not lent is there");
        drop(job);
        let lent = slots.lend().unwrap();
        assert!(slots.lend().is_none(), "lent twice");
        assert!(!lent.is_wanted_back());
        let jobs = [slots.enter().unwrap(), slots.enter().unwrap()];
        assert!(lent.is_wanted_back());
        let mut waiting: Vec<_> = jobs.iter().map(|job| Box::pin(job.turn())).collect();
        for turn in &mut waiting {
            assert!(turn.as_mut().now_or_never().is_none(), "beside a proof");
        }
        drop(lent);
        for turn in waiting {
            assert!(turn.await.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_hangs_does_not_hold_jobs_up_for_ever() {
        let slots = Slots::new(1, 0);
        let _never_given_back = slots.lend().unwrap();
        let job = slots.enter().unwrap();
        assert!(job.turn().await.is_some());
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
