//! What a provider of the tests offers.

use std::collections::BTreeSet;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::{Capability, Listing, Offer, PrivacyTier};
use gristmill_protocol::usage::Price;

use crate::harness::unix_ms;
use crate::provider::price;

/// What a provider offers.
#[derive(Clone)]
pub struct Setup {
    pub kind: JobKind,
    pub model: &'static str,
    /// Microcredits per million tokens, read or written.
    pub price: u32,
    pub window: u32,
    pub capabilities: Vec<Capability>,
    pub context_length: u32,
    pub region: &'static str,
    pub privacy: PrivacyTier,
    pub weights_digest: Option<[u8; 32]>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            kind: JobKind::ChatCompletions,
            model: "guide",
            price: 1_000_000,
            window: 100_000,
            capabilities: vec![],
            context_length: 8_192,
            region: "",
            privacy: PrivacyTier::Standard,
            weights_digest: None,
        }
    }
}

impl Setup {
    pub fn price(&self) -> Price {
        price(self.kind, Credits::micro(self.price))
    }

    pub fn listing(&self, keypair: &Keypair, addresses: Vec<String>, coordinators: &[AccountId]) -> Vec<u8> {
        let listing = Listing {
            provider: keypair.account(),
            sequence: unix_ms(),
            issued_at_ms: unix_ms(),
            ttl_ms: 300_000,
            addresses,
            coordinators: coordinators.to_vec(),
            region: self.region.into(),
            privacy: self.privacy,
            offers: vec![Offer {
                kind: self.kind,
                model: self.model.into(),
                weights_digest: self.weights_digest,
                quantization: String::new(),
                context_length: self.context_length,
                capabilities: self
                    .capabilities
                    .iter()
                    .copied()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
                price: self.price(),
            }],
            slots: 4,
            free_slots: 4,
            certificates: vec![],
        };
        listing.seal(keypair).unwrap()
    }
}
