//! Public keys that this thread has parsed lately. Parsing one costs a square root, a tenth of what verifying a
//! signature costs, and the same few accounts sign again and again.
//!
//! Nobody can see a difference: a key is here under its own bytes, as parsing them gave it, and only verified with
//! strictly, like one that was parsed just now.

use std::cell::RefCell;

use ed25519_dalek::VerifyingKey;

/// How many keys a thread remembers, each in the one slot that its bytes choose: about 200 KiB.
const SLOTS: usize = 1_024;

thread_local! {
    static PARSED: RefCell<Vec<Option<VerifyingKey>>> = const { RefCell::new(Vec::new()) };
}

/// The key that these bytes are, if they are one.
pub(super) fn parse(bytes: &[u8; 32]) -> Option<VerifyingKey> {
    PARSED.with(|parsed| match parsed.try_borrow_mut() {
        Ok(mut slots) => find_or_parse(&mut slots, bytes),
        // Nothing calls this from within itself; if something did, it would go without.
        Err(_) => VerifyingKey::from_bytes(bytes).ok(),
    })
}

fn find_or_parse(slots: &mut Vec<Option<VerifyingKey>>, bytes: &[u8; 32]) -> Option<VerifyingKey> {
    if slots.is_empty() {
        slots.resize(SLOTS, None);
    }
    let slot = slots.get_mut(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % SLOTS)?;
    if let Some(known) = slot.filter(|known| known.as_bytes() == bytes) {
        return Some(known);
    }
    let key = VerifyingKey::from_bytes(bytes).ok()?;
    *slot = Some(key);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    #[test]
    fn keys_come_back_as_they_are_parsed_whatever_shares_their_slot() {
        let mut slots = Vec::new();
        let keys: Vec<[u8; 32]> = (0..3_000_u16)
            .map(|number| {
                let mut secret = [0; 32];
                secret[..2].copy_from_slice(&number.to_le_bytes());
                SigningKey::from_bytes(&secret).verifying_key().to_bytes()
            })
            .collect();
        for _ in 0..2 {
            for bytes in &keys {
                assert_eq!(
                    find_or_parse(&mut slots, bytes),
                    VerifyingKey::from_bytes(bytes).ok()
                );
            }
        }
        assert_eq!(slots.len(), SLOTS);
    }

    #[test]
    fn bytes_that_are_no_key_are_refused_again_and_again() {
        let mut slots = Vec::new();
        let refused: Vec<[u8; 32]> = (0..=u8::MAX)
            .map(|number| [number; 32])
            .filter(|bytes| VerifyingKey::from_bytes(bytes).is_err())
            .collect();
        assert!(refused.len() > 50, "{}", refused.len());
        for bytes in refused.iter().chain(&refused) {
            assert_eq!(find_or_parse(&mut slots, bytes), None);
        }
        assert!(slots.iter().all(Option::is_none));
    }

    /// A key of small order parses, and nothing verifies with it: remembered or not.
    #[test]
    fn a_weak_key_stays_weak() {
        let mut identity_point = [0; 32];
        identity_point[0] = 1;
        let mut slots = Vec::new();
        for _ in 0..2 {
            let key = find_or_parse(&mut slots, &identity_point).unwrap();
            assert!(key.is_weak());
            let forged = ed25519_dalek::Signature::from_components(identity_point, [0; 32]);
            assert!(key.verify_strict(b"anything", &forged).is_err());
        }
    }
}
