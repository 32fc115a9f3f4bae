//! One step of growth: see the order of things in [`crate::log`].

use gristmill_protocol::log::checkpoint::{Checkpoint, SignedCheckpoint};
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::note::SignedNote;
use gristmill_protocol::log::tile_builder::TileBuilder;

use super::Log;
use super::failure::{LogError, StepError};
use super::recheck::{read_back, recheck};
use crate::store::{LogWriteError, RECORDS_MAX, ReadError, Store, StoredCheckpoint};

/// Most records that one step takes. A ledger that was never in a log is integrated in steps of this size.
pub const STEP_RECORDS: u64 = 4_096;
/// How often the journal may fail to be read, one time after another, before the log halts: it may be that the system
/// is short of something for a moment, and it may be damage.
const JOURNAL_FAILURES_MAX: u32 = 20;

/// How far this process has come.
#[derive(Debug, Default)]
pub(super) struct Integrated {
    pub(super) builder: TileBuilder,
    journal_failures: u32,
}

impl Integrated {
    /// Whether to try again after this error.
    fn again(&mut self, error: &ReadError) -> bool {
        if matches!(error, ReadError::Journal { .. }) {
            self.journal_failures += 1;
        }
        self.journal_failures < JOURNAL_FAILURES_MAX
    }
}

/// What a call of [`Log::integrate`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Integration {
    /// How many records are in the log now, as far as this process knows.
    pub size: u64,
    /// How many of them this call put in.
    pub integrated: u64,
    /// Whether there are more already.
    pub more: bool,
}

impl Log {
    /// Puts the records behind the log's size into it, at most [`STEP_RECORDS`], and signs and publishes the new
    /// checkpoint. Does nothing where there are none. Dropping the future leaves nothing half done.
    ///
    /// # Errors
    /// [`LogError::Read`] and [`LogError::Write`] where the store can't be used now; [`LogError::Halted`] where
    /// something is wrong for good.
    pub async fn integrate(&self) -> Result<Integration, LogError> {
        let mut integrated = self.integrated.lock().await;
        if let Some(reason) = self.halted() {
            let reason = reason.to_owned();
            return Err(LogError::Halted { reason });
        }
        match self.step(&mut integrated.builder).await {
            Ok(integration) => {
                integrated.journal_failures = 0;
                Ok(integration)
            }
            Err(StepError::Damaged(reason)) => Err(self.halted_by(reason)),
            Err(StepError::Write(error)) => Err(LogError::Write(error)),
            Err(StepError::Read(error)) => match integrated.again(&error) {
                true => Err(LogError::Read(error)),
                false => Err(self.halted_by(error.to_string())),
            },
        }
    }

    fn halted_by(&self, reason: String) -> LogError {
        self.halt(reason.clone());
        LogError::Halted { reason }
    }

    async fn step(&self, builder: &mut TileBuilder) -> Result<Integration, StepError> {
        let size = builder.size();
        let newest = self.store.newest_checkpoint().await?;
        let ahead = match newest {
            Some(newest) if newest.size > size => Some(newest),
            other => {
                self.settle(builder, other).await?;
                None
            }
        };
        let records = self.store.head().await?.sequence;
        let reserved = ahead.as_ref().map_or(size, |ahead| ahead.size);
        if records < reserved {
            return Err(StepError::Damaged(format!(
                "the ledger has {records} records, but a checkpoint of {reserved} was signed or about to be: records \
                 are lost, or the store was restored from an old copy"
            )));
        }
        let goal = if ahead.is_some() { reserved } else { records };
        let end = goal.min((size / STEP_RECORDS + 1) * STEP_RECORDS);
        if end > size {
            self.grow(builder, end, ahead).await?;
        }
        Ok(Integration {
            size: builder.size(),
            integrated: builder.size() - size,
            more: builder.size() < records,
        })
    }

    /// Compares what is on record for this process's own size with what it has computed, and publishes it if whoever
    /// reserved it did not get to that.
    async fn settle(&self, builder: &TileBuilder, newest: Option<StoredCheckpoint>) -> Result<(), StepError> {
        let (size, root) = (builder.size(), builder.root());
        match newest {
            None if size == 0 => Ok(()),
            Some(newest) if (newest.size, newest.root) == (size, root) => self.publish(newest).await,
            Some(newest) if newest.size == size => Err(other_root(size, &newest.root, &root)),
            _ => Err(StepError::Damaged(format!(
                "the checkpoint of size {size} was reserved and is gone: the store was restored from an old copy"
            ))),
        }
    }

    /// Grows the log to `end`. Where another process has reserved a checkpoint further on, nothing is reserved on
    /// the way there, and the roots are compared on arrival.
    async fn grow(
        &self,
        builder: &mut TileBuilder,
        end: u64,
        ahead: Option<StoredCheckpoint>,
    ) -> Result<(), StepError> {
        let leaves = read_leaves(&*self.store, builder.size(), end).await?;
        let mut grown = builder.clone();
        let written = grown.append(leaves);
        recheck(&*self.store, builder, &grown, &written).await?;
        let tiles = written
            .iter()
            .map(|content| (content.tile, content.bytes.clone()));
        self.store.write_tiles(tiles.collect()).await?;
        read_back(&*self.store, &written).await?;
        let reserved = match ahead {
            Some(ahead) if ahead.size == end => Some(ahead),
            Some(_) => None,
            None => self.reserve(end, grown.root()).await?,
        };
        if let Some(reserved) = &reserved
            && reserved.root != grown.root()
        {
            return Err(other_root(end, &reserved.root, &grown.root()));
        }
        *builder = grown;
        self.tiles.keep(written);
        match reserved {
            Some(reserved) => self.publish(reserved).await,
            None => Ok(()),
        }
    }

    /// Reserves the root; `None` where another process has reserved one of a larger size in the meantime.
    async fn reserve(&self, size: u64, root: LogHash) -> Result<Option<StoredCheckpoint>, StepError> {
        match self.store.reserve_checkpoint(size, root).await {
            Ok(()) => Ok(Some(StoredCheckpoint {
                size,
                root,
                note: None,
            })),
            Err(error @ LogWriteError::OtherRoot { .. }) => match self.store.newest_checkpoint().await? {
                Some(newest) if newest.size > size => Ok(None),
                Some(newest) if newest.size == size => Ok(Some(newest)),
                _ => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Signs a reserved checkpoint and shows it to everybody, or takes over the note that another process published.
    async fn publish(&self, reserved: StoredCheckpoint) -> Result<(), StepError> {
        let StoredCheckpoint { size, root, note } = reserved;
        let known = self.recent().of_size(size);
        if let Some(note) = note {
            if known.is_some_and(|known| known.note().to_string() == note) {
                return Ok(());
            }
            self.announce(self.opened_note(&note, size, &root)?);
            return Ok(());
        }
        let checkpoint = Checkpoint::new(self.origin(), size, root);
        let signed = SignedCheckpoint::sign(&checkpoint, &self.signer.keypair)
            .map_err(|error| StepError::Damaged(format!("the checkpoint can't be signed: {error}")))?;
        self.store
            .publish_checkpoint(size, &signed.note().to_string())
            .await?;
        self.announce(signed);
        Ok(())
    }

    /// A note that another process published for a checkpoint that this one has computed too.
    fn opened_note(&self, note: &str, size: u64, root: &LogHash) -> Result<SignedCheckpoint, StepError> {
        let opened = note
            .parse::<SignedNote>()
            .map_err(Into::into)
            .and_then(|note| SignedCheckpoint::open(note, &self.signer.keys));
        match opened {
            Ok(checkpoint) if (checkpoint.size(), checkpoint.root()) == (size, root) => Ok(checkpoint),
            Ok(_) => Err(StepError::Damaged(format!(
                "the published note of size {size} names another size or root"
            ))),
            Err(error) => Err(StepError::Damaged(format!(
                "the published note of size {size}: {error}"
            ))),
        }
    }
}

fn other_root(size: u64, reserved: &LogHash, computed: &LogHash) -> StepError {
    StepError::Damaged(format!(
        "the root {reserved} is on record for size {size}, but the ledger's records lead to {computed}"
    ))
}

/// The leaf hashes of the records after `old_size` up to `new_size`, read from the store.
pub(super) async fn read_leaves(
    store: &dyn Store,
    old_size: u64,
    new_size: u64,
) -> Result<Vec<LogHash>, StepError> {
    let mut leaves = Vec::new();
    let mut next = old_size + 1;
    while next <= new_size {
        let wanted = usize::try_from(new_size + 1 - next).unwrap_or(RECORDS_MAX);
        let records = store.records(next, wanted.min(RECORDS_MAX)).await?;
        if records.is_empty() {
            return Err(StepError::Damaged(format!(
                "record {next} was in the ledger and can't be found"
            )));
        }
        for record in records {
            if record.sequence != next {
                let actual = record.sequence;
                return Err(StepError::Damaged(format!(
                    "record {actual} stands where record {next} should be"
                )));
            }
            leaves.push(record.hash());
            next += 1;
        }
        // Hashing takes a while; others have their turn.
        tokio::task::yield_now().await;
    }
    Ok(leaves)
}
