//! The one thread that writes: takes what is waiting, tries it on a draft, writes and syncs it together, and only
//! then lets anybody see it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use super::{PostError, Shared};
use crate::book::{Applied, ApplyError, BrokenInvariant, Changes};
use crate::entry::CheckedEntry;
use crate::index::IndexedEntry;
use crate::journal::{Journal, JournalError, NewRecord};
use crate::outcome::{Outcome, Posted};
use crate::record::record_hash;
use crate::refusal::Refusal;

/// What the handles ask of the writer.
pub(super) enum Command {
    /// Write this and answer.
    Post(Box<Post>),
    /// Take no more, finish what is waiting.
    Stop,
}

/// An entry to write.
pub(super) struct Post {
    pub(super) entry: CheckedEntry,
    pub(super) time_ms: u64,
    pub(super) answer: oneshot::Sender<Result<Answer, PostError>>,
}

/// How a post went that was not refused.
pub(super) enum Answer {
    /// It is in the journal.
    Now(Box<Posted>),
    /// It was in the journal under this sequence.
    Before(u64),
}

/// How the writer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriterState {
    /// At work.
    Running,
    /// It has given everything free.
    Ended,
    /// An error of this program ended it.
    Panicked,
}

/// What the book said to one post, as long as it is not on the disk.
enum Decision {
    /// It is the next of the new entries.
    New,
    Before(u64),
    Refused(Refusal),
}

/// A batch that the book has decided about.
struct Decided {
    decisions: Vec<Decision>,
    records: Vec<NewRecord>,
    outcomes: Vec<Outcome>,
    changes: Changes,
}

struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    commands: mpsc::Receiver<Command>,
    batch_entries: usize,
}

/// Starts the writer. The receiver says when it has ended.
pub(super) fn spawn(
    shared: Arc<Shared>,
    journal: Journal,
    commands: mpsc::Receiver<Command>,
    batch_entries: usize,
) -> io::Result<watch::Receiver<WriterState>> {
    let (state, watched) = watch::channel(WriterState::Running);
    let writer = Writer {
        shared: Arc::clone(&shared),
        journal,
        commands,
        batch_entries,
    };
    std::thread::Builder::new()
        .name("ledger-writer".into())
        .spawn(move || {
            // The writer is consumed, so the journal is closed before anybody hears that it is.
            let ended = catch_unwind(AssertUnwindSafe(|| writer.run())).is_ok();
            if !ended {
                shared.fail("the ledger's writer panicked".into());
            }
            shared.close_index();
            state.send_replace(if ended {
                WriterState::Ended
            } else {
                WriterState::Panicked
            });
        })?;
    Ok(watched)
}

impl Writer {
    fn run(mut self) {
        while let Some(command) = self.commands.blocking_recv() {
            let mut batch = Vec::new();
            self.take(command, &mut batch);
            while batch.len() < self.batch_entries
                && let Ok(command) = self.commands.try_recv()
            {
                self.take(command, &mut batch);
            }
            self.write(batch);
        }
    }

    fn take(&mut self, command: Command, batch: &mut Vec<Post>) {
        match command {
            Command::Post(post) => batch.push(*post),
            Command::Stop => self.commands.close(),
        }
    }

    fn write(&mut self, batch: Vec<Post>) {
        let answers = match self.shared.failure() {
            Some(reason) => Err(PostError::ReadOnly { reason }),
            None => self.commit(&batch),
        };
        // Whoever has stopped waiting will post again and be told then.
        match answers {
            Ok(answers) => batch.into_iter().zip(answers).for_each(|(post, answer)| {
                let _ = post.answer.send(answer);
            }),
            Err(error) => batch.into_iter().for_each(|post| {
                let _ = post.answer.send(Err(error.clone()));
            }),
        }
    }

    /// Brings a batch into the journal, onto the disk, and only then into the book. Refusals wait for the disk too:
    /// they may rest on an entry before them in the batch.
    fn commit(&mut self, batch: &[Post]) -> Result<Vec<Result<Answer, PostError>>, PostError> {
        let decided = self
            .decide(batch)
            .map_err(|error| self.shared.fail(error.to_string()))?;
        let Decided {
            decisions,
            records,
            outcomes,
            changes,
        } = decided;
        let mut entries = Vec::new();
        if !records.is_empty() {
            entries = self
                .persist(&records, outcomes)
                .map_err(|error| self.shared.fail(error.to_string()))?;
            let committed = self
                .shared
                .book
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .commit(changes);
            committed.map_err(|error| self.shared.fail(error.to_string()))?;
            self.shared.append_to_index(&entries);
        }
        let mut posted = entries.into_iter().map(|entry| entry.posted(false));
        let answer = |decision| match decision {
            Decision::Refused(refusal) => Err(PostError::Refused(refusal)),
            Decision::Before(sequence) => Ok(Answer::Before(sequence)),
            // There are as many entries as such decisions.
            Decision::New => posted
                .next()
                .map(|posted| Answer::Now(Box::new(posted)))
                .ok_or(PostError::Stopped),
        };
        Ok(decisions.into_iter().map(answer).collect())
    }

    fn decide(&self, batch: &[Post]) -> Result<Decided, BrokenInvariant> {
        let book = self.shared.book();
        let mut draft = book.draft();
        let mut decisions = Vec::with_capacity(batch.len());
        let mut records = Vec::new();
        let mut outcomes = Vec::new();
        for post in batch {
            decisions.push(match draft.apply(&post.entry, post.time_ms) {
                Ok(Applied::New { outcome, .. }) => {
                    records.push(NewRecord {
                        time_ms: post.time_ms,
                        content: post.entry.entry().encode(),
                    });
                    outcomes.push(outcome);
                    Decision::New
                }
                Ok(Applied::Before { sequence }) => Decision::Before(sequence),
                Err(ApplyError::Refused(refusal)) => Decision::Refused(refusal),
                Err(ApplyError::Broken(broken)) => return Err(broken),
            });
        }
        Ok(Decided {
            decisions,
            records,
            outcomes,
            changes: draft.finish(),
        })
    }

    fn persist(
        &mut self,
        records: &[NewRecord],
        outcomes: Vec<Outcome>,
    ) -> Result<Vec<IndexedEntry>, JournalError> {
        let first = self.journal.next_sequence();
        let locations = self.journal.append_batch(records)?;
        self.journal.sync()?;
        let placed = records.iter().zip(locations).zip(outcomes).zip(first..);
        Ok(placed
            .map(|(((record, location), outcome), sequence)| IndexedEntry {
                sequence,
                time_ms: record.time_ms,
                record_hash: record_hash(sequence, record.time_ms, &record.content),
                location,
                outcome,
            })
            .collect())
    }
}
