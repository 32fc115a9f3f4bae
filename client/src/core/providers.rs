//! Who offers something, and which hardware of theirs is verified, as `GET /v1/providers` lists it.
//!
//! Verified means that a coordinator's certificate was checked here, with the keys that the client knows. What a
//! provider says of itself without one is not shown as hardware at all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::board::Board;
use gristmill_protocol::hardware::{HardwareCertificate, HardwareKind, Precision};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::listing::{Listing, PrivacyTier};
use serde::{Deserialize, Serialize};

/// Most providers in one list.
pub const PROVIDERS_MAX: usize = 1_000;

/// Whether a provider's hardware was shown to the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verification {
    /// At least one device has a certificate that holds now.
    Verified,
    /// None has.
    Unverified,
}

impl Verification {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
        }
    }
}

/// A provider on offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderView {
    /// Its account.
    pub id: AccountId,
    /// `provider`.
    pub object: String,
    /// The names of what it offers.
    pub models: BTreeSet<String>,
    /// Where it says it is; empty where it does not say.
    pub region: String,
    /// What it promises about prompts and answers.
    pub privacy: PrivacyTier,
    /// How many jobs it runs at once.
    pub slots: u16,
    /// How many of those places were free when it said so.
    pub free_slots: u16,
    /// Whether any of its hardware is verified.
    pub hardware: Verification,
    /// The devices that are, in the order of its listing.
    pub devices: Vec<DeviceView>,
}

/// A device as its certificate shows it. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Its name, in its owner's words: what it can do was shown, not what it is.
    pub name: String,
    /// Who makes it, in its owner's words.
    pub vendor: String,
    /// By which interface it computes.
    pub kind: HardwareKind,
    /// Memory that it was shown to have, in bytes.
    pub memory_bytes: u64,
    /// Multiply-adds per second that it was shown to reach, by precision.
    pub multiply_adds_per_second: BTreeMap<Precision, u64>,
    /// One number to compare devices by.
    pub score: u64,
    /// The method by which it was shown.
    pub method: String,
    /// When it was shown.
    pub shown_at: u64,
    /// When the certificate expires.
    pub expires_at: u64,
    /// Whether it is another device than in its certificate before.
    pub fingerprint_changed: bool,
}

/// The body of `GET /v1/providers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderList {
    /// `list`.
    pub object: String,
    /// How many there are, shown here or not.
    pub total: usize,
    /// The verified ones first, the strongest of them first; at most [`PROVIDERS_MAX`].
    pub data: Vec<ProviderView>,
}

/// Of whom an account can buy with a coordinator's tickets; with any tickets, where none is named.
#[must_use]
pub fn providers_on_offer(
    board: &Board,
    coordinator: Option<AccountId>,
    account: Option<AccountId>,
    now_ms: u64,
) -> ProviderList {
    let mut data: Vec<ProviderView> = board
        .listings(now_ms)
        .filter(|listing| coordinator.is_none_or(|it| listing.coordinators.contains(&it)))
        .filter(|listing| account != Some(listing.provider))
        .map(|listing| view(listing, board.certificates(&listing.provider, now_ms)))
        .collect();
    // Stable, so those that are alike stay in the order of their accounts.
    data.sort_by_key(|provider| (provider.hardware, Reverse(provider.score())));
    let total = data.len();
    data.truncate(PROVIDERS_MAX);
    ProviderList {
        object: "list".into(),
        total,
        data,
    }
}

/// How many providers are on offer, and what of their hardware is verified, for monitoring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardwareSums {
    /// Providers with verified hardware.
    pub verified: i64,
    /// Providers without.
    pub unverified: i64,
    /// Verified devices.
    pub devices: i64,
    /// Memory that these have shown, in bytes.
    pub memory_bytes: i64,
}

impl HardwareSums {
    /// Over all of whom an account can buy.
    #[must_use]
    pub fn of(board: &Board, coordinator: Option<AccountId>, account: AccountId, now_ms: u64) -> Self {
        let mut sums = Self::default();
        let payable = board
            .listings(now_ms)
            .filter(|listing| coordinator.is_none_or(|it| listing.coordinators.contains(&it)))
            .filter(|listing| account != listing.provider);
        for listing in payable {
            let mut is_verified = false;
            for certificate in board.certificates(&listing.provider, now_ms) {
                is_verified = true;
                let bytes = i64::try_from(certificate.memory_bytes).unwrap_or(i64::MAX);
                sums.memory_bytes = sums.memory_bytes.saturating_add(bytes);
                sums.devices += 1;
            }
            sums.verified += i64::from(is_verified);
            sums.unverified += i64::from(!is_verified);
        }
        sums
    }
}

impl ProviderView {
    /// What its devices come to together.
    fn score(&self) -> u64 {
        self.devices
            .iter()
            .fold(0, |sum, device| sum.saturating_add(device.score))
    }
}

fn view<'a>(listing: &Listing, certificates: impl Iterator<Item = &'a HardwareCertificate>) -> ProviderView {
    let devices: Vec<DeviceView> = certificates.map(DeviceView::of).collect();
    ProviderView {
        id: listing.provider,
        object: "provider".into(),
        models: listing.offers.iter().map(|offer| offer.model.clone()).collect(),
        region: listing.region.clone(),
        privacy: listing.privacy,
        slots: listing.slots,
        free_slots: listing.free_slots,
        hardware: if devices.is_empty() {
            Verification::Unverified
        } else {
            Verification::Verified
        },
        devices,
    }
}

impl DeviceView {
    /// What a certificate says.
    #[must_use]
    pub fn of(certificate: &HardwareCertificate) -> Self {
        let throughput = certificate.throughput.iter();
        Self {
            name: certificate.device.name.clone(),
            vendor: certificate.device.vendor.clone(),
            kind: certificate.device.kind,
            memory_bytes: certificate.memory_bytes,
            multiply_adds_per_second: throughput
                .map(|one| (one.precision, one.multiply_adds_per_second))
                .collect(),
            score: certificate.score,
            method: certificate.method.clone(),
            shown_at: certificate.shown_at,
            expires_at: certificate.exp,
            fingerprint_changed: certificate.fingerprint_changed,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use gristmill_protocol::hardware::{
        CERTIFICATE_LIFE_SECONDS, CertifiedDevice, HardwareDigest, METHOD, Throughput,
    };
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::ids::ChallengeId;
    use gristmill_protocol::job::JobKind;
    use gristmill_protocol::jws::Audience;
    use gristmill_protocol::listing::Offer;
    use gristmill_protocol::log::checkpoint::LogKeys;
    use gristmill_protocol::usage::Price;
    use serde_json::json;

    const NOW: u64 = 1_800_000_000_000;
    pub(crate) const COORDINATOR: u8 = 200;

    fn keypair(byte: u8) -> Keypair {
        Keypair::from_secret(&[byte; 32])
    }

    /// A certificate of [`COORDINATOR`], as a listing carries it.
    pub(crate) fn certificate(about: u8, score: u64, now_ms: u64) -> String {
        let issuer = keypair(COORDINATOR);
        let iat = now_ms / 1_000;
        HardwareCertificate {
            iss: issuer.account(),
            sub: keypair(about).account(),
            aud: Audience::One(issuer.account()),
            jti: ChallengeId::from_bytes([7; 16]),
            iat,
            exp: iat + CERTIFICATE_LIFE_SECONDS,
            shown_at: iat,
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
            score,
            fingerprint: HardwareDigest::from_bytes([9; 32]),
            fingerprint_changed: false,
        }
        .sign(&issuer)
    }

    fn post(board: &mut Board, byte: u8, certificates: Vec<String>) {
        let offer = |kind| Offer {
            kind,
            model: "guide".into(),
            weights_digest: None,
            quantization: String::new(),
            context_length: 512,
            capabilities: vec![],
            price: Price::default(),
        };
        let listing = Listing {
            provider: keypair(byte).account(),
            sequence: 1,
            issued_at_ms: NOW,
            ttl_ms: 600_000,
            addresses: vec![],
            coordinators: vec![keypair(COORDINATOR).account()],
            region: "CH".into(),
            privacy: PrivacyTier::Standard,
            offers: vec![offer(JobKind::ChatCompletions), offer(JobKind::Embeddings)],
            slots: 4,
            free_slots: 3,
            certificates,
        };
        board.insert(&listing.seal(&keypair(byte)).unwrap(), NOW).unwrap();
    }

    fn board() -> Board {
        let mut board = Board::default();
        board.trust(LogKeys::new(keypair(COORDINATOR).account()));
        post(&mut board, 1, vec![]);
        post(&mut board, 2, vec![certificate(2, 50, NOW)]);
        post(&mut board, 3, vec![certificate(3, 900, NOW)]);
        post(&mut board, 4, vec![certificate(3, 9_999, NOW)]);
        board
    }

    #[test]
    fn verified_providers_come_first_and_borrowed_certificates_are_none() {
        let list = providers_on_offer(&board(), Some(keypair(COORDINATOR).account()), None, NOW);
        let shown: Vec<_> = list
            .data
            .iter()
            .map(|provider| (provider.id, provider.hardware))
            .collect();
        let account = |byte| keypair(byte).account();
        assert_eq!(
            shown[..2],
            [
                (account(3), Verification::Verified),
                (account(2), Verification::Verified)
            ]
        );
        assert_eq!((list.total, shown.len()), (4, 4));
        assert!(
            shown[2..]
                .iter()
                .all(|(_, hardware)| *hardware == Verification::Unverified)
        );
        let own = providers_on_offer(&board(), None, Some(account(3)), NOW);
        assert!(own.data.iter().all(|provider| provider.id != account(3)));
        let elsewhere = providers_on_offer(&board(), Some(account(9)), None, NOW);
        assert_eq!(elsewhere.total, 0);
    }

    #[test]
    fn monitoring_is_told_the_sums() {
        let sums = HardwareSums::of(&board(), None, keypair(9).account(), NOW);
        let expected = HardwareSums {
            verified: 2,
            unverified: 2,
            devices: 2,
            memory_bytes: 48 << 30,
        };
        assert_eq!(sums, expected);
        let life_ms = CERTIFICATE_LIFE_SECONDS * 1_000;
        let later = HardwareSums::of(&board(), None, keypair(3).account(), NOW + 599_999);
        assert_eq!(
            (later.verified, later.unverified),
            (1, 2),
            "one is the account itself"
        );
        assert_eq!(
            HardwareSums::of(&board(), None, keypair(9).account(), NOW + life_ms),
            HardwareSums::default()
        );
    }

    #[test]
    fn programs_are_shown_the_device_and_until_when_it_counts() {
        let list = providers_on_offer(&board(), None, None, NOW);
        let shown = serde_json::to_value(&list.data[0]).unwrap();
        assert_eq!(shown["hardware"], "verified");
        assert_eq!(shown["models"], json!(["guide"]));
        assert_eq!(
            shown["devices"],
            json!([{
                "name": "NVIDIA H200", "vendor": "NVIDIA", "kind": "cuda", "memory_bytes": 24_u64 << 30,
                "multiply_adds_per_second": {"f32": 25_000_000_000_000_u64}, "score": 900, "method": METHOD,
                "shown_at": NOW / 1_000, "expires_at": NOW / 1_000 + CERTIFICATE_LIFE_SECONDS,
                "fingerprint_changed": false,
            }])
        );
        let again: ProviderList = serde_json::from_str(&serde_json::to_string(&list).unwrap()).unwrap();
        assert_eq!(again, list);
    }
}
