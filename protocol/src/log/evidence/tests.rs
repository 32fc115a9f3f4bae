use super::*;
use crate::log::checkpoint::Checkpoint;
use crate::log::hash::{empty_root, leaf_hash};
use crate::log::receipt::{ReceiptCheckError, ReceiptStanding, check_receipt, tiles_for_receipt};
use crate::log::test_log::{TestLog, keypair, receipt_claims};
use crate::log::tile::Tile;
use crate::log::virtual_tree::tiles_over;
use proptest::prelude::*;
use std::collections::BTreeMap;

mod forger;

const SIZE: u64 = 14;

fn honest() -> TestLog {
    TestLog::new(SIZE)
}

fn two_roots_of(one: &TestLog, other: &TestLog, size: u64) -> Evidence {
    Evidence::two_roots(&one.keys(), &one.checkpoint(size), &other.checkpoint(size))
}

fn not_an_extension_of(old: &TestLog, old_size: u64, new: &TestLog, new_size: u64) -> Evidence {
    let extension = new.extension(old_size, new_size);
    Evidence::not_an_extension(
        &new.keys(),
        &old.checkpoint(old_size),
        &new.checkpoint(new_size),
        extension,
    )
}

fn broken_receipt_of(promised: &TestLog, sequence: u64, log: &TestLog, size: u64) -> Evidence {
    let (index, checkpoint) = (sequence - 1, log.checkpoint(size));
    let proof = log.inclusion(index, size);
    Evidence::broken_receipt(
        &log.keys(),
        promised.receipt(sequence),
        &checkpoint,
        log.leaf(index),
        proof,
    )
}

#[test]
fn two_roots_convict() {
    let (log, fork) = (honest(), honest().with_changed(4));
    let evidence = two_roots_of(&log, &fork, 9);
    assert_eq!(evidence, two_roots_of(&fork, &log, 9));
    let Ok(Lie::TwoRoots { size: 9, roots }) = evidence.verify(&log.keys()) else {
        panic!("{evidence:?}")
    };
    assert!(roots.contains(&log.root(9)) && roots.contains(&fork.root(9)));
    assert!(matches!(
        two_roots_of(&log, &fork, 4).verify(&log.keys()),
        Err(EvidenceError::NoLie(_))
    ));
    assert_eq!(evidence.accused(), Some(keypair(1).account()));
}

#[test]
fn every_way_to_change_history_is_proved_at_every_pair_of_sizes() {
    let log = honest();
    for at in 0..SIZE - 1 {
        for fork in [log.with_changed(at), log.with_dropped(at), log.with_reordered(at)] {
            for new_size in 1..=fork.size() {
                for old_size in 0..=new_size {
                    let evidence = not_an_extension_of(&log, old_size, &fork, new_size);
                    let verified = evidence.verify(&log.keys());
                    if log.root(old_size) == fork.root(old_size) {
                        assert!(matches!(verified, Err(EvidenceError::NoLie(_))), "{verified:?}");
                        continue;
                    }
                    let (signed_root, actual_root) = (log.root(old_size), fork.root(old_size));
                    let lie = Lie::NotAnExtension {
                        old_size,
                        new_size,
                        signed_root,
                        actual_root,
                    };
                    assert_eq!(verified, Ok(lie), "{at} {old_size} {new_size}");
                }
            }
        }
    }
}

#[test]
fn a_receipt_for_what_is_not_there_convicts() {
    let log = honest();
    for sequence in 1..SIZE {
        let fork = log.with_dropped(sequence - 1);
        for size in sequence..=fork.size() {
            let evidence = broken_receipt_of(&log, sequence, &fork, size);
            let (promised, actual) = (log.leaf(sequence - 1), fork.leaf(sequence - 1));
            let lie = Lie::BrokenReceipt {
                sequence,
                promised,
                actual,
            };
            assert_eq!(evidence.verify(&log.keys()), Ok(lie));
            assert!(lie.to_string().contains(&promised.to_string()));
            let evidence = broken_receipt_of(&log, sequence, &log, size);
            assert!(matches!(
                evidence.verify(&log.keys()),
                Err(EvidenceError::NoLie(_))
            ));
        }
    }
}

#[test]
fn receipts_are_held_against_the_log() {
    let log = honest();
    let check = |receipt: &str, of: &TestLog, size: u64| {
        let fetched: BTreeMap<Tile, Vec<u8>> = (1..=SIZE)
            .flat_map(|sequence| tiles_for_receipt(sequence, size))
            .map(|tile| (tile, tiles_over(&of.leaves)(tile).unwrap()))
            .collect();
        let read = |tile| fetched.get(&tile).cloned().ok_or(tile);
        check_receipt(receipt, &of.checkpoint(size), &log.keys(), read)
    };
    for size in 0..SIZE {
        for sequence in 1..=SIZE {
            let standing = check(&log.receipt(sequence), &log, size).unwrap();
            match sequence <= size {
                true => assert_eq!(
                    standing,
                    ReceiptStanding::InLog(log.inclusion(sequence - 1, size))
                ),
                false => assert_eq!(standing, ReceiptStanding::NotYet),
            }
        }
    }
    let fork = log.with_changed(4);
    let Ok(ReceiptStanding::Broken(evidence)) = check(&log.receipt(5), &fork, 9) else {
        panic!("not broken")
    };
    assert!(matches!(
        evidence.verify(&log.keys()),
        Ok(Lie::BrokenReceipt { sequence: 5, .. })
    ));
    // Tiles of another tree than the checkpoint's say nothing about it.
    let read = tiles_over(&fork.leaves);
    let wrong_tiles = check_receipt(&log.receipt(5), &log.checkpoint(9), &log.keys(), read);
    assert!(matches!(wrong_tiles, Err(ReceiptCheckError::Tiles(_))));
    assert!(tiles_for_receipt(0, 5).is_empty() && tiles_for_receipt(6, 5).is_empty());
}

#[test]
fn receipts_that_promise_nothing_convict_nobody() {
    let (log, fork) = (honest(), honest().with_changed(4));
    let good = log.receipt(5);
    let sign = |claims| jws::sign::<ReceiptClaims>(&claims, &keypair(1));
    let hash = log.leaf(4).to_string();
    let no_party = ReceiptClaims {
        aud: jws::Audience::Many(Vec::new()),
        ..receipt_claims(5, hash.clone())
    };
    let by_other = jws::sign(&receipt_claims(5, hash.clone()), &keypair(9));
    let mut of_other = receipt_claims(5, hash.clone());
    of_other.iss = keypair(9).account();
    for receipt in [
        String::new(),
        "..".to_owned(),
        good[..good.len() - 2].to_owned(),
        good.replacen("ey", "ez", 1),
        sign(receipt_claims(0, hash.clone())),
        sign(receipt_claims(5, "no hash".to_owned())),
        sign(receipt_claims(5, hash[..62].to_owned())),
        sign(no_party),
        by_other,
        jws::sign(&of_other, &keypair(9)),
        "x".repeat(TOKEN_MAX_BYTES + 1),
    ] {
        let Evidence::BrokenReceipt {
            checkpoint,
            leaf,
            proof,
            ..
        } = broken_receipt_of(&log, 5, &fork, 9)
        else {
            panic!("another kind");
        };
        let evidence = Evidence::BrokenReceipt {
            receipt,
            checkpoint,
            leaf,
            proof,
        };
        let verified = evidence.verify(&log.keys());
        assert!(matches!(verified, Err(EvidenceError::Receipt(_))), "{evidence:?}");
    }
    // The same hash in capitals is the same promise: kept, or broken all the same.
    let receipt = sign(receipt_claims(5, hash.to_uppercase()));
    for (in_log, broken) in [(&log, false), (&fork, true)] {
        let (leaf, proof) = (in_log.leaf(4), in_log.inclusion(4, 9));
        let checkpoint = in_log.checkpoint(9).into_note();
        let evidence = Evidence::BrokenReceipt {
            receipt: receipt.clone(),
            checkpoint,
            leaf,
            proof,
        };
        assert_eq!(evidence.verify(&log.keys()).is_ok(), broken);
    }
}

#[test]
fn evidence_holds_for_its_log_and_all_its_keys() {
    let (log, mut fork) = (honest(), honest().with_changed(4));
    fork.signer = 2;
    let evidence = not_an_extension_of(&log, 9, &fork, 12);
    let mut keys = log.keys();
    assert!(matches!(
        evidence.verify(&keys),
        Err(EvidenceError::Checkpoint(_))
    ));
    keys.add_key(keypair(2).account());
    assert!(evidence.verify(&keys).is_ok());
    let of_other = LogKeys::new(keypair(2).account());
    assert!(matches!(
        evidence.verify(&of_other),
        Err(EvidenceError::Checkpoint(_))
    ));
}

#[test]
fn further_lines_do_not_hide_a_lie() {
    let (log, fork) = (honest(), honest().with_changed(4));
    let mut hidden = Checkpoint::new(&log.origin, 9, fork.root(9));
    hidden.extensions.push("nothing to see here".to_owned());
    let hidden = SignedCheckpoint::sign(&hidden, &keypair(1)).unwrap();
    let evidence = Evidence::two_roots(&log.keys(), &log.checkpoint(9), &hidden);
    assert!(evidence.verify(&log.keys()).is_ok());
    // But a further line alone is no lie.
    let mut harmless = Checkpoint::new(&log.origin, 9, log.root(9));
    harmless.extensions.push("hello".to_owned());
    let harmless = SignedCheckpoint::sign(&harmless, &keypair(1)).unwrap();
    let evidence = Evidence::two_roots(&log.keys(), &log.checkpoint(9), &harmless);
    assert!(matches!(
        evidence.verify(&log.keys()),
        Err(EvidenceError::NoLie(_))
    ));
}

#[test]
fn a_root_over_nothing_that_is_not_the_empty_one_is_a_lie() {
    let log = honest();
    let nothing = Checkpoint::new(&log.origin, 0, leaf_hash(b"something"));
    let nothing = SignedCheckpoint::sign(&nothing, &keypair(1)).unwrap();
    let evidence = Evidence::not_an_extension(&log.keys(), &nothing, &log.checkpoint(9), log.extension(0, 9));
    let Ok(Lie::NotAnExtension { actual_root, .. }) = evidence.verify(&log.keys()) else {
        panic!("no lie")
    };
    assert_eq!(actual_root, empty_root());
}

fn all_kinds() -> [Evidence; 3] {
    let (log, fork) = (honest(), honest().with_changed(4));
    [
        two_roots_of(&log, &fork, 9),
        not_an_extension_of(&log, 9, &fork, 12),
        broken_receipt_of(&log, 5, &fork, 9),
    ]
}

#[test]
fn evidence_travels_in_both_forms() {
    for evidence in all_kinds() {
        let bytes = evidence.encode();
        assert_eq!(Evidence::decode(&bytes), Ok(evidence.clone()));
        let json = serde_json::to_vec(&evidence).unwrap();
        assert_eq!(Evidence::from_json(&json), Ok(evidence));
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            assert!(Evidence::decode(&bytes[..length]).is_err());
        }
        assert!(Evidence::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        let unknown = String::from_utf8(json).unwrap().replacen("{", "{\"more\":1,", 1);
        assert!(Evidence::from_json(unknown.as_bytes()).is_err());
    }
    let actual = EVIDENCE_MAX_BYTES + 1;
    let limit = EVIDENCE_MAX_BYTES;
    assert_eq!(
        Evidence::decode(&vec![0; actual]),
        Err(EvidenceDecodeError::Binary(DecodeError::TooLarge {
            actual,
            limit
        }))
    );
    assert!(!matches!(
        Evidence::decode(&vec![0; limit]),
        Err(EvidenceDecodeError::Binary(DecodeError::TooLarge { .. }))
    ));
    let (actual, limit) = (EVIDENCE_JSON_MAX_BYTES + 1, EVIDENCE_JSON_MAX_BYTES);
    assert_eq!(
        Evidence::from_json(&vec![b' '; actual]),
        Err(EvidenceDecodeError::Binary(DecodeError::TooLarge {
            actual,
            limit
        }))
    );
}

/// The largest notes and the longest extension that can be.
#[test]
fn the_largest_evidence_fits_both_forms() {
    let log = honest();
    let large = |size| {
        let mut checkpoint = Checkpoint::new(&log.origin, size, leaf_hash(b"root"));
        checkpoint.extensions.push(String::new());
        let room = |line: &str| format!("{checkpoint}{line}").len();
        let bytes = crate::log::note::NOTE_MAX_BYTES - room("\n\n\n") - 200;
        checkpoint.extensions = vec!["\"".repeat(bytes)];
        SignedCheckpoint::sign(&checkpoint, &keypair(1)).unwrap()
    };
    let (old_size, new_size) = ((1 << 62) - 1, crate::log::LOG_SIZE_MAX);
    let (before, after) = (vec![leaf_hash(b"x"); 62], vec![leaf_hash(b"x"); 63]);
    let extension = Extension {
        old_size,
        new_size,
        before,
        after,
    };
    assert!(extension.roots().is_ok());
    let evidence = Evidence::not_an_extension(&log.keys(), &large(old_size), &large(new_size), extension);
    assert_eq!(Evidence::decode(&evidence.encode()), Ok(evidence.clone()));
    assert_eq!(
        Evidence::from_json(&serde_json::to_vec(&evidence).unwrap()),
        Ok(evidence)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn good_evidence_with_any_byte_changed_convicts_nobody(kind in 0usize..3, position in 0usize..4000, change in 1u8..=255) {
        let evidence = &all_kinds()[kind];
        let keys = honest().keys();
        let mut bytes = evidence.encode();
        let position = position % bytes.len();
        bytes[position] ^= change;
        if let Ok(changed) = Evidence::decode(&bytes) {
            prop_assert!(changed.verify(&keys).is_err());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,100}") {
        prop_assert!(Evidence::decode(&bytes).is_err());
        prop_assert!(Evidence::from_json(&bytes).is_err());
        prop_assert!(Evidence::from_json(text.as_bytes()).is_err());
    }
}
