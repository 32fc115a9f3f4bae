//! Watching the coordinator: every node and client holds what its coordinator's log says now against all that it said
//! before and to others, and raises the alarm where that can't all be true.
//!
//! A witness keeps the newest checkpoint that it found to be consistent, looks at the log every few seconds, hears on
//! the mesh what others were shown, cosigns what holds, and proves the receipts of its account. What it decides is in
//! `watch` and in [`gristmill_protocol::log::witness`]; this fetches, keeps and tells.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::log::hash::LogHash;
use serde::Serialize;
use tokio::sync::{mpsc, watch as channel};

use crate::coordinator_client::CoordinatorClient;
use crate::mesh::{Clock, Mesh};

mod announcer;
mod checking;
mod driver;
mod files;
mod receipts;
mod report;
mod tiles;
mod waiting;
mod watch;

pub use announcer::announce;
pub use driver::WitnessDriver;
pub use files::{
    EVIDENCE_FILES_MAX, KeptCheckpoint, KeptEvidence, evidence_digest, evidence_directory, kept_checkpoint,
    kept_evidence,
};
pub use receipts::{MISSING_AFTER_MS, OwnReceipt, ProvedReceipt, RECEIPTS_WAITING_MAX};
pub use report::{LogReport, ReportError, report};

/// How often a witness looks at the log unless configured otherwise.
pub const POLL_EVERY: Duration = Duration::from_secs(10);
/// How often a witness cosigns at most.
pub const COSIGN_EVERY: Duration = Duration::from_secs(10);
/// Lists of receipts that may wait to be taken.
const RECEIPT_QUEUE: usize = 16;
/// Lists of proofs that may wait to be kept.
const PROOF_QUEUE: usize = 16;

/// How a witness works.
#[derive(Clone, Debug)]
pub struct WitnessConfig {
    /// Where it keeps the checkpoint and evidence.
    pub data_dir: PathBuf,
    /// Whether it offers its cosignatures to the coordinator.
    pub cosign: bool,
    /// How often it looks at the log, on average.
    pub poll_every: Duration,
    /// How often it looks whether something is due.
    pub tick: Duration,
}

impl WitnessConfig {
    /// The usual pace, with cosignatures.
    #[must_use]
    pub const fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            cosign: true,
            poll_every: POLL_EVERY,
            tick: Duration::from_secs(1),
        }
    }
}

/// What a witness knows and did, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WitnessStatus {
    /// Where the coordinator is.
    pub coordinator: String,
    /// The name of its log; none until it was met.
    pub log: Option<String>,
    /// The account whose key signs for the log now, as far as is known.
    pub signer: Option<AccountId>,
    /// The newest consistent checkpoint.
    pub checkpoint: Option<CheckpointStatus>,
    /// When the coordinator last showed a checkpoint, Unix milliseconds.
    pub shown_at_ms: Option<u64>,
    /// The newest checkpoint that this witness cosigned and the coordinator took.
    pub cosigned: Option<CosignedStatus>,
    /// A checkpoint for which the log does not show how it goes on.
    pub withheld: Option<WithheldStatus>,
    /// The receipts of this account.
    pub receipts: ReceiptStatus,
    /// How the log was caught lying. As long as there is one alarm, the coordinator is not trusted.
    pub alarms: Vec<Alarm>,
}

/// A consistent checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointStatus {
    /// How many records the log has.
    pub size: u64,
    /// The root over them.
    pub root: LogHash,
    /// When it was found to be consistent, Unix milliseconds.
    pub accepted_at_ms: u64,
}

/// A cosigned checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CosignedStatus {
    /// How many records the log has.
    pub size: u64,
    /// When it was cosigned, Unix milliseconds.
    pub at_ms: u64,
}

/// A checkpoint that the log signed and does not prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WithheldStatus {
    /// How many records the log has in it.
    pub size: u64,
    /// Since when it is not proved, Unix milliseconds.
    pub since_ms: u64,
}

/// How many receipts of this account are proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReceiptStatus {
    /// Proved since the start.
    pub proved: u64,
    /// Not proved yet.
    pub waiting: usize,
    /// Those among them that the log should have had for long.
    pub missing: usize,
}

/// A lie of the log, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// What the log did, for people.
    pub lie: String,
    /// SHA-256 over the evidence's binary form.
    pub evidence: String,
    /// The file with the evidence; none where it could not be written.
    pub file: Option<PathBuf>,
}

impl WitnessStatus {
    fn new(coordinator: String) -> Self {
        Self {
            coordinator,
            log: None,
            signer: None,
            checkpoint: None,
            shown_at_ms: None,
            cosigned: None,
            withheld: None,
            receipts: ReceiptStatus::default(),
            alarms: Vec::new(),
        }
    }

    /// Why the coordinator is not to be trusted with anything new; `None` where nothing speaks against it.
    #[must_use]
    pub fn distrust(&self) -> Option<String> {
        let alarm = self.alarms.first()?;
        let evidence = match &alarm.file {
            Some(file) => format!("the evidence is in {}", file.display()),
            None => format!("the evidence is {}", alarm.evidence),
        };
        Some(format!(
            "the coordinator's log was caught lying: {}; {evidence}",
            alarm.lie
        ))
    }
}

/// A handle on a witness. Clones share it.
#[derive(Clone, Debug)]
pub struct Witness {
    status: channel::Receiver<WitnessStatus>,
    receipts: mpsc::Sender<Vec<OwnReceipt>>,
}

/// What a witness is made of: its handle, what runs it, and the proofs of receipts that it brings.
#[derive(Debug)]
pub struct WitnessParts {
    /// The handle.
    pub witness: Witness,
    /// Runs it.
    pub driver: WitnessDriver,
    /// Proofs of the receipts handed in with [`Witness::prove`]. Nobody has to read them.
    pub proofs: mpsc::Receiver<Vec<ProvedReceipt>>,
}

impl WitnessParts {
    /// A witness of the coordinator that a client calls, with a mesh peer that hears what others were shown.
    #[must_use]
    pub fn new(
        client: Arc<CoordinatorClient>,
        mesh: Mesh,
        keypair: Keypair,
        clock: Clock,
        config: WitnessConfig,
    ) -> Self {
        let (status_sender, status) = channel::channel(WitnessStatus::new(client.url()));
        let (receipts, receipts_received) = mpsc::channel(RECEIPT_QUEUE);
        let (proofs_sender, proofs) = mpsc::channel(PROOF_QUEUE);
        let driver = WitnessDriver {
            client,
            mesh,
            keypair,
            clock,
            config,
            status: status_sender,
            receipts: receipts_received,
            proofs: proofs_sender,
        };
        Self {
            witness: Witness { status, receipts },
            driver,
            proofs,
        }
    }
}

impl Witness {
    /// What the witness knows and did.
    #[must_use]
    pub fn status(&self) -> WitnessStatus {
        self.status.borrow().clone()
    }

    /// Follows what the witness knows and did.
    #[must_use]
    pub fn changes(&self) -> channel::Receiver<WitnessStatus> {
        self.status.clone()
    }

    /// Why the coordinator is not to be trusted with anything new; `None` where nothing speaks against it.
    #[must_use]
    pub fn distrust(&self) -> Option<String> {
        self.status.borrow().distrust()
    }

    /// Has receipts of this account proved. Those that find no place among [`RECEIPTS_WAITING_MAX`] are dropped.
    /// Without effect once the witness has ended.
    pub async fn prove(&self, receipts: Vec<OwnReceipt>) {
        // Whoever ended the witness wants no proofs any more.
        let _ = self.receipts.send(receipts).await;
    }
}
