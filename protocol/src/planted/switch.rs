//! Which error is planted in this process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Bug;

/// The number of the planted error, from 1; 0 for none.
static PLANTED: AtomicUsize = AtomicUsize::new(0);
/// Held while somebody relies on what is planted.
static TURN: Mutex<()> = Mutex::new(());

/// While this lives, what was planted stays so, in all threads; then nothing is.
#[derive(Debug)]
pub struct Planted {
    _turn: MutexGuard<'static, ()>,
}

/// Plants an error in the whole process, or none to see the same run go well. Waits until nobody else relies on what
/// is planted, so tests that plant can share a process.
#[must_use = "what is planted is dug out again when this is dropped"]
pub fn plant(bug: Option<Bug>) -> Planted {
    // Who failed while something was planted has left nothing behind.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    PLANTED.store(bug.map_or(0, number), Ordering::SeqCst);
    Planted { _turn: turn }
}

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.store(0, Ordering::SeqCst);
    }
}

/// Whether this error is planted.
#[must_use]
pub fn is(bug: Bug) -> bool {
    PLANTED.load(Ordering::Relaxed) == number(bug)
}

const fn number(bug: Bug) -> usize {
    bug as usize + 1
}
