//! The listing board: the newest valid listing of each provider, and who can serve what.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::hardware::HardwareCertificate;
use crate::identity::AccountId;
use crate::job::JobKind;
use crate::listing::{
    LISTING_INTERVAL_MIN_MS, LISTING_TTL_MAX_MS, Listing, ListingError, Offer, OpenedListing,
};
use crate::log::checkpoint::LogKeys;
use crate::planted::{self, Bug};

mod certified;
mod snapshot;

use certified::Certified;
pub use snapshot::{BoardRestoreError, BoardSnapshot};

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
    /// Shared with whoever else opened it once: the boards of a simulated market.
    opened: Arc<OpenedListing>,
    received_at_ms: u64,
    /// Those of its certificates that hold.
    certified: Certified,
}

impl Posted {
    fn listing(&self) -> &Listing {
        self.opened.listing()
    }

    fn is_alive(&self, now_ms: u64) -> bool {
        let listing = self.listing();
        listing.ttl_ms > 0 && (now_ms < listing.expires_at_ms() || planted::is(Bug::ListingNeverExpires))
    }

    fn is_to_be_kept(&self, now_ms: u64) -> bool {
        let forget_at_ms = self.listing().issued_at_ms.saturating_add(LISTING_TTL_MAX_MS);
        self.is_alive(now_ms) || now_ms < forget_at_ms
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

/// Whose certificates of hardware count.
#[derive(Clone, Debug)]
struct Trusted {
    keys: LogKeys,
    /// From which provider on what was posted before is still to be looked at.
    unchecked: Option<AccountId>,
}

/// What [`Board::check_certificates`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CertificateCheck {
    /// How many signatures it checked: what takes the time.
    pub signatures: usize,
    /// Whether every listing on the board has been looked at now.
    pub is_complete: bool,
}

/// The newest valid listing of each provider.
///
/// Certificates of hardware are looked into only where [`Board::trust`] says whose count.
#[derive(Clone, Debug)]
pub struct Board {
    posted: BTreeMap<AccountId, Posted>,
    providers_max: usize,
    /// Whose certificates of hardware count. Boxed: most boards of a simulated market have none.
    trusted: Option<Box<Trusted>>,
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

    /// Believes the certificates of hardware that these keys sign, in what comes from now on; those of the keys before no
    /// more, unless they are among these. What is posted is looked at by [`Board::check_certificates`]: a full board has
    /// signatures for seconds. No signature is checked here.
    pub fn trust(&mut self, keys: LogKeys) {
        let before = self.trusted.as_deref().map(|trusted| &trusted.keys);
        if before == Some(&keys) {
            return;
        }
        let remain = |before: &LogKeys| {
            before.first() == keys.first() && before.keys().iter().all(|key| keys.contains(key.account()))
        };
        if !before.is_some_and(remain) {
            for posted in self.posted.values_mut() {
                posted.certified = Certified::default();
            }
        }
        let unchecked = self.posted.keys().next().copied();
        self.trusted = Some(Box::new(Trusted { keys, unchecked }));
    }

    /// Looks at the certificates of the next listings, at most so many, that were posted before their signers were
    /// [trusted](Board::trust). Until then they count as none, or as what the keys before said of them.
    pub fn check_certificates(&mut self, listings_max: usize, now_ms: u64) -> CertificateCheck {
        let mut check = CertificateCheck::default();
        let Some(trusted) = self.trusted.as_deref_mut() else {
            check.is_complete = true;
            return check;
        };
        if let Some(first) = trusted.unchecked.take() {
            let mut rest = self.posted.range_mut(first..);
            for (_, posted) in rest.by_ref().take(listings_max) {
                let listing = posted.opened.listing();
                let (certified, signatures) =
                    Certified::of(listing, &trusted.keys, &posted.certified, now_ms);
                posted.certified = certified;
                check.signatures += signatures;
            }
            trusted.unchecked = rest.next().map(|(provider, _)| *provider);
        }
        check.is_complete = trusted.unchecked.is_none();
        check
    }

    /// Verifies a sealed listing and posts it where it is news.
    ///
    /// # Errors
    /// [`ListingError`] where the listing is invalid: whoever forwarded it did not check it.
    pub fn insert(&mut self, sealed: &[u8], now_ms: u64) -> Result<Insertion, ListingError> {
        self.post(&Arc::new(OpenedListing::open(sealed)?), now_ms)
    }

    /// Posts a listing that was opened before, where it is news: the rules that depend on the time and on what this
    /// board has. Many boards can share what was opened and verified once.
    ///
    /// # Errors
    /// [`ListingError::FromTheFuture`] where its provider's clock is too far ahead of `now_ms`.
    pub fn post(&mut self, opened: &Arc<OpenedListing>, now_ms: u64) -> Result<Insertion, ListingError> {
        let listing = opened.listing();
        listing.check_clock(now_ms)?;
        let leaves = listing.ttl_ms == 0;
        let too_old = now_ms.saturating_sub(listing.issued_at_ms) > LISTING_TTL_MAX_MS;
        if too_old || (!leaves && now_ms >= listing.expires_at_ms()) {
            return Ok(Insertion::Stale);
        }
        let known = self.posted.get(&listing.provider);
        let is_older = known.is_some_and(|known| listing.sequence <= known.listing().sequence);
        if is_older && !planted::is(Bug::StaleListingTaken) {
            return Ok(Insertion::Stale);
        }
        let interval = LISTING_INTERVAL_MIN_MS - INTERVAL_JITTER_MS;
        let too_soon = known.is_some_and(|known| now_ms < known.received_at_ms.saturating_add(interval));
        if !leaves && too_soon && !planted::is(Bug::ListingIntervalIgnored) {
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
        let posted = Posted {
            certified: self.certified(listing, now_ms),
            opened: opened.clone(),
            received_at_ms,
        };
        self.posted.insert(listing.provider, posted);
        Ok(match (leaves, was_alive) {
            (true, _) => Insertion::Left,
            (false, true) => Insertion::Renewed,
            (false, false) => Insertion::New,
        })
    }

    /// Those of a listing's certificates that count.
    fn certified(&self, listing: &Listing, now_ms: u64) -> Certified {
        let Some(trusted) = &self.trusted else {
            return Certified::default();
        };
        let known = self.posted.get(&listing.provider);
        let none = Certified::default();
        let known = known.map_or(&none, |known| &known.certified);
        Certified::of(listing, &trusted.keys, known, now_ms).0
    }

    fn has_room(&mut self, now_ms: u64) -> bool {
        if self.posted.len() >= self.providers_max {
            self.expire(now_ms);
        }
        self.posted.len() < self.providers_max
    }

    /// Forgets what can't live any more. Returns how many providers are left that are alive.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        self.posted.retain(|_, posted| posted.is_to_be_kept(now_ms));
        self.listings(now_ms).count()
    }

    /// The living listings, by account.
    pub fn listings(&self, now_ms: u64) -> impl Iterator<Item = &Listing> {
        self.posted
            .values()
            .filter(move |posted| posted.is_alive(now_ms))
            .map(Posted::listing)
    }

    /// The living listings as they travelled, signature and all, for a directory.
    pub fn sealed_listings(&self, now_ms: u64) -> impl Iterator<Item = Arc<[u8]>> {
        self.posted
            .values()
            .filter(move |posted| posted.is_alive(now_ms))
            .map(|posted| posted.opened.sealed().clone())
    }

    /// The living listing of one provider.
    #[must_use]
    pub fn listing(&self, provider: &AccountId, now_ms: u64) -> Option<&Listing> {
        self.posted
            .get(provider)
            .filter(|posted| posted.is_alive(now_ms))
            .map(Posted::listing)
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
            .filter(move |posted| posted.listing().coordinators.contains(&coordinator))
            .flat_map(move |posted| {
                let fits = move |offer: &&Offer| offer.kind == kind && offer.model == model;
                let candidate = move |offer| Candidate {
                    listing: posted.listing(),
                    offer,
                    is_verified: posted.certified.holding(now_ms).next().is_some(),
                };
                posted.listing().offers.iter().filter(fits).map(candidate)
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
mod tests;
