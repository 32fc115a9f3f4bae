//! The values that tie a round to all before it: no round can begin before its predecessor is committed to.

const START_CONTEXT: &str = "gristmill hardware stage 1";
const NEXT_CONTEXT: &str = "gristmill hardware chain 1";
const COMMITMENT_CONTEXT: &str = "gristmill hardware commitment 1";
const RESIDENCY_CONTEXT: &str = "gristmill hardware residency 1";

/// The chain value of a stage's first round.
///
/// `challenge` is the challenge's identifier as bytes, `stage` counts from 0, and `round_seed` is what the verifier
/// gave out when the stage began.
#[must_use]
pub fn start(challenge: &[u8], stage: u32, round_seed: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(START_CONTEXT);
    // The length first, so that no two inputs are the same bytes.
    hasher.update(&(challenge.len() as u64).to_le_bytes());
    hasher.update(challenge);
    hasher.update(&stage.to_le_bytes());
    hasher.update(round_seed);
    *hasher.finalize().as_bytes()
}

/// The chain value of the round after the one of `value`, which was committed to by `root`.
#[must_use]
pub fn next(value: &[u8; 32], root: &[u8; 32]) -> [u8; 32] {
    derive(NEXT_CONTEXT, value, root)
}

/// The key of the commitment to the round of chain value `value`.
#[must_use]
pub fn commitment_key(value: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(COMMITMENT_CONTEXT, value)
}

/// The key of the commitment to a resident round: `round` counts the resident rounds of a challenge from 0.
#[must_use]
pub fn residency_key(nonce: &[u8; 32], round: u32) -> [u8; 32] {
    derive(RESIDENCY_CONTEXT, nonce, &round.to_le_bytes())
}

fn derive(context: &str, first: &[u8; 32], second: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(first);
    hasher.update(second);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_counts() {
        let base = start(b"id", 0, &[0; 32]);
        let mut all = vec![
            base,
            start(b"ie", 0, &[0; 32]),
            start(b"id\0", 0, &[0; 32]),
            start(b"id", 1, &[0; 32]),
            start(b"id", 0, &[1; 32]),
            next(&base, &[0; 32]),
            next(&base, &[1; 32]),
            commitment_key(&base),
            residency_key(&base, 0),
            residency_key(&base, 1),
        ];
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    /// Made with blake3 1.0.11 for Python as `docs/PROOF.md` shows.
    #[test]
    fn the_same_values_as_in_python() {
        let value = start(b"challenge", 2, &[5; 32]);
        assert_eq!(
            hex::encode(value),
            "232346334275833cc3381e1985e320fcbfe7856cfb7e202b7706b076013a095b"
        );
        assert_eq!(
            hex::encode(next(&value, &[6; 32])),
            "e73e7f8ddfd785ad0d60eef2ccb35d7e26a57e6617924d82fc27e430c8a8edc6"
        );
        assert_eq!(
            hex::encode(commitment_key(&value)),
            "e390b14ce3355b4ecbc67091bfdb184aa9dc9fd39412c456c1fb5a1a1258cc9f"
        );
        assert_eq!(
            hex::encode(residency_key(&[8; 32], 3)),
            "16409f7bcb8711bbed810a8eef5fe77ad9ac381f2c258dbdefe3cbcb099aadbe"
        );
    }
}
