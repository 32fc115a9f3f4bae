//! The crates `tlog_tiles` and `signed_note` read a log of ours: its tiles, its checkpoint, its proofs; and prove
//! what our code verifies.

use std::collections::HashMap;

use gristmill_ledger::conformance::world::{account, keypair};
use gristmill_protocol::log::checkpoint::SignedCheckpoint;
use gristmill_protocol::log::cosignature::cosign;
use gristmill_protocol::log::hash::{LogHash, leaf_hash};
use gristmill_protocol::log::proof::{ConsistencyProof, InclusionProof};
use gristmill_protocol::log::tile::{Tile, tiles_between, tiles_of};
use signed_note::{Note, StandardVerifier, VerifierList};
use tlog_tiles::tlog;
use tlog_tiles::{Checkpoint, TileHashReader, TileReader};

use crate::log::{embedded, integrate_all, open_log, post};

/// Their height of a tile.
const HEIGHT: u8 = 8;

fn theirs(hash: &LogHash) -> tlog::Hash {
    tlog::Hash(*hash.bytes())
}

fn ours(hash: &tlog::Hash) -> LogHash {
    LogHash::from_bytes(hash.0)
}

/// Their path names the height too, which C2SP has fixed.
fn path_of(tile: &tlog_tiles::Tile) -> String {
    tile.path().replacen("tile/8/", "tile/", 1)
}

/// The tiles of one tree, by path.
struct Tiles(HashMap<String, Vec<u8>>);

impl TileReader for Tiles {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog::Error> {
        let read = |tile| {
            let path = path_of(tile);
            let bytes = self.0.get(&path);
            bytes
                .unwrap_or_else(|| panic!("our log does not have {path}"))
                .clone()
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

/// A note as they check it.
fn verified(note: &str, verifier_key: &str) -> Checkpoint {
    let note = Note::from_bytes(note.as_bytes()).unwrap();
    let verifier = StandardVerifier::new(verifier_key).unwrap();
    let (verified, unverified) = note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
    assert_eq!(
        (verified.len(), unverified.len()),
        (1, 1),
        "the log's signature, and a cosignature"
    );
    Checkpoint::from_bytes(note.text()).unwrap()
}

#[tokio::test]
async fn their_code_verifies_our_log_and_ours_their_proofs() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    let log = open_log(&store).await;
    let mut leaves = Vec::new();
    let mut roots: Vec<(u64, tlog::Hash)> = Vec::new();
    let mut from = 0;
    for size in [1_u64, 2, 7, 255, 256, 257, 600, 1_030] {
        leaves.extend(post(&store, from..size).await);
        from = size;
        integrate_all(&log).await;
        let newest = log.newest().unwrap();
        let line = cosign(&newest, &keypair(7), 1).unwrap().to_string();
        log.cosign(&account(7), size, &line).await.unwrap();
        let published = store.published_checkpoint().await.unwrap().unwrap();
        let verifier_key = log.signer().verifier_key().to_string();
        let checkpoint = verified(&published.note.unwrap(), &verifier_key);
        assert_eq!(
            (checkpoint.origin(), checkpoint.size(), checkpoint.extension()),
            (log.origin(), size, "")
        );
        assert_eq!(ours(checkpoint.hash()), *newest.root());
        check_tiles(&log, &leaves, &checkpoint, &roots).await;
        roots.push((size, *checkpoint.hash()));
    }
    store.shutdown().await.unwrap();
}

/// Their reader authenticates every tile of ours against the checkpoint, and both sides' proofs are the same.
async fn check_tiles(
    log: &gristmill_ledger::log::Log,
    leaves: &[(u64, LogHash)],
    checkpoint: &Checkpoint,
    older: &[(u64, tlog::Hash)],
) {
    let (size, root) = (checkpoint.size(), *checkpoint.hash());
    let mut tiles = HashMap::new();
    for tile in tiles_of(size) {
        tiles.insert(tile.path(), log.tile(tile).await.unwrap().unwrap());
    }
    let tiles = Tiles(tiles);
    let reader = TileHashReader::new(size, root, &tiles);
    assert_eq!(tlog::tree_hash(size, &reader).unwrap(), root);
    let step = usize::try_from(size / 40 + 1).unwrap();
    for (sequence, leaf) in leaves.iter().step_by(step) {
        let index = sequence - 1;
        let proof = log.inclusion_proof(index, size).await.unwrap();
        let as_theirs = proof.hashes.iter().map(theirs).collect();
        tlog::check_record(&as_theirs, size, root, index, theirs(leaf)).unwrap();
        assert_eq!(tlog::prove_record(size, index, &reader).unwrap(), as_theirs);
        let from_theirs = InclusionProof {
            index,
            size,
            hashes: as_theirs.iter().map(ours).collect(),
        };
        from_theirs.verify(leaf, &ours(&root)).unwrap();
        // And one bit is too much for both.
        let mut forged = *leaf.bytes();
        forged[0] ^= 1;
        assert!(tlog::check_record(&as_theirs, size, root, index, tlog::Hash(forged)).is_err());
    }
    for (old_size, old_root) in older {
        let proof = log.consistency_proof(*old_size, size).await.unwrap();
        let as_theirs = proof.hashes.iter().map(theirs).collect();
        tlog::check_tree(&as_theirs, size, root, *old_size, *old_root).unwrap();
        let from_theirs = ConsistencyProof {
            old_size: *old_size,
            new_size: size,
            hashes: tlog::prove_tree(size, *old_size, &reader)
                .unwrap()
                .iter()
                .map(ours)
                .collect(),
        };
        assert_eq!(from_theirs, proof);
        from_theirs.verify(&ours(old_root), &ours(&root)).unwrap();
    }
}

/// The text of a proof, taken apart by hand as C2SP tlog-proof describes it, and checked with nothing of ours.
#[tokio::test]
async fn their_code_verifies_our_proof_texts() {
    let folder = tempfile::tempdir().unwrap();
    let store = embedded(folder.path());
    let log = open_log(&store).await;
    let leaves = post(&store, 0..300).await;
    integrate_all(&log).await;
    let newest: std::sync::Arc<SignedCheckpoint> = log.newest().unwrap();
    for (sequence, leaf) in leaves.iter().step_by(37) {
        let text = log.prove(*sequence, leaf, &newest).await.unwrap().to_string();
        let (proof, note) = text.split_once("\n\n").unwrap();
        let mut lines = proof.lines();
        assert_eq!(lines.next(), Some("c2sp.org/tlog-proof@v1"));
        let index: u64 = lines
            .next()
            .unwrap()
            .strip_prefix("index ")
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(index + 1, *sequence);
        let hashes = lines.map(|line| tlog::Hash::parse_hash(line).unwrap()).collect();
        let note = Note::from_bytes(note.as_bytes()).unwrap();
        let verifier = StandardVerifier::new(&log.signer().verifier_key().to_string()).unwrap();
        note.verify(&VerifierList::new(vec![Box::new(verifier)])).unwrap();
        let checkpoint = Checkpoint::from_bytes(note.text()).unwrap();
        tlog::check_record(
            &hashes,
            checkpoint.size(),
            *checkpoint.hash(),
            index,
            theirs(leaf),
        )
        .unwrap();
    }
    store.shutdown().await.unwrap();
}

#[test]
fn both_name_the_same_tiles() {
    for (old, new) in [
        (0, 1),
        (0, 70_000),
        (255, 256),
        (256, 257),
        (65_535, 65_537),
        (1_000, 300_000),
    ] {
        let mut by_them: Vec<String> = tlog_tiles::Tile::new_tiles(HEIGHT, old, new)
            .iter()
            .map(path_of)
            .collect();
        let mut by_us: Vec<String> = tiles_between(old, new).map(|tile| tile.path()).collect();
        by_them.sort_unstable();
        by_us.sort_unstable();
        assert_eq!(by_us, by_them, "{old} {new}");
    }
    for index in [0, 1, 999, 1_000, 1_234_067, u64::MAX] {
        for width in [1, 8, 255, 256] {
            let tile = Tile::new(4, index, width).unwrap();
            let by_them = tlog_tiles::Tile::new(HEIGHT, 4, index, u32::from(width), false);
            assert_eq!(tile.path(), path_of(&by_them));
            assert_eq!(Tile::parse(&path_of(&by_them)), Ok(tile));
        }
    }
}

/// The test tree of Certificate Transparency, RFC 6962: eight leaves and the root of each size.
#[test]
fn rfc_6962_vectors() {
    let leaves: [&[u8]; 8] = [
        &[],
        &[0x00],
        &[0x10],
        &[0x20, 0x21],
        &[0x30, 0x31],
        &[0x40, 0x41, 0x42, 0x43],
        &[0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57],
        &[
            0x60, 0x61, 0x62, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x6f,
        ],
    ];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut frontier = gristmill_protocol::log::frontier::Frontier::new();
    let mut builder = gristmill_protocol::log::tile_builder::TileBuilder::new();
    for (leaf, root) in leaves.iter().zip(roots) {
        let hash = leaf_hash(leaf);
        assert_eq!(theirs(&hash), tlog::record_hash(leaf));
        frontier.push(hash);
        let _ = builder.append([hash]);
        assert_eq!(frontier.root().to_string(), root);
        assert_eq!(builder.root().to_string(), root);
    }
}
