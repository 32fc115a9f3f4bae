//! How many threads the program has for what.

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Runtime};

/// How many cores a machine has for each thread that hands requests on.
const CORES_PER_WORKER_THREAD: usize = 4;

/// The runtime of the program's tasks. `hands_on` says that they hand each request on from one to the next, as those
/// of client and node do a dozen times. With more threads than there is work for, each of these steps wakes another
/// thread, which takes longer than the step itself. Engines and files have threads of their own.
///
/// # Errors
/// Where the system starts no threads.
pub(crate) fn runtime(hands_on: bool) -> io::Result<Runtime> {
    let mut runtime = Builder::new_multi_thread();
    // Whoever sets tokio's own variable means it.
    if hands_on && std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        runtime.worker_threads(cores().div_ceil(CORES_PER_WORKER_THREAD));
    }
    runtime.enable_all().build()
}

/// Tells candle once how many threads there are: left alone it counts the cores at every matrix product, which takes
/// longer than a small product itself. To be called before any thread is started.
pub(crate) fn tell_candle() {
    const VARIABLE: &str = "RAYON_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none() {
        #[expect(
            unsafe_code,
            reason = "no other thread runs yet that could read the environment"
        )]
        // SAFETY: called first in `main`, before any thread is started.
        unsafe {
            std::env::set_var(VARIABLE, cores().to_string());
        }
    }
}

fn cores() -> usize {
    available_parallelism().map_or(1, NonZero::get)
}
