//! The machine's disk with a clock at its side, so that a slow acknowledgement is told apart from a slow disk.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gristmill_ledger::disk::{Disk, DiskFile, DiskLock, RealDisk};

use super::super::report::quantile;

/// The ledger answers within this, or says that it is overloaded.
const STALL_MS: f64 = 5.0;

/// How long the disk took for what it was asked.
#[derive(Debug, Default)]
struct Times {
    syncs_ms: Vec<f64>,
    slowest_write_ms: f64,
    stalled_ms: f64,
}

/// What the disk did in a stretch of time.
pub(super) struct DiskFigures {
    pub(super) syncs: usize,
    pub(super) sync_p50_ms: f64,
    pub(super) sync_p99_ms: f64,
    pub(super) slowest_sync_ms: f64,
    /// Of writing into the page cache; the disk can hold that up too.
    pub(super) slowest_write_ms: f64,
    /// The sum of all syncs and writes that took longer than the ledger has for an answer.
    pub(super) stalled_ms: f64,
}

/// [`RealDisk`], timed.
#[derive(Clone, Debug)]
pub(super) struct TimedDisk {
    inner: Arc<dyn Disk>,
    times: Arc<Mutex<Times>>,
}

impl TimedDisk {
    pub(super) fn new() -> Self {
        Self {
            inner: RealDisk::shared(),
            times: Arc::default(),
        }
    }

    /// What it did since this was asked last.
    pub(super) fn take(&self) -> DiskFigures {
        let times = std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner));
        DiskFigures {
            syncs: times.syncs_ms.len(),
            sync_p50_ms: quantile(&times.syncs_ms, 0.5),
            sync_p99_ms: quantile(&times.syncs_ms, 0.99),
            slowest_sync_ms: times.syncs_ms.iter().copied().fold(0.0, f64::max),
            slowest_write_ms: times.slowest_write_ms,
            stalled_ms: times.stalled_ms,
        }
    }

    fn timed(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TimedFile {
            inner: file,
            times: Arc::clone(&self.times),
        })
    }
}

impl Disk for TimedDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        self.inner.create_directory(directory)
    }

    fn create(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.timed(self.inner.create(file)?))
    }

    fn open(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.timed(self.inner.open(file)?))
    }

    fn open_to_read(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.open_to_read(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        self.inner.remove(file)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.inner.sync_directory(directory)
    }

    fn try_lock(&self, file: &Path) -> io::Result<Option<DiskLock>> {
        self.inner.try_lock(file)
    }

    fn is_locked(&self, file: &Path) -> io::Result<bool> {
        self.inner.is_locked(file)
    }
}

#[derive(Debug)]
struct TimedFile {
    inner: Arc<dyn DiskFile>,
    times: Arc<Mutex<Times>>,
}

impl TimedFile {
    fn time(
        &self,
        operation: impl FnOnce() -> io::Result<()>,
        note: impl FnOnce(&mut Times, f64),
    ) -> io::Result<()> {
        let started = Instant::now();
        let done = operation();
        let took_ms = started.elapsed().as_secs_f64() * 1e3;
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        if took_ms > STALL_MS {
            times.stalled_ms += took_ms;
        }
        note(&mut times, took_ms);
        done
    }
}

impl DiskFile for TimedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.time(
            || self.inner.write_at(offset, bytes),
            |times, took_ms| times.slowest_write_ms = times.slowest_write_ms.max(took_ms),
        )
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, into)
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_length(bytes)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.inner.allocate(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.time(
            || self.inner.sync_data(),
            |times, took_ms| times.syncs_ms.push(took_ms),
        )
    }

    fn sync_all(&self) -> io::Result<()> {
        self.time(
            || self.inner.sync_all(),
            |times, took_ms| times.syncs_ms.push(took_ms),
        )
    }
}
