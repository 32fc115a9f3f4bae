//! The digest of a run: BLAKE3 over everything that happened, chained from epoch to epoch.

use serde::{Deserialize, Serialize};

/// How much of a trace is gathered before it is hashed: the hash is fast on long inputs only.
const BUFFER_BYTES: usize = 64 * 1024;

/// What happened in one shard during one epoch.
#[derive(Debug, Default)]
pub(super) struct Trace {
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
}

impl Trace {
    /// Adds a number.
    pub(super) fn number(&mut self, number: u64) {
        self.buffer.extend_from_slice(&number.to_le_bytes());
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.hasher.update(&self.buffer);
        self.buffer.clear();
    }

    /// Ends the epoch.
    fn take(&mut self) -> blake3::Hash {
        self.flush();
        let digest = self.hasher.finalize();
        self.hasher.reset();
        digest
    }
}

/// The digest after some epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochDigest {
    /// The epoch's end, in microseconds of virtual time.
    pub at_us: u64,
    /// BLAKE3 over the digest before it and what happened since.
    pub digest: [u8; 32],
}

/// The digests of a run, each over the one before.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Chain {
    digest: [u8; 32],
    /// Some of the digests on the way, evenly spread.
    kept: Vec<EpochDigest>,
    /// Every so many epochs one is kept, as a power of two.
    stride_bits: u32,
    epochs: u64,
}

/// Most digests that a run keeps; at this number every second one is dropped.
const KEPT_MAX: usize = 512;

impl Chain {
    /// Ends an epoch of all shards.
    pub(super) fn extend<'a>(&mut self, at_us: u64, traces: impl Iterator<Item = &'a mut Trace>) {
        let mut hasher = blake3::Hasher::new_derive_key("gristmill simulations: digest of an epoch");
        hasher.update(&self.digest).update(&at_us.to_le_bytes());
        for trace in traces {
            hasher.update(trace.take().as_bytes());
        }
        self.digest = *hasher.finalize().as_bytes();
        self.epochs += 1;
        if self.epochs.trailing_zeros() < self.stride_bits {
            return;
        }
        self.kept.push(EpochDigest {
            at_us,
            digest: self.digest,
        });
        if self.kept.len() == KEPT_MAX {
            // Those at odd places (from 1) are of epochs that no longer fit the wider stride.
            let mut place = 0;
            self.kept.retain(|_| {
                place += 1;
                place % 2 == 0
            });
            self.stride_bits += 1;
        }
    }

    /// The digest so far, in hexadecimal.
    pub(super) fn digest(&self) -> String {
        blake3::Hash::from_bytes(self.digest).to_hex().to_string()
    }

    /// Some of the digests on the way.
    pub(super) fn kept(&self) -> &[EpochDigest] {
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(epochs: &[&[u64]]) -> Chain {
        let (mut chain, mut trace) = (Chain::default(), Trace::default());
        for (epoch, numbers) in (1_u64..).zip(epochs) {
            numbers.iter().for_each(|number| trace.number(*number));
            chain.extend(epoch, std::iter::once(&mut trace));
        }
        chain
    }

    #[test]
    fn a_digest_depends_on_what_happened_and_in_which_epoch() {
        let all = [
            chain(&[&[1, 2], &[3]]).digest(),
            chain(&[&[1], &[2, 3]]).digest(),
            chain(&[&[2, 1], &[3]]).digest(),
            chain(&[&[1, 2, 3]]).digest(),
        ];
        assert!((0..4).all(|one| (0..one).all(|other| all[one] != all[other])));
        assert_eq!(chain(&[&[1, 2], &[3]]).digest(), all[0]);
    }

    #[test]
    fn a_long_epoch_is_hashed_in_parts() {
        let numbers: Vec<u64> = (0..20_000).collect();
        let mut parts = Trace::default();
        numbers.iter().for_each(|number| parts.number(*number));
        let whole: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(parts.take(), blake3::hash(&whole));
        assert_eq!(parts.take(), blake3::hash(b""));
    }

    #[test]
    fn few_digests_are_kept_of_many_epochs_and_evenly() {
        let (mut chain, mut trace) = (Chain::default(), Trace::default());
        for epoch in 1..=10_000_u64 {
            chain.extend(epoch, std::iter::once(&mut trace));
        }
        let steps: Vec<u64> = chain
            .kept()
            .windows(2)
            .map(|pair| pair[1].at_us - pair[0].at_us)
            .collect();
        assert!(chain.kept().len() < KEPT_MAX && chain.kept().len() > KEPT_MAX / 3);
        assert!(steps.iter().all(|step| *step == steps[0]), "{steps:?}");
    }
}
