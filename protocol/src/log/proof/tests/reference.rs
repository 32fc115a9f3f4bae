//! What proofs are held against: known vectors of Certificate Transparency, and the RFCs' own algorithms.

use super::*;

/// The eight leaves of Certificate Transparency's reference implementation and the roots over the first ones.
pub(super) const KNOWN: [(&str, &str); 8] = [
    (
        "",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    ),
    (
        "00",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    ),
    (
        "10",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    ),
    (
        "2021",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (
        "3031",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    ),
    (
        "40414243",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    ),
    (
        "5051525354555657",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    ),
    (
        "606162636465666768696a6b6c6d6e6f",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ),
];

/// Leaf, size, path: from the same implementation.
pub(super) const KNOWN_INCLUSION: [(u64, u64, &[&str]); 5] = [
    (0, 1, &[]),
    (
        0,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        &[
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        3,
        &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    ),
    (
        1,
        5,
        &[
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

/// Old size, new size, proof: from the same implementation.
pub(super) const KNOWN_CONSISTENCY: [(u64, u64, &[&str]); 4] = [
    (1, 1, &[]),
    (
        1,
        8,
        &[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        &[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        &[
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
];

pub(super) fn hash(text: &str) -> LogHash {
    text.parse().unwrap()
}

pub(super) fn known_leaves() -> Vec<LogHash> {
    KNOWN
        .iter()
        .map(|(leaf, _)| leaf_hash(&hex::decode(leaf).unwrap()))
        .collect()
}

pub(super) fn known_root(size: u64) -> LogHash {
    hash(KNOWN[usize::try_from(size).unwrap() - 1].1)
}

/// RFC 6962 section 2.1.1, word for word.
pub(super) fn defined_path(index: usize, leaves: &[LogHash]) -> Vec<LogHash> {
    if leaves.len() <= 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut path, other) = match index < left.len() {
        true => (defined_path(index, left), right),
        false => (defined_path(index - left.len(), right), left),
    };
    path.push(defined_root(other));
    path
}

/// RFC 6962 section 2.1.2, word for word: SUBPROOF(m, D[n], b).
pub(super) fn defined_subproof(old_size: usize, leaves: &[LogHash], is_whole: bool) -> Vec<LogHash> {
    if old_size == leaves.len() {
        return if is_whole {
            Vec::new()
        } else {
            vec![defined_root(leaves)]
        };
    }
    let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
    let (mut proof, other) = match old_size <= left.len() {
        true => (defined_subproof(old_size, left, is_whole), right),
        false => (defined_subproof(old_size - left.len(), right, false), left),
    };
    proof.push(defined_root(other));
    proof
}

/// RFC 9162 section 2.1.3.2, step by step.
pub(super) fn reference_inclusion(proof: &InclusionProof, leaf: &LogHash, root: &LogHash) -> bool {
    if proof.index >= proof.size {
        return false;
    }
    let (mut fnode, mut snode, mut hash) = (proof.index, proof.size - 1, *leaf);
    for sibling in &proof.hashes {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            hash = node_hash(sibling, &hash);
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    snode == 0 && hash == *root
}

/// RFC 9162 section 2.1.4.2, step by step; the case of equal sizes as in section 2.1.4.1 and RFC 6962.
pub(super) fn reference_consistency(
    proof: &ConsistencyProof,
    old_root: &LogHash,
    new_root: &LogHash,
) -> bool {
    let ConsistencyProof {
        old_size, new_size, ..
    } = *proof;
    if old_size == new_size {
        return proof.hashes.is_empty() && old_root == new_root;
    }
    let mut path = proof.hashes.clone();
    if old_size.is_power_of_two() {
        path.insert(0, *old_root);
    }
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    let (mut fnode, mut snode) = (old_size - 1, new_size - 1);
    while fnode & 1 == 1 {
        fnode >>= 1;
        snode >>= 1;
    }
    let (mut old, mut new) = (*first, *first);
    for sibling in rest {
        if snode == 0 {
            return false;
        }
        if fnode & 1 == 1 || fnode == snode {
            old = node_hash(sibling, &old);
            new = node_hash(sibling, &new);
            while fnode & 1 == 0 && fnode != 0 {
                fnode >>= 1;
                snode >>= 1;
            }
        } else {
            new = node_hash(&new, sibling);
        }
        fnode >>= 1;
        snode >>= 1;
    }
    old == *old_root && new == *new_root && snode == 0
}
