//! When to publish a listing: on change and before the last one expires, but never too often for the network.

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::listing::{LISTING_INTERVAL_MIN_MS, Listing, Offer, PrivacyTier};

/// How long a listing holds.
pub const LISTING_TTL_MS: u64 = 120_000;
/// When the first listing is published a second time. Peers that remember a listing of an earlier run ignore one
/// that comes too soon after it, and peers that connect just after the start have missed it.
pub const REPEAT_AFTER_MS: u64 = LISTING_INTERVAL_MIN_MS + 1_000;

/// What a node would say about itself now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingContent {
    /// Where job streams are accepted.
    pub addresses: Vec<String>,
    /// The coordinators whose tickets count.
    pub coordinators: Vec<AccountId>,
    /// Where the node says it is.
    pub region: String,
    /// What the node promises about prompts and answers.
    pub privacy: PrivacyTier,
    /// What is on offer.
    pub offers: Vec<Offer>,
    /// How many jobs run at once.
    pub slots: u16,
    /// How many more could start now.
    pub free_slots: u16,
    /// Certificates of its hardware.
    pub certificates: Vec<String>,
}

impl ListingContent {
    /// Whether there is anything that somebody could ask for.
    fn is_worth_saying(&self) -> bool {
        !self.offers.is_empty() && !self.addresses.is_empty() && !self.coordinators.is_empty()
    }

    /// Whether the network should hear of the difference before the next renewal. Slots come and go with every job;
    /// what matters is whether there is one.
    fn differs_enough(&self, said: &Self) -> bool {
        let with_slots_of_said = Self {
            free_slots: said.free_slots,
            ..self.clone()
        };
        with_slots_of_said != *said || (self.free_slots == 0) != (said.free_slots == 0)
    }
}

/// What to do about the listing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListingStep {
    /// Sign and publish this, then ask again.
    Publish(Box<Listing>),
    /// Nothing before this time, unless what is to be said changes. Unix milliseconds.
    WaitUntil(u64),
    /// Nothing at all, unless what is to be said changes.
    WaitForChange,
}

/// What was published last.
#[derive(Clone, Debug)]
struct Said {
    content: ListingContent,
    at_ms: u64,
    is_farewell: bool,
}

/// Decides when to publish.
#[derive(Clone, Debug)]
pub struct ListingPlan {
    provider: AccountId,
    said: Option<Said>,
    published: u64,
    sequence: u64,
}

impl ListingPlan {
    /// A plan of which nothing was published yet.
    #[must_use]
    pub const fn new(provider: AccountId) -> Self {
        Self {
            provider,
            said: None,
            published: 0,
            sequence: 0,
        }
    }

    /// What to do, given what is to be said. Taking a [`ListingStep::Publish`] counts as publishing.
    pub fn step(&mut self, content: &ListingContent, now_ms: u64) -> ListingStep {
        let Some(said) = &self.said else {
            return if content.is_worth_saying() {
                self.publish(content, LISTING_TTL_MS, now_ms)
            } else {
                ListingStep::WaitForChange
            };
        };
        let changed = if content.is_worth_saying() {
            said.is_farewell || content.differs_enough(&said.content)
        } else {
            !said.is_farewell
        };
        let due_after_ms = match (changed, said.is_farewell, self.published) {
            (true, _, _) => LISTING_INTERVAL_MIN_MS,
            (false, true, _) => return ListingStep::WaitForChange,
            (false, false, 1) => REPEAT_AFTER_MS,
            (false, false, _) => LISTING_TTL_MS / 2,
        };
        // A clock that was set back must not silence the node until it has caught up.
        let since_ms = now_ms.checked_sub(said.at_ms).unwrap_or(u64::MAX);
        if since_ms < due_after_ms {
            return ListingStep::WaitUntil(said.at_ms.saturating_add(due_after_ms));
        }
        let ttl_ms = if content.is_worth_saying() {
            LISTING_TTL_MS
        } else {
            0
        };
        self.publish(content, ttl_ms, now_ms)
    }

    /// The leaving message, where anybody has heard of the node. Farewells may follow any listing at once.
    pub fn leave(&mut self, now_ms: u64) -> Option<Box<Listing>> {
        let said = self.said.as_ref().filter(|said| !said.is_farewell)?;
        let content = said.content.clone();
        match self.publish(&content, 0, now_ms) {
            ListingStep::Publish(listing) => Some(listing),
            ListingStep::WaitUntil(_) | ListingStep::WaitForChange => None,
        }
    }

    fn publish(&mut self, content: &ListingContent, ttl_ms: u64, now_ms: u64) -> ListingStep {
        let is_farewell = ttl_ms == 0;
        // Grows also where the clock was set back.
        self.sequence = now_ms.max(self.sequence.saturating_add(1));
        self.published = self.published.saturating_add(1);
        self.said = Some(Said {
            content: content.clone(),
            at_ms: now_ms,
            is_farewell,
        });
        let content = content.clone();
        ListingStep::Publish(Box::new(Listing {
            provider: self.provider,
            sequence: self.sequence,
            issued_at_ms: now_ms,
            ttl_ms,
            addresses: content.addresses,
            coordinators: content.coordinators,
            region: content.region,
            privacy: content.privacy,
            offers: if is_farewell { Vec::new() } else { content.offers },
            slots: content.slots,
            free_slots: content.free_slots.min(content.slots),
            certificates: if is_farewell {
                Vec::new()
            } else {
                content.certificates
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_protocol::board::{Board, Insertion};
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::job::JobKind;
    use gristmill_protocol::usage::Price;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;

    fn keypair() -> Keypair {
        Keypair::from_secret(&[3; 32])
    }

    fn content(models: &[&str], free_slots: u16) -> ListingContent {
        let offer = |model: &&str| Offer {
            kind: JobKind::ChatCompletions,
            model: (*model).into(),
            weights_digest: None,
            quantization: String::new(),
            context_length: 512,
            capabilities: vec![],
            price: Price::default(),
        };
        ListingContent {
            addresses: vec!["/ip4/127.0.0.1/udp/7410/quic-v1".into()],
            coordinators: vec![Keypair::from_secret(&[1; 32]).account()],
            region: String::new(),
            privacy: PrivacyTier::Standard,
            offers: models.iter().map(offer).collect(),
            slots: 4,
            free_slots,
            certificates: vec![],
        }
    }

    fn plan() -> ListingPlan {
        ListingPlan::new(keypair().account())
    }

    fn published(step: &ListingStep) -> &Listing {
        match step {
            ListingStep::Publish(listing) => listing,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nothing_is_said_before_there_is_something_to_say() {
        let mut plan = plan();
        assert_eq!(plan.step(&content(&[], 4), NOW), ListingStep::WaitForChange);
        let alone = ListingContent {
            coordinators: vec![],
            ..content(&["a"], 4)
        };
        assert_eq!(plan.step(&alone, NOW), ListingStep::WaitForChange);
        assert_eq!(plan.leave(NOW), None);
    }

    #[test]
    fn the_first_is_repeated_soon_and_later_ones_at_half_their_life() {
        let mut plan = plan();
        let said = content(&["a"], 4);
        assert_eq!(published(&plan.step(&said, NOW)).ttl_ms, LISTING_TTL_MS);
        assert_eq!(
            plan.step(&said, NOW + 1),
            ListingStep::WaitUntil(NOW + REPEAT_AFTER_MS)
        );
        published(&plan.step(&said, NOW + REPEAT_AFTER_MS));
        let second = NOW + REPEAT_AFTER_MS;
        assert_eq!(
            plan.step(&said, second + 1),
            ListingStep::WaitUntil(second + LISTING_TTL_MS / 2)
        );
        published(&plan.step(&said, second + LISTING_TTL_MS / 2));
    }

    #[test]
    fn changes_are_said_as_soon_as_the_network_allows() {
        let mut plan = plan();
        plan.step(&content(&["a"], 4), NOW);
        let changed = content(&["a", "b"], 4);
        assert_eq!(
            plan.step(&changed, NOW + 100),
            ListingStep::WaitUntil(NOW + LISTING_INTERVAL_MIN_MS)
        );
        let step = plan.step(&changed, NOW + LISTING_INTERVAL_MIN_MS);
        assert_eq!(published(&step).offers.len(), 2);
    }

    #[test]
    fn slots_matter_between_none_and_some() {
        let mut plan = plan();
        plan.step(&content(&["a"], 4), NOW);
        plan.step(&content(&["a"], 4), NOW + REPEAT_AFTER_MS);
        let later = NOW + REPEAT_AFTER_MS + LISTING_INTERVAL_MIN_MS;
        assert!(matches!(
            plan.step(&content(&["a"], 3), later),
            ListingStep::WaitUntil(_)
        ));
        assert_eq!(published(&plan.step(&content(&["a"], 0), later)).free_slots, 0);
    }

    #[test]
    fn losing_the_last_offer_is_a_farewell_and_a_new_one_a_return() {
        let mut plan = plan();
        plan.step(&content(&["a"], 4), NOW);
        let gone = content(&[], 4);
        assert_eq!(published(&plan.step(&gone, NOW + 5_000)).ttl_ms, 0);
        assert_eq!(plan.step(&gone, NOW + 500_000), ListingStep::WaitForChange);
        assert_eq!(plan.leave(NOW + 500_000), None);
        assert_eq!(
            published(&plan.step(&content(&["a"], 4), NOW + 500_000)).ttl_ms,
            LISTING_TTL_MS
        );
        let farewell = plan.leave(NOW + 500_001).unwrap();
        assert_eq!((farewell.ttl_ms, farewell.offers.len()), (0, 0));
    }

    #[test]
    fn a_clock_set_back_neither_silences_nor_repeats_numbers() {
        let mut plan = plan();
        let first = published(&plan.step(&content(&["a"], 4), NOW)).sequence;
        let step = plan.step(&content(&["a"], 4), NOW - 3_600_000);
        assert!(published(&step).sequence > first);
    }

    proptest! {
        /// Whatever changes when, peers take every listing, none comes too soon, and the node never drops off their
        /// boards as long as it has something to offer.
        #[test]
        fn peers_take_every_listing(steps in proptest::collection::vec((1u64..30_000, 0usize..3, 0u16..3), 1..60)) {
            let (mut plan, mut board, mut now) = (plan(), Board::default(), NOW);
            let mut alive_until = None;
            for (wait, models, free) in steps {
                let said = content(&["a", "b"][..models], free);
                let end = now + wait;
                while now < end {
                    let wake = match plan.step(&said, now) {
                        ListingStep::Publish(listing) => {
                            let farewell = listing.ttl_ms == 0;
                            let insertion = board.insert(&listing.seal(&keypair()).unwrap(), now).unwrap();
                            prop_assert!(insertion.is_news(), "{insertion:?}");
                            prop_assert_eq!(insertion == Insertion::Left, farewell);
                            alive_until = (!farewell).then_some(now + LISTING_TTL_MS);
                            now
                        }
                        ListingStep::WaitUntil(at) => {
                            prop_assert!(at > now);
                            at
                        }
                        ListingStep::WaitForChange => end,
                    };
                    prop_assert!(alive_until.is_none_or(|until| now < until));
                    now = wake.min(end).max(now);
                }
                if models > 0 && wait > LISTING_INTERVAL_MIN_MS {
                    prop_assert!(board.listing(&keypair().account(), now).is_some());
                }
            }
        }
    }
}
