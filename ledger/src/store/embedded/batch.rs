//! Posts that the book has decided about together, on their way to the disk.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::salts::Salts;
use super::writer::{Answer, Post};
use crate::book::{Applied, ApplyError, Book, BrokenInvariant, Changes};
use crate::index::IndexedEntry;
use crate::journal::{Location, NewRecord};
use crate::record::record_hash;
use crate::refusal::Refusal;
use crate::store::PostError;

/// What the book said to one post.
enum Decision {
    /// It is the new entry at this place of the batch.
    New(usize),
    /// It, or one that went further, took effect under this sequence.
    Before(u64),
    Refused(Refusal),
}

/// Posts that the book has decided about, none of them answered.
pub(super) struct Batch {
    waiting: Vec<(oneshot::Sender<Result<Answer, PostError>>, Decision)>,
    /// Their locations are not known yet.
    entries: Vec<IndexedEntry>,
    pub(super) changes: Changes,
}

/// Why a post could not even be decided about.
pub(super) enum DecideError {
    /// The book contradicts itself.
    Broken(BrokenInvariant),
    /// There is no randomness.
    NoSalt(String),
}

impl Batch {
    /// An empty batch, to be committed to the state that `changes` follow.
    pub(super) const fn new(changes: Changes) -> Self {
        Self {
            waiting: Vec::new(),
            entries: Vec::new(),
            changes,
        }
    }

    /// How many posts it has.
    pub(super) const fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether anything has to be written.
    pub(super) const fn has_entries(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Decides about posts until `is_enough`, after at least one. `before` is what will be committed before this
    /// batch.
    pub(super) fn decide(
        &mut self,
        book: &Book,
        before: Option<&Changes>,
        posts: &mut impl Iterator<Item = Post>,
        records: &mut Vec<NewRecord>,
        salts: &mut Salts,
        is_enough: impl Fn(usize) -> bool,
    ) -> Result<(), DecideError> {
        let changes = std::mem::replace(&mut self.changes, book.no_changes());
        let mut draft = book.draft_from(before, changes);
        let mut decided = Ok(());
        for post in posts {
            let decision = match draft.apply(&post.entry, post.time_ms) {
                Ok(Applied::New { sequence, outcome }) => match salts.next() {
                    Ok(salt) => {
                        let content = post.entry.entry().encode_salted(&salt);
                        let record_hash = record_hash(sequence, post.time_ms, &content);
                        let time_ms = post.time_ms;
                        records.push(NewRecord { time_ms, content });
                        let location = Location {
                            segment: 0,
                            offset: 0,
                            bytes: 0,
                        };
                        self.entries.push(IndexedEntry {
                            sequence,
                            time_ms,
                            record_hash,
                            location,
                            outcome,
                        });
                        Decision::New(self.entries.len() - 1)
                    }
                    Err(reason) => {
                        decided = Err(DecideError::NoSalt(reason));
                        break;
                    }
                },
                Ok(Applied::Before { sequence }) => Decision::Before(sequence),
                Err(ApplyError::Refused(refusal)) => Decision::Refused(refusal),
                Err(ApplyError::Broken(broken)) => {
                    decided = Err(DecideError::Broken(broken));
                    break;
                }
            };
            self.waiting.push((post.answer, decision));
            if is_enough(self.waiting.len()) {
                break;
            }
        }
        self.changes = draft.finish();
        decided
    }

    /// What is to be shown once this is committed: the entries where they were written.
    pub(super) fn written(&mut self, locations: &[Location]) -> Arc<Vec<IndexedEntry>> {
        let mut entries = std::mem::take(&mut self.entries);
        for (entry, location) in entries.iter_mut().zip(locations) {
            entry.location = *location;
        }
        Arc::new(entries)
    }

    /// Answers everybody. `entries` is what [`Batch::written`] gave.
    pub(super) fn answer(self, entries: &Arc<Vec<IndexedEntry>>) {
        for (answer, decision) in self.waiting {
            // Whoever has stopped waiting will post again and be told then.
            let _ = answer.send(match decision {
                Decision::New(place) => Ok(Answer::Now(Arc::clone(entries), place)),
                Decision::Before(sequence) => Ok(Answer::Before(sequence)),
                Decision::Refused(refusal) => Err(PostError::Refused(refusal)),
            });
        }
    }

    /// Answers everybody that it did not happen. Refusals too: they may rest on an entry before them in the batch.
    pub(super) fn fail(self, error: &PostError) {
        for (answer, _) in self.waiting {
            let _ = answer.send(Err(error.clone()));
        }
    }
}
