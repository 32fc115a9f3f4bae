//! A proof that an entry is in a log as one text that anybody can keep and check offline.
//!
//! Source: [C2SP tlog-proof](https://c2sp.org/tlog-proof), version 1.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::log::checkpoint::{CheckpointError, LogKeys, SignedCheckpoint, parse_decimal};
use crate::log::hash::LogHash;
use crate::log::note::{NOTE_MAX_BYTES, NoteError, SignedNote};
use crate::log::proof::{InclusionProof, PROOF_HASHES_MAX, ProofError};

/// Most bytes of data that a proof carries along.
pub const EXTRA_MAX_BYTES: usize = 16 * 1024;
/// Most bytes of a proof as text: the extra data in base64, the hashes, the checkpoint, and the other lines.
pub const INCLUSION_TEXT_MAX_BYTES: usize =
    EXTRA_MAX_BYTES.div_ceil(3) * 4 + PROOF_HASHES_MAX * 45 + NOTE_MAX_BYTES + 128;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// An entry's place in a log, the hashes that lead from it to a root, and the log's word on that root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionText {
    /// Data that goes along, which nobody vouches for.
    pub extra: Option<Vec<u8>>,
    /// The number of the leaf, from zero.
    pub index: u64,
    /// From the leaf's sibling up to the root's child.
    pub hashes: Vec<LogHash>,
    /// The log's checkpoint, with cosignatures if there are any.
    pub checkpoint: SignedNote,
}

/// Why a text is no proof, or proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InclusionTextError {
    /// More bytes than such a text may have.
    #[error("a proof of {0} bytes is over the limit of {INCLUSION_TEXT_MAX_BYTES} bytes")]
    TooLarge(usize),
    /// Not the lines of such a text.
    #[error("the proof is malformed: {0}")]
    Malformed(&'static str),
    /// Its checkpoint is no note.
    #[error("its checkpoint: {0}")]
    Note(#[from] NoteError),
    /// Its checkpoint is none of the log.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The hashes do not lead from the leaf to the root.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl InclusionText {
    /// A text of a proof in the tree of a checkpoint.
    ///
    /// # Errors
    /// [`InclusionTextError`] where the proof is of another size, or the extra data too large.
    pub fn new(
        proof: InclusionProof,
        checkpoint: &SignedCheckpoint,
        extra: Option<Vec<u8>>,
    ) -> Result<Self, InclusionTextError> {
        if proof.size != checkpoint.size() {
            return Err(InclusionTextError::Malformed(
                "proof and checkpoint are of trees of different sizes",
            ));
        }
        if extra.as_ref().is_some_and(|extra| extra.len() > EXTRA_MAX_BYTES) {
            return Err(InclusionTextError::Malformed("its extra data is over 16 KiB"));
        }
        Ok(Self {
            extra,
            index: proof.index,
            hashes: proof.hashes,
            checkpoint: checkpoint.note().clone(),
        })
    }

    /// Checks that the leaf with this hash is in the log, at this index, and gives the checkpoint that says so.
    /// Which cosignatures it needs beyond the log's word is the caller's to say
    /// ([`cosigners`](crate::log::cosignature::cosigners)).
    ///
    /// # Errors
    /// [`InclusionTextError`] where that is not proved.
    pub fn verify(&self, leaf: &LogHash, keys: &LogKeys) -> Result<SignedCheckpoint, InclusionTextError> {
        let checkpoint = SignedCheckpoint::open(self.checkpoint.clone(), keys)?;
        let (index, size, hashes) = (self.index, checkpoint.size(), self.hashes.clone());
        InclusionProof { index, size, hashes }.verify(leaf, checkpoint.root())?;
        Ok(checkpoint)
    }
}

impl fmt::Display for InclusionText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{HEADER}")?;
        if let Some(extra) = &self.extra {
            writeln!(formatter, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(formatter, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(formatter, "{}", hash.to_base64())?;
        }
        write!(formatter, "\n{}", self.checkpoint)
    }
}

impl FromStr for InclusionText {
    type Err = InclusionTextError;

    fn from_str(text: &str) -> Result<Self, InclusionTextError> {
        let malformed = InclusionTextError::Malformed;
        if text.len() > INCLUSION_TEXT_MAX_BYTES {
            return Err(InclusionTextError::TooLarge(text.len()));
        }
        let (proof, checkpoint) = text
            .split_once("\n\n")
            .ok_or(malformed("no empty line stands before its checkpoint"))?;
        let mut lines = proof.split('\n').peekable();
        if lines.next() != Some(HEADER) {
            return Err(malformed("its first line is not c2sp.org/tlog-proof@v1"));
        }
        let extra = lines
            .next_if(|line| line.starts_with("extra "))
            .map(parse_extra)
            .transpose()?;
        let index = lines
            .next()
            .and_then(|line| parse_decimal(line.strip_prefix("index ")?))
            .ok_or(malformed("it has no index, or not in its only spelling"))?;
        let hashes: Vec<_> = lines
            .take(PROOF_HASHES_MAX + 1)
            .map(|line| LogHash::from_base64(line).map_err(|_| malformed("a line is not a hash in base64")))
            .collect::<Result<_, _>>()?;
        if hashes.len() > PROOF_HASHES_MAX {
            return Err(malformed("it has more than 64 hashes"));
        }
        Ok(Self {
            extra,
            index,
            hashes,
            checkpoint: checkpoint.parse()?,
        })
    }
}

fn parse_extra(line: &str) -> Result<Vec<u8>, InclusionTextError> {
    let malformed = InclusionTextError::Malformed;
    let extra = line.strip_prefix("extra ").unwrap_or_default();
    let extra = STANDARD
        .decode(extra)
        .map_err(|_| malformed("its extra data is not base64"))?;
    match extra.len() {
        0..=EXTRA_MAX_BYTES => Ok(extra),
        _ => Err(malformed("its extra data is over 16 KiB")),
    }
}

impl Serialize for InclusionText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InclusionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keypair;
    use crate::log::checkpoint::{Checkpoint, origin_of};
    use crate::log::hash::leaf_hash;
    use crate::log::virtual_tree::{defined_root, leaves, tiles_over};
    use proptest::prelude::*;

    fn keypair() -> Keypair {
        Keypair::from_secret(&[1; 32])
    }

    fn keys() -> LogKeys {
        LogKeys::new(keypair().account())
    }

    fn signed(size: u64) -> SignedCheckpoint {
        let root = defined_root(&leaves(size));
        SignedCheckpoint::sign(
            &Checkpoint::new(&origin_of(&keypair().account()), size, root),
            &keypair(),
        )
        .unwrap()
    }

    fn text(index: u64, size: u64, extra: Option<Vec<u8>>) -> InclusionText {
        let proof = InclusionProof::build(index, size, tiles_over(&leaves(size))).unwrap();
        InclusionText::new(proof, &signed(size), extra).unwrap()
    }

    #[test]
    fn the_text_is_that_of_the_specification() {
        let proof = text(2, 3, Some(b"more".to_vec()));
        let left = defined_root(&leaves(2)).to_base64();
        let expected = format!(
            "c2sp.org/tlog-proof@v1\nextra bW9yZQ==\nindex 2\n{left}\n\n{}",
            signed(3).note()
        );
        assert_eq!(proof.to_string(), expected);
        assert_eq!(expected.parse(), Ok(proof.clone()));
        assert_eq!(proof.verify(&leaves(3)[2], &keys()), Ok(signed(3)));
        let lone = text(0, 1, None);
        assert_eq!(
            lone.to_string(),
            format!("c2sp.org/tlog-proof@v1\nindex 0\n\n{}", signed(1).note())
        );
        assert_eq!(lone.to_string().parse(), Ok(lone));
    }

    #[test]
    fn every_leaf_of_small_logs_is_proved_and_no_other() {
        for size in 1..20 {
            let leaves = leaves(size);
            for index in 0..size {
                let proof: InclusionText = text(index, size, None).to_string().parse().unwrap();
                for (position, leaf) in leaves.iter().enumerate() {
                    assert_eq!(proof.verify(leaf, &keys()).is_ok(), position as u64 == index);
                }
            }
        }
    }

    #[test]
    fn proofs_hold_for_their_log_alone() {
        let proof = text(2, 3, None);
        let other = LogKeys::new(Keypair::from_secret(&[2; 32]).account());
        let verified = proof.verify(&leaves(3)[2], &other);
        assert!(matches!(
            verified,
            Err(InclusionTextError::Checkpoint(CheckpointError::Origin { .. }))
        ));
        let verified = proof.verify(&leaf_hash(b"other"), &keys());
        assert!(matches!(
            verified,
            Err(InclusionTextError::Proof(ProofError::Root { .. }))
        ));
        let built = InclusionProof::build(0, 2, tiles_over(&leaves(2))).unwrap();
        assert!(InclusionText::new(built, &signed(3), None).is_err());
    }

    #[test]
    fn every_other_text_is_refused() {
        let good = text(2, 3, Some(b"more".to_vec())).to_string();
        assert!(good.parse::<InclusionText>().is_ok());
        for (from, to) in [
            ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2"),
            ("c2sp.org/tlog-proof@v1\n", ""),
            ("extra bW9yZQ==", "extra bW9yZQ"),
            ("extra bW9yZQ==", "extra  bW9yZQ=="),
            ("extra bW9yZQ==", "extra"),
            ("extra bW9yZQ==", "extra bW9yZQ==\nextra bW9yZQ=="),
            ("extra bW9yZQ==\nindex 2", "index 2\nextra bW9yZQ=="),
            ("index 2", "index 02"),
            ("index 2", "index +2"),
            ("index 2", "index -2"),
            ("index 2", "index 18446744073709551616"),
            ("index 2", "index  2"),
            ("index 2", "Index 2"),
            ("index 2\n", ""),
            ("index 2", "index 2\nindex 2"),
            ("index 2", "index 2\nAAAA"),
            ("\n\n", "\n"),
        ] {
            let changed = good.replacen(from, to, 1);
            assert_ne!(changed, good);
            assert!(changed.parse::<InclusionText>().is_err(), "{from:?} {to:?}");
        }
        // Cut one line earlier, the hashes are read as part of the checkpoint, which nobody signed.
        let cut: InclusionText = good.replacen("index 2\n", "index 2\n\n", 1).parse().unwrap();
        assert!(cut.verify(&leaves(3)[2], &keys()).is_err());
    }

    #[test]
    fn limits_hold_at_their_number_and_not_one_more() {
        let largest = text(0, 1, Some(vec![7; EXTRA_MAX_BYTES]));
        assert_eq!(largest.to_string().parse(), Ok(largest.clone()));
        let larger = InclusionText {
            extra: Some(vec![7; EXTRA_MAX_BYTES + 1]),
            ..largest.clone()
        };
        assert!(larger.to_string().parse::<InclusionText>().is_err());
        let proof = InclusionProof {
            index: 0,
            size: 1,
            hashes: Vec::new(),
        };
        assert!(InclusionText::new(proof, &signed(1), larger.extra).is_err());
        for (hashes, good) in [(PROOF_HASHES_MAX, true), (PROOF_HASHES_MAX + 1, false)] {
            let proof = InclusionText {
                hashes: vec![leaf_hash(b"x"); hashes],
                ..largest.clone()
            };
            assert_eq!(
                proof.to_string().parse::<InclusionText>().is_ok(),
                good,
                "{hashes}"
            );
        }
        let long = "x".repeat(INCLUSION_TEXT_MAX_BYTES + 1);
        assert_eq!(
            long.parse::<InclusionText>(),
            Err(InclusionTextError::TooLarge(long.len()))
        );
    }

    proptest! {
        #[test]
        fn any_changed_byte_is_refused(position in 0usize..1000, change in 1u8..=255) {
            let mut proof = text(5, 11, None).to_string().into_bytes();
            let position = position % proof.len();
            proof[position] ^= change;
            let verified = String::from_utf8(proof)
                .ok()
                .and_then(|text| text.parse::<InclusionText>().ok())
                .map(|proof| proof.verify(&leaves(11)[5], &keys()));
            prop_assert!(!matches!(verified, Some(Ok(_))));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}", lines in "c2sp.org/tlog-proof@v1\n[a-z0-9= \n]{0,100}") {
            prop_assert!(text.parse::<InclusionText>().is_err());
            prop_assert!(lines.parse::<InclusionText>().is_err());
        }
    }
}
