//! The devices that hold certificates, and when a certificate is renewed.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_protocol::hardware::{CERTIFICATE_LIFE_SECONDS, HardwareCertificate, HardwareDigest};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::jws::Claims as _;
use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

use super::link::{AddressKey, DeviceKey, Links};
use super::policy::Policy;

/// What a coordinator keeps of a certified device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertifiedRecord {
    /// What the newest certificate says.
    pub certificate: HardwareCertificate,
    /// The certificate as it was signed; empty while it is not.
    pub text: String,
    /// From where it was shown: see [`AddressKey::parts`].
    pub address: Option<(u64, bool)>,
    /// When the device has to be shown again, Unix milliseconds. Drawn at random when it was shown, and told to
    /// nobody before it comes.
    pub again_at_ms: u64,
    /// Whether the device failed a challenge since it was shown: then it has to be shown again at once.
    #[serde(default)]
    pub has_failed: bool,
}

/// Whether a certificate is renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is, with this content.
    Renewed(Box<CertifiedRecord>),
    /// The device has to be shown again.
    ChallengeRequired,
}

impl CertifiedRecord {
    /// The device's key.
    #[must_use]
    pub fn device(&self) -> DeviceKey {
        let device = &self.certificate.device;
        DeviceKey::of_parts(&self.certificate.sub, device.kind, device.index, device.uuid)
    }

    /// Whether somebody may still accept the certificate.
    #[must_use]
    pub fn is_live(&self, now_ms: u64) -> bool {
        let ends_at_ms = self.certificate.exp.saturating_mul(1_000);
        now_ms < ends_at_ms.saturating_add(HardwareCertificate::LEEWAY_MS)
    }

    /// Whether the device has to be shown again, by its own lot or because it failed.
    #[must_use]
    pub const fn is_due(&self, now_ms: u64) -> bool {
        self.has_failed || now_ms >= self.again_at_ms
    }

    pub(super) fn links(&self) -> Links {
        Links {
            account: self.certificate.sub,
            address: self.address.map(AddressKey::from_parts),
            uuid: self.certificate.device.uuid,
        }
    }

    /// The same with a later expiry: six hours, but never more than a day after it was shown.
    pub(super) fn renewed(&self, coordinator: AccountId, policy: &Policy, now_ms: u64) -> Renewal {
        let latest = self
            .certificate
            .shown_at
            .saturating_add(policy.shown_life_ms / 1_000);
        let exp = expiry(now_ms, latest);
        if self.is_due(now_ms) || !self.is_live(now_ms) || exp <= self.certificate.exp.min(now_ms / 1_000) {
            return Renewal::ChallengeRequired;
        }
        let mut renewed = self.clone();
        renewed.certificate.iss = coordinator;
        renewed.certificate.aud = gristmill_protocol::jws::Audience::One(coordinator);
        renewed.certificate.iat = now_ms / 1_000;
        renewed.certificate.exp = exp;
        renewed.text.clear();
        Renewal::Renewed(Box::new(renewed))
    }
}

/// When a certificate expires that is issued now, in Unix seconds.
pub(super) fn expiry(now_ms: u64, latest: u64) -> u64 {
    (now_ms / 1_000)
        .saturating_add(CERTIFICATE_LIFE_SECONDS)
        .min(latest)
}

/// When a device that is shown now has to be shown again. A challenge that nobody demanded does not put off one
/// that is to come: otherwise who rents a device for a minute could choose its own times. One that was failed before does not
/// either: whoever wants another lot could fail and then pass.
pub(super) fn draw_again(
    before: Option<&CertifiedRecord>,
    policy: &Policy,
    now_ms: u64,
    rng: &mut dyn Rng,
) -> u64 {
    // So that no certificate is older than a day when it expires, the last one is issued before that.
    let latest = policy
        .shown_life_ms
        .saturating_sub(CERTIFICATE_LIFE_SECONDS * 1_000);
    let drawn = now_ms + rng.random_range(policy.again_after_ms..=latest.max(policy.again_after_ms));
    match before {
        Some(before) if now_ms < before.again_at_ms => before.again_at_ms.min(drawn),
        _ => drawn,
    }
}

/// All certified devices, found by what they may have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Register {
    records: BTreeMap<DeviceKey, CertifiedRecord>,
    accounts: BTreeMap<AccountId, BTreeSet<DeviceKey>>,
    addresses: BTreeMap<AddressKey, BTreeSet<DeviceKey>>,
    uuids: BTreeMap<HardwareDigest, BTreeSet<DeviceKey>>,
}

impl Register {
    pub(super) fn get(&self, device: &DeviceKey) -> Option<&CertifiedRecord> {
        self.records.get(device)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &CertifiedRecord> {
        self.records.values()
    }

    pub(super) fn of_account(&self, account: &AccountId) -> impl Iterator<Item = &CertifiedRecord> {
        let devices = self.accounts.get(account).into_iter().flatten();
        devices.filter_map(|device| self.records.get(device))
    }

    pub(super) fn insert(&mut self, record: CertifiedRecord) {
        let device = record.device();
        self.remove(&device);
        let links = record.links();
        self.accounts.entry(links.account).or_default().insert(device);
        if let Some(address) = links.address {
            self.addresses.entry(address).or_default().insert(device);
        }
        if let Some(uuid) = links.uuid {
            self.uuids.entry(uuid).or_default().insert(device);
        }
        self.records.insert(device, record);
    }

    pub(super) fn update(
        &mut self,
        device: &DeviceKey,
        change: impl FnOnce(&mut CertifiedRecord),
    ) -> Option<&CertifiedRecord> {
        let record = self.records.get_mut(device)?;
        change(record);
        Some(record)
    }

    pub(super) fn remove(&mut self, device: &DeviceKey) {
        let Some(record) = self.records.remove(device) else {
            return;
        };
        let links = record.links();
        forget(&mut self.accounts, &links.account, device);
        if let Some(address) = &links.address {
            forget(&mut self.addresses, address, device);
        }
        if let Some(uuid) = &links.uuid {
            forget(&mut self.uuids, uuid, device);
        }
    }

    /// The devices with live certificates that claim the same owner, address or UUID.
    pub(super) fn linked(&self, links: &Links, now_ms: u64) -> BTreeSet<DeviceKey> {
        let by_account = self.accounts.get(&links.account);
        let by_address = links.address.and_then(|address| self.addresses.get(&address));
        let by_uuid = links.uuid.and_then(|uuid| self.uuids.get(&uuid));
        let devices = [by_account, by_address, by_uuid];
        let devices = devices.into_iter().flatten().flatten();
        let is_live = |device: &&DeviceKey| {
            self.records
                .get(device)
                .is_some_and(|record| record.is_live(now_ms))
        };
        devices.filter(is_live).copied().collect()
    }

    /// Whether another account has a live certificate for a device with this UUID.
    pub(super) fn is_taken(&self, links: &Links, now_ms: u64) -> bool {
        let of_others = links.uuid.and_then(|uuid| self.uuids.get(&uuid));
        of_others.into_iter().flatten().any(|device| {
            self.records
                .get(device)
                .is_some_and(|record| record.certificate.sub != links.account && record.is_live(now_ms))
        })
    }

    /// The devices whose certificates expired so long ago that nothing of them is needed any more.
    pub(super) fn forgotten(&self, remember_ms: u64, now_ms: u64) -> Vec<DeviceKey> {
        let is_old = |record: &CertifiedRecord| {
            record
                .certificate
                .exp
                .saturating_mul(1_000)
                .saturating_add(remember_ms)
                <= now_ms
        };
        let old = self.records.iter().filter(|(_, record)| is_old(record));
        old.map(|(device, _)| *device).collect()
    }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<DeviceKey>>, key: &K, device: &DeviceKey) {
    if let Some(devices) = index.get_mut(key) {
        devices.remove(device);
        if devices.is_empty() {
            index.remove(key);
        }
    }
}
