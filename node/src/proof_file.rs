//! Keeps the proofs of the node's receipts: that the coordinator's log has what each of them promises.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bincode::{Decode, Encode};
use gristmill_ledger::journal::{Journal, JournalError, JournalOptions, NewRecord, Records};
use gristmill_ledger::record::{CONTENT_MAX_BYTES, JournalKind};
use gristmill_protocol::codec;
use gristmill_protocol::identity::AccountId;

/// Tells a journal of proofs from others.
const KIND: JournalKind = *b"rcptprfs";

/// The proof of one receipt.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct KeptProof {
    /// The account of the log's first key.
    pub(crate) log: AccountId,
    /// The number of the record.
    pub(crate) sequence: u64,
    /// A C2SP tlog-proof with a checkpoint that this node found to be consistent.
    pub(crate) proof: String,
}

/// The proof file of a running node.
#[derive(Clone)]
pub(crate) struct ProofFile(Arc<Mutex<Journal>>);

impl ProofFile {
    /// Opens the file in `directory`, or begins one, and tells each proof in it.
    ///
    /// # Errors
    /// [`JournalError`] where the file is damaged, in use or can't be written.
    pub(crate) fn open(directory: &Path, take: impl FnMut(KeptProof)) -> Result<Self, JournalError> {
        let (journal, records) = Journal::open(directory, JournalOptions::new(KIND))?;
        for_each(records, take)?;
        Ok(Self(Arc::new(Mutex::new(journal))))
    }

    /// Writes proofs and syncs them. Blocks: call it where that is allowed.
    ///
    /// # Errors
    /// [`JournalError`] where the disk fails.
    pub(crate) fn keep(&self, proofs: &[KeptProof], now_ms: u64) -> Result<(), JournalError> {
        let batch: Vec<_> = proofs
            .iter()
            .map(|proof| NewRecord {
                time_ms: now_ms,
                content: codec::encode(proof),
            })
            .collect();
        let mut journal = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        journal.append_batch(&batch)?;
        journal.sync()
    }
}

/// Reads all proofs, by log and record, without disturbing whoever writes them. None where there is no file.
///
/// # Errors
/// [`JournalError`] where the file is damaged or unreadable.
pub(crate) fn read_proofs(directory: &Path) -> Result<BTreeMap<(AccountId, u64), String>, JournalError> {
    let mut proofs = BTreeMap::new();
    if directory.exists() {
        for_each(Records::read(directory, KIND)?, |kept| {
            proofs.insert((kept.log, kept.sequence), kept.proof);
        })?;
    }
    Ok(proofs)
}

fn for_each(records: Records, mut take: impl FnMut(KeptProof)) -> Result<(), JournalError> {
    for record in records {
        let (_, record) = record?;
        match codec::decode::<KeptProof, CONTENT_MAX_BYTES>(&record.content) {
            Ok(proof) => take(proof),
            // The checksum holds, so a later version of this program wrote it.
            Err(error) => {
                tracing::warn!(sequence = record.sequence, %error, "a record of the proof file is unknown");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;

    #[test]
    fn proofs_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("proofs");
        let log = Keypair::from_secret(&[1; 32]).account();
        let proof = |sequence: u64| KeptProof {
            log,
            sequence,
            proof: format!("proof {sequence}"),
        };
        assert!(read_proofs(&directory).unwrap().is_empty());
        let file = ProofFile::open(&directory, |_| panic!("there are none yet")).unwrap();
        file.keep(&[proof(3), proof(5)], 1).unwrap();
        assert_eq!(read_proofs(&directory).unwrap().len(), 2, "beside whoever writes");
        drop(file);
        let mut found = Vec::new();
        let file = ProofFile::open(&directory, |kept| found.push(kept)).unwrap();
        assert_eq!(found, [proof(3), proof(5)]);
        file.keep(&[proof(4)], 2).unwrap();
        let sequences: Vec<_> = read_proofs(&directory)
            .unwrap()
            .into_keys()
            .map(|(_, sequence)| sequence)
            .collect();
        assert_eq!(sequences, [3, 4, 5]);
    }
}
