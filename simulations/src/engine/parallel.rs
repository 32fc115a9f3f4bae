//! Runs the windows of one epoch, on one thread or on several, with the same outcome.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};

use super::shard::{Shard, Window};
use super::story::Interest;
use super::{SHARDS, World};

/// A window with fewer events than this is not worth waking other threads for.
const EVENTS_WORTH_WAKING: u64 = 512;

/// What is the same for all windows of an epoch.
#[derive(Clone, Copy)]
pub(super) struct Epoch<'a> {
    pub(super) seed: u64,
    pub(super) end_us: u64,
    pub(super) interest: Option<&'a Interest>,
    pub(super) pending_max: usize,
}

/// How the windows of an epoch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EpochEnd {
    /// Nothing more is due before the epoch's end.
    Done,
    /// A shard holds a broken rule.
    Broken,
    /// Too many events wait; it happened in the window that began then.
    TooMany {
        /// Microseconds of virtual time.
        at_us: u64,
    },
}

type Shards<W> = [Mutex<Shard<W>>; SHARDS];

/// A shard whose holder panicked is only looked at to unwind further.
fn lock<W: World>(shard: &Mutex<Shard<W>>) -> MutexGuard<'_, Shard<W>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next window, after what was sent during the last one is handed over; none where nothing is due.
fn next_window<'a, W: World>(world: &W, shards: &Shards<W>, epoch: Epoch<'a>) -> Option<Window<'a>> {
    let mut held: Vec<MutexGuard<'_, Shard<W>>> = shards.iter().map(lock).collect();
    let next_us = held.iter_mut().map(|shard| shard.next_at_us()).min()?;
    if next_us >= epoch.end_us {
        return None;
    }
    hand_over(&mut held);
    let lookahead_us = world.lookahead_us().max(1);
    Some(Window {
        seed: epoch.seed,
        end_us: next_us.saturating_add(lookahead_us).min(epoch.end_us),
        lookahead_us,
        interest: epoch.interest,
    })
}

/// Puts what shards have sent into the inboxes of those that it goes to.
pub(super) fn hand_over<W: World>(held: &mut [MutexGuard<'_, Shard<W>>]) {
    for from in 0..held.len() {
        let Some(sender) = held.get_mut(from) else {
            continue;
        };
        if sender.outbox.first_at_us == u64::MAX {
            continue;
        }
        sender.outbox.first_at_us = u64::MAX;
        for to in 0..SHARDS {
            let Some(sent) = held
                .get_mut(from)
                .and_then(|sender| sender.outbox.entries.get_mut(to))
                .filter(|entries| !entries.is_empty())
                .map(std::mem::take)
            else {
                continue;
            };
            // The inbox was emptied at the beginning of the last window; its room is used again.
            let emptied = held
                .get_mut(to)
                .and_then(|receiver| receiver.inbox.get_mut(from))
                .map(|inbox| std::mem::replace(inbox, sent));
            if let (Some(sender), Some(emptied)) = (held.get_mut(from), emptied)
                && let Some(entries) = sender.outbox.entries.get_mut(to)
            {
                *entries = emptied;
            }
        }
    }
}

/// Where an epoch stands after a window.
fn looked_at<W: World>(shards: &Shards<W>, epoch: Epoch<'_>, at_us: u64) -> Option<EpochEnd> {
    let (mut pending, mut is_broken) = (0, false);
    for shard in shards {
        let shard = lock(shard);
        pending += shard.pending();
        is_broken |= shard.broken.is_some();
    }
    if is_broken {
        return Some(EpochEnd::Broken);
    }
    (pending > epoch.pending_max).then_some(EpochEnd::TooMany { at_us })
}

fn events<W: World>(shards: &Shards<W>) -> u64 {
    shards.iter().map(|shard| lock(shard).events).sum()
}

/// Runs all windows of an epoch.
pub(super) fn run<W: World>(world: &W, shards: &Shards<W>, epoch: Epoch<'_>, threads: usize) -> EpochEnd
where
    W::Shard: Send,
{
    if threads <= 1 {
        return windows(world, shards, epoch, |window| {
            shards
                .iter()
                .for_each(|shard| lock(shard).run_window(world, window));
        });
    }
    let crew = Crew::new(threads.min(SHARDS));
    std::thread::scope(|scope| {
        for worker in 1..crew.threads {
            let crew = &crew;
            scope.spawn(move || crew.work(worker, world, shards));
        }
        let mut last = (0, 0);
        let end = windows(world, shards, epoch, |window| {
            if last.1 < EVENTS_WORTH_WAKING {
                shards
                    .iter()
                    .for_each(|shard| lock(shard).run_window(world, window));
            } else {
                crew.run(world, shards, window);
            }
            let now = events(shards);
            last = (now, now - last.0);
        });
        crew.dismiss();
        end
    })
}

fn windows<'a, W: World>(
    world: &W,
    shards: &Shards<W>,
    epoch: Epoch<'a>,
    mut run_window: impl FnMut(Window<'a>),
) -> EpochEnd {
    while let Some(window) = next_window(world, shards, epoch) {
        run_window(window);
        if let Some(end) = looked_at(shards, epoch, window.end_us) {
            return end;
        }
    }
    EpochEnd::Done
}

/// Threads that run the shards of a window side by side; the one that leads them is the first.
struct Crew<'a> {
    threads: usize,
    /// What to do next; nothing more where empty.
    window: Mutex<Option<Window<'a>>>,
    begin: Barrier,
    end: Barrier,
    /// What a thread panicked with. The others must not wait for it for ever.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl<'a> Crew<'a> {
    fn new(threads: usize) -> Self {
        Self {
            threads,
            window: Mutex::new(None),
            begin: Barrier::new(threads),
            end: Barrier::new(threads),
            panic: Mutex::new(None),
        }
    }

    fn command(&self, window: Option<Window<'a>>) {
        *self.window.lock().unwrap_or_else(PoisonError::into_inner) = window;
    }

    /// Runs a window on all threads; the calling one takes its part.
    fn run<W: World>(&self, world: &W, shards: &Shards<W>, window: Window<'a>) {
        self.command(Some(window));
        self.begin.wait();
        self.part(0, world, shards, window);
        self.end.wait();
        let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = panic {
            self.dismiss();
            resume_unwind(panic);
        }
    }

    fn part<W: World>(&self, worker: usize, world: &W, shards: &Shards<W>, window: Window<'a>) {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            for shard in shards.iter().skip(worker).step_by(self.threads) {
                lock(shard).run_window(world, window);
            }
        }));
        if let Err(panic) = ran {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }

    /// What the other threads do until they are dismissed.
    fn work<W: World>(&self, worker: usize, world: &W, shards: &Shards<W>) {
        loop {
            self.begin.wait();
            let window = *self.window.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(window) = window else { return };
            self.part(worker, world, shards, window);
            self.end.wait();
        }
    }

    fn dismiss(&self) {
        self.command(None);
        self.begin.wait();
    }
}
