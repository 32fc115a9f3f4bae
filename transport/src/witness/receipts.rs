//! Own receipts that are not proved yet: whether the log has what the coordinator promised.

use std::collections::BTreeMap;

use gristmill_protocol::log::checkpoint::SignedCheckpoint;
use gristmill_protocol::log::evidence::Evidence;

/// Most receipts that wait for their proofs.
pub const RECEIPTS_WAITING_MAX: usize = 10_000;
/// How long the log may lack a record that the coordinator gave a receipt for, in milliseconds, while it answers.
pub const MISSING_AFTER_MS: u64 = 60_000;
/// Most receipts that are checked together.
const BATCH_MAX: usize = 256;
/// How long after a check that failed the same receipts are checked again, in milliseconds.
const RETRY_AFTER_MS: u64 = 5_000;

/// A receipt of this account, as the coordinator signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnReceipt {
    /// The number of the record, from one.
    pub sequence: u64,
    /// The compact JWS.
    pub token: String,
}

/// A receipt and the proof that the log has its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedReceipt {
    /// The number of the record, from one.
    pub sequence: u64,
    /// The proof, a C2SP tlog-proof with the checkpoint that this witness accepted.
    pub proof: String,
}

/// What a check of a receipt found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReceiptFound {
    /// The log has the record.
    Proved(ProvedReceipt),
    /// The log has another record in its place.
    Broken(Box<Evidence>),
    /// It could not be found out for now.
    Unknown,
    /// It is not a receipt of this log.
    Foreign,
}

#[derive(Debug)]
struct Waiting {
    token: String,
    /// Since when the coordinator shows a log without it, without a break, Unix milliseconds.
    lacking_since_ms: Option<u64>,
    is_missing: bool,
    retry_at_ms: u64,
}

/// The receipts that wait, and the check that is under way.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    waiting: BTreeMap<u64, Waiting>,
    checking: bool,
    proved: u64,
}

impl Receipts {
    pub(super) fn add(&mut self, receipt: OwnReceipt) {
        if self.waiting.len() < RECEIPTS_WAITING_MAX {
            self.waiting.entry(receipt.sequence).or_insert(Waiting {
                token: receipt.token,
                lacking_since_ms: None,
                is_missing: false,
                retry_at_ms: 0,
            });
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) const fn proved(&self) -> u64 {
        self.proved
    }

    /// How many the log lacks although it should have had them for long.
    pub(super) fn missing(&self) -> usize {
        self.waiting.values().filter(|waiting| waiting.is_missing).count()
    }

    /// The coordinator showed a log of this size. Returns the records that it has lacked for too long since now.
    pub(super) fn shown(&mut self, size: u64, now_ms: u64) -> Vec<u64> {
        let mut missing = Vec::new();
        for (sequence, waiting) in &mut self.waiting {
            if *sequence <= size {
                waiting.lacking_since_ms = None;
                waiting.is_missing = false;
                continue;
            }
            let since_ms = *waiting.lacking_since_ms.get_or_insert(now_ms);
            if !waiting.is_missing && now_ms.saturating_sub(since_ms) >= MISSING_AFTER_MS {
                waiting.is_missing = true;
                missing.push(*sequence);
            }
        }
        missing
    }

    /// The coordinator did not show its log: it may be down, and its log with it.
    pub(super) fn not_shown(&mut self) {
        for waiting in self.waiting.values_mut().filter(|waiting| !waiting.is_missing) {
            waiting.lacking_since_ms = None;
        }
    }

    /// What to check against this checkpoint now, if no check is under way.
    pub(super) fn next_check(&mut self, checkpoint: &SignedCheckpoint, now_ms: u64) -> Vec<OwnReceipt> {
        if self.checking {
            return Vec::new();
        }
        let ready = |(sequence, waiting): &(&u64, &Waiting)| {
            **sequence <= checkpoint.size() && waiting.retry_at_ms <= now_ms
        };
        let batch: Vec<_> = self
            .waiting
            .iter()
            .filter(ready)
            .take(BATCH_MAX)
            .map(|(sequence, waiting)| OwnReceipt {
                sequence: *sequence,
                token: waiting.token.clone(),
            })
            .collect();
        self.checking = !batch.is_empty();
        batch
    }

    /// The check is done. Returns the proofs and the evidence that it brought.
    pub(super) fn checked(
        &mut self,
        found: Vec<(u64, ReceiptFound)>,
        now_ms: u64,
    ) -> (Vec<ProvedReceipt>, Vec<Evidence>) {
        self.checking = false;
        let (mut proved, mut evidence) = (Vec::new(), Vec::new());
        for (sequence, found) in found {
            match found {
                ReceiptFound::Unknown => {
                    if let Some(waiting) = self.waiting.get_mut(&sequence) {
                        waiting.retry_at_ms = now_ms.saturating_add(RETRY_AFTER_MS);
                    }
                    continue;
                }
                ReceiptFound::Proved(receipt) => {
                    self.proved += 1;
                    proved.push(receipt);
                }
                ReceiptFound::Broken(broken) => evidence.push(*broken),
                ReceiptFound::Foreign => {}
            }
            self.waiting.remove(&sequence);
        }
        (proved, evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::log::checkpoint::{Checkpoint, origin_of};
    use gristmill_protocol::log::hash::leaf_hash;

    fn checkpoint(size: u64) -> SignedCheckpoint {
        let keypair = Keypair::from_secret(&[1; 32]);
        let checkpoint = Checkpoint::new(&origin_of(&keypair.account()), size, leaf_hash(b"root"));
        SignedCheckpoint::sign(&checkpoint, &keypair).unwrap()
    }

    fn receipts(sequences: impl IntoIterator<Item = u64>) -> Receipts {
        let mut receipts = Receipts::default();
        for sequence in sequences {
            receipts.add(OwnReceipt {
                sequence,
                token: format!("token {sequence}"),
            });
        }
        receipts
    }

    fn sequences(batch: &[OwnReceipt]) -> Vec<u64> {
        batch.iter().map(|receipt| receipt.sequence).collect()
    }

    #[test]
    fn what_the_log_lacks_for_a_minute_is_missing_and_told_once() {
        let mut receipts = receipts([3, 9]);
        for (size, now_ms, expected) in [
            (5, 0, vec![]),
            (5, MISSING_AFTER_MS - 1, vec![]),
            (5, MISSING_AFTER_MS, vec![9]),
            (5, 2 * MISSING_AFTER_MS, vec![]),
        ] {
            assert_eq!(receipts.shown(size, now_ms), expected, "{now_ms}");
        }
        assert_eq!(receipts.missing(), 1);
        assert!(receipts.shown(9, 3 * MISSING_AFTER_MS).is_empty());
        assert_eq!(receipts.missing(), 0, "it came after all");
    }

    #[test]
    fn a_coordinator_that_is_away_is_given_its_minute_again() {
        let mut receipts = receipts([9]);
        assert!(receipts.shown(5, 0).is_empty());
        receipts.not_shown();
        assert!(receipts.shown(5, 10 * MISSING_AFTER_MS).is_empty());
        assert_eq!(receipts.shown(5, 11 * MISSING_AFTER_MS), [9]);
    }

    #[test]
    fn receipts_are_checked_in_batches_once_the_log_has_them() {
        let mut receipts = receipts(1..=1_000);
        let first = receipts.next_check(&checkpoint(700), 0);
        assert_eq!(sequences(&first), (1..=256).collect::<Vec<_>>());
        assert!(
            receipts.next_check(&checkpoint(700), 0).is_empty(),
            "one at a time"
        );
        let found = first.iter().map(|receipt| {
            let proved = ProvedReceipt {
                sequence: receipt.sequence,
                proof: String::new(),
            };
            let found = match receipt.sequence % 4 {
                0 => ReceiptFound::Unknown,
                1 => ReceiptFound::Foreign,
                _ => ReceiptFound::Proved(proved),
            };
            (receipt.sequence, found)
        });
        let (proved, evidence) = receipts.checked(found.collect(), 100);
        assert_eq!((proved.len(), evidence.len()), (128, 0));
        assert_eq!((receipts.len(), receipts.proved()), (1_000 - 192, 128));
        let second = receipts.next_check(&checkpoint(700), 100 + RETRY_AFTER_MS - 1);
        assert_eq!(
            second[0].sequence, 257,
            "what could not be found out waits a little"
        );
        let _ = receipts.checked(Vec::new(), 200);
        assert_eq!(
            receipts.next_check(&checkpoint(700), 100 + RETRY_AFTER_MS)[0].sequence,
            4
        );
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let receipts = receipts(1..=RECEIPTS_WAITING_MAX as u64 + 1);
        assert_eq!(receipts.len(), RECEIPTS_WAITING_MAX);
    }
}
