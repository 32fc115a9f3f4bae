//! The public side of a coordinator's ledger, checked over HTTP: nothing is believed that does not follow from
//! signatures of the log's keys.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use gristmill_ledger::disk::{Disk as _, RealDisk, write_file_durably};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::{LogKeys, SignedCheckpoint};
use gristmill_protocol::log::cosignature::cosigners;
use gristmill_protocol::log::evidence::Evidence;
use gristmill_protocol::log::extension::Extension;
use gristmill_protocol::log::frontier::{Frontier, tiles_for_frontier};
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::log::note::{NOTE_MAX_BYTES, SignedNote};
use gristmill_protocol::log::proof::{InclusionProof, tiles_for_consistency, tiles_for_inclusion};
use gristmill_protocol::log::receipt::{ReceiptStanding, check_receipt, tiles_for_receipt};
use gristmill_protocol::log::tile::{TILE_WIDTH, Tile};
use gristmill_protocol::log::tile_builder::TileBuilder;
use gristmill_protocol::log::tile_tree::TileTree;
use gristmill_protocol::tokens::ReceiptClaims;
use gristmill_transport::coordinator_client::CoordinatorClient;
use gristmill_transport::witness::{evidence_digest, evidence_directory, kept_checkpoint};
use serde::Serialize;

use crate::cli::random_bytes;

mod tiles;

use tiles::{FETCHES_AT_ONCE, Tiles};

/// How many random records are checked unless all tiles are.
const SAMPLED_RECORDS: u64 = 32;
/// How many of the newest receipts are checked unless all are.
const RECEIPTS_NEWEST: usize = 100;
/// Receipts of a page.
const RECEIPTS_PER_PAGE: usize = 100;
/// After how long a receipt's record has to be in the log.
const INTEGRATED_AFTER_MS: u64 = 60_000;
/// Where the checkpoints are kept that were verified here.
const SEEN_FOLDER: &str = "verified-logs";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PublicReport {
    /// Whether everything holds.
    pub(super) clean: bool,
    /// The name of the log.
    pub(super) origin: String,
    /// Whose key signs now.
    pub(super) signer: AccountId,
    /// How often the key was handed over.
    pub(super) handovers: usize,
    /// The newest checkpoint, where there is one that the log signed.
    pub(super) checkpoint: Option<CheckpointReport>,
    /// Whose cosignatures on it hold.
    pub(super) cosigners: Vec<Cosigner>,
    /// How many tiles were read.
    pub(super) tiles: u64,
    /// How many random records were checked; absent where all tiles were.
    pub(super) sampled_records: Option<u64>,
    /// How many records the checkpoint has that was seen before.
    pub(super) seen_before: Option<u64>,
    /// Receipts of this installation.
    pub(super) receipts: Option<ReceiptsReport>,
    /// What does not hold.
    pub(super) problems: Vec<String>,
    /// Evidence that was kept.
    pub(super) evidence: Vec<PathBuf>,
}

/// A checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct CheckpointReport {
    pub(super) size: u64,
    pub(super) root: LogHash,
}

/// Who cosigned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Cosigner {
    pub(super) account: AccountId,
    /// When, Unix seconds.
    pub(super) at_seconds: u64,
}

/// Receipts that were held against the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ReceiptsReport {
    /// How many are in it.
    pub(super) in_log: u64,
    /// How many are too new.
    pub(super) waiting: u64,
}

/// A check of one log.
pub(super) struct Verification<'a> {
    pub(super) client: &'a CoordinatorClient,
    pub(super) data_dir: &'a Path,
    pub(super) full: bool,
    pub(super) receipts: bool,
    pub(super) now_ms: u64,
}

impl Verification<'_> {
    /// Checks everything. An error says that it could not be checked, not that something is wrong.
    pub(super) async fn run(&self) -> anyhow::Result<PublicReport> {
        self.client.network().await?;
        let keys = self.client.log_keys().await?;
        let mut report = PublicReport {
            clean: false,
            origin: keys.origin().to_owned(),
            signer: *keys.newest(),
            handovers: keys.keys().len() - 1,
            checkpoint: None,
            cosigners: Vec::new(),
            tiles: 0,
            sampled_records: None,
            seen_before: None,
            receipts: None,
            problems: Vec::new(),
            evidence: Vec::new(),
        };
        let seen = self.seen(&keys)?;
        report.seen_before = seen.iter().map(SignedCheckpoint::size).max();
        if let Some(checkpoint) = self.checkpoint(&keys, &mut report).await? {
            self.check(&keys, &checkpoint, &seen, &mut report).await?;
            if report.problems.is_empty() {
                self.remember(&keys, &checkpoint)?;
            }
        }
        report.clean = report.problems.is_empty();
        Ok(report)
    }

    async fn checkpoint(
        &self,
        keys: &LogKeys,
        report: &mut PublicReport,
    ) -> anyhow::Result<Option<SignedCheckpoint>> {
        let note = match self.client.checkpoint().await {
            Ok(note) => note,
            Err(error) if error.code() == Some("not_found") => {
                if let Some(seen) = report.seen_before {
                    report.problems.push(format!(
                        "it shows no checkpoint, but one of {seen} records was seen before"
                    ));
                }
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        report.cosigners = cosigners(&note)
            .into_iter()
            .map(|(account, at_seconds)| Cosigner { account, at_seconds })
            .collect();
        match SignedCheckpoint::open(note, keys) {
            Ok(checkpoint) => {
                report.checkpoint = Some(CheckpointReport {
                    size: checkpoint.size(),
                    root: *checkpoint.root(),
                });
                Ok(Some(checkpoint))
            }
            Err(error) => {
                report.problems.push(error.to_string());
                Ok(None)
            }
        }
    }

    async fn check(
        &self,
        keys: &LogKeys,
        checkpoint: &SignedCheckpoint,
        seen: &[SignedCheckpoint],
        report: &mut PublicReport,
    ) -> anyhow::Result<()> {
        let mut tiles = Tiles::new(self.client);
        self.check_edge(checkpoint, &mut tiles, report).await?;
        for before in seen {
            self.check_history(keys, before, checkpoint, &mut tiles, report)
                .await?;
        }
        if self.full {
            check_all(checkpoint, &mut tiles, report).await?;
        } else {
            check_sample(checkpoint, &mut tiles, report).await?;
        }
        if self.receipts {
            self.check_receipts(keys, checkpoint, &mut tiles, report).await?;
        }
        report.tiles = tiles.fetched;
        Ok(())
    }

    /// The tiles on the right edge lead to the root.
    async fn check_edge(
        &self,
        checkpoint: &SignedCheckpoint,
        tiles: &mut Tiles<'_>,
        report: &mut PublicReport,
    ) -> anyhow::Result<()> {
        tiles.fetch(tiles_for_frontier(checkpoint.size())).await?;
        let frontier = Frontier::from_tiles(checkpoint.size(), |tile| tiles.get(tile))?;
        if frontier.root() != *checkpoint.root() {
            report.problems.push(format!(
                "its tiles lead to the root {}, but it signed {} for {} records",
                frontier.root(),
                checkpoint.root(),
                checkpoint.size()
            ));
        }
        Ok(())
    }

    /// The log goes on from what was seen before.
    async fn check_history(
        &self,
        keys: &LogKeys,
        before: &SignedCheckpoint,
        now: &SignedCheckpoint,
        tiles: &mut Tiles<'_>,
        report: &mut PublicReport,
    ) -> anyhow::Result<()> {
        if before.size() == now.size() {
            if before.root() != now.root() {
                let evidence = Evidence::two_roots(keys, before, now);
                self.convict(keys, evidence, report)?;
            }
            return Ok(());
        }
        let (old, new) = if before.size() < now.size() {
            (before, now)
        } else {
            report.problems.push(format!(
                "it shows {} records, but {} were seen before: it went back, or what answers is a stale copy",
                now.size(),
                before.size()
            ));
            (now, before)
        };
        let fetched = tiles
            .fetch(tiles_for_consistency(old.size(), new.size()))
            .await
            .and_then(|()| Ok(Extension::build(old.size(), new.size(), |tile| tiles.get(tile))?));
        let extension = match fetched {
            Ok(extension) => extension,
            // The tree of an earlier, larger size may well be gone with the history; the problem is told already.
            Err(_) if before.size() > now.size() => return Ok(()),
            Err(error) => return Err(error),
        };
        let roots = extension.roots()?;
        if roots.new == *new.root() && roots.old != *old.root() {
            let evidence = Evidence::not_an_extension(keys, old, new, extension);
            self.convict(keys, evidence, report)?;
        } else if roots.new != *new.root() {
            report.problems.push(format!(
                "its tiles do not show that its {} records go on from the {} that were seen before",
                new.size(),
                old.size()
            ));
        }
        Ok(())
    }

    async fn check_receipts(
        &self,
        keys: &LogKeys,
        checkpoint: &SignedCheckpoint,
        tiles: &mut Tiles<'_>,
        report: &mut PublicReport,
    ) -> anyhow::Result<()> {
        let mut counts = ReceiptsReport::default();
        let (mut before, mut looked_at) = (None, 0);
        loop {
            let page = self.client.receipts(before, RECEIPTS_PER_PAGE).await?;
            looked_at += page.receipts.len();
            for receipt in &page.receipts {
                self.check_receipt(receipt, keys, checkpoint, tiles, &mut counts, report)
                    .await?;
            }
            before = page.next;
            if before.is_none() || (!self.full && looked_at >= RECEIPTS_NEWEST) {
                break;
            }
        }
        report.receipts = Some(counts);
        Ok(())
    }

    async fn check_receipt(
        &self,
        receipt: &str,
        keys: &LogKeys,
        checkpoint: &SignedCheckpoint,
        tiles: &mut Tiles<'_>,
        counts: &mut ReceiptsReport,
        report: &mut PublicReport,
    ) -> anyhow::Result<()> {
        let own = self.client.account();
        let opened = keys
            .keys()
            .iter()
            .rev()
            .find_map(|key| ReceiptClaims::verify(receipt, key.account(), &own, self.now_ms).ok());
        let Some(claims) = opened else {
            report
                .problems
                .push("it gave a receipt that none of the log's keys has signed for this account".into());
            return Ok(());
        };
        tiles
            .fetch(tiles_for_receipt(claims.sequence, checkpoint.size()))
            .await?;
        match check_receipt(receipt, checkpoint, keys, |tile| tiles.get(tile))? {
            ReceiptStanding::InLog(_) => counts.in_log += 1,
            ReceiptStanding::NotYet if claims.iat * 1_000 + INTEGRATED_AFTER_MS > self.now_ms => {
                counts.waiting += 1;
            }
            ReceiptStanding::NotYet => report.problems.push(format!(
                "the record {} of a receipt is not in the log, a minute after it was given",
                claims.sequence
            )),
            ReceiptStanding::Broken(evidence) => self.convict(keys, *evidence, report)?,
        }
        Ok(())
    }

    /// Keeps evidence, once it convicts.
    fn convict(&self, keys: &LogKeys, evidence: Evidence, report: &mut PublicReport) -> anyhow::Result<()> {
        let lie = evidence.verify(keys)?;
        report.problems.push(lie.to_string());
        let folder = evidence_directory(self.data_dir);
        let name = format!("{}.json", evidence_digest(&evidence));
        let json = serde_json::to_vec_pretty(&evidence)?;
        RealDisk
            .create_directory(&folder)
            .and_then(|()| write_file_durably(&RealDisk, &folder, &name, &json))
            .with_context(|| format!("evidence can't be kept in {}", folder.display()))?;
        report.evidence.push(folder.join(name));
        Ok(())
    }

    fn seen_file(&self, keys: &LogKeys) -> (PathBuf, String) {
        (
            self.data_dir.join(SEEN_FOLDER),
            format!("{}.checkpoint", keys.first()),
        )
    }

    /// The checkpoints of this log that were verified here, and by the node or client of this installation.
    fn seen(&self, keys: &LogKeys) -> anyhow::Result<Vec<SignedCheckpoint>> {
        let (folder, name) = self.seen_file(keys);
        let file = folder.join(&name);
        let mut seen = Vec::new();
        match RealDisk.read(&file, NOTE_MAX_BYTES as u64) {
            Ok(bytes) => {
                let note: SignedNote = String::from_utf8(bytes)?
                    .parse()
                    .with_context(|| format!("{} is damaged; remove it to begin anew", file.display()))?;
                seen.push(SignedCheckpoint::open(note, keys)?);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
        seen.extend(kept_checkpoint(self.data_dir, keys)?.map(|kept| kept.checkpoint));
        Ok(seen)
    }

    fn remember(&self, keys: &LogKeys, checkpoint: &SignedCheckpoint) -> anyhow::Result<()> {
        let (folder, name) = self.seen_file(keys);
        let note = checkpoint.note().to_string();
        RealDisk
            .create_directory(&folder)
            .and_then(|()| write_file_durably(&RealDisk, &folder, &name, note.as_bytes()))
            .with_context(|| format!("the checkpoint can't be kept in {}", folder.display()))
    }
}

/// Random records are where the tree says.
async fn check_sample(
    checkpoint: &SignedCheckpoint,
    tiles: &mut Tiles<'_>,
    report: &mut PublicReport,
) -> anyhow::Result<()> {
    let size = checkpoint.size();
    let mut sample = BTreeSet::new();
    for _ in 0..SAMPLED_RECORDS.min(size) {
        sample.insert(u64::from_le_bytes(random_bytes()?) % size);
    }
    for index in &sample {
        tiles.fetch(tiles_for_inclusion(*index, size)).await?;
        tiles.fetch(tiles_for_receipt(index + 1, size)).await?;
        let leaf = TileTree::new(size, |tile| tiles.get(tile)).subtree(*index, index + 1)?;
        let proof = InclusionProof::build(*index, size, |tile| tiles.get(tile))?;
        if let Err(error) = proof.verify(&leaf, checkpoint.root()) {
            report
                .problems
                .push(format!("record {} does not lead to the root: {error}", index + 1));
        }
    }
    report.sampled_records = Some(u64::try_from(sample.len()).unwrap_or(u64::MAX));
    Ok(())
}

/// Every tile is what the leaves make it.
async fn check_all(
    checkpoint: &SignedCheckpoint,
    tiles: &mut Tiles<'_>,
    report: &mut PublicReport,
) -> anyhow::Result<()> {
    let size = checkpoint.size();
    let mut builder = TileBuilder::new();
    let bundles = size.div_ceil(u64::from(TILE_WIDTH));
    let wanted: Vec<u64> = (0..bundles).collect();
    for indices in wanted.chunks(FETCHES_AT_ONCE) {
        let level: Vec<Tile> = indices
            .iter()
            .filter_map(|index| Tile::in_tree(0, *index, size))
            .collect();
        tiles.fetch(level.iter().copied().collect()).await?;
        for tile in level {
            let bytes = tiles.get(tile)?;
            let mut leaves = tile.full().hashes(&bytes).or_else(|_| tile.hashes(&bytes))?;
            leaves.truncate(usize::from(tile.width()));
            let made = builder.append(leaves);
            for content in made.iter().filter(|content| content.tile.level() > 0) {
                // Partial tiles in between are of other sizes.
                if content.tile.is_partial() && builder.size() != size {
                    continue;
                }
                tiles.fetch(BTreeSet::from([content.tile])).await?;
                let mut shown = tiles.get(content.tile)?;
                shown.truncate(content.bytes.len());
                if shown != content.bytes {
                    report
                        .problems
                        .push(format!("{} has other hashes than its leaves make", content.tile));
                }
            }
            tiles.forget(tile);
        }
    }
    if builder.root() != *checkpoint.root() {
        report.problems.push(format!(
            "all its leaves together have the root {}, but it signed {}",
            builder.root(),
            checkpoint.root()
        ));
    }
    Ok(())
}
