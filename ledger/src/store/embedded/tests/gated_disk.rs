//! A disk whose syncs of the journal wait until a test lets them through, and take as long on the store's clock as the
//! test says, whatever they take on the machine's.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::disk::{Disk, DiskFile, DiskLock, RealDisk};
use crate::store::MonotonicClock;

#[derive(Debug, Default)]
struct Gate {
    is_closed: bool,
    /// How many syncs have come to the gate.
    came: usize,
    sync_takes: Duration,
    now: Duration,
}

/// The disk, and the clock of the store on it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct GatedDisk {
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn DiskFile>,
    disk: GatedDisk,
}

impl GatedDisk {
    fn change(&self, change: impl FnOnce(&mut Gate)) {
        change(&mut self.gate.0.lock().unwrap());
        self.gate.1.notify_all();
    }

    pub(super) fn close(&self) {
        self.change(|gate| gate.is_closed = true);
    }

    pub(super) fn open_gate(&self) {
        self.change(|gate| gate.is_closed = false);
    }

    pub(super) fn syncs_take(&self, duration: Duration) {
        self.change(|gate| gate.sync_takes = duration);
    }

    pub(super) fn came(&self) -> usize {
        self.gate.0.lock().unwrap().came
    }

    /// Waits until so many syncs have come to the gate, ever.
    pub(super) fn wait_for(&self, came: usize) {
        let gate = self.gate.0.lock().unwrap();
        let _gate = self.gate.1.wait_while(gate, |gate| gate.came < came).unwrap();
    }

    fn pass(&self) {
        self.change(|gate| gate.came += 1);
        let gate = self.gate.0.lock().unwrap();
        let mut gate = self.gate.1.wait_while(gate, |gate| gate.is_closed).unwrap();
        let takes = gate.sync_takes;
        gate.now += takes;
    }

    fn gated(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        let disk = self.clone();
        Ok(Arc::new(GatedFile { file: file?, disk }))
    }
}

impl MonotonicClock for GatedDisk {
    fn now(&self) -> Duration {
        self.gate.0.lock().unwrap().now
    }
}

impl Disk for GatedDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        RealDisk.create_directory(directory)
    }

    fn create(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.gated(RealDisk.create(file))
    }

    fn open(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.gated(RealDisk.open(file))
    }

    fn open_to_read(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open_to_read(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        RealDisk.remove(file)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        RealDisk.sync_directory(directory)
    }

    fn try_lock(&self, file: &Path) -> io::Result<Option<DiskLock>> {
        RealDisk.try_lock(file)
    }

    fn is_locked(&self, file: &Path) -> io::Result<bool> {
        RealDisk.is_locked(file)
    }
}

impl DiskFile for GatedFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, into)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.file.set_length(bytes)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.allocate(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.pass();
        self.file.sync_data()
    }

    /// Only batches of the journal are synced by `sync_data`.
    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}
