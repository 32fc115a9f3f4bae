//! Verifying signatures on all cores while the replay goes on.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::Problem;
use crate::entry::Entry;
use crate::journal::{self, Location};

/// How many entries a thread takes at once.
const BATCH_ENTRIES: usize = 256;
/// How many batches may wait.
const WAITING_BATCHES: usize = 8;

/// An entry to check, and where it is.
struct Job {
    entry: Entry,
    sequence: u64,
    location: Location,
}

/// What the threads found.
#[derive(Default)]
struct Found {
    verified: u64,
    problems: Vec<Problem>,
}

/// Threads that check entries as the writer did when it took them: bounds and signatures.
pub(super) struct Signatures {
    waiting: Vec<Job>,
    batches: Option<SyncSender<Vec<Job>>>,
    threads: Vec<JoinHandle<Found>>,
    journal: PathBuf,
    /// What was checked here, where there are no threads.
    found: Found,
}

impl Signatures {
    /// Starts a thread for each core. Without threads it works too.
    pub(super) fn begin(journal: &Path) -> Self {
        let (batches, waiting) = sync_channel(WAITING_BATCHES);
        let waiting = Arc::new(Mutex::new(waiting));
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let spawn = |_| {
            let (waiting, journal) = (Arc::clone(&waiting), journal.to_owned());
            let builder = std::thread::Builder::new().name("audit".into());
            builder.spawn(move || work(&waiting, &journal)).ok()
        };
        Self {
            waiting: Vec::new(),
            batches: Some(batches),
            threads: (0..cores).filter_map(spawn).collect(),
            journal: journal.to_owned(),
            found: Found::default(),
        }
    }

    pub(super) fn check(&mut self, entry: Entry, sequence: u64, location: Location) {
        self.waiting.push(Job {
            entry,
            sequence,
            location,
        });
        if self.waiting.len() >= BATCH_ENTRIES {
            self.send();
        }
    }

    fn send(&mut self) {
        let batch = std::mem::take(&mut self.waiting);
        let left = match &self.batches {
            Some(batches) if !self.threads.is_empty() => batches.send(batch).err().map(|error| error.0),
            _ => Some(batch),
        };
        if let Some(batch) = left {
            self.found.check(batch, &self.journal);
        }
    }

    /// Waits for what is going on: how many vouchers hold, and what does not.
    pub(super) fn finish(mut self) -> (u64, Vec<Problem>) {
        self.send();
        self.batches = None;
        for thread in self.threads {
            match thread.join() {
                Ok(found) => {
                    self.found.verified += found.verified;
                    self.found.problems.extend(found.problems);
                }
                Err(_) => self.found.problems.push(Problem {
                    file: self.journal.clone(),
                    offset: None,
                    sequence: None,
                    what: "the verification of signatures ended with an error of this program; audit again"
                        .into(),
                }),
            }
        }
        self.found.problems.sort_by_key(|problem| problem.sequence);
        (self.found.verified, self.found.problems)
    }
}

fn work(waiting: &Mutex<Receiver<Vec<Job>>>, journal: &Path) -> Found {
    let mut found = Found::default();
    loop {
        let received = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = received else {
            return found;
        };
        found.check(batch, journal);
    }
}

impl Found {
    fn check(&mut self, batch: Vec<Job>, journal: &Path) {
        for job in batch {
            let is_voucher = matches!(job.entry, Entry::Settle(_));
            match job.entry.check() {
                Ok(_) => self.verified += u64::from(is_voucher),
                Err(refusal) => self.problems.push(Problem {
                    file: journal::segment_path(journal, job.location.segment),
                    offset: Some(job.location.offset),
                    sequence: Some(job.sequence),
                    what: refusal.to_string(),
                }),
            }
        }
    }
}
