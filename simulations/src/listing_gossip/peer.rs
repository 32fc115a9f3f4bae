//! A peer of the gossip network: the shipped listing board, the messages seen lately, and what is forwarded.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use gristmill_protocol::board::{BOARD_PROVIDERS_MAX, Board, Insertion};
use gristmill_protocol::listing::ListingError;

/// For how long a message that comes again is dropped unread, in milliseconds: as the mesh of the real program does.
const SEEN_FOR_MS: u64 = 120_000;

/// A sealed listing on its way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) sealed: Vec<u8>,
    pub(super) digest: [u8; 32],
}

impl Message {
    pub(super) fn new(sealed: Vec<u8>) -> Arc<Self> {
        let digest = *blake3::hash(&sealed).as_bytes();
        Arc::new(Self { sealed, digest })
    }
}

/// What a peer made of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reception {
    /// Seen a moment ago; not read again.
    Duplicate,
    /// Read and posted or ignored by the board.
    Read(Insertion),
    /// Invalid.
    Refused(ListingError),
}

/// What a peer forwards to its neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Forwarding {
    /// What its board took as news.
    #[default]
    News,
    /// A planted bug: everything, whether it is valid or not.
    #[cfg(test)]
    Everything,
    /// A planted bug: everything valid, whether it is news or not.
    #[cfg(test)]
    EverythingValid,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) board: Board,
    forwarding: Forwarding,
    seen: BTreeSet<[u8; 32]>,
    seen_since_ms: VecDeque<(u64, [u8; 32])>,
}

impl Peer {
    pub(super) fn new(forwarding: Forwarding) -> Self {
        let board = Board::new(BOARD_PROVIDERS_MAX);
        Self {
            board,
            forwarding,
            seen: BTreeSet::new(),
            seen_since_ms: VecDeque::new(),
        }
    }

    pub(super) fn receive(&mut self, message: &Message, now_ms: u64) -> Reception {
        while let Some((since_ms, digest)) = self.seen_since_ms.front()
            && since_ms.saturating_add(SEEN_FOR_MS) <= now_ms
        {
            self.seen.remove(digest);
            self.seen_since_ms.pop_front();
        }
        if !self.seen.insert(message.digest) {
            return Reception::Duplicate;
        }
        self.seen_since_ms.push_back((now_ms, message.digest));
        match self.board.insert(&message.sealed, now_ms) {
            Ok(insertion) => Reception::Read(insertion),
            Err(error) => Reception::Refused(error),
        }
    }

    pub(super) const fn forwards(&self, reception: &Reception) -> bool {
        match (self.forwarding, reception) {
            (_, Reception::Duplicate) => false,
            (Forwarding::News, Reception::Read(insertion)) => insertion.is_news(),
            (Forwarding::News, Reception::Refused(_)) => false,
            #[cfg(test)]
            (Forwarding::Everything, _) => true,
            #[cfg(test)]
            (Forwarding::EverythingValid, reception) => matches!(reception, Reception::Read(_)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_comes_again_is_dropped_for_two_minutes() {
        let mut peer = Peer::new(Forwarding::News);
        let message = Message::new(vec![1, 2, 3]);
        assert!(matches!(peer.receive(&message, 1_000), Reception::Refused(_)));
        assert_eq!(peer.receive(&message, 120_999), Reception::Duplicate);
        let again = peer.receive(&message, 121_000);
        assert!(matches!(again, Reception::Refused(_)) && !peer.forwards(&again));
        assert_eq!((peer.seen.len(), peer.seen_since_ms.len()), (1, 1));
    }
}
