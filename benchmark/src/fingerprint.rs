//! Whether a device is still the one it was: what identifies it, a digest over that, and what has changed.
//!
//! The node sends the fingerprint with its claim, the coordinator keeps the last one and flags changes in the next
//! certificate. What changes while a device works (free memory, temperature, the minor version of the driver) is no
//! part of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::inventory::{Device, DeviceKind};

/// The context of the digest, as BLAKE3's key derivation wants one.
const CONTEXT: &str = "gristmill hardware fingerprint 1";
/// The most bytes of a text that count. More than any driver tells; a claim may come from anybody.
pub const TEXT_MAX_BYTES: usize = 256;
/// What memory is rounded to before it counts, in bytes: drivers and kernels keep some megabytes for themselves, and
/// not always the same ones.
const MEMORY_UNIT_BYTES: u64 = 1 << 30;

/// What identifies a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// By which interface it computes.
    pub kind: DeviceKind,
    /// Who makes it.
    pub vendor: String,
    /// The maker's name for the model.
    pub name: String,
    /// The driver's lasting name for this very device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Memory in GiB, rounded to the nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_gibibytes: Option<u64>,
    /// What stands before the first dot of the driver's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_major: Option<String>,
}

/// What of a fingerprint changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangedPart {
    /// The interface it computes by.
    Kind,
    /// The maker.
    Vendor,
    /// The model.
    Name,
    /// The very device.
    Uuid,
    /// Its memory.
    Memory,
    /// The driver.
    Driver,
}

impl ChangedPart {
    /// Whether another device stands there now. A new driver is worth a flag, but leaves the device what it is.
    #[must_use]
    pub const fn is_another_device(self) -> bool {
        !matches!(self, Self::Driver)
    }
}

impl fmt::Display for ChangedPart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Kind => "kind",
            Self::Vendor => "vendor",
            Self::Name => "name",
            Self::Uuid => "UUID",
            Self::Memory => "memory",
            Self::Driver => "driver",
        })
    }
}

/// One part that differs between two fingerprints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which part.
    pub part: ChangedPart,
    /// What it was, for people; empty where it was not told.
    pub before: String,
    /// What it is now, for people; empty where it is not told.
    pub now: String,
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &str| match text {
            "" => "unknown".to_owned(),
            text => text.to_owned(),
        };
        write!(
            formatter,
            "{} was {} and is {}",
            self.part,
            shown(&self.before),
            shown(&self.now)
        )
    }
}

impl Fingerprint {
    /// The fingerprint of a device from what is claimed about it. Texts are cut to [`TEXT_MAX_BYTES`]; no part is
    /// believed, it is only compared.
    #[must_use]
    pub fn new(
        kind: DeviceKind,
        vendor: &str,
        name: &str,
        uuid: Option<&str>,
        memory_bytes: Option<u64>,
        driver_version: Option<&str>,
    ) -> Self {
        let major = |version: &str| bounded(version.split('.').next().unwrap_or_default());
        Self {
            kind,
            vendor: bounded(vendor),
            name: bounded(name),
            uuid: uuid.map(bounded),
            memory_gibibytes: memory_bytes
                .map(|bytes| bytes.saturating_add(MEMORY_UNIT_BYTES / 2) / MEMORY_UNIT_BYTES),
            driver_major: driver_version.map(major).filter(|major| !major.is_empty()),
        }
    }

    /// The fingerprint of a device of this machine.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        Self::new(
            device.kind,
            &device.vendor,
            &device.name,
            device.uuid.as_deref(),
            device.memory_total_bytes,
            device.driver_version.as_deref(),
        )
    }

    /// The digest: BLAKE3 in key derivation mode over every part, each with its length before it (and a mark where a
    /// part is not told), so that no two fingerprints write the same bytes.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        let kind = self.kind.to_string();
        let memory = self.memory_gibibytes.map(|memory| memory.to_string());
        let parts = [
            Some(kind.as_str()),
            Some(&self.vendor),
            Some(&self.name),
            self.uuid.as_deref(),
            memory.as_deref(),
            self.driver_major.as_deref(),
        ];
        for part in parts {
            match part {
                None => hasher.update(&u64::MAX.to_le_bytes()),
                Some(text) => hasher
                    .update(&(text.len() as u64).to_le_bytes())
                    .update(text.as_bytes()),
            };
        }
        *hasher.finalize().as_bytes()
    }

    /// The digest as 64 hexadecimal digits.
    #[must_use]
    pub fn digest_hex(&self) -> String {
        hex::encode(self.digest())
    }

    /// What changed since an earlier fingerprint, in the order of the parts. Empty exactly where the digests agree.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<Change> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let memory = |value: Option<u64>| value.map(|memory| format!("{memory} GiB")).unwrap_or_default();
        let changed = |part, differs: bool, before: String, now: String| {
            differs.then_some(Change { part, before, now })
        };
        [
            changed(
                ChangedPart::Kind,
                before.kind != self.kind,
                before.kind.to_string(),
                self.kind.to_string(),
            ),
            changed(
                ChangedPart::Vendor,
                before.vendor != self.vendor,
                before.vendor.clone(),
                self.vendor.clone(),
            ),
            changed(
                ChangedPart::Name,
                before.name != self.name,
                before.name.clone(),
                self.name.clone(),
            ),
            changed(
                ChangedPart::Uuid,
                before.uuid != self.uuid,
                text(&before.uuid),
                text(&self.uuid),
            ),
            changed(
                ChangedPart::Memory,
                before.memory_gibibytes != self.memory_gibibytes,
                memory(before.memory_gibibytes),
                memory(self.memory_gibibytes),
            ),
            changed(
                ChangedPart::Driver,
                before.driver_major != self.driver_major,
                text(&before.driver_major),
                text(&self.driver_major),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// A text cut to [`TEXT_MAX_BYTES`] at a character's border.
fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_MAX_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn card() -> Fingerprint {
        Fingerprint::new(
            DeviceKind::Cuda,
            "NVIDIA",
            "NVIDIA GeForce RTX 4090",
            Some("GPU-1a2b3c4d-0000-1111-2222-333344445555"),
            Some(25_757_220_864),
            Some("580.95.05"),
        )
    }

    #[test]
    fn what_changes_while_a_device_works_is_no_change() {
        let later = Fingerprint::new(
            DeviceKind::Cuda,
            "NVIDIA",
            "NVIDIA GeForce RTX 4090",
            Some("GPU-1a2b3c4d-0000-1111-2222-333344445555"),
            Some(25_757_220_864 - (40 << 20)),
            Some("580.126"),
        );
        assert_eq!(later.changes_since(&card()), []);
        assert_eq!(later.digest(), card().digest());
        // Written into certificates: it must not change by accident.
        assert_eq!(
            card().digest_hex(),
            "44d8c73852066dd94b5397c825c857d83cdbf5afbc00abe51d764ea53bf452c9"
        );
    }

    #[test]
    fn a_change_says_what_was_and_what_is() {
        let now = Fingerprint {
            uuid: Some("GPU-2".into()),
            memory_gibibytes: Some(48),
            driver_major: None,
            ..card()
        };
        let changes = now.changes_since(&card());
        let texts: Vec<_> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "UUID was GPU-1a2b3c4d-0000-1111-2222-333344445555 and is GPU-2",
                "memory was 24 GiB and is 48 GiB",
                "driver was 580 and is unknown"
            ]
        );
        let other: Vec<_> = changes
            .iter()
            .map(|change| change.part.is_another_device())
            .collect();
        assert_eq!(other, [true, true, false]);
    }

    #[test]
    fn long_texts_are_cut_and_not_in_the_middle_of_a_character() {
        let long = "ä".repeat(TEXT_MAX_BYTES);
        let cut = Fingerprint::new(DeviceKind::Cpu, &long, &format!("x{long}"), None, None, Some(""));
        assert_eq!((cut.vendor.len(), cut.name.len()), (256, 255));
        assert_eq!(cut.driver_major, None);
    }

    #[test]
    fn parts_that_only_together_read_alike_have_other_digests() {
        let untold = Fingerprint { uuid: None, ..card() };
        let empty = Fingerprint {
            uuid: Some(String::new()),
            ..card()
        };
        let moved = |vendor: &str, name: &str| Fingerprint {
            vendor: vendor.into(),
            name: name.into(),
            ..card()
        };
        for (one, other) in [(untold, empty), (moved("NVIDIA", "RTX"), moved("NVIDIAR", "TX"))] {
            assert_ne!(one.digest(), other.digest());
            assert_eq!(one.changes_since(&other).is_empty(), one == other);
        }
    }

    fn fingerprints() -> impl Strategy<Value = Fingerprint> {
        let kinds = prop::sample::select(vec![DeviceKind::Cuda, DeviceKind::Rocm, DeviceKind::Cpu]);
        // Few and short texts, so that equal parts and moved borders between parts come up.
        let text = || "[a1]{0,2}";
        let optional = || prop::option::of("[a1]{0,2}");
        (
            kinds,
            text(),
            text(),
            optional(),
            prop::option::of(0..2u64),
            optional(),
        )
            .prop_map(
                |(kind, vendor, name, uuid, memory_gibibytes, driver_major)| Fingerprint {
                    kind,
                    vendor,
                    name,
                    uuid,
                    memory_gibibytes,
                    driver_major,
                },
            )
    }

    proptest! {
        #[test]
        fn changes_are_listed_exactly_where_digests_differ(before in fingerprints(), now in fingerprints()) {
            let same = before == now;
            prop_assert_eq!(same, before.digest() == now.digest());
            prop_assert_eq!(same, now.changes_since(&before).is_empty());
            let json = serde_json::to_string(&now).unwrap();
            prop_assert_eq!(serde_json::from_str::<Fingerprint>(&json).unwrap(), now);
        }
    }
}
