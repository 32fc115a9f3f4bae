//! The text of a peer id: base58 (the alphabet of Bitcoin) over 38 bytes.
//!
//! Six accounts stand in every receipt. A general base58 encoder takes one digit at a time over the whole number,
//! which was a tenth of what a settlement costs; here five digits are taken at a time over 32-bit limbs. Reading is
//! left to the library.

/// Bytes of a peer id of an Ed25519 key.
pub(super) const PEER_ID_BYTES: usize = 38;
/// Characters of its text: a `1` for the leading zero byte and 51 digits, since such peer ids are from 58^50 to 58^51.
pub(super) const PEER_ID_TEXT_BYTES: usize = 52;

const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const DIGITS_AT_ONCE: usize = 5;
/// 58^5, the largest power that fits a limb.
const DIVISOR: u64 = 656_356_768;
const LIMBS: usize = PEER_ID_BYTES.div_ceil(4);

/// The text of a peer id, in ASCII.
pub(super) fn encode(peer_id: &[u8; PEER_ID_BYTES]) -> [u8; PEER_ID_TEXT_BYTES] {
    let mut limbs = limbs(peer_id);
    let mut text = [ALPHABET[0]; PEER_ID_TEXT_BYTES];
    let mut end = PEER_ID_TEXT_BYTES;
    while end > 0 {
        let mut digits = divide(&mut limbs);
        for _ in 0..DIGITS_AT_ONCE.min(end) {
            end -= 1;
            text[end] = ALPHABET[(digits % 58) as usize];
            digits /= 58;
        }
    }
    text
}

/// The bytes as one number, the most significant limb first.
fn limbs(peer_id: &[u8; PEER_ID_BYTES]) -> [u32; LIMBS] {
    let mut padded = [0; LIMBS * 4];
    padded[LIMBS * 4 - PEER_ID_BYTES..].copy_from_slice(peer_id);
    let mut limbs = [0; LIMBS];
    for (limb, bytes) in limbs.iter_mut().zip(padded.as_chunks::<4>().0) {
        *limb = u32::from_be_bytes(*bytes);
    }
    limbs
}

/// Divides the number by [`DIVISOR`], and gives the remainder.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the remainder is less than the divisor, so each quotient fits a limb"
)]
fn divide(limbs: &mut [u32; LIMBS]) -> u32 {
    let mut remainder = 0;
    for limb in limbs {
        let dividend = remainder << 32 | u64::from(*limb);
        *limb = (dividend / DIVISOR) as u32;
        remainder = dividend % DIVISOR;
    }
    remainder as u32
}

#[cfg(test)]
mod tests {
    use super::super::{AccountId, PEER_ID_PREFIX};
    use super::*;
    use proptest::prelude::*;

    fn by_the_library(key: &[u8; 32]) -> String {
        bs58::encode([PEER_ID_PREFIX.as_slice(), key].concat()).into_string()
    }

    #[test]
    fn the_extremes_have_the_same_length() {
        for key in [[0; 32], [0xff; 32], [1; 32]] {
            let text = AccountId::from_public_key(key).to_string();
            assert_eq!(text, by_the_library(&key));
            assert_eq!(text.len(), PEER_ID_TEXT_BYTES);
        }
    }

    proptest! {
        #[test]
        fn the_text_is_the_library_s(key: [u8; 32]) {
            prop_assert_eq!(AccountId::from_public_key(key).to_string(), by_the_library(&key));
        }
    }
}
