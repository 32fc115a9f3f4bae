//! What witnesses of an installation have found so far, read from their files, whether or not one runs.

use std::io;
use std::path::Path;

use gristmill_protocol::identity::AccountId;
use serde::Serialize;
use thiserror::Error;

use super::files::{evidence_digest, kept_checkpoint, kept_evidence};
use super::{Alarm, CheckpointStatus};
use crate::coordinator_client::{KnownKeysError, all_known_keys};

/// What is known of one log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// The name of the log.
    pub log: String,
    /// The account whose key signs for it, as far as is known.
    pub signer: AccountId,
    /// The newest consistent checkpoint.
    pub checkpoint: Option<CheckpointStatus>,
    /// How the log was caught lying.
    pub alarms: Vec<Alarm>,
}

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The keys of coordinators can't be read.
    #[error(transparent)]
    KnownKeys(#[from] KnownKeysError),
    /// A file can't be read.
    #[error("what the witness keeps can't be read: {0}")]
    Io(#[from] io::Error),
}

/// What is known of every log whose coordinator this installation has met.
///
/// # Errors
/// [`ReportError`] where files can't be read.
pub fn report(data_dir: &Path) -> Result<Vec<LogReport>, ReportError> {
    let evidence = kept_evidence(data_dir)?;
    let mut logs = Vec::new();
    for known in all_known_keys(data_dir)? {
        let keys = known.keys();
        let alarms = evidence.iter().filter_map(|kept| {
            let lie = kept.evidence.verify(keys).ok()?;
            Some(Alarm {
                lie: lie.to_string(),
                evidence: evidence_digest(&kept.evidence),
                file: Some(kept.path.clone()),
            })
        });
        logs.push(LogReport {
            log: keys.origin().to_owned(),
            signer: *keys.newest(),
            checkpoint: kept_checkpoint(data_dir, keys)?
                .as_ref()
                .map(CheckpointStatus::of),
            alarms: alarms.collect(),
        });
    }
    // Two addresses may lead to one coordinator.
    logs.sort_by(|one: &LogReport, other| one.log.cmp(&other.log));
    logs.dedup();
    Ok(logs)
}
