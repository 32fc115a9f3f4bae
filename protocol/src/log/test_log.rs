//! A coordinator's log for tests, honest or not: whatever leaves it has, it signs for them.

use crate::credits::Credits;
use crate::identity::Keypair;
use crate::ids::ChannelId;
use crate::job::RequestId;
use crate::jws::{self, Audience};
use crate::log::checkpoint::{Checkpoint, LogKeys, SignedCheckpoint, origin_of};
use crate::log::extension::Extension;
use crate::log::hash::{LogHash, leaf_hash};
use crate::log::proof::InclusionProof;
use crate::log::virtual_tree::{defined_root, leaves, tiles_over};
use crate::tokens::ReceiptClaims;

/// Leaves, and the key that signs for them.
#[derive(Clone, Debug)]
pub(super) struct TestLog {
    pub(super) leaves: Vec<LogHash>,
    pub(super) origin: String,
    pub(super) signer: u8,
}

pub(super) fn keypair(name: u8) -> Keypair {
    Keypair::from_secret(&[name; 32])
}

impl TestLog {
    /// A log with so many leaves and the key 1.
    pub(super) fn new(size: u64) -> Self {
        Self {
            leaves: leaves(size),
            origin: origin_of(&keypair(1).account()),
            signer: 1,
        }
    }

    pub(super) fn keys(&self) -> LogKeys {
        LogKeys::new(keypair(1).account())
    }

    pub(super) fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn first(&self, size: u64) -> &[LogHash] {
        &self.leaves[..usize::try_from(size).unwrap()]
    }

    pub(super) fn root(&self, size: u64) -> LogHash {
        defined_root(self.first(size))
    }

    pub(super) fn checkpoint(&self, size: u64) -> SignedCheckpoint {
        let checkpoint = Checkpoint::new(&self.origin, size, self.root(size));
        SignedCheckpoint::sign(&checkpoint, &keypair(self.signer)).unwrap()
    }

    pub(super) fn extension(&self, old_size: u64, new_size: u64) -> Extension {
        Extension::build(old_size, new_size, tiles_over(self.first(new_size))).unwrap()
    }

    pub(super) fn inclusion(&self, index: u64, size: u64) -> InclusionProof {
        InclusionProof::build(index, size, tiles_over(self.first(size))).unwrap()
    }

    pub(super) fn leaf(&self, index: u64) -> LogHash {
        self.leaves[usize::try_from(index).unwrap()]
    }

    /// The receipt for the record of this number, from one.
    pub(super) fn receipt(&self, sequence: u64) -> String {
        let record_hash = self.leaf(sequence - 1).to_string();
        jws::sign(&receipt_claims(sequence, record_hash), &keypair(self.signer))
    }

    /// The same log with the leaf at this index changed.
    pub(super) fn with_changed(&self, index: u64) -> Self {
        let mut changed = self.clone();
        changed.leaves[usize::try_from(index).unwrap()] = leaf_hash(b"changed");
        changed
    }

    /// The same log without the leaf at this index.
    pub(super) fn with_dropped(&self, index: u64) -> Self {
        let mut changed = self.clone();
        changed.leaves.remove(usize::try_from(index).unwrap());
        changed
    }

    /// The same log with this leaf and the next one in each other's places.
    pub(super) fn with_reordered(&self, index: u64) -> Self {
        let mut changed = self.clone();
        let index = usize::try_from(index).unwrap();
        changed.leaves.swap(index, index + 1);
        changed
    }
}

/// What the key 1 says of a record.
pub(super) fn receipt_claims(sequence: u64, record_hash: String) -> ReceiptClaims {
    let account = |name| keypair(name).account();
    ReceiptClaims {
        iss: account(1),
        sub: account(2),
        aud: Audience::Many(vec![account(3), account(2)]),
        jti: format!("rcpt_{sequence}"),
        iat: 1_800_000_000,
        exp: ReceiptClaims::EXPIRES_AT,
        channel: ChannelId::from_bytes([4; 16]),
        consumer: account(3),
        settled: Credits::micro(382),
        paid: Credits::micro(382),
        fee: Credits::micro(7),
        request_id: RequestId::from_random([5; 16]),
        sequence,
        record_hash,
    }
}
