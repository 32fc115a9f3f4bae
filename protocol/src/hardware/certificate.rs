//! The certificate: a coordinator's word on what a device has shown, checked offline by everybody.

use serde::{Deserialize, Serialize};

use crate::hardware::claim::is_text;
use crate::hardware::{
    CERTIFICATE_MAX_BYTES, HardwareDigest, HardwareKind, METHOD, Precision, STAGES_MAX, Throughput,
};
use crate::identity::{AccountId, Keypair};
use crate::ids::ChallengeId;
use crate::jws::{self, Audience, Claims, TokenError};
use crate::log::checkpoint::LogKeys;

/// Which device a certificate is about, in the words of its owner. Only what it can do is shown, not what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CertifiedDevice {
    /// By which interface it computes.
    pub kind: HardwareKind,
    /// Its number among the account's devices of this kind.
    pub index: u32,
    /// The maker's name for the model.
    pub name: String,
    /// Who makes it; empty where unknown.
    pub vendor: String,
    /// The digest of its UUID, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<HardwareDigest>,
}

/// A coordinator's word that an account has shown this hardware. Type `gristmill-hardware+jwt`; meant for everybody in
/// the network of its issuer, so its audience is the issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HardwareCertificate {
    /// The coordinator.
    pub iss: AccountId,
    /// The account that has shown it.
    pub sub: AccountId,
    /// The coordinator again.
    #[cfg_attr(feature = "openapi", schema(value_type = AccountId))]
    pub aud: Audience,
    /// The challenge that showed it. Renewals keep it.
    pub jti: ChallengeId,
    /// Unix seconds: when this certificate was issued.
    pub iat: u64,
    /// Unix seconds: when it expires.
    pub exp: u64,
    /// Unix seconds: when the hardware was shown.
    pub shown_at: u64,
    /// The name and version of the method.
    pub method: String,
    /// Which device.
    pub device: CertifiedDevice,
    /// Memory that the device was shown to have, in bytes, after what it could have computed anew is taken off.
    pub memory_bytes: u64,
    /// Throughput that it was shown to reach.
    pub throughput: Vec<Throughput>,
    /// One number to compare devices by; how it is made is in `docs/PROOF.md`.
    pub score: u64,
    /// The digest over everything that identifies the device.
    pub fingerprint: HardwareDigest,
    /// Whether the fingerprint is another one than in the device's certificate before.
    pub fingerprint_changed: bool,
}

impl Claims for HardwareCertificate {
    const TYPE: &'static str = "gristmill-hardware+jwt";
    const LEEWAY_MS: u64 = 60_000;

    fn issuer(&self) -> &AccountId {
        &self.iss
    }
    fn audience(&self) -> &Audience {
        &self.aud
    }
    fn issued_at(&self) -> u64 {
        self.iat
    }
    fn expires_at(&self) -> u64 {
        self.exp
    }
}

impl HardwareCertificate {
    /// The certificate as text. The same content and key always give the same bytes.
    #[must_use]
    pub fn sign(&self, coordinator: &Keypair) -> String {
        jws::sign(self, coordinator)
    }

    /// Checks a certificate offline, by whichever of its coordinator's keys signed it.
    ///
    /// Who it is about is left to the caller: a listing's certificates count only where
    /// [`sub`](Self::sub) is the provider.
    ///
    /// # Errors
    /// [`TokenError`] naming what is wrong; [`TokenError::Signature`] where none of the keys signed it.
    pub fn open(text: &str, keys: &LogKeys, now_ms: u64) -> Result<Self, TokenError> {
        if text.len() > CERTIFICATE_MAX_BYTES {
            return Err(TokenError::Malformed("it is over 2 KiB"));
        }
        for key in keys.keys().iter().rev() {
            let coordinator = key.account();
            match jws::verify::<Self>(text, coordinator, coordinator, now_ms) {
                Err(TokenError::Signature) => {}
                Ok(certificate) => return certificate.checked(),
                Err(error) => return Err(error),
            }
        }
        Err(TokenError::Signature)
    }

    /// What was shown in one precision, in multiply-adds per second.
    #[must_use]
    pub fn rate_in(&self, precision: Precision) -> Option<u64> {
        let of = self.throughput.iter().find(|one| one.precision == precision);
        of.map(|one| one.multiply_adds_per_second)
    }

    /// Whether what it says can be shown to people: the issuer is bound by the same limits as everybody.
    fn checked(self) -> Result<Self, TokenError> {
        if self.method != METHOD {
            return Err(TokenError::Malformed("it is of another method"));
        }
        if !is_text(&self.device.name, false) || !is_text(&self.device.vendor, true) {
            return Err(TokenError::Malformed("its device's name can't be shown"));
        }
        if self.throughput.len() > STAGES_MAX {
            return Err(TokenError::Malformed("it names too many precisions"));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::CERTIFICATE_LIFE_SECONDS;
    use crate::hardware::claim::TEXT_MAX_BYTES;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;

    fn keypair(byte: u8) -> Keypair {
        Keypair::from_secret(&[byte; 32])
    }

    fn certificate() -> HardwareCertificate {
        HardwareCertificate {
            iss: keypair(1).account(),
            sub: keypair(2).account(),
            aud: Audience::One(keypair(1).account()),
            jti: ChallengeId::from_bytes([3; 16]),
            iat: NOW / 1000,
            exp: NOW / 1000 + CERTIFICATE_LIFE_SECONDS,
            shown_at: NOW / 1000,
            method: METHOD.into(),
            device: CertifiedDevice {
                kind: HardwareKind::Cuda,
                index: 0,
                name: "NVIDIA H200".into(),
                vendor: "NVIDIA".into(),
                uuid: Some(HardwareDigest::of_uuid("GPU-1")),
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
    }

    fn keys(signers: &[u8]) -> LogKeys {
        let mut keys = LogKeys::new(keypair(signers[0]).account());
        for signer in &signers[1..] {
            keys.add_key(keypair(*signer).account());
        }
        keys
    }

    #[test]
    fn certificates_are_checked_offline_and_after_a_hand_over() {
        let text = certificate().sign(&keypair(1));
        assert_eq!(
            HardwareCertificate::open(&text, &keys(&[1]), NOW),
            Ok(certificate())
        );
        assert_eq!(
            HardwareCertificate::open(&text, &keys(&[1, 5]), NOW),
            Ok(certificate())
        );
        assert_eq!(
            HardwareCertificate::open(&text, &keys(&[5]), NOW),
            Err(TokenError::Signature)
        );
        let by_the_new = HardwareCertificate {
            iss: keypair(5).account(),
            aud: Audience::One(keypair(5).account()),
            ..certificate()
        };
        let text = by_the_new.sign(&keypair(5));
        assert_eq!(
            HardwareCertificate::open(&text, &keys(&[1, 5]), NOW),
            Ok(by_the_new)
        );
    }

    #[test]
    fn what_expired_is_of_another_method_or_not_for_everybody_does_not_count() {
        let open = |certificate: &HardwareCertificate, now_ms| {
            HardwareCertificate::open(&certificate.sign(&keypair(1)), &keys(&[1]), now_ms)
        };
        let end_ms = NOW + CERTIFICATE_LIFE_SECONDS * 1000;
        assert!(open(&certificate(), end_ms + 59_999).is_ok());
        assert!(matches!(
            open(&certificate(), end_ms + 60_000),
            Err(TokenError::Expired { .. })
        ));
        let changed = |change: fn(&mut HardwareCertificate)| {
            let mut certificate = certificate();
            change(&mut certificate);
            open(&certificate, NOW)
        };
        assert!(changed(|certificate| certificate.method = "gristmill-matmul/2".into()).is_err());
        assert!(changed(|certificate| certificate.aud = Audience::One(keypair(2).account())).is_err());
        assert!(changed(|certificate| certificate.iss = keypair(2).account()).is_err());
        assert!(changed(|certificate| certificate.device.name = "a\u{1b}[2J".into()).is_err());
        assert!(changed(|certificate| certificate.throughput = vec![certificate.throughput[0]; 4]).is_err());
    }

    #[test]
    fn the_largest_certificate_fits_and_a_larger_text_is_refused_unread() {
        let mut largest = certificate();
        // A quotation mark is two bytes in JSON.
        largest.device.name = "\"".repeat(TEXT_MAX_BYTES);
        largest.device.vendor = "\"".repeat(TEXT_MAX_BYTES);
        largest.device.index = u32::MAX;
        largest.memory_bytes = u64::MAX;
        largest.score = u64::MAX;
        largest.throughput = Precision::ALL
            .map(|precision| Throughput {
                precision,
                multiply_adds_per_second: u64::MAX,
            })
            .to_vec();
        let text = largest.sign(&keypair(1));
        assert!(text.len() <= CERTIFICATE_MAX_BYTES, "{}", text.len());
        assert_eq!(HardwareCertificate::open(&text, &keys(&[1]), NOW), Ok(largest));
        let long = "a".repeat(CERTIFICATE_MAX_BYTES + 1);
        assert_eq!(
            HardwareCertificate::open(&long, &keys(&[1]), NOW),
            Err(TokenError::Malformed("it is over 2 KiB"))
        );
    }

    #[test]
    fn a_receipt_is_no_certificate() {
        let text = certificate().sign(&keypair(1));
        let receipt =
            crate::tokens::ReceiptClaims::verify(&text, &keypair(1).account(), &keypair(1).account(), NOW);
        assert!(matches!(receipt, Err(TokenError::WrongType { .. })));
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_refused(position in 0usize..1_500, change in 1u8..=255) {
            let mut text = certificate().sign(&keypair(1)).into_bytes();
            let position = position % text.len();
            text[position] ^= change;
            if let Ok(text) = String::from_utf8(text) {
                prop_assert!(HardwareCertificate::open(&text, &keys(&[1]), NOW).is_err());
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,300}") {
            prop_assert!(HardwareCertificate::open(&text, &keys(&[1]), NOW).is_err());
        }
    }
}
