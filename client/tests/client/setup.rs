//! What a provider of the tests offers.

use std::collections::BTreeSet;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::hardware::{
    CertifiedDevice, HardwareCertificate, HardwareDigest, HardwareKind, METHOD, Precision, Throughput,
};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::ChallengeId;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::jws::Audience;
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
    pub certificate: Option<Certificate>,
}

/// A certificate of hardware in a listing.
#[derive(Clone)]
pub struct Certificate {
    /// Whose key signs it.
    pub issuer: Keypair,
    /// Whom it is about, where that is not the provider itself.
    pub about: Option<AccountId>,
    /// Unix seconds.
    pub expires_at: u64,
}

impl Certificate {
    fn sign(&self, provider: AccountId) -> String {
        let issuer = self.issuer.account();
        HardwareCertificate {
            iss: issuer,
            sub: self.about.unwrap_or(provider),
            aud: Audience::One(issuer),
            jti: ChallengeId::from_bytes([7; 16]),
            iat: unix_ms() / 1_000 - 60,
            exp: self.expires_at,
            shown_at: unix_ms() / 1_000 - 60,
            method: METHOD.into(),
            device: CertifiedDevice {
                kind: HardwareKind::Cuda,
                index: 0,
                name: "NVIDIA H200".into(),
                vendor: "NVIDIA".into(),
                uuid: None,
            },
            memory_bytes: 24 << 30,
            throughput: vec![Throughput {
                precision: Precision::F32,
                multiply_adds_per_second: 25_000_000_000_000,
            }],
            score: 1_000,
            fingerprint: HardwareDigest::from_bytes([9; 32]),
            fingerprint_changed: false,
        }
        .sign(&self.issuer)
    }
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
            certificate: None,
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
            certificates: self
                .certificate
                .iter()
                .map(|certificate| certificate.sign(keypair.account()))
                .collect(),
        };
        listing.seal(keypair).unwrap()
    }
}
