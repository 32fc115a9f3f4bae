//! Checkpoints that gossip told of and that are newer than the one kept. They wait until the next look at the log: a
//! log has a new one each second, and everybody who fetched what proves each of them would be a burden to it.

use std::collections::BTreeMap;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::SignedCheckpoint;

/// Most checkpoints that wait.
pub(super) const WAITING_MAX: usize = 64;

/// The checkpoints that wait, no two of them the same.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    entries: Vec<(AccountId, SignedCheckpoint)>,
}

impl Waiting {
    /// Adds a checkpoint that a peer told of. Where there is no place, the peer that told most loses one.
    ///
    /// Returns those that contradict each other now: they have one size and different roots, and wait no longer.
    pub(super) fn add(
        &mut self,
        from: AccountId,
        checkpoint: SignedCheckpoint,
        random: u64,
    ) -> Vec<SignedCheckpoint> {
        let same =
            |known: &SignedCheckpoint| known.size() == checkpoint.size() && known.root() == checkpoint.root();
        if self.entries.iter().any(|(_, known)| same(known)) {
            return Vec::new();
        }
        let size = checkpoint.size();
        self.entries.push((from, checkpoint));
        let contradicting = |(_, known): &(AccountId, SignedCheckpoint)| known.size() == size;
        if self.entries.iter().filter(|entry| contradicting(entry)).count() > 1 {
            return self.take(|known| known.size() == size);
        }
        if self.entries.len() > WAITING_MAX {
            self.drop_one(random);
        }
        Vec::new()
    }

    /// Takes the newest one, if it is larger than this.
    pub(super) fn take_newest(&mut self, larger_than: u64) -> Option<SignedCheckpoint> {
        let newest = self
            .entries
            .iter()
            .map(|(_, known)| known.size())
            .max()
            .filter(|size| *size > larger_than)?;
        self.take(|known| known.size() == newest).pop()
    }

    /// Takes one that is not larger than this, if there is any.
    pub(super) fn take_older(&mut self, up_to: u64) -> Option<SignedCheckpoint> {
        let place = self.entries.iter().position(|(_, known)| known.size() <= up_to)?;
        Some(self.entries.swap_remove(place).1)
    }

    fn take(&mut self, mut chosen: impl FnMut(&SignedCheckpoint) -> bool) -> Vec<SignedCheckpoint> {
        let (taken, left) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|(_, known)| chosen(known));
        self.entries = left;
        taken.into_iter().map(|(_, checkpoint)| checkpoint).collect()
    }

    fn drop_one(&mut self, random: u64) {
        let mut told: BTreeMap<AccountId, Vec<usize>> = BTreeMap::new();
        for (place, (from, _)) in self.entries.iter().enumerate() {
            told.entry(*from).or_default().push(place);
        }
        let Some(places) = told.into_values().max_by_key(Vec::len) else {
            return;
        };
        // As many as the peer told of, so the remainder is a place among them.
        let chosen = usize::try_from(random % places.len().max(1) as u64).unwrap_or_default();
        if let Some(place) = places.get(chosen) {
            self.entries.swap_remove(*place);
        }
    }

    #[cfg(test)]
    fn sizes_from(&self, peer: AccountId) -> usize {
        self.entries.iter().filter(|(from, _)| *from == peer).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::log::checkpoint::{Checkpoint, origin_of};
    use gristmill_protocol::log::hash::leaf_hash;

    fn peer(byte: u8) -> AccountId {
        Keypair::from_secret(&[byte; 32]).account()
    }

    fn signed(size: u64, root: &[u8]) -> SignedCheckpoint {
        let keypair = Keypair::from_secret(&[1; 32]);
        let checkpoint = Checkpoint::new(&origin_of(&keypair.account()), size, leaf_hash(root));
        SignedCheckpoint::sign(&checkpoint, &keypair).unwrap()
    }

    #[test]
    fn the_newest_goes_first_and_the_rest_when_it_is_older() {
        let mut waiting = Waiting::default();
        for size in [5, 9, 7, 9] {
            assert!(waiting.add(peer(2), signed(size, b"a"), 0).is_empty());
        }
        assert_eq!(waiting.take_older(4), None);
        assert_eq!(waiting.take_newest(9), None);
        assert_eq!(waiting.take_newest(4), Some(signed(9, b"a")));
        let mut older: Vec<_> = std::iter::from_fn(|| waiting.take_older(9))
            .map(|checkpoint| checkpoint.size())
            .collect();
        older.sort_unstable();
        assert_eq!(older, [5, 7]);
    }

    #[test]
    fn those_that_contradict_each_other_do_not_wait() {
        let mut waiting = Waiting::default();
        assert!(waiting.add(peer(2), signed(5, b"a"), 0).is_empty());
        assert!(waiting.add(peer(2), signed(6, b"a"), 0).is_empty());
        let contradicting = waiting.add(peer(3), signed(5, b"b"), 0);
        assert_eq!(contradicting, [signed(5, b"a"), signed(5, b"b")]);
        assert_eq!(waiting.take_newest(0), Some(signed(6, b"a")));
        assert_eq!(waiting.take_newest(0), None);
    }

    #[test]
    fn a_peer_that_tells_a_lot_displaces_only_what_it_told() {
        let mut waiting = Waiting::default();
        let _ = waiting.add(peer(3), signed(1, b"a"), 0);
        for size in 2..500 {
            let _ = waiting.add(peer(2), signed(size, b"a"), size.wrapping_mul(0x9e37_79b9));
        }
        assert_eq!(waiting.sizes_from(peer(3)), 1);
        assert_eq!(waiting.sizes_from(peer(2)), WAITING_MAX - 1);
    }
}
