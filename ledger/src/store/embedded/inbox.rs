//! Where posts wait for the writer, and where the writer waits for posts and for the disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk_thread::Written;
use super::writer::Post;

/// Where posts wait.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether `state.written` is there, to be asked between two entries without a lock.
    is_written: AtomicBool,
}

#[derive(Default)]
struct State {
    posts: Vec<Post>,
    /// Admitted and not answered yet, in `posts` or at the writer.
    unanswered: usize,
    limit: usize,
    written: Option<Written>,
    is_closed: bool,
    /// Set while the writer sleeps: so many posts wake it, and anything else.
    wakes_at_posts: Option<usize>,
}

/// What the writer waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Awaited {
    /// So many posts. Waking it for each one would cost more than the work on it.
    pub(super) posts: usize,
    /// Whether something comes even where nothing is admitted any more.
    pub(super) is_certain: bool,
    /// Not longer than this.
    pub(super) timeout: Option<Duration>,
}

/// Why the writer wakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// There is something to do.
    Something,
    /// It has waited as long as it wanted to.
    TimedOut,
    /// Nothing will ever come.
    Ended,
}

/// Why a post was not admitted.
pub(super) enum NotAdmitted {
    /// So many are waiting already.
    TooMany(usize),
    /// Nothing is admitted any more.
    Closed,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Self {
        let inbox = Self::default();
        inbox.state().limit = limit;
        inbox
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, post: Post) -> Result<(), NotAdmitted> {
        let mut state = self.state();
        if state.is_closed {
            return Err(NotAdmitted::Closed);
        }
        if state.unanswered >= state.limit {
            return Err(NotAdmitted::TooMany(state.unanswered));
        }
        state.unanswered += 1;
        state.posts.push(post);
        if state
            .wakes_at_posts
            .is_some_and(|posts| state.posts.len() >= posts)
        {
            self.wake(state);
        }
        Ok(())
    }

    /// Admits nothing more. What waits is still answered.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        self.wake(state);
    }

    /// Closes for good when there is no writer any more; whoever still waits hears that nobody answers.
    pub(super) fn abandon(&self) {
        self.close();
        self.state().posts.clear();
    }

    /// The disk thread tells how writing a batch went.
    pub(super) fn deliver(&self, written: Written) {
        let mut state = self.state();
        state.written = Some(written);
        self.is_written.store(true, Ordering::Release);
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let waits = state.wakes_at_posts.take();
        drop(state);
        if waits.is_some() {
            self.changed.notify_one();
        }
    }

    pub(super) fn is_written(&self) -> bool {
        self.is_written.load(Ordering::Acquire)
    }

    pub(super) fn take_written(&self) -> Option<Written> {
        if !self.is_written() {
            return None;
        }
        self.is_written.store(false, Ordering::Relaxed);
        self.state().written.take()
    }

    /// All posts that wait, in the order in which they came.
    pub(super) fn take_posts(&self) -> Vec<Post> {
        let mut state = self.state();
        let room = Vec::with_capacity(state.posts.len());
        std::mem::replace(&mut state.posts, room)
    }

    /// So many posts were answered, and from now on so many may wait.
    pub(super) fn answered(&self, count: usize, limit: usize) {
        let mut state = self.state();
        state.unanswered = state.unanswered.saturating_sub(count);
        state.limit = limit;
    }

    /// Whether posts are waited for, and the answers come without waiting for the disk.
    pub(super) fn has_unanswered(&self) -> bool {
        self.state().unanswered > 0
    }

    /// Posts that the writer has not taken yet.
    #[cfg(test)]
    pub(super) fn waiting_posts(&self) -> usize {
        self.state().posts.len()
    }

    /// Waits until there is something to do.
    pub(super) fn wait(&self, awaited: Awaited) -> Woken {
        let mut state = self.state();
        loop {
            if state.posts.len() >= awaited.posts.max(1) || state.written.is_some() {
                return Woken::Something;
            }
            if state.is_closed && !awaited.is_certain {
                return Woken::Ended;
            }
            state.wakes_at_posts = Some(awaited.posts);
            let Some(most) = awaited.timeout else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let waited = self.changed.wait_timeout(state, most);
            let (after, result) = waited.unwrap_or_else(PoisonError::into_inner);
            state = after;
            if result.timed_out() {
                state.wakes_at_posts = None;
                return Woken::TimedOut;
            }
        }
    }
}
