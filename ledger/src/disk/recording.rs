//! A disk that records everything that is done to a folder, so that a test can cut the power after each operation.
//!
//! ```text
//! run something on a RecordingDisk, which works on a real folder; `mark` what it acknowledged
//! for each PowerCut of recording().power_cuts(seed, states):
//!     write it into an empty folder, open what was run there, and compare with the cut's marks
//! ```

mod power_cut;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, DiskLock};

pub use power_cut::{PowerCut, PowerCuts, Survival};

/// A disk that does everything on another one, one operation at a time, and records it with its content. Clones are
/// the same disk.
#[derive(Clone, Debug)]
pub struct RecordingDisk {
    inner: Arc<dyn Disk>,
    root: PathBuf,
    recorder: Arc<Mutex<Recorder>>,
}

/// What was done to a folder, and what was there before.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The files that were there, which are taken for durable. Their numbers are their places here.
    before: Vec<(PathBuf, Vec<u8>)>,
    directories_before: Vec<PathBuf>,
    operations: Vec<Operation>,
}

/// A file, whatever name it has.
type FileNumber = usize;

/// Something that changed the folder or made changes durable. Paths are relative to the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Operation {
    CreateDirectory(PathBuf),
    Create {
        path: PathBuf,
        file: FileNumber,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
        file: FileNumber,
    },
    Remove {
        path: PathBuf,
    },
    SyncDirectory(PathBuf),
    Change {
        file: FileNumber,
        change: Change,
    },
    Sync(FileNumber),
    Mark(u64),
}

/// A change to a file's content or length.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    Zeros { offset: u64, bytes: u64 },
    Length(u64),
}

#[derive(Debug, Default)]
struct Recorder {
    recording: Recording,
    names: BTreeMap<PathBuf, FileNumber>,
    files: usize,
}

#[derive(Debug)]
struct RecordingFile {
    inner: Arc<dyn DiskFile>,
    file: FileNumber,
    recorder: Arc<Mutex<Recorder>>,
}

impl Recording {
    /// How often something was made durable: one sync of a file or directory each.
    #[must_use]
    pub fn syncs(&self) -> usize {
        let is_sync =
            |operation: &&Operation| matches!(operation, Operation::Sync(_) | Operation::SyncDirectory(_));
        self.operations.iter().filter(is_sync).count()
    }

    /// How many operations were recorded.
    #[must_use]
    pub const fn operations(&self) -> usize {
        self.operations.len()
    }

    /// What may be on the disk after the power was cut, for each place between two operations: nothing that was not
    /// synced, all of it, and of states in between `random_states` each, drawn from `seed`.
    #[must_use]
    pub fn power_cuts(&self, seed: u64, random_states: usize) -> PowerCuts<'_> {
        PowerCuts::of(self, seed, random_states)
    }
}

impl RecordingDisk {
    /// Records what is done through it to the folder `root`, which must exist.
    ///
    /// # Errors
    /// What the system said when what is in the folder was read.
    pub fn over(inner: Arc<dyn Disk>, root: &Path) -> io::Result<Self> {
        let mut recorder = Recorder::default();
        recorder.read_folder(root, Path::new(""))?;
        Ok(Self {
            inner,
            root: root.to_owned(),
            recorder: Arc::new(Mutex::new(recorder)),
        })
    }

    /// Notes a number among the operations, as what has been acknowledged now.
    pub fn mark(&self, number: u64) {
        self.recorder().record(Operation::Mark(number));
    }

    /// What was recorded so far.
    #[must_use]
    pub fn recording(&self) -> Recording {
        self.recorder().recording.clone()
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        locked(&self.recorder)
    }

    fn relative(&self, path: &Path) -> io::Result<PathBuf> {
        let outside = |_| io::Error::other(format!("{} is outside of what is recorded", path.display()));
        path.strip_prefix(&self.root).map(Path::to_owned).map_err(outside)
    }

    fn file(&self, inner: Arc<dyn DiskFile>, file: FileNumber) -> Arc<dyn DiskFile> {
        Arc::new(RecordingFile {
            inner,
            file,
            recorder: Arc::clone(&self.recorder),
        })
    }
}

impl Recorder {
    fn read_folder(&mut self, root: &Path, relative: &Path) -> io::Result<()> {
        for item in fs::read_dir(root.join(relative))? {
            let item = item?;
            let path = relative.join(item.file_name());
            if item.file_type()?.is_dir() {
                self.recording.directories_before.push(path.clone());
                self.read_folder(root, &path)?;
            } else {
                let content = fs::read(item.path())?;
                self.recording.before.push((path.clone(), content));
                let file = self.new_file();
                self.names.insert(path, file);
            }
        }
        Ok(())
    }

    fn new_file(&mut self) -> FileNumber {
        self.files += 1;
        self.files - 1
    }

    fn record(&mut self, operation: Operation) {
        self.recording.operations.push(operation);
    }

    /// The number of the file that was created or emptied under this name.
    fn create(&mut self, path: PathBuf) -> FileNumber {
        if let Some(file) = self.names.get(&path).copied() {
            let change = Change::Length(0);
            self.record(Operation::Change { file, change });
            return file;
        }
        let file = self.new_file();
        self.names.insert(path.clone(), file);
        self.record(Operation::Create { path, file });
        file
    }
}

impl Disk for RecordingDisk {
    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        let relative = self.relative(directory)?;
        let mut recorder = self.recorder();
        self.inner.create_directory(directory)?;
        recorder.record(Operation::CreateDirectory(relative));
        Ok(())
    }

    fn create(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let relative = self.relative(file)?;
        let mut recorder = self.recorder();
        let created = self.inner.create(file)?;
        let number = recorder.create(relative);
        drop(recorder);
        Ok(self.file(created, number))
    }

    fn open(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let relative = self.relative(file)?;
        let recorder = self.recorder();
        let opened = self.inner.open(file)?;
        let number = recorder.names.get(&relative).copied();
        drop(recorder);
        let unknown = || io::Error::other(format!("{} was not made through this disk", file.display()));
        Ok(self.file(opened, number.ok_or_else(unknown)?))
    }

    fn open_to_read(&self, file: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.open_to_read(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let names = (self.relative(from)?, self.relative(to)?);
        let mut recorder = self.recorder();
        self.inner.rename(from, to)?;
        let (from, to) = names;
        if let Some(file) = recorder.names.remove(&from) {
            recorder.names.insert(to.clone(), file);
            recorder.record(Operation::Rename { from, to, file });
        }
        Ok(())
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let path = self.relative(file)?;
        let mut recorder = self.recorder();
        self.inner.remove(file)?;
        recorder.names.remove(&path);
        recorder.record(Operation::Remove { path });
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let relative = self.relative(directory)?;
        let mut recorder = self.recorder();
        self.inner.sync_directory(directory)?;
        recorder.record(Operation::SyncDirectory(relative));
        Ok(())
    }

    /// Locks are not recorded: they end with the power.
    fn try_lock(&self, file: &Path) -> io::Result<Option<DiskLock>> {
        self.inner.try_lock(file)
    }

    fn is_locked(&self, file: &Path) -> io::Result<bool> {
        self.inner.is_locked(file)
    }
}

impl RecordingFile {
    fn change(&self, make: impl FnOnce() -> io::Result<()>, change: Change) -> io::Result<()> {
        let mut recorder = locked(&self.recorder);
        let made = make();
        let file = self.file;
        // A write that failed may have been done in part; what it can leave is what a power cut can leave too, if the
        // caller cuts it off before anything is synced. Recording it as done is the harder case.
        recorder.record(Operation::Change { file, change });
        made
    }

    fn sync(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut recorder = locked(&self.recorder);
        sync()?;
        recorder.record(Operation::Sync(self.file));
        Ok(())
    }
}

impl DiskFile for RecordingFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let change = Change::Write {
            offset,
            bytes: bytes.into(),
        };
        self.change(|| self.inner.write_at(offset, bytes), change)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, into)
    }

    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.change(|| self.inner.set_length(bytes), Change::Length(bytes))
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.change(
            || self.inner.allocate(offset, bytes),
            Change::Zeros { offset, bytes },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|| self.inner.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(|| self.inner.sync_all())
    }
}

fn locked(recorder: &Mutex<Recorder>) -> MutexGuard<'_, Recorder> {
    recorder.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn states(recording: &Recording, survival: Survival) -> Vec<BTreeMap<PathBuf, Vec<u8>>> {
        let cuts = recording.power_cuts(7, 600);
        cuts.filter(|cut| cut.survival == survival && cut.operations == recording.operations())
            .map(|cut| cut.files().clone())
            .collect()
    }

    fn files(expected: &[(&str, Vec<u8>)]) -> BTreeMap<PathBuf, Vec<u8>> {
        expected
            .iter()
            .map(|(name, content)| (PathBuf::from(name), content.clone()))
            .collect()
    }

    #[test]
    fn only_what_was_synced_survives_for_sure() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("before"), "b").unwrap();
        let disk = RecordingDisk::over(RealDisk::shared(), folder.path()).unwrap();
        let path = |name: &str| folder.path().join(name);
        let file = disk.create(&path("synced")).unwrap();
        file.write_at(0, &[1; 700]).unwrap();
        file.sync_data().unwrap();
        disk.sync_directory(folder.path()).unwrap();
        file.write_at(700, &[2; 700]).unwrap();
        let unnamed = disk.create(&path("unnamed")).unwrap();
        unnamed.write_at(0, &[3]).unwrap();
        unnamed.sync_all().unwrap();
        disk.remove(&path("before")).unwrap();

        let recording = disk.recording();
        let both = [vec![1; 700], vec![2; 700]].concat();
        assert_eq!(
            states(&recording, Survival::Nothing),
            [files(&[("before", vec![b'b']), ("synced", vec![1; 700])])]
        );
        assert_eq!(
            states(&recording, Survival::Everything),
            [files(&[("synced", both), ("unnamed", vec![3])])]
        );
        let lengths: Vec<usize> = states(&recording, Survival::Torn)
            .iter()
            .map(|state| state[Path::new("synced")].len())
            .collect();
        for length in [700, 1_024, 1_400] {
            assert!(lengths.contains(&length), "{length} is missing: {lengths:?}");
        }
        assert!(
            lengths.iter().all(|length| [700, 1_024, 1_400].contains(length)),
            "{lengths:?}"
        );
    }

    #[test]
    fn a_later_sector_can_survive_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RecordingDisk::over(RealDisk::shared(), folder.path()).unwrap();
        let file = disk.create(&folder.path().join("file")).unwrap();
        disk.sync_directory(folder.path()).unwrap();
        file.write_at(0, &[1; 512]).unwrap();
        file.write_at(512, &[2; 512]).unwrap();
        let states = states(&disk.recording(), Survival::Scattered);
        let of = |content: Vec<u8>| files(&[("file", content)]);
        for possible in [
            vec![],
            vec![1; 512],
            vec![0; 512],
            [vec![0; 512], vec![2; 512]].concat(),
            [vec![1; 512], vec![0; 512]].concat(),
            [vec![1; 512], vec![2; 512]].concat(),
        ] {
            assert!(states.contains(&of(possible.clone())), "{possible:?}");
        }
    }

    #[test]
    fn a_rename_survives_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let disk = RecordingDisk::over(RealDisk::shared(), folder.path()).unwrap();
        let path = |name: &str| folder.path().join(name);
        let old = disk.create(&path("name")).unwrap();
        old.write_at(0, b"old").unwrap();
        old.sync_all().unwrap();
        let new = disk.create(&path("new")).unwrap();
        new.write_at(0, b"new").unwrap();
        disk.sync_directory(folder.path()).unwrap();
        disk.rename(&path("new"), &path("name")).unwrap();
        let states = states(&disk.recording(), Survival::Scattered);
        let before = |content: &[u8]| files(&[("name", b"old".to_vec()), ("new", content.to_vec())]);
        let after = |content: &[u8]| files(&[("name", content.to_vec())]);
        let possible = [
            before(b""),
            before(b"new"),
            after(b""),
            after(b"new"),
            before(&[0; 3]),
            after(&[0; 3]),
        ];
        assert!(states.iter().all(|state| possible.contains(state)), "{states:?}");
        for expected in &possible[..4] {
            assert!(states.contains(expected), "{expected:?}");
        }
    }
}
