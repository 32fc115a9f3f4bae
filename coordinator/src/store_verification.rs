//! Checking a whole ledger through its store, whichever that is: replays every record, verifies every signature,
//! recomputes every balance, tile and root, and compares with what the store keeps.

use gristmill_ledger::Ledger;
use gristmill_ledger::book::{Applied, Book};
use gristmill_ledger::digest::Digest;
use gristmill_ledger::entry::Entry;
use gristmill_ledger::record::Record;
use gristmill_ledger::store::{RECORDS_MAX, ReadError, VerifyError};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::{LogKeys, SignedCheckpoint};
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::note::SignedNote;
use gristmill_protocol::log::tile_builder::TileBuilder;
use serde::Serialize;

use crate::signers::{Signers, SignersError};

/// Most problems that are told.
const PROBLEMS_MAX: usize = 100;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreReport {
    /// Whether there is no problem.
    pub clean: bool,
    /// Records that were replayed.
    pub records: u64,
    /// Voucher signatures that were verified.
    pub vouchers_verified: u64,
    /// The Merkle root over the records.
    pub root: LogHash,
    /// BLAKE3 over the state that they lead to.
    pub state_digest: Digest,
    /// Records of the newest reserved checkpoint.
    pub reserved: Option<u64>,
    /// Records of the newest published checkpoint.
    pub published: Option<u64>,
    /// Tiles that were compared.
    pub tiles: u64,
    /// Who signs for the ledger.
    pub signer: Option<AccountId>,
    /// What is wrong, the first hundred.
    pub problems: Vec<String>,
}

/// A size of the log with its root, to be compared once so many records were read.
struct Claim {
    size: u64,
    root: LogHash,
    what: &'static str,
}

/// Checks the ledger behind a store. `own` is whose key is here, if any. May be run while coordinators are at work:
/// what they add meanwhile is not part of it.
///
/// # Errors
/// [`ReadError`] where the store can't be read. What is wrong with what was read is in [`StoreReport::problems`].
pub async fn verify_store(ledger: &Ledger, own: Option<AccountId>) -> Result<StoreReport, ReadError> {
    let store = ledger.store();
    let reserved = store.newest_checkpoint().await?;
    let published = store.published_checkpoint().await?;
    let mut check = Check::default();
    match store.verify().await {
        Ok(()) => {}
        Err(VerifyError::Read(error)) => return Err(error),
        Err(error) => check.problem(error.to_string()),
    }
    let signers = match Signers::read(ledger).await {
        Ok(signers) => signers,
        Err(SignersError::Read(error)) => return Err(error),
        Err(error) => {
            check.problem(error.to_string());
            None
        }
    };
    if let (Some(signers), Some(own)) = (&signers, own)
        && let Err(error) = signers.check(own)
    {
        check.problem(error.to_string());
    }
    let claim = |size, root, what| Claim { size, root, what };
    let reserved_claim = reserved
        .as_ref()
        .map(|there| claim(there.size, there.root, "reserved"));
    let published_claim = published
        .as_ref()
        .map(|there| claim(there.size, there.root, "published"));
    check
        .claims
        .extend(reserved_claim.into_iter().chain(published_claim));
    check.tiles_of = published.as_ref().map_or(0, |published| published.size);
    let last = ledger.head().await?.sequence;
    check.replay(ledger, last).await?;
    if let (Some(signers), Some(note)) = (
        &signers,
        published.as_ref().and_then(|there| there.note.as_deref()),
    ) {
        check.note(note, signers);
    }
    let head = ledger.head().await?;
    let state_digest = check.book.digest();
    // Others may have added to the ledger meanwhile.
    if head.sequence == last {
        let kept = store.state_digest().await?;
        if kept != state_digest && ledger.head().await?.sequence == last {
            check.problem(format!(
                "the records lead to the state {state_digest}, the store keeps {kept}"
            ));
        }
    }
    Ok(StoreReport {
        clean: check.problems.is_empty(),
        records: check.builder.size(),
        vouchers_verified: check.vouchers_verified,
        root: check.builder.root(),
        state_digest,
        reserved: reserved.map(|there| there.size),
        published: published.map(|there| there.size),
        tiles: check.tiles,
        signer: signers.map(|signers| signers.now()),
        problems: check.problems,
    })
}

#[derive(Default)]
struct Check {
    book: Book,
    builder: TileBuilder,
    claims: Vec<Claim>,
    tiles_of: u64,
    tiles: u64,
    vouchers_verified: u64,
    problems: Vec<String>,
}

impl Check {
    fn problem(&mut self, what: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(what);
        }
    }

    async fn replay(&mut self, ledger: &Ledger, last: u64) -> Result<(), ReadError> {
        while self.builder.size() < last {
            let next = self.builder.size() + 1;
            let until = self.next_stop(last);
            let limit = usize::try_from(until + 1 - next)
                .unwrap_or(RECORDS_MAX)
                .min(RECORDS_MAX);
            let records = ledger.store().records(next, limit).await?;
            if records.is_empty() {
                self.problem(format!("record {next} is missing"));
                return Ok(());
            }
            for (record, expected) in records.iter().zip(next..) {
                if record.sequence != expected {
                    self.problem(format!(
                        "record {} stands where {expected} should be",
                        record.sequence
                    ));
                    return Ok(());
                }
                self.entry(record);
            }
            self.grow(ledger, &records).await?;
        }
        Ok(())
    }

    /// Records are read up to each size that has a root to compare.
    fn next_stop(&self, last: u64) -> u64 {
        let stops = self.claims.iter().map(|claim| claim.size);
        let ahead = stops.filter(|size| *size > self.builder.size());
        ahead.min().unwrap_or(last).min(last)
    }

    fn entry(&mut self, record: &Record) {
        let sequence = record.sequence;
        let entry = match Entry::decode_salted(&record.content) {
            Ok(entry) => entry,
            Err(error) => return self.problem(format!("record {sequence} is no entry: {error}")),
        };
        let is_settlement = matches!(entry, Entry::Settle(_));
        let checked = match entry.check() {
            Ok(checked) => checked,
            Err(refusal) => return self.problem(format!("record {sequence}: {refusal}")),
        };
        self.vouchers_verified += u64::from(is_settlement);
        match self.book.apply(&checked, record.time_ms) {
            Ok(Applied::New {
                sequence: applied, ..
            }) if applied == sequence => {}
            Ok(Applied::New {
                sequence: applied, ..
            }) => {
                self.problem(format!("record {sequence} is entry {applied}"));
            }
            Ok(Applied::Before { sequence: earlier }) => {
                self.problem(format!("record {sequence} repeats entry {earlier}"));
            }
            Err(error) => self.problem(format!("record {sequence} can't have happened: {error}")),
        }
    }

    /// Adds records to the tree, and compares tiles and roots.
    async fn grow(&mut self, ledger: &Ledger, records: &[Record]) -> Result<(), ReadError> {
        let tiles = self.builder.append(records.iter().map(Record::hash));
        let size = self.builder.size();
        for content in tiles {
            // Partial tiles are kept of sizes that were signed.
            if size > self.tiles_of || (content.tile.is_partial() && size != self.tiles_of) {
                continue;
            }
            self.tiles += 1;
            if ledger.store().read_tile(content.tile).await? != Some(content.bytes) {
                self.problem(format!("{} is missing or has other hashes", content.tile.path()));
            }
        }
        let root = self.builder.root();
        let differ: Vec<String> = self
            .claims
            .iter()
            .filter(|claim| claim.size == size && claim.root != root)
            .map(|claim| {
                let Claim {
                    size,
                    root: kept,
                    what,
                } = claim;
                format!("the first {size} records have the root {root}, but {kept} was {what}")
            })
            .collect();
        differ.into_iter().for_each(|what| self.problem(what));
        Ok(())
    }

    fn note(&mut self, note: &str, signers: &Signers) {
        let mut keys = LogKeys::new(signers.log());
        for handover in signers.handovers() {
            if let Err(error) = keys.follow(handover) {
                self.problem(error.to_string());
            }
        }
        let opened = note
            .parse::<SignedNote>()
            .map_err(|error| error.to_string())
            .and_then(|note| SignedCheckpoint::open(note, &keys).map_err(|error| error.to_string()));
        if let Err(reason) = opened {
            self.problem(format!("the published checkpoint: {reason}"));
        }
    }
}
