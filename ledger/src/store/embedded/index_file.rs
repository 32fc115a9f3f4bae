//! Opening the index beside the journal, or making it anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::record_reader::RecordReader;
use crate::disk::Disk;
use crate::index::{FileIndex, Index, IndexError, IndexHead};

/// How many entries go into the index at once while it is brought up to the journal.
pub(super) const APPENDED_AT_ONCE: usize = 1_024;

/// Where the index is.
#[derive(Clone, Debug)]
pub(super) struct IndexFile {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) directory: PathBuf,
    pub(super) records: Arc<RecordReader>,
}

impl IndexFile {
    /// Opens the index as it is, and says how far it goes.
    pub(super) fn open(&self) -> Result<(Box<dyn Index>, Option<IndexHead>), IndexError> {
        let records = Arc::clone(&self.records);
        let read_record = Box::new(move |location| records.read_at(location));
        let index = FileIndex::open(&self.disk, &self.directory, read_record)?;
        let head = index.head()?;
        Ok((Box::new(index), head))
    }

    /// Whether the journal has another record where the newest entry of the index is said to be. A record that is not
    /// there at all may be lost.
    pub(super) fn contradicts_journal(&self, head: IndexHead) -> bool {
        let record = self.records.read_at(head.location);
        record.is_ok_and(|record| record.sequence != head.sequence || record.hash() != head.record_hash)
    }

    /// Moves an index that is of no use aside, replacing the one that was moved before, and begins a new one.
    pub(super) fn make_anew(&self, reason: &str) -> Result<Box<dyn Index>, IndexError> {
        let aside = self.directory.with_extension("damaged");
        tracing::warn!(
            index = %self.directory.display(), moved_to = %aside.display(), reason, "rebuilding the ledger's index"
        );
        let moved =
            clear(&*self.disk, &aside).and_then(|()| gone_is_fine(self.disk.rename(&self.directory, &aside)));
        moved.map_err(|error| IndexError::Store(error.to_string()))?;
        Ok(self.open()?.0)
    }
}

/// Removes a file, or the files in a directory.
fn clear(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.list(path) {
        Ok(names) => names.iter().try_for_each(|name| disk.remove(&path.join(name))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => gone_is_fine(disk.remove(path)),
    }
}

fn gone_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
