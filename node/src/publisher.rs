//! Publishes the node's listing as [`ListingPlan`] says.

use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::codec::DecodeError;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::listing::{ADDRESSES_MAX, COORDINATORS_MAX, Listing, ListingError, PrivacyTier};
use gristmill_transport::mesh::Multiaddr;
use gristmill_transport::{Clock, Mesh};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::core::listing_plan::{ListingContent, ListingPlan, ListingStep};
use crate::hardware::HardwareState;
use crate::job_driver::JobHost;
use crate::known_coordinator::KnownCoordinator;
use crate::offering::Catalogue;
use crate::slots::Slots;

/// How often the addresses are looked at: a laptop changes its network.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the publisher says, and where it hears of changes.
pub(crate) struct Publisher {
    pub(crate) keypair: Keypair,
    pub(crate) clock: Clock,
    pub(crate) mesh: Mesh,
    pub(crate) public_addresses: Vec<Multiaddr>,
    pub(crate) region: String,
    pub(crate) privacy: PrivacyTier,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) slots: Arc<Slots>,
    pub(crate) hardware: watch::Receiver<HardwareState>,
    pub(crate) coordinator: KnownCoordinator,
    pub(crate) host: Arc<JobHost>,
}

impl Publisher {
    /// Publishes until told to leave, and then says goodbye.
    pub(crate) async fn run(mut self, leave: CancellationToken) {
        let mut plan = ListingPlan::new(self.keypair.account());
        let mut slots = self.slots.changes();
        while !leave.is_cancelled() {
            let now_ms = (self.clock)();
            let wait = match plan.step(&self.content(), now_ms) {
                ListingStep::Publish(listing) => {
                    self.publish(*listing).await;
                    continue;
                }
                ListingStep::WaitUntil(at_ms) => Duration::from_millis(at_ms.saturating_sub(now_ms)),
                ListingStep::WaitForChange => LOOK_AGAIN,
            };
            tokio::select! {
                () = leave.cancelled() => {}
                () = tokio::time::sleep(wait.min(LOOK_AGAIN)) => {}
                Ok(()) = self.catalogue.changed() => {}
                Ok(()) = slots.changed() => {}
                Ok(()) = self.hardware.changed() => {}
                Ok(()) = self.coordinator.changed() => {}
            }
        }
        if let Some(farewell) = plan.leave((self.clock)()) {
            self.publish(*farewell).await;
        }
    }

    fn content(&self) -> ListingContent {
        let slots = self.slots.slots();
        let free = slots.saturating_sub(self.slots.jobs());
        let narrow = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        ListingContent {
            addresses: self.addresses(),
            coordinators: self.coordinators(),
            region: self.region.clone(),
            privacy: self.privacy,
            offers: self.catalogue.borrow().offers.clone(),
            slots: narrow(slots),
            free_slots: narrow(free),
            certificates: self.hardware.borrow().tokens((self.clock)()),
        }
    }

    /// The accounts whose tickets count; none where no job is taken on any. The first key, which names the coordinator
    /// for ever, is always among them, and then the newest ones.
    fn coordinators(&self) -> Vec<AccountId> {
        if self.host.distrust().is_some() {
            return Vec::new();
        }
        let known = self.coordinator.borrow();
        let Some(known) = known.as_ref() else {
            return Vec::new();
        };
        let first = *known.first();
        let newest = known.keys().iter().rev().map(|key| *key.account());
        let later = newest.filter(|key| *key != first).take(COORDINATORS_MAX - 1);
        std::iter::once(first).chain(later).collect()
    }

    fn addresses(&self) -> Vec<String> {
        let listening = self.mesh.listen_addresses();
        let addresses = if self.public_addresses.is_empty() {
            &listening
        } else {
            &self.public_addresses
        };
        addresses
            .iter()
            .take(ADDRESSES_MAX)
            .map(ToString::to_string)
            .collect()
    }

    async fn publish(&self, listing: Listing) {
        let (offers, farewell) = (listing.offers.len(), listing.ttl_ms == 0);
        let sealed = match seal(listing, &self.keypair) {
            Ok((sealed, left_out)) => {
                if left_out.offers > 0 {
                    let offers = left_out.offers;
                    tracing::warn!(offers, "the listing is full; the last models are not in it");
                }
                if left_out.certificates > 0 {
                    let certificates = left_out.certificates;
                    tracing::debug!(
                        certificates,
                        "the listing is full; the last devices are not in it"
                    );
                }
                sealed
            }
            Err(error) => return tracing::error!(%error, "the listing can't be published"),
        };
        match self.mesh.publish_listing(sealed).await {
            Ok(published) => tracing::debug!(?published, offers, farewell, "listing published"),
            Err(error) => tracing::warn!(%error, "the listing was not published"),
        }
    }
}

/// How much of a listing had no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LeftOut {
    offers: usize,
    certificates: usize,
}

/// Seals a listing. Where it is too large, it goes without its last certificates, but not without the first one, since
/// that one makes the node verified; and where that is not enough, without its last offers. Says what was left out.
fn seal(mut listing: Listing, keypair: &Keypair) -> Result<(Vec<u8>, LeftOut), ListingError> {
    let mut left_out = LeftOut::default();
    loop {
        match listing.clone().seal(keypair) {
            Err(ListingError::Decode(DecodeError::TooLarge { .. })) if listing.certificates.len() > 1 => {
                listing.certificates.pop();
                left_out.certificates += 1;
            }
            Err(ListingError::Decode(DecodeError::TooLarge { .. })) if !listing.offers.is_empty() => {
                listing.offers.pop();
                left_out.offers += 1;
            }
            sealed => return Ok((sealed?, left_out)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::codec::LISTING_MAX_BYTES;
    use gristmill_protocol::hardware::CERTIFICATE_MAX_BYTES;
    use gristmill_protocol::job::JobKind;
    use gristmill_protocol::listing::Offer;
    use gristmill_protocol::usage::Price;

    #[test]
    fn a_listing_that_is_too_large_goes_without_its_last_offers() {
        let keypair = Keypair::from_secret(&[3; 32]);
        let offer = |number: u32| Offer {
            kind: JobKind::ChatCompletions,
            model: format!("{number}-{}", "m".repeat(120)),
            weights_digest: Some([7; 32]),
            quantization: "q".repeat(200),
            context_length: 1,
            capabilities: vec![],
            price: Price::default(),
        };
        let listing = |offers| Listing {
            provider: keypair.account(),
            sequence: 1,
            issued_at_ms: 1,
            ttl_ms: 1,
            addresses: vec![],
            coordinators: vec![],
            region: String::new(),
            privacy: PrivacyTier::Standard,
            offers,
            slots: 1,
            free_slots: 1,
            certificates: vec![],
        };
        let (_, left_out) = seal(listing((0..3).map(offer).collect()), &keypair).unwrap();
        assert_eq!(left_out, LeftOut::default());
        let (sealed, left_out) = seal(listing((0..32).map(offer).collect()), &keypair).unwrap();
        let left_out = left_out.offers;
        assert!(left_out > 0 && sealed.len() <= LISTING_MAX_BYTES);
        let kept = Listing::open(&sealed, 1).unwrap().offers;
        assert_eq!(kept, (0..32).map(offer).take(32 - left_out).collect::<Vec<_>>());
        let one_more = listing((0..32).map(offer).take(32 - left_out + 1).collect());
        assert!(one_more.seal(&keypair).is_err(), "as many as fit are kept");
        let certified = |offers: u32| Listing {
            certificates: vec!["c".repeat(CERTIFICATE_MAX_BYTES); 3],
            ..listing((0..offers).map(offer).collect())
        };
        let (_, left_out) = seal(certified(1), &keypair).unwrap();
        assert_eq!(left_out, LeftOut::default());
        let (sealed, left_out) = seal(certified(32), &keypair).unwrap();
        assert_eq!(left_out.certificates, 2, "others go before the first offer does");
        assert_eq!(Listing::open(&sealed, 1).unwrap().certificates.len(), 1);
        let few = seal(certified(8), &keypair).unwrap().1;
        assert!(few.certificates > 0 && few.offers == 0, "{few:?}");
    }
}
