//! By what devices belong together, and what tells one device from another.

use std::net::IpAddr;

use gristmill_protocol::hardware::{HardwareClaim, HardwareDigest, HardwareKind};
use gristmill_protocol::identity::AccountId;

/// Where a caller is, as far as it can be told apart: an IPv4 address, or the first 64 bits of an IPv6 one, because
/// one connection has as many of the rest as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey(u64, bool);

impl AddressKey {
    /// The key of an address; none for one that many share or that says nothing: loopback and unspecified ones.
    #[must_use]
    pub fn of(address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        if address.is_loopback() || address.is_unspecified() {
            return None;
        }
        Some(match address {
            IpAddr::V4(four) => Self(u64::from(four.to_bits()), false),
            IpAddr::V6(six) => Self((six.to_bits() >> 64) as u64, true),
        })
    }

    /// As a number to keep, and whether it is an IPv6 prefix.
    #[must_use]
    pub const fn parts(self) -> (u64, bool) {
        (self.0, self.1)
    }

    /// What [`AddressKey::parts`] gave.
    #[must_use]
    pub const fn from_parts((bits, is_six): (u64, bool)) -> Self {
        Self(bits, is_six)
    }
}

/// One device of one account: by its UUID, or by its number among those of its kind where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceKey(HardwareDigest);

impl DeviceKey {
    /// The key of the device that an account claims to have.
    #[must_use]
    pub fn of(account: &AccountId, claim: &HardwareClaim) -> Self {
        Self::of_parts(account, claim.kind, claim.index, claim.uuid_digest())
    }

    /// The key of a device that is known by its UUID's digest, or by kind and number.
    #[must_use]
    pub fn of_parts(
        account: &AccountId,
        kind: HardwareKind,
        index: u32,
        uuid: Option<HardwareDigest>,
    ) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("gristmill hardware device 1");
        hasher.update(account.public_key());
        match uuid {
            Some(uuid) => hasher.update(b"uuid").update(uuid.bytes()),
            None => hasher
                .update(b"kind")
                .update(kind.to_string().as_bytes())
                .update(&index.to_le_bytes()),
        };
        Self(HardwareDigest::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// The digest that it is.
    #[must_use]
    pub const fn digest(&self) -> &HardwareDigest {
        &self.0
    }
}

/// What a device may have in common with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) account: AccountId,
    pub(super) address: Option<AddressKey>,
    pub(super) uuid: Option<HardwareDigest>,
}

impl Links {
    /// Whether two devices claim one owner, one address or one UUID.
    pub(super) fn is_linked_to(&self, other: &Self) -> bool {
        self.account == other.account
            || (self.address.is_some() && self.address == other.address)
            || (self.uuid.is_some() && self.uuid == other.uuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<AddressKey> {
        AddressKey::of(text.parse().unwrap())
    }

    #[test]
    fn addresses_are_told_apart_as_far_as_they_can_be() {
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        for nobody in [
            "127.0.0.1",
            "127.8.0.1",
            "::1",
            "0.0.0.0",
            "::",
            "::ffff:127.0.0.1",
        ] {
            assert_eq!(key(nobody), None, "{nobody}");
        }
        let one = key("2001:db8::1").unwrap();
        assert_eq!(AddressKey::from_parts(one.parts()), one);
    }

    #[test]
    fn any_one_thing_in_common_links() {
        let links = |account, address: Option<&str>, uuid: Option<&str>| Links {
            account: AccountId::from_public_key([account; 32]),
            address: address.and_then(key),
            uuid: uuid.map(HardwareDigest::of_uuid),
        };
        let one = links(1, Some("192.0.2.1"), Some("a"));
        assert!(one.is_linked_to(&links(1, None, None)));
        assert!(one.is_linked_to(&links(2, Some("192.0.2.1"), None)));
        assert!(one.is_linked_to(&links(2, None, Some("a"))));
        assert!(!one.is_linked_to(&links(2, Some("192.0.2.2"), Some("b"))));
        assert!(!links(1, None, None).is_linked_to(&links(2, None, None)));
    }
}
