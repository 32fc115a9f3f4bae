//! Who sends listings: honest providers, and liars who send what nobody should take.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use gristmill_protocol::codec;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::{Listing, ListingError, Offer, PrivacyTier};
use gristmill_protocol::usage::Price;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use super::peer::Message;
use crate::heap_engine::stream;

/// The model that everyone offers and asks for.
pub(super) const MODEL: &str = "gristmill-guide";
/// Messages that a liar keeps to tamper with and to replay.
const HEARD_MAX: usize = 1_024;
/// How far ahead a listing from the future is dated, in milliseconds: far beyond what clocks may differ.
const FUTURE_MS: u64 = 600_000;

/// A keypair drawn from the run's seed.
pub(super) fn keypair(seed: u64, purpose: &str, actor: u64) -> Keypair {
    let mut secret = [0; 32];
    stream(seed, purpose, actor).fill_bytes(&mut secret);
    Keypair::from_secret(&secret)
}

/// What is the same in every listing of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) coordinator: AccountId,
    pub(super) ttl_ms: u64,
}

impl Terms {
    fn listing(self, provider: AccountId, sequence: u64, now_ms: u64, rng: &mut ChaCha8Rng) -> Listing {
        let slots = 4;
        Listing {
            provider,
            sequence,
            issued_at_ms: now_ms,
            ttl_ms: self.ttl_ms,
            addresses: vec!["/ip4/192.0.2.1/udp/7410/quic-v1".to_owned()],
            coordinators: vec![self.coordinator],
            region: "CH".to_owned(),
            privacy: PrivacyTier::Standard,
            offers: vec![Offer {
                kind: JobKind::ChatCompletions,
                model: MODEL.to_owned(),
                weights_digest: None,
                quantization: "f16".to_owned(),
                context_length: 4_096,
                capabilities: vec![],
                price: Price::per_million_tokens(Credits::micro(100_000), Credits::micro(400_000)),
            }],
            slots,
            free_slots: rng.random_range(0..=slots),
            certificates: vec![],
        }
    }
}

/// An honest provider.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) keypair: Keypair,
    sequence: u64,
    pub(super) rng: ChaCha8Rng,
}

impl Provider {
    pub(super) fn new(seed: u64, index: u64) -> Self {
        let (keypair, rng) = (
            keypair(seed, "provider key", index),
            stream(seed, "provider", index),
        );
        Self {
            keypair,
            sequence: 0,
            rng,
        }
    }

    /// The provider's next listing; a farewell where it leaves.
    pub(super) fn publish(
        &mut self,
        terms: Terms,
        leaves: bool,
        now_ms: u64,
    ) -> Result<(Listing, Arc<Message>), ListingError> {
        self.sequence += 1;
        let mut listing = terms.listing(self.keypair.account(), self.sequence, now_ms, &mut self.rng);
        if leaves {
            listing.ttl_ms = 0;
        }
        let sealed = listing.clone().seal(&self.keypair)?;
        Ok((listing, Message::new(sealed)))
    }
}

/// The ways to lie. All but a replay are invalid wherever they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lie {
    /// Names somebody else as the provider.
    Forged,
    /// A listing that was heard, with one bit flipped.
    Tampered,
    /// A listing that was heard, sent again.
    Replayed,
    /// The liar's own listing, dated ahead.
    FromTheFuture,
}

impl fmt::Display for Lie {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Forged => "forged",
            Self::Tampered => "tampered",
            Self::Replayed => "replayed",
            Self::FromTheFuture => "from_the_future",
        })
    }
}

/// A liar, and what it has heard.
#[derive(Debug)]
pub(super) struct Liar {
    keypair: Keypair,
    heard: VecDeque<Arc<Message>>,
    pub(super) rng: ChaCha8Rng,
}

impl Liar {
    pub(super) fn new(seed: u64, index: u64) -> Self {
        let (keypair, rng) = (keypair(seed, "liar key", index), stream(seed, "liar", index));
        Self {
            keypair,
            heard: VecDeque::new(),
            rng,
        }
    }

    pub(super) fn hear(&mut self, message: Arc<Message>) {
        if self.heard.len() == HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back(message);
    }

    /// The next lie, about `victim` where it names somebody else. Before anything was heard it is forged.
    pub(super) fn lie(
        &mut self,
        terms: Terms,
        victim: AccountId,
        now_ms: u64,
    ) -> Result<(Lie, Arc<Message>), ListingError> {
        let choices = if self.heard.is_empty() { 2 } else { 4 };
        match self.rng.random_range(0..choices) {
            0 => {
                // A high sequence, so that a board that believes it forgets the true listings.
                let sequence = self.rng.random_range(1_000_000..2_000_000);
                let forged = self
                    .keypair
                    .sign(terms.listing(victim, sequence, now_ms, &mut self.rng));
                Ok((Lie::Forged, Message::new(codec::encode(&forged))))
            }
            1 => {
                let account = self.keypair.account();
                let ahead = terms.listing(account, 1, now_ms + FUTURE_MS, &mut self.rng);
                Ok((Lie::FromTheFuture, Message::new(ahead.seal(&self.keypair)?)))
            }
            choice => {
                let heard = self.heard[self.rng.random_range(0..self.heard.len())].clone();
                if choice == 2 {
                    return Ok((Lie::Replayed, heard));
                }
                let mut sealed = heard.sealed.clone();
                let byte = self.rng.random_range(0..sealed.len());
                sealed[byte] ^= 1 << self.rng.random_range(0..8);
                Ok((Lie::Tampered, Message::new(sealed)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::board::Board;
    use std::collections::BTreeMap;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn liars_lie_in_every_way_and_boards_believe_none_but_the_replay() {
        let terms = Terms {
            coordinator: keypair(1, "coordinator", 0).account(),
            ttl_ms: 60_000,
        };
        let mut provider = Provider::new(1, 0);
        let (_, genuine) = provider.publish(terms, false, NOW).unwrap();
        let mut liar = Liar::new(1, 0);
        let victim = provider.keypair.account();
        assert!(matches!(
            liar.lie(terms, victim, NOW).unwrap().0,
            Lie::Forged | Lie::FromTheFuture
        ));
        (0..=HEARD_MAX).for_each(|_| liar.hear(genuine.clone()));
        assert_eq!(liar.heard.len(), HEARD_MAX);
        let mut lies = BTreeMap::new();
        for _ in 0..400 {
            let (lie, message) = liar.lie(terms, victim, NOW).unwrap();
            let believed = Board::default().insert(&message.sealed, NOW).is_ok();
            assert_eq!(believed, lie == Lie::Replayed, "{lie:?}");
            *lies.entry(lie).or_insert(0) += 1;
        }
        assert!(
            lies.len() == 4 && lies.values().all(|count| *count > 50),
            "{lies:?}"
        );
    }
}
