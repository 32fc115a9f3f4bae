//! What may be on a disk after the power was cut.
//!
//! The model allows more than any file system does, so that what survives it survives them all: of what was not
//! synced, each sector of each file is there in any of its versions since the last sync, whatever happened to the
//! sectors before it; a file is as long as it was at any time since then, with zeros where nothing was written; and
//! each name that was made, changed or removed since its directory was synced is as before or as after.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Change, FileNumber, Operation, Recording};

/// What a disk writes as a whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A state that a disk may be in after the power was cut.
#[derive(Clone, Debug)]
pub struct PowerCut {
    /// How many operations were begun before.
    pub operations: usize,
    /// What of them was kept.
    pub survival: Survival,
    /// What had been marked before, in that order.
    pub marks: Vec<u64>,
    files: BTreeMap<PathBuf, Vec<u8>>,
    directories: BTreeSet<PathBuf>,
}

/// What of everything that was not synced survived a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// All of it.
    Everything,
    /// Everything up to an operation, and of that one the first sectors.
    Torn,
    /// Any sectors, any lengths and any names.
    Scattered,
}

impl PowerCut {
    /// Puts the files into a folder, which is emptied first.
    ///
    /// # Errors
    /// What the system said.
    pub fn write_into(&self, folder: &Path) -> io::Result<()> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        for directory in &self.directories {
            fs::create_dir_all(folder.join(directory))?;
        }
        for (path, content) in &self.files {
            fs::write(folder.join(path), content)?;
        }
        Ok(())
    }

    /// The files and what is in them.
    #[must_use]
    pub const fn files(&self) -> &BTreeMap<PathBuf, Vec<u8>> {
        &self.files
    }
}

/// The states of [`Recording::power_cuts`].
#[derive(Debug)]
pub struct PowerCuts<'recording> {
    recording: &'recording Recording,
    disk: CachedDisk,
    done: usize,
    random_states: usize,
    random: ChaCha8Rng,
    /// States after the operations done so far, the next one last.
    waiting: Vec<PowerCut>,
}

/// What is on the disk, and what is only on its way there.
#[derive(Debug, Default)]
struct CachedDisk {
    files: Vec<CachedFile>,
    names: BTreeMap<PathBuf, FileNumber>,
    waiting_names: Vec<(usize, NameChange)>,
    directories: BTreeSet<PathBuf>,
    marks: Vec<u64>,
}

#[derive(Debug, Default)]
struct CachedFile {
    synced: Vec<u8>,
    /// Changes since then, with the numbers of their operations.
    waiting: Vec<(usize, Change)>,
}

#[derive(Clone, Debug)]
enum NameChange {
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
}

impl<'recording> PowerCuts<'recording> {
    pub(super) fn of(recording: &'recording Recording, seed: u64, random_states: usize) -> Self {
        let mut disk = CachedDisk::default();
        for (path, content) in &recording.before {
            disk.names.insert(path.clone(), disk.files.len());
            disk.files.push(CachedFile {
                synced: content.clone(),
                waiting: Vec::new(),
            });
        }
        disk.directories
            .extend(recording.directories_before.iter().cloned());
        let mut cuts = Self {
            recording,
            disk,
            done: 0,
            random_states,
            random: ChaCha8Rng::seed_from_u64(seed),
            waiting: Vec::new(),
        };
        cuts.draw_states();
        cuts
    }

    /// Fills `waiting` with the states after the operations so far.
    fn draw_states(&mut self) {
        let cut = self.cut(Survival::Nothing);
        self.waiting.push(cut);
        if self.disk.unsynced().is_empty() {
            return;
        }
        for number in 0..self.random_states {
            let survival = if number % 2 == 0 {
                Survival::Torn
            } else {
                Survival::Scattered
            };
            let cut = self.cut(survival);
            self.waiting.push(cut);
        }
        let cut = self.cut(Survival::Everything);
        self.waiting.push(cut);
    }

    fn cut(&mut self, survival: Survival) -> PowerCut {
        let random = &mut self.random;
        let unsynced = self.disk.unsynced();
        // Where a torn state ends: at one of the operations that were not synced.
        let torn_at = match unsynced.len() {
            0 => 0,
            count => unsynced.get(random.random_range(0..count)).copied().unwrap_or(0),
        };
        let names = self.disk.names_after(survival, torn_at, random);
        let files = names
            .into_iter()
            .filter_map(|(path, file)| Some((path, self.disk.files.get(file)?)))
            .map(|(path, file)| (path, file.after(survival, torn_at, random)))
            .collect();
        PowerCut {
            operations: self.done,
            survival,
            marks: self.disk.marks.clone(),
            files,
            directories: self.disk.directories.clone(),
        }
    }
}

impl Iterator for PowerCuts<'_> {
    type Item = PowerCut;

    fn next(&mut self) -> Option<PowerCut> {
        loop {
            if let Some(cut) = self.waiting.pop() {
                return Some(cut);
            }
            let operation = self.recording.operations.get(self.done)?;
            self.disk.apply(self.done, operation);
            self.done += 1;
            self.draw_states();
        }
    }
}

impl CachedDisk {
    fn apply(&mut self, number: usize, operation: &Operation) {
        match operation {
            // The disk makes its name durable before it returns.
            Operation::CreateDirectory(path) => {
                let above = path.ancestors().filter(|path| !path.as_os_str().is_empty());
                self.directories.extend(above.map(Path::to_owned));
            }
            Operation::Create { path, file } => {
                self.files
                    .resize_with(self.files.len().max(file + 1), CachedFile::default);
                let (path, file) = (path.clone(), *file);
                self.waiting_names
                    .push((number, NameChange::Create { path, file }));
            }
            Operation::Rename { from, to, file } => {
                let (from, to, file) = (from.clone(), to.clone(), *file);
                self.waiting_names
                    .push((number, NameChange::Rename { from, to, file }));
            }
            Operation::Remove { path } => {
                let path = path.clone();
                self.waiting_names.push((number, NameChange::Remove { path }));
            }
            Operation::SyncDirectory(directory) => self.sync_directory(directory),
            Operation::Change { file, change } => {
                if let Some(file) = self.files.get_mut(*file) {
                    file.waiting.push((number, change.clone()));
                }
            }
            Operation::Sync(file) => {
                if let Some(file) = self.files.get_mut(*file) {
                    file.sync();
                }
            }
            Operation::Mark(mark) => self.marks.push(*mark),
        }
    }

    fn sync_directory(&mut self, directory: &Path) {
        for (number, change) in std::mem::take(&mut self.waiting_names) {
            if change.is_in(directory) {
                change.apply(&mut self.names);
            } else {
                self.waiting_names.push((number, change));
            }
        }
    }

    /// The operations that are not synced.
    fn unsynced(&self) -> Vec<usize> {
        let changes = self
            .files
            .iter()
            .flat_map(|file| &file.waiting)
            .map(|(number, _)| *number);
        changes
            .chain(self.waiting_names.iter().map(|(number, _)| *number))
            .collect()
    }

    fn names_after(
        &self,
        survival: Survival,
        torn_at: usize,
        random: &mut impl Rng,
    ) -> BTreeMap<PathBuf, FileNumber> {
        let mut names = self.names.clone();
        let share = random.random_range(0.0..=1.0);
        for (number, change) in &self.waiting_names {
            let is_kept = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Torn => *number < torn_at,
                Survival::Scattered => random.random_bool(share),
            };
            if is_kept {
                change.apply(&mut names);
            }
        }
        names
    }
}

impl NameChange {
    fn is_in(&self, directory: &Path) -> bool {
        match self {
            Self::Create { path, .. } | Self::Remove { path } => path.parent() == Some(directory),
            Self::Rename { to, .. } => to.parent() == Some(directory),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, FileNumber>) {
        match self {
            Self::Create { path, file } => {
                names.insert(path.clone(), *file);
            }
            Self::Rename { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
            Self::Remove { path } => {
                names.remove(path);
            }
        }
    }
}

impl CachedFile {
    fn sync(&mut self) {
        for (_, change) in std::mem::take(&mut self.waiting) {
            change.apply(&mut self.synced);
        }
    }

    fn after(&self, survival: Survival, torn_at: usize, random: &mut impl Rng) -> Vec<u8> {
        let mut content = self.synced.clone();
        match survival {
            Survival::Nothing => {}
            Survival::Everything => self
                .waiting
                .iter()
                .for_each(|(_, change)| change.apply(&mut content)),
            Survival::Torn => {
                for (number, change) in self.waiting.iter().filter(|(number, _)| *number <= torn_at) {
                    if *number < torn_at {
                        change.apply(&mut content);
                    } else {
                        change.apply_part(&mut content, random);
                    }
                }
            }
            Survival::Scattered => return self.scattered(random),
        }
        content
    }

    /// Every sector in any of its versions.
    fn scattered(&self, random: &mut impl Rng) -> Vec<u8> {
        let mut versions = vec![self.synced.clone()];
        for (_, change) in &self.waiting {
            let mut next = versions.last().cloned().unwrap_or_default();
            change.apply(&mut next);
            versions.push(next);
        }
        let newest = versions.len() - 1;
        let length = versions.get(random.random_range(0..=newest)).map_or(0, Vec::len);
        let share_of_newest = random.random_range(0.0..=1.0);
        let mut content = vec![0; length];
        for (index, sector) in content.chunks_mut(SECTOR_BYTES).enumerate() {
            let version = if random.random_bool(share_of_newest) {
                newest
            } else {
                random.random_range(0..=newest)
            };
            let from = versions
                .get(version)
                .and_then(|bytes| bytes.get(index * SECTOR_BYTES..));
            for (byte, kept) in sector.iter_mut().zip(from.unwrap_or_default()) {
                *byte = *kept;
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(content, size(*offset), bytes),
            Self::Zeros { offset, bytes } => write(content, size(*offset), &vec![0; size(*bytes)]),
            Self::Length(bytes) => content.resize(size(*bytes), 0),
        }
    }

    /// The change as far as its first sectors reached the disk. A length is changed or not.
    fn apply_part(&self, content: &mut Vec<u8>, random: &mut impl Rng) {
        let part = |offset: usize, bytes: usize, random: &mut dyn FnMut(usize) -> usize| {
            let sectors = (offset + bytes).div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES;
            let end = (offset / SECTOR_BYTES + random(sectors)) * SECTOR_BYTES;
            end.saturating_sub(offset).min(bytes)
        };
        let mut draw = |most: usize| random.random_range(0..=most);
        match self {
            Self::Write { offset, bytes } => {
                let kept = part(size(*offset), bytes.len(), &mut draw);
                write(content, size(*offset), bytes.get(..kept).unwrap_or_default());
            }
            Self::Zeros { offset, bytes } => {
                let kept = part(size(*offset), size(*bytes), &mut draw);
                write(content, size(*offset), &vec![0; kept]);
            }
            Self::Length(bytes) => {
                if draw(1) == 1 {
                    content.resize(size(*bytes), 0);
                }
            }
        }
    }
}

fn write(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if bytes.is_empty() {
        return;
    }
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(place) = content.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
