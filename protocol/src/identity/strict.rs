//! Strict verification of Ed25519 signatures, a sixth faster than `ed25519_dalek::VerifyingKey::verify_strict` and with
//! its verdict on every input.
//!
//! Both compute R' = sB - kA, write it as 32 bytes and compare them to the signature's R. `verify_strict` decompresses
//! R besides, a square root, to refuse one of small order. Bytes that are equal to those of a computed point are the
//! one canonical encoding of that point, so R is of small order exactly where its bytes are one of eight.

use ed25519_dalek::{Verifier, VerifyingKey};

use super::InvalidSignature;

/// The canonical encodings (RFC 8032, section 5.1.2) of the eight points whose order divides the cofactor 8.
const OF_SMALL_ORDER: [[u8; 32]; 8] = {
    let order_8 = [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ];
    let order_8_other = [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ];
    let mut order_1 = [0; 32];
    order_1[0] = 1;
    let mut order_2 = [0xff; 32];
    order_2[0] = 0xec;
    order_2[31] = 0x7f;
    let order_4 = [0; 32];
    [
        order_1,
        order_2,
        order_4,
        with_sign(order_4),
        order_8,
        with_sign(order_8),
        order_8_other,
        with_sign(order_8_other),
    ]
};

/// The point with the other x.
const fn with_sign(mut encoding: [u8; 32]) -> [u8; 32] {
    encoding[31] |= 0x80;
    encoding
}

/// Whether the signature is the key's over the message and neither the key nor R is of small order.
pub(super) fn verify(
    key: &VerifyingKey,
    message: &[u8],
    signature: &[u8; 64],
) -> Result<(), InvalidSignature> {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    if key.is_weak() || OF_SMALL_ORDER.contains(signature.r_bytes()) {
        return Err(InvalidSignature);
    }
    key.verify(message, &signature).map_err(|_| InvalidSignature)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use curve25519_dalek::{EdwardsPoint, Scalar};
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;
    use sha2::{Digest, Sha512};

    use super::*;

    #[test]
    fn the_eight_encodings_are_those_of_the_torsion_points() {
        let points = EIGHT_TORSION.map(|point| point.compress().to_bytes());
        assert_eq!(BTreeSet::from(points), BTreeSet::from(OF_SMALL_ORDER));
        assert_eq!(BTreeSet::from(OF_SMALL_ORDER).len(), 8);
    }

    /// Both verdicts, where they are the same; nothing where the bytes are no key.
    fn verdict(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Option<bool> {
        let key = VerifyingKey::from_bytes(key).ok()?;
        let theirs = key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature));
        let ours = verify(&key, message, signature);
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{key:?} {signature:?}");
        Some(ours.is_ok())
    }

    fn challenge(nonce: &[u8; 32], key: &[u8; 32], message: &[u8]) -> Scalar {
        let hash = Sha512::new()
            .chain_update(nonce)
            .chain_update(key)
            .chain_update(message);
        Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
    }

    /// A signature of somebody who adds a torsion point to the nonce, whatever it is made for.
    fn sign_with(
        secret: Scalar,
        key: &EdwardsPoint,
        nonce: Scalar,
        torsion: &EdwardsPoint,
        message: &[u8],
    ) -> [u8; 64] {
        let point = (ED25519_BASEPOINT_POINT * nonce + torsion).compress().to_bytes();
        let answer = nonce + challenge(&point, &key.compress().to_bytes(), message) * secret;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&point);
        signature[32..].copy_from_slice(answer.as_bytes());
        signature
    }

    /// All keys and nonces with a part of small order, and without a large one, for messages enough that the parts
    /// cancel out now and then: then the equation holds and only strictness refuses.
    #[test]
    fn the_verdict_is_the_same_for_points_with_parts_of_small_order() {
        let (mut accepted, mut refused, mut refused_for_strictness) = (0, 0, 0);
        for (secret, nonce) in [(3, 5), (0, 5), (3, 0), (0, 0)] {
            let (secret, nonce) = (Scalar::from(secret as u64), Scalar::from(nonce as u64));
            for (of_key, of_nonce) in EIGHT_TORSION
                .iter()
                .flat_map(|a| EIGHT_TORSION.iter().map(move |b| (a, b)))
            {
                let key = ED25519_BASEPOINT_POINT * secret + of_key;
                for message in 0..16_u8 {
                    let signature = sign_with(secret, &key, nonce, of_nonce, &[message]);
                    let bytes = key.compress().to_bytes();
                    let parsed = VerifyingKey::from_bytes(&bytes).unwrap();
                    let is_loosely_right = parsed
                        .verify(&[message], &ed25519_dalek::Signature::from_bytes(&signature))
                        .is_ok();
                    match verdict(&bytes, &[message], &signature).unwrap() {
                        true => accepted += 1,
                        false if is_loosely_right => refused_for_strictness += 1,
                        false => refused += 1,
                    }
                }
            }
        }
        assert!(
            accepted > 64 && refused > 64 && refused_for_strictness > 64,
            "{accepted} {refused} {refused_for_strictness}"
        );
    }

    proptest! {
        #[test]
        fn the_verdict_is_the_same_for_any_bytes(key: [u8; 32], message: Vec<u8>, first: [u8; 32], second: [u8; 32]) {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&first);
            signature[32..].copy_from_slice(&second);
            verdict(&key, &message, &signature);
            // A scalar that is small enough to be looked at.
            signature[63] &= 0x0f;
            verdict(&key, &message, &signature);
        }

        #[test]
        fn a_signature_holds_until_a_bit_of_anything_is_turned(
            secret: [u8; 32],
            message in proptest::collection::vec(any::<u8>(), 1..100),
            bit: u16,
        ) {
            let signer = SigningKey::from_bytes(&secret);
            let key = signer.verifying_key().to_bytes();
            let signature = signer.sign(&message).to_bytes();
            prop_assert_eq!(verdict(&key, &message, &signature), Some(true));
            let all = [key.as_slice(), &signature, &message].concat();
            let mut turned = all.clone();
            let at = usize::from(bit) % (all.len() * 8);
            turned[at / 8] ^= 1 << (at % 8);
            let verdict = verdict(
                turned[..32].try_into().unwrap(),
                &turned[96..],
                turned[32..96].try_into().unwrap(),
            );
            prop_assert_ne!(verdict, Some(true));
        }
    }
}
