//! A store that watches the log at work over another one, dies where it is told to, and lies where it is told to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gristmill_ledger::book::{Balance, ChannelState, Head};
use gristmill_ledger::digest::Digest;
use gristmill_ledger::entry::CheckedEntry;
use gristmill_ledger::index::Selection;
use gristmill_ledger::outcome::Posted;
use gristmill_ledger::record::Record;
use gristmill_ledger::store::{
    LogWriteError, PostError, ReadError, ShutdownError, Store, StoredCheckpoint, VerifyError,
};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::note::SignedNote;
use gristmill_protocol::log::tile::Tile;

use super::{signer, true_roots};

/// When a process dies, as to the call that it dies at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    /// Of several tiles the first half is written.
    HalfWay,
    After,
}

/// Everything that was reserved and published through any spy that shares it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    reserved: Mutex<Vec<(u64, LogHash)>>,
    published: Mutex<Vec<(u64, String)>>,
}

impl Seen {
    pub(crate) fn published(&self) -> usize {
        self.published.lock().unwrap().len()
    }

    pub(crate) fn reserved(&self) -> Vec<(u64, LogHash)> {
        self.reserved.lock().unwrap().clone()
    }

    /// Nothing else than the records of the store was ever reserved or signed, and nothing was signed before it was
    /// reserved, and for each size the log signed one text with one signature.
    pub(crate) async fn assert_one_history(&self, store: &dyn Store) {
        let roots = true_roots(store).await;
        let root_of = |size: u64| roots[usize::try_from(size).unwrap()];
        let reserved = self.reserved();
        for (size, root) in &reserved {
            assert_eq!(*root, root_of(*size), "reserved for {size}");
        }
        let keys = signer();
        let mut by_size: BTreeMap<u64, String> = BTreeMap::new();
        for (size, note) in self.published.lock().unwrap().iter() {
            let note: SignedNote = note.parse().unwrap();
            note.verify(keys.verifier_key()).unwrap();
            let lines: Vec<&str> = note.text().lines().collect();
            assert_eq!(
                (lines[1], lines[2]),
                (&*size.to_string(), &*root_of(*size).to_base64())
            );
            assert!(
                reserved.contains(&(*size, root_of(*size))),
                "{size} was signed first"
            );
            let signature = note
                .signatures()
                .iter()
                .find(|line| line.is_by(keys.verifier_key()));
            let signed = format!("{}{}", note.text(), signature.unwrap());
            assert_eq!(by_size.entry(*size).or_insert_with(|| signed.clone()), &signed);
        }
    }
}

type OwnTiles = BTreeMap<(u8, u64), Vec<u8>>;
type RecordLie = Box<dyn Fn(usize, &mut Record) + Send + Sync>;
type TileLie = Box<dyn Fn(usize, Tile, &mut Vec<u8>) + Send + Sync>;

/// See the module.
pub(crate) struct Spy {
    inner: Arc<dyn Store>,
    pub(crate) seen: Arc<Seen>,
    death: Option<(usize, Moment)>,
    revived: AtomicBool,
    calls: AtomicUsize,
    record_reads: AtomicUsize,
    tile_reads: AtomicUsize,
    /// Is told how many reads of records came before.
    pub(crate) record_lie: Option<RecordLie>,
    /// Is told how many reads of tiles came before.
    pub(crate) tile_lie: Option<TileLie>,
    /// Hides all records after this one.
    pub(crate) sequence_max: Option<u64>,
    /// Tiles of its own, as if this process alone had another disk.
    pub(crate) own_tiles: Option<Mutex<OwnTiles>>,
}

impl Spy {
    pub(crate) fn new(inner: &Arc<dyn Store>, seen: &Arc<Seen>) -> Self {
        Self {
            inner: Arc::clone(inner),
            seen: Arc::clone(seen),
            death: None,
            revived: AtomicBool::new(false),
            calls: AtomicUsize::new(0),
            record_reads: AtomicUsize::new(0),
            tile_reads: AtomicUsize::new(0),
            record_lie: None,
            tile_lie: None,
            sequence_max: None,
            own_tiles: None,
        }
    }

    pub(crate) fn dying_at(inner: &Arc<dyn Store>, seen: &Arc<Seen>, call: usize, moment: Moment) -> Self {
        Self {
            death: Some((call, moment)),
            ..Self::new(inner, seen)
        }
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub(crate) fn tile_reads(&self) -> usize {
        self.tile_reads.load(Ordering::SeqCst)
    }

    /// From now on every call is made.
    pub(crate) fn revive(&self) {
        self.revived.store(true, Ordering::SeqCst);
    }

    /// When to die at this call; a dead process makes none.
    fn next(&self) -> Result<Option<Moment>, String> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.death.filter(|_| !self.revived.load(Ordering::SeqCst)) {
            Some((at, _)) if call > at => Err("dead".into()),
            Some((at, Moment::Before)) if call == at => Err("dies before".into()),
            Some((at, moment)) if call == at => Ok(Some(moment)),
            _ => Ok(None),
        }
    }

    fn to_read(&self) -> Result<(), ReadError> {
        match self.next() {
            Ok(None) => Ok(()),
            // Whether it dies before or after it has read makes no difference.
            Ok(Some(_)) | Err(_) => Err(ReadError::Unavailable {
                reason: "the process is dead".into(),
            }),
        }
    }

    fn to_write(&self) -> Result<Option<Moment>, LogWriteError> {
        self.next().map_err(dead)
    }
}

fn dead(reason: String) -> LogWriteError {
    LogWriteError::Unavailable { reason }
}

fn then(moment: Option<Moment>) -> Result<(), LogWriteError> {
    moment.map_or(Ok(()), |moment| Err(dead(format!("dies {moment:?}"))))
}

impl fmt::Debug for Spy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Spy").finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for Spy {
    async fn post(&self, entry: CheckedEntry, now_ms: u64) -> Result<Posted, PostError> {
        self.inner.post(entry, now_ms).await
    }

    async fn head(&self) -> Result<Head, ReadError> {
        self.to_read()?;
        self.inner.head().await
    }

    async fn balance(&self, account: &AccountId) -> Result<Balance, ReadError> {
        self.inner.balance(account).await
    }

    async fn channel(&self, channel: &ChannelId) -> Result<Option<ChannelState>, ReadError> {
        self.inner.channel(channel).await
    }

    async fn expired_channels(&self, now_ms: u64, limit: usize) -> Result<Vec<ChannelId>, ReadError> {
        self.inner.expired_channels(now_ms, limit).await
    }

    async fn posted(&self, sequence: u64) -> Result<Option<Posted>, ReadError> {
        self.inner.posted(sequence).await
    }

    async fn history(
        &self,
        account: &AccountId,
        selection: Selection,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Posted>, ReadError> {
        self.inner.history(account, selection, before, limit).await
    }

    async fn records(&self, first: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.to_read()?;
        let mut records = self.inner.records(first, limit).await?;
        records.retain(|record| record.sequence <= self.sequence_max.unwrap_or(u64::MAX));
        let read = self.record_reads.fetch_add(1, Ordering::SeqCst);
        if let Some(lie) = &self.record_lie {
            records.iter_mut().for_each(|record| lie(read, record));
        }
        Ok(records)
    }

    async fn state_digest(&self) -> Result<Digest, ReadError> {
        self.inner.state_digest().await
    }

    async fn verify(&self) -> Result<(), VerifyError> {
        self.inner.verify().await
    }

    async fn read_tile(&self, tile: Tile) -> Result<Option<Vec<u8>>, ReadError> {
        self.to_read()?;
        let mut bytes = match &self.own_tiles {
            None => self.inner.read_tile(tile).await?,
            Some(own) => {
                let own = own.lock().unwrap();
                let there = own.get(&(tile.level(), tile.index()));
                there
                    .and_then(|bytes| bytes.get(..tile.bytes()))
                    .map(<[u8]>::to_vec)
            }
        };
        let read = self.tile_reads.fetch_add(1, Ordering::SeqCst);
        if let (Some(lie), Some(bytes)) = (&self.tile_lie, &mut bytes) {
            lie(read, tile, bytes);
        }
        Ok(bytes)
    }

    async fn write_tiles(&self, mut tiles: Vec<(Tile, Vec<u8>)>) -> Result<(), LogWriteError> {
        let moment = self.to_write()?;
        if moment == Some(Moment::HalfWay) {
            tiles.truncate(tiles.len() / 2);
        }
        match &self.own_tiles {
            None => self.inner.write_tiles(tiles).await?,
            Some(own) => own.lock().unwrap().extend(
                tiles
                    .into_iter()
                    .map(|(tile, bytes)| ((tile.level(), tile.index()), bytes)),
            ),
        }
        then(moment)
    }

    async fn newest_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.to_read()?;
        self.inner.newest_checkpoint().await
    }

    async fn published_checkpoint(&self) -> Result<Option<StoredCheckpoint>, ReadError> {
        self.to_read()?;
        self.inner.published_checkpoint().await
    }

    async fn reserve_checkpoint(&self, size: u64, root: LogHash) -> Result<(), LogWriteError> {
        let moment = self.to_write()?;
        self.inner.reserve_checkpoint(size, root).await?;
        self.seen.reserved.lock().unwrap().push((size, root));
        then(moment)
    }

    async fn publish_checkpoint(&self, size: u64, note: &str) -> Result<(), LogWriteError> {
        // Whatever gets here was signed, and somebody may have seen it.
        self.seen.published.lock().unwrap().push((size, note.to_owned()));
        let moment = self.to_write()?;
        self.inner.publish_checkpoint(size, note).await?;
        then(moment)
    }

    fn read_only_reason(&self) -> Option<String> {
        self.inner.read_only_reason()
    }

    async fn shutdown(&self) -> Result<(), ShutdownError> {
        self.inner.shutdown().await
    }
}
