//! Proofs against the known vectors of Certificate Transparency, against the RFCs' own algorithms, and against
//! everything that is not what was proved.

use super::*;
use crate::log::extension::{Extension, ExtensionRoots};
use crate::log::frontier::Frontier;
use crate::log::hash::leaf_hash;
use crate::log::virtual_tree::{VirtualTree, defined_root, leaves, tiles_over};
use proptest::prelude::*;
use std::collections::BTreeMap;

mod reference;

use reference::*;

#[test]
fn known_roots_and_proofs() {
    let leaves = known_leaves();
    let mut frontier = Frontier::new();
    for (leaf, (_, root)) in leaves.iter().zip(KNOWN) {
        frontier.push(*leaf);
        assert_eq!(frontier.root(), hash(root));
    }
    for (index, size, path) in KNOWN_INCLUSION {
        let proof = InclusionProof::build(index, size, tiles_over(&leaves)).unwrap();
        assert_eq!(
            proof.hashes,
            path.iter().map(|text| hash(text)).collect::<Vec<_>>()
        );
        let leaf = leaves[usize::try_from(index).unwrap()];
        assert_eq!(proof.verify(&leaf, &known_root(size)), Ok(()));
    }
    for (old_size, new_size, path) in KNOWN_CONSISTENCY {
        let proof = ConsistencyProof::build(old_size, new_size, tiles_over(&leaves)).unwrap();
        assert_eq!(
            proof.hashes,
            path.iter().map(|text| hash(text)).collect::<Vec<_>>()
        );
        assert_eq!(proof.verify(&known_root(old_size), &known_root(new_size)), Ok(()));
    }
}

#[test]
fn every_inclusion_proof_of_small_trees_is_that_of_the_definition() {
    let leaves = leaves(70);
    for size in 1..=leaves.len() {
        let root = defined_root(&leaves[..size]);
        for index in 0..size {
            let proof =
                InclusionProof::build(index as u64, size as u64, tiles_over(&leaves[..size])).unwrap();
            assert_eq!(proof.hashes, defined_path(index, &leaves[..size]));
            for (position, leaf) in leaves.iter().enumerate() {
                let proved = proof.verify(leaf, &root).is_ok();
                assert_eq!(proved, position == index);
                assert_eq!(proved, reference_inclusion(&proof, leaf, &root));
            }
        }
    }
}

#[test]
fn every_consistency_proof_of_small_trees_is_that_of_the_definition() {
    let leaves = leaves(70);
    let roots: Vec<_> = (0..=leaves.len())
        .map(|size| defined_root(&leaves[..size]))
        .collect();
    for new_size in 1..=leaves.len() {
        let read = || tiles_over(&leaves[..new_size]);
        for old_size in 0..=new_size {
            let (old, new) = (old_size as u64, new_size as u64);
            let proof = ConsistencyProof::build(old, new, read()).unwrap();
            let expected = match old_size {
                0 => Vec::new(),
                _ => defined_subproof(old_size, &leaves[..new_size], true),
            };
            assert_eq!(proof.hashes, expected, "{old} {new}");
            for (size, root) in roots.iter().enumerate() {
                let proved = proof.verify(root, &roots[new_size]).is_ok();
                assert_eq!(proved, size == old_size);
                assert!(old == 0 || proved == reference_consistency(&proof, root, &roots[new_size]));
                let proved = proof.verify(&roots[old_size], root).is_ok();
                // Everything goes on from an empty tree, whatever it is.
                assert_eq!(proved, size == new_size || old_size == 0, "{old} {new} {size}");
            }
            let extension = Extension::build(old, new, read()).unwrap();
            let expected = ExtensionRoots {
                old: roots[old_size],
                new: roots[new_size],
            };
            assert_eq!(extension.roots(), Ok(expected));
        }
    }
}

#[test]
fn what_can_not_be_is_an_error() {
    let unread = |_| -> Result<Vec<u8>, ()> { panic!("nothing is to be read") };
    for (index, size) in [
        (0, 0),
        (5, 5),
        (u64::MAX, 5),
        (0, LOG_SIZE_MAX + 1),
        (u64::MAX, u64::MAX),
    ] {
        assert!(
            InclusionProof::build(index, size, unread).is_err(),
            "{index} {size}"
        );
        let proof = InclusionProof {
            index,
            size,
            hashes: Vec::new(),
        };
        assert!(
            proof.verify(&empty_root(), &empty_root()).is_err(),
            "{index} {size}"
        );
    }
    for (old_size, new_size) in [
        (1, 0),
        (6, 5),
        (0, LOG_SIZE_MAX + 1),
        (5, u64::MAX),
        (u64::MAX, 5),
    ] {
        assert!(ConsistencyProof::build(old_size, new_size, unread).is_err());
        assert!(Extension::build(old_size, new_size, unread).is_err());
        let proof = ConsistencyProof {
            old_size,
            new_size,
            hashes: Vec::new(),
        };
        assert!(proof.verify(&empty_root(), &empty_root()).is_err());
        let (before, after) = (Vec::new(), Vec::new());
        assert!(
            Extension {
                old_size,
                new_size,
                before,
                after
            }
            .roots()
            .is_err()
        );
    }
    assert!(tiles_for_inclusion(5, 5).is_empty());
    let failing = InclusionProof::build(3, 5, |tile| Err(tile.path()));
    assert!(matches!(failing, Err(TreeError::Read { source, .. }) if source == "tile/0/000.p/5"));
    let short = InclusionProof::build(3, 5, |_| Ok::<_, String>(vec![0; 4 * 32]));
    assert!(matches!(short, Err(TreeError::Tile(_))));
}

#[test]
fn extensions_have_exactly_their_hashes() {
    let leaves = leaves(20);
    let good = Extension::build(7, 20, tiles_over(&leaves)).unwrap();
    for is_before in [true, false] {
        let expected = if is_before {
            good.before.len()
        } else {
            good.after.len()
        };
        for actual in [expected - 1, expected + 1] {
            let mut changed = good.clone();
            let hashes = if is_before {
                &mut changed.before
            } else {
                &mut changed.after
            };
            hashes.resize(actual, empty_root());
            assert_eq!(changed.roots(), Err(ProofError::Length { expected, actual }));
        }
    }
}

#[test]
fn the_longest_proofs_have_their_bound() {
    let tree = VirtualTree { changes_at: 5 };
    let size = LOG_SIZE_MAX;
    let proof = InclusionProof::build(0, size, |tile| tree.read(tile)).unwrap();
    assert_eq!(proof.hashes.len(), 63);
    assert_eq!(proof.verify(&tree.leaf(0), &tree.root(0, size)), Ok(()));
    let proof = ConsistencyProof::build((1 << 62) + 1, size, |tile| tree.read(tile)).unwrap();
    assert_eq!(proof.hashes.len(), PROOF_HASHES_MAX);
    assert_eq!(
        proof.verify(&tree.root(0, (1 << 62) + 1), &tree.root(0, size)),
        Ok(())
    );
    let mut longer = proof;
    longer.hashes.push(empty_root());
    let (expected, actual) = (64, 65);
    assert_eq!(
        longer.verify(&empty_root(), &empty_root()),
        Err(ProofError::Length { expected, actual })
    );
}

#[test]
fn a_full_tile_stands_in_for_a_partial_one() {
    let leaves = leaves(256);
    let mut full = tiles_over(&leaves);
    let from_full = InclusionProof::build(3, 77, |tile| full(tile.full())).unwrap();
    let from_partial = InclusionProof::build(3, 77, tiles_over(&leaves[..77])).unwrap();
    assert_eq!(from_full, from_partial);
}

/// Tiles that are given out once.
struct Fetched(BTreeMap<Tile, Vec<u8>>);

impl Fetched {
    fn new(tree: VirtualTree, tiles: BTreeSet<Tile>) -> Self {
        Self(
            tiles
                .into_iter()
                .map(|tile| (tile, tree.read(tile).unwrap()))
                .collect(),
        )
    }

    fn read(&mut self, tile: Tile) -> Result<Vec<u8>, String> {
        self.0
            .remove(&tile)
            .ok_or(format!("{tile} was not announced, or is read twice"))
    }
}

fn sizes() -> impl Strategy<Value = (u64, u64, u64)> {
    (1u64..=1 << 40, any::<u64>(), any::<u64>())
        .prop_map(|(size, place, changes_at)| (place % size, size, changes_at % (size + 1)))
}

proptest! {
    #[test]
    fn large_trees_are_proved_from_the_announced_tiles((place, size, changes_at) in sizes()) {
        let tree = VirtualTree { changes_at };
        let root = tree.root(0, size);
        let mut fetched = Fetched::new(tree, tiles_for_inclusion(place, size));
        let proof = InclusionProof::build(place, size, |tile| fetched.read(tile)).unwrap();
        prop_assert!(fetched.0.is_empty(), "all announced tiles are needed");
        prop_assert_eq!(proof.verify(&tree.leaf(place), &root), Ok(()));
        prop_assert!(reference_inclusion(&proof, &tree.leaf(place), &root));

        let mut fetched = Fetched::new(tree, tiles_for_consistency(place, size));
        let proof = ConsistencyProof::build(place, size, |tile| fetched.read(tile)).unwrap();
        let old_root = tree.root(0, place);
        prop_assert_eq!(proof.verify(&old_root, &root), Ok(()));
        prop_assert!(place == 0 || reference_consistency(&proof, &old_root, &root));

        let mut fetched = Fetched::new(tree, tiles_for_consistency(place, size));
        let extension = Extension::build(place, size, |tile| fetched.read(tile)).unwrap();
        prop_assert!(fetched.0.is_empty(), "all announced tiles are needed");
        prop_assert_eq!(extension.roots(), Ok(ExtensionRoots { old: old_root, new: root }));
    }

    #[test]
    fn changed_inclusion_proofs_prove_nothing((index, size, changes_at) in sizes(), mutation in mutation()) {
        let tree = VirtualTree { changes_at };
        let (leaf, root) = (tree.leaf(index), tree.root(0, size));
        let good = InclusionProof::build(index, size, |tile| tree.read(tile)).unwrap();
        prop_assert!(good.verify(&leaf_hash(b"other"), &root).is_err());
        prop_assert!(good.verify(&leaf, &leaf_hash(b"other")).is_err());
        let mut changed = good.clone();
        mutation.apply(&mut changed.hashes);
        prop_assert!(changed == good || changed.verify(&leaf, &root).is_err());
        // Another size or index asks for another shape; where the shape is the same, sides differ only if leaves do.
        let other = InclusionProof { size: size + 1 + mutation.number % 7, ..good.clone() };
        let same = reference_inclusion(&other, &leaf, &root);
        prop_assert_eq!(other.verify(&leaf, &root).is_ok(), same);
        let other = InclusionProof { index: mutation.number % (size + 2), ..good };
        let same = reference_inclusion(&other, &leaf, &root);
        prop_assert_eq!(other.verify(&leaf, &root).is_ok(), same);
    }

    #[test]
    fn changed_consistency_proofs_prove_nothing((old_size, new_size, changes_at) in sizes(), mutation in mutation()) {
        let tree = VirtualTree { changes_at };
        let (old, new) = (tree.root(0, old_size), tree.root(0, new_size));
        let good = ConsistencyProof::build(old_size, new_size, |tile| tree.read(tile)).unwrap();
        prop_assert!(good.verify(&leaf_hash(b"other"), &new).is_err());
        prop_assert!(old_size == 0 || good.verify(&old, &leaf_hash(b"other")).is_err());
        let mut changed = good.clone();
        mutation.apply(&mut changed.hashes);
        prop_assert!(changed == good || changed.verify(&old, &new).is_err());

        let good = Extension::build(old_size, new_size, |tile| tree.read(tile)).unwrap();
        let mut changed = good.clone();
        mutation.apply(if mutation.number % 2 == 0 { &mut changed.before } else { &mut changed.after });
        prop_assert!(changed == good || !changed.roots().is_ok_and(|roots| roots.new == new));
    }

    #[test]
    fn arbitrary_proofs_never_panic(
        first: u64,
        second: u64,
        hashes in proptest::collection::vec(any::<[u8; 32]>().prop_map(LogHash::from_bytes), 0..70),
    ) {
        let root = empty_root();
        let proof = InclusionProof { index: first, size: second, hashes: hashes.clone() };
        prop_assert!(proof.verify(&root, &root).is_err());
        let proof = ConsistencyProof { old_size: first, new_size: second, hashes: hashes.clone() };
        prop_assert!(proof.verify(&root, &root).is_err());
        let extension = Extension { old_size: first, new_size: second, before: hashes.clone(), after: hashes };
        let _ = extension.roots();
    }
}

/// A change of a list of hashes.
#[derive(Clone, Debug)]
struct Mutation {
    kind: u8,
    number: u64,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    (0u8..6, any::<u64>()).prop_map(|(kind, number)| Mutation { kind, number })
}

impl Mutation {
    fn apply(&self, hashes: &mut Vec<LogHash>) {
        let place = |count: usize| usize::try_from(self.number % count.max(1) as u64).unwrap();
        let at = place(hashes.len());
        match self.kind {
            0 => hashes.insert(place(hashes.len() + 1), empty_root()),
            1 if !hashes.is_empty() => drop(hashes.remove(at)),
            2 if !hashes.is_empty() => {
                let mut bytes = *hashes[at].bytes();
                bytes[place(32)] ^= 1 << (self.number % 8);
                hashes[at] = LogHash::from_bytes(bytes);
            }
            3 if !hashes.is_empty() => hashes.rotate_left(at),
            4 if !hashes.is_empty() => hashes.insert(at, hashes[at]),
            5 => hashes.reverse(),
            _ => hashes.clear(),
        }
    }
}
