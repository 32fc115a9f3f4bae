//! The listing board: the newest valid listing of each provider, and who can serve what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::hardware::HardwareCertificate;
use crate::identity::AccountId;
use crate::job::JobKind;
use crate::listing::{LISTING_INTERVAL_MIN_MS, LISTING_TTL_MAX_MS, Listing, ListingError, Offer};
use crate::log::checkpoint::LogKeys;

mod certified;

use certified::Certified;

/// Most providers that a board remembers unless configured otherwise: at 8 KiB each, 160 MiB.
pub const BOARD_PROVIDERS_MAX: usize = 20_000;
/// How much earlier than [`LISTING_INTERVAL_MIN_MS`] a listing may arrive, since networks do not keep time.
const INTERVAL_JITTER_MS: u64 = 1_000;

/// What became of a valid listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insertion {
    /// The first one of its provider.
    New,
    /// Replaced an older one of its provider.
    Renewed,
    /// The provider took leave and is off the board.
    Left,
    /// Not newer than what the board has, or expired; ignored.
    Stale,
    /// Sooner after the last one than providers may publish; ignored.
    TooSoon,
    /// The board is full of living listings; ignored.
    Full,
}

impl Insertion {
    /// Whether others should hear it too.
    #[must_use]
    pub const fn is_news(self) -> bool {
        matches!(self, Self::New | Self::Renewed | Self::Left)
    }
}

/// One provider's place on the board. A provider that left keeps it until no earlier listing of it can live,
/// so that an old listing sent again does not bring it back.
#[derive(Clone, Debug)]
struct Posted {
    listing: Listing,
    sealed: Arc<[u8]>,
    received_at_ms: u64,
    forget_at_ms: u64,
    /// Those of its certificates that hold.
    certified: Certified,
}

impl Posted {
    const fn is_alive(&self, now_ms: u64) -> bool {
        self.listing.ttl_ms > 0 && now_ms < self.listing.expires_at_ms()
    }
}

/// An offer and the listing that it stands in.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'board> {
    /// The provider's listing.
    pub listing: &'board Listing,
    /// The offer that fits.
    pub offer: &'board Offer,
    /// Whether any of the provider's hardware has a certificate that holds now.
    pub is_verified: bool,
}

/// The newest valid listing of each provider.
///
/// Certificates of hardware are looked into only where [`Board::trust`] says whose count.
#[derive(Clone, Debug)]
pub struct Board {
    posted: BTreeMap<AccountId, Posted>,
    providers_max: usize,
    /// Whose certificates of hardware count.
    trusted: Option<LogKeys>,
}

impl Default for Board {
    fn default() -> Self {
        Self::new(BOARD_PROVIDERS_MAX)
    }
}

impl Board {
    /// An empty board for at most so many providers.
    #[must_use]
    pub const fn new(providers_max: usize) -> Self {
        Self {
            posted: BTreeMap::new(),
            providers_max,
            trusted: None,
        }
    }

    /// Believes the certificates of hardware that these keys sign, in what is posted and in what comes; those of the
    /// keys before no more, unless they are among these.
    pub fn trust(&mut self, keys: LogKeys, now_ms: u64) {
        if self.trusted.as_ref() == Some(&keys) {
            return;
        }
        for posted in self.posted.values_mut() {
            posted.certified = Certified::of(&posted.listing, &keys, &Certified::default(), now_ms);
        }
        self.trusted = Some(keys);
    }

    /// Verifies a sealed listing and posts it where it is news.
    ///
    /// # Errors
    /// [`ListingError`] where the listing is invalid: whoever forwarded it did not check it.
    pub fn insert(&mut self, sealed: &[u8], now_ms: u64) -> Result<Insertion, ListingError> {
        let listing = Listing::open(sealed, now_ms)?;
        let leaves = listing.ttl_ms == 0;
        let too_old = now_ms.saturating_sub(listing.issued_at_ms) > LISTING_TTL_MAX_MS;
        if too_old || (!leaves && now_ms >= listing.expires_at_ms()) {
            return Ok(Insertion::Stale);
        }
        let known = self.posted.get(&listing.provider);
        if known.is_some_and(|known| listing.sequence <= known.listing.sequence) {
            return Ok(Insertion::Stale);
        }
        let interval = LISTING_INTERVAL_MIN_MS - INTERVAL_JITTER_MS;
        if !leaves && known.is_some_and(|known| now_ms < known.received_at_ms.saturating_add(interval)) {
            return Ok(Insertion::TooSoon);
        }
        let was_alive = known.is_some_and(|known| known.is_alive(now_ms));
        // A farewell keeps the time of the listing before it: leaving and coming back is no way around the rate.
        let received_at_ms = known
            .filter(|_| leaves)
            .map_or(now_ms, |known| known.received_at_ms);
        if known.is_none() && !self.has_room(now_ms) {
            return Ok(Insertion::Full);
        }
        let certified = self.certified(&listing, now_ms);
        let posted = Posted {
            certified,
            sealed: sealed.into(),
            received_at_ms,
            forget_at_ms: listing.issued_at_ms.saturating_add(LISTING_TTL_MAX_MS),
            listing,
        };
        self.posted.insert(posted.listing.provider, posted);
        Ok(match (leaves, was_alive) {
            (true, _) => Insertion::Left,
            (false, true) => Insertion::Renewed,
            (false, false) => Insertion::New,
        })
    }

    /// Those of a listing's certificates that count.
    fn certified(&self, listing: &Listing, now_ms: u64) -> Certified {
        let Some(keys) = &self.trusted else {
            return Certified::default();
        };
        let known = self.posted.get(&listing.provider);
        let none = Certified::default();
        Certified::of(
            listing,
            keys,
            known.map_or(&none, |known| &known.certified),
            now_ms,
        )
    }

    fn has_room(&mut self, now_ms: u64) -> bool {
        if self.posted.len() >= self.providers_max {
            self.expire(now_ms);
        }
        self.posted.len() < self.providers_max
    }

    /// Forgets what can't live any more. Returns how many providers are left that are alive.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        self.posted
            .retain(|_, posted| posted.is_alive(now_ms) || now_ms < posted.forget_at_ms);
        self.listings(now_ms).count()
    }

    /// The living listings, by account.
    pub fn listings(&self, now_ms: u64) -> impl Iterator<Item = &Listing> {
        self.posted
            .values()
            .filter(move |posted| posted.is_alive(now_ms))
            .map(|posted| &posted.listing)
    }

    /// The living listings as they travelled, signature and all, for a directory.
    pub fn sealed_listings(&self, now_ms: u64) -> impl Iterator<Item = Arc<[u8]>> {
        self.posted
            .values()
            .filter(move |posted| posted.is_alive(now_ms))
            .map(|posted| posted.sealed.clone())
    }

    /// The living listing of one provider.
    #[must_use]
    pub fn listing(&self, provider: &AccountId, now_ms: u64) -> Option<&Listing> {
        self.posted
            .get(provider)
            .filter(|posted| posted.is_alive(now_ms))
            .map(|posted| &posted.listing)
    }

    /// The certificates of a provider's hardware that hold now, in the order of its listing. None where it has no
    /// living listing.
    pub fn certificates(
        &self,
        provider: &AccountId,
        now_ms: u64,
    ) -> impl Iterator<Item = &HardwareCertificate> {
        self.posted
            .get(provider)
            .filter(|posted| posted.is_alive(now_ms))
            .into_iter()
            .flat_map(move |posted| posted.certified.holding(now_ms))
    }

    /// Who offers a model for a kind of job and accepts tickets of a coordinator.
    pub fn candidates<'board>(
        &'board self,
        kind: JobKind,
        model: &'board str,
        coordinator: AccountId,
        now_ms: u64,
    ) -> impl Iterator<Item = Candidate<'board>> {
        self.posted
            .values()
            .filter(move |posted| posted.is_alive(now_ms))
            .filter(move |posted| posted.listing.coordinators.contains(&coordinator))
            .flat_map(move |posted| {
                let fits = move |offer: &&Offer| offer.kind == kind && offer.model == model;
                let candidate = move |offer| Candidate {
                    listing: &posted.listing,
                    offer,
                    is_verified: posted.certified.holding(now_ms).next().is_some(),
                };
                posted.listing.offers.iter().filter(fits).map(candidate)
            })
    }

    /// The names of everything on offer, with the kinds of job that each serves.
    #[must_use]
    pub fn models(&self, now_ms: u64) -> BTreeMap<String, BTreeSet<JobKind>> {
        let mut models: BTreeMap<String, BTreeSet<JobKind>> = BTreeMap::new();
        for offer in self.listings(now_ms).flat_map(|listing| &listing.offers) {
            models.entry(offer.model.clone()).or_default().insert(offer.kind);
        }
        models
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credits::Credits;
    use crate::identity::Keypair;
    use crate::listing::PrivacyTier;
    use crate::usage::Price;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;

    fn keypair(byte: u8) -> Keypair {
        Keypair::from_secret(&[byte; 32])
    }

    fn listing(byte: u8, sequence: u64, issued_at_ms: u64, ttl_ms: u64) -> Listing {
        Listing {
            provider: keypair(byte).account(),
            sequence,
            issued_at_ms,
            ttl_ms,
            addresses: vec!["/ip4/127.0.0.1/udp/7410/quic-v1".into()],
            coordinators: vec![keypair(200).account()],
            region: "CH".into(),
            privacy: PrivacyTier::Standard,
            offers: vec![Offer {
                kind: JobKind::ChatCompletions,
                model: "guide".into(),
                weights_digest: None,
                quantization: "f16".into(),
                context_length: 512,
                capabilities: vec![],
                price: Price::per_million_tokens(Credits::micro(100_000), Credits::micro(400_000)),
            }],
            slots: 2,
            free_slots: 1,
            certificates: vec![],
        }
    }

    fn sealed(byte: u8, sequence: u64, issued_at_ms: u64, ttl_ms: u64) -> Vec<u8> {
        listing(byte, sequence, issued_at_ms, ttl_ms)
            .seal(&keypair(byte))
            .unwrap()
    }

    #[test]
    fn newer_listings_replace_and_older_ones_are_ignored() {
        let mut board = Board::default();
        assert_eq!(board.insert(&sealed(1, 5, NOW, 60_000), NOW), Ok(Insertion::New));
        assert_eq!(
            board.insert(&sealed(1, 5, NOW, 60_000), NOW + 9_000),
            Ok(Insertion::Stale)
        );
        assert_eq!(
            board.insert(&sealed(1, 4, NOW, 60_000), NOW + 9_000),
            Ok(Insertion::Stale)
        );
        assert_eq!(
            board.insert(&sealed(1, 6, NOW, 60_000), NOW + 1_000),
            Ok(Insertion::TooSoon)
        );
        assert_eq!(
            board.insert(&sealed(1, 6, NOW, 60_000), NOW + 9_000),
            Ok(Insertion::Renewed)
        );
        assert_eq!(board.listings(NOW + 59_999).count(), 1);
        assert_eq!(board.listings(NOW + 60_000).count(), 0);
    }

    #[test]
    fn a_provider_that_left_does_not_come_back_by_replay() {
        let mut board = Board::default();
        let old = sealed(1, 5, NOW, 600_000);
        board.insert(&old, NOW).unwrap();
        assert_eq!(
            board.insert(&sealed(1, 7, NOW + 100, 0), NOW + 100),
            Ok(Insertion::Left)
        );
        assert_eq!(board.listings(NOW + 100).count(), 0);
        board.expire(NOW + 200);
        assert_eq!(board.insert(&old, NOW + 10_000), Ok(Insertion::Stale));
        assert_eq!(board.insert(&old, NOW + 700_000), Ok(Insertion::Stale));
        assert_eq!(
            board.insert(&sealed(1, 8, NOW + 10_000, 60_000), NOW + 10_000),
            Ok(Insertion::New)
        );
    }

    #[test]
    fn candidates_match_kind_model_and_coordinator() {
        let mut board = Board::default();
        board.insert(&sealed(1, 1, NOW, 60_000), NOW).unwrap();
        let count = |kind, model, coordinator: u8| {
            board
                .candidates(kind, model, keypair(coordinator).account(), NOW)
                .count()
        };
        assert_eq!(count(JobKind::ChatCompletions, "guide", 200), 1);
        assert_eq!(count(JobKind::Embeddings, "guide", 200), 0);
        assert_eq!(count(JobKind::ChatCompletions, "Guide", 200), 0);
        assert_eq!(count(JobKind::ChatCompletions, "guide", 201), 0);
    }

    #[test]
    fn forged_and_malformed_listings_are_errors() {
        let mut board = Board::default();
        let forged = crate::codec::encode(&keypair(2).sign(listing(1, 1, NOW, 60_000)));
        assert!(matches!(
            board.insert(&forged, NOW),
            Err(ListingError::Signature { .. })
        ));
        let mut flipped = sealed(1, 1, NOW, 60_000);
        flipped[40] ^= 1;
        assert!(board.insert(&flipped, NOW).is_err());
        assert!(matches!(
            board.insert(&sealed(1, 1, NOW + 61_000, 60_000), NOW),
            Err(ListingError::FromTheFuture { ahead_ms: 61_000, .. })
        ));
        assert!(board.insert(&[], NOW).is_err());
        assert_eq!(board.listings(NOW).count(), 0);
    }

    type Change = fn(&mut Listing);

    #[test]
    fn bounds_hold_at_the_edge() {
        let cases: [(&str, Change); 6] = [
            ("ttl_ms", |listing| listing.ttl_ms = LISTING_TTL_MAX_MS + 1),
            ("offers", |listing| {
                listing.offers = vec![listing.offers[0].clone(); 33];
            }),
            ("model (offered twice)", |listing| {
                listing.offers.push(listing.offers[0].clone());
            }),
            ("model", |listing| listing.offers[0].model = "x".repeat(129)),
            ("free_slots", |listing| listing.free_slots = 3),
            ("addresses", |listing| listing.addresses = vec!["a".into(); 17]),
        ];
        for (expected, change) in cases {
            let mut wrong = listing(1, 1, NOW, LISTING_TTL_MAX_MS);
            change(&mut wrong);
            let error = wrong.seal(&keypair(1)).unwrap_err();
            assert!(
                matches!(error, ListingError::OutOfBounds { field, .. } if field == expected),
                "{error}"
            );
        }
        let mut at_limit = listing(1, 1, NOW, LISTING_TTL_MAX_MS);
        at_limit.offers[0].model = "x".repeat(128);
        at_limit.seal(&keypair(1)).unwrap();
    }

    #[test]
    fn a_full_board_keeps_the_living_and_makes_room_for_others_later() {
        let mut board = Board::new(2);
        board.insert(&sealed(1, 1, NOW, 60_000), NOW).unwrap();
        board.insert(&sealed(2, 1, NOW, 60_000), NOW).unwrap();
        assert_eq!(board.insert(&sealed(3, 1, NOW, 60_000), NOW), Ok(Insertion::Full));
        let later = NOW + LISTING_TTL_MAX_MS + 1;
        assert_eq!(
            board.insert(&sealed(3, 2, later, 60_000), later),
            Ok(Insertion::New)
        );
    }

    proptest! {
        /// Whatever order listings arrive in, the board never goes back to a lower sequence.
        #[test]
        fn sequences_never_go_back(arrivals in proptest::collection::vec((1u64..20, 0u64..20_000), 1..30)) {
            let mut board = Board::default();
            let provider = keypair(1).account();
            let (mut now, mut highest) = (NOW, 0);
            for (sequence, wait) in arrivals {
                now += wait;
                let news = board.insert(&sealed(1, sequence, now, 600_000), now).unwrap().is_news();
                if news {
                    prop_assert!(sequence > highest);
                    highest = sequence;
                }
                let shown = board.listing(&provider, now).map(|listing| listing.sequence);
                prop_assert_eq!(shown, (highest > 0).then_some(highest));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Board::default().insert(&bytes, NOW).is_err());
        }
    }
}
