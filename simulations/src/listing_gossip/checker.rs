//! What must hold at every moment of a run, checked by someone who knows what was really published.

use std::collections::BTreeMap;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::listing::Listing;
use serde::Serialize;
use thiserror::Error;

use super::peer::{Message, Peer};

/// A rule of the market that was broken. Every one of them is a bug in the code under simulation.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize)]
#[serde(tag = "rule", rename_all = "snake_case")]
pub enum Breach {
    /// An honest peer forwarded something that no provider published.
    #[error("peer {peer} forwarded a message that no provider published")]
    InvalidForwarded {
        /// Which peer.
        peer: usize,
    },
    /// An honest peer forwarded a listing that is not newer than what it had forwarded before.
    #[error("peer {peer} forwarded listing {sequence} of {provider} after {highest}")]
    StaleForwarded {
        /// Which peer.
        peer: usize,
        /// Whose listing.
        provider: AccountId,
        /// The listing's sequence number.
        sequence: u64,
        /// The highest one that the peer had forwarded before.
        highest: u64,
    },
    /// The board of an honest peer took something that no provider published.
    #[error("the board of peer {peer} took a message that no provider published")]
    InvalidTaken {
        /// Whose board.
        peer: usize,
    },
    /// The board of an honest peer shows something that no provider published.
    #[error("the board of peer {peer} shows a listing of {provider} that it never published")]
    InvalidShown {
        /// Whose board.
        peer: usize,
        /// Whom the listing names.
        provider: AccountId,
    },
    /// The board of an honest peer went back to an older listing.
    #[error("the board of peer {peer} took listing {sequence} of {provider} after {highest}")]
    WentBack {
        /// Whose board.
        peer: usize,
        /// Whose listing.
        provider: AccountId,
        /// The listing's sequence number.
        sequence: u64,
        /// The highest one that the board had taken before.
        highest: u64,
    },
    /// The board shows a listing whose time is over.
    #[error("the board of peer {peer} shows a listing of {provider} that expired {ago_ms} ms ago")]
    ExpiredShown {
        /// Whose board.
        peer: usize,
        /// Whose listing.
        provider: AccountId,
        /// How long ago it expired, in milliseconds.
        ago_ms: u64,
    },
}

/// Knows everything that was published, and what each board took.
#[derive(Debug, Default)]
pub(super) struct Checker {
    published: BTreeMap<(AccountId, u64), Listing>,
    /// By the digest of the message: provider and sequence.
    genuine: BTreeMap<[u8; 32], (AccountId, u64)>,
    /// By peer and provider: the highest sequence number that its board took.
    highest: BTreeMap<(usize, AccountId), u64>,
    /// By peer and provider: the highest sequence number that it forwarded.
    forwarded: BTreeMap<(usize, AccountId), u64>,
}

impl Checker {
    pub(super) fn record(&mut self, listing: Listing, message: &Message) {
        self.genuine
            .insert(message.digest, (listing.provider, listing.sequence));
        self.published
            .insert((listing.provider, listing.sequence), listing);
    }

    pub(super) fn check_forwarded(&mut self, peer: usize, message: &Message) -> Result<(), Breach> {
        let genuine = self.genuine.get(&message.digest).copied();
        let (provider, sequence) = genuine.ok_or(Breach::InvalidForwarded { peer })?;
        let highest = self.forwarded.entry((peer, provider)).or_insert(0);
        if sequence <= *highest {
            return Err(Breach::StaleForwarded {
                peer,
                provider,
                sequence,
                highest: *highest,
            });
        }
        *highest = sequence;
        Ok(())
    }

    /// Checks a message that a board took as news. Returns the provider and sequence number that it is of.
    pub(super) fn check_taken(&mut self, peer: usize, message: &Message) -> Result<(AccountId, u64), Breach> {
        let genuine = self.genuine.get(&message.digest).copied();
        let (provider, sequence) = genuine.ok_or(Breach::InvalidTaken { peer })?;
        let highest = self.highest.entry((peer, provider)).or_insert(0);
        if sequence <= *highest {
            return Err(Breach::WentBack {
                peer,
                provider,
                sequence,
                highest: *highest,
            });
        }
        *highest = sequence;
        Ok((provider, sequence))
    }

    pub(super) fn check_board(&self, index: usize, peer: &Peer, now_ms: u64) -> Result<(), Breach> {
        for shown in peer.board.listings(now_ms) {
            let (provider, sequence) = (shown.provider, shown.sequence);
            if self.published.get(&(provider, sequence)) != Some(shown) {
                return Err(Breach::InvalidShown {
                    peer: index,
                    provider,
                });
            }
            let highest = self.highest.get(&(index, provider)).copied().unwrap_or(0);
            if sequence < highest {
                return Err(Breach::WentBack {
                    peer: index,
                    provider,
                    sequence,
                    highest,
                });
            }
            if shown.expires_at_ms() <= now_ms {
                let ago_ms = now_ms - shown.expires_at_ms();
                return Err(Breach::ExpiredShown {
                    peer: index,
                    provider,
                    ago_ms,
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing_gossip::actors::{Provider, Terms, keypair};
    use crate::listing_gossip::peer::Forwarding;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn broken_rules_are_found() {
        let terms = Terms {
            coordinator: keypair(1, "coordinator", 0).account(),
            ttl_ms: 60_000,
        };
        let mut provider = Provider::new(1, 0);
        let account = provider.keypair.account();
        let (first, first_message) = provider.publish(terms, false, NOW).unwrap();
        let (second, second_message) = provider.publish(terms, false, NOW).unwrap();
        let mut checker = Checker::default();
        assert_eq!(
            checker.check_forwarded(3, &first_message),
            Err(Breach::InvalidForwarded { peer: 3 })
        );
        assert_eq!(
            checker.check_taken(3, &first_message),
            Err(Breach::InvalidTaken { peer: 3 })
        );
        checker.record(first, &first_message);
        checker.record(second, &second_message);
        assert_eq!(checker.check_forwarded(3, &first_message), Ok(()));
        let stale = Breach::StaleForwarded {
            peer: 3,
            provider: account,
            sequence: 1,
            highest: 1,
        };
        assert_eq!(checker.check_forwarded(3, &first_message), Err(stale));
        assert_eq!(checker.check_forwarded(3, &second_message), Ok(()));
        assert_eq!(checker.check_taken(3, &second_message), Ok((account, 2)));
        let went_back = Breach::WentBack {
            peer: 3,
            provider: account,
            sequence: 1,
            highest: 2,
        };
        assert_eq!(checker.check_taken(3, &first_message), Err(went_back.clone()));
        assert_eq!(checker.check_taken(4, &first_message), Ok((account, 1)));

        let mut peer = Peer::new(Forwarding::News);
        peer.receive(&first_message, NOW);
        assert_eq!(checker.check_board(3, &peer, NOW), Err(went_back));
        assert_eq!(checker.check_board(4, &peer, NOW), Ok(()));
        checker.published.clear();
        assert_eq!(
            checker.check_board(4, &peer, NOW),
            Err(Breach::InvalidShown {
                peer: 4,
                provider: account
            })
        );
    }
}
