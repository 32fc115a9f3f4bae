//! A thread that makes the file of the next segment ready, so that nobody waits for that.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::files::Folder;
use crate::disk::DiskFile;

/// The making of the next segment's file. Dropping it waits for the thread and removes the file.
#[derive(Debug)]
pub(super) struct Preparation {
    folder: Folder,
    thread: Option<JoinHandle<io::Result<Arc<dyn DiskFile>>>>,
}

impl Preparation {
    /// Begins to make a file of `bytes` zeros.
    pub(super) fn begin(folder: &Folder, bytes: u64) -> Self {
        let for_thread = folder.clone();
        let make = move || {
            let file = for_thread.disk.create(&for_thread.next())?;
            file.allocate(0, bytes)?;
            file.sync_all()?;
            Ok(file)
        };
        let spawned = std::thread::Builder::new()
            .name("next-segment".into())
            .spawn(make);
        if let Err(error) = &spawned {
            tracing::debug!(%error, "the next segment is made when it is needed");
        }
        Self {
            folder: folder.clone(),
            thread: spawned.ok(),
        }
    }

    /// The file, if it could be made. Waits for the thread.
    pub(super) fn finish(mut self) -> Option<Arc<dyn DiskFile>> {
        match self.thread.take()?.join() {
            Ok(Ok(file)) => Some(file),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the next segment could not be made ready");
                // What there is of it may be what fills the disk.
                let _ = self.folder.disk.remove(&self.folder.next());
                None
            }
            Err(_) => None,
        }
    }
}

impl Drop for Preparation {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
            // Whoever opens the journal next does without it or overwrites it.
            let _ = self.folder.disk.remove(&self.folder.next());
        }
    }
}
