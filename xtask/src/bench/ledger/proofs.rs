//! What proofs cost as the log grows: building its tiles, a proof from them, and checking it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Instant;

use anyhow::Context;
use gristmill_protocol::log::hash::{LogHash, leaf_hash};
use gristmill_protocol::log::proof::{ConsistencyProof, InclusionProof};
use gristmill_protocol::log::tile::Tile;
use gristmill_protocol::log::tile_builder::TileBuilder;
use serde::Serialize;

const PROOFS: u64 = 1_000;
/// How many records a log takes in at once here.
const BATCH: u64 = 1_024;

/// Costs at one size.
#[derive(Debug, Serialize)]
pub(super) struct ProofCosts {
    pub(super) size: u64,
    pub(super) integrated_per_second: f64,
    pub(super) inclusion_build_micros: f64,
    pub(super) inclusion_verify_micros: f64,
    pub(super) inclusion_hashes: usize,
    pub(super) consistency_build_micros: f64,
    pub(super) consistency_verify_micros: f64,
}

pub(super) fn measure(size: u64) -> anyhow::Result<ProofCosts> {
    let started = Instant::now();
    let mut builder = TileBuilder::new();
    let mut tiles: BTreeMap<Tile, Vec<u8>> = BTreeMap::new();
    let mut old_root = builder.root();
    let mut done = 0;
    while done < size {
        // A batch that ends at half the size, for the proof of consistency from there.
        let end = (done + BATCH).min(if done < size / 2 { size / 2 } else { size });
        for content in builder.append((done..end).map(leaf)) {
            tiles.insert(content.tile, content.bytes);
        }
        done = end;
        if done == size / 2 {
            old_root = builder.root();
        }
    }
    let integrating = started.elapsed().as_secs_f64();
    let read = |tile: Tile| Ok::<_, Infallible>(tiles.get(&tile).cloned().unwrap_or_default());
    let root = builder.root();
    let indexes: Vec<u64> = (0..PROOFS)
        .map(|number| number * (size / PROOFS).max(1) % size)
        .collect();

    let started = Instant::now();
    let proofs = indexes
        .iter()
        .map(|index| InclusionProof::build(*index, size, read))
        .collect::<Result<Vec<_>, _>>()
        .context("a tile is missing")?;
    let inclusion_build_micros = per_proof(started);
    let started = Instant::now();
    for proof in &proofs {
        proof.verify(&leaf(proof.index), &root)?;
    }
    let inclusion_verify_micros = per_proof(started);

    let started = Instant::now();
    let mut consistency = None;
    for _ in 0..PROOFS {
        consistency = Some(ConsistencyProof::build(size / 2, size, read)?);
    }
    let consistency_build_micros = per_proof(started);
    let consistency = consistency.context("no proof was built")?;
    let started = Instant::now();
    for _ in 0..PROOFS {
        std::hint::black_box(&consistency).verify(&old_root, &root)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    Ok(ProofCosts {
        size,
        integrated_per_second: size as f64 / integrating,
        inclusion_build_micros,
        inclusion_verify_micros,
        inclusion_hashes: proofs
            .iter()
            .map(|proof| proof.hashes.len())
            .max()
            .unwrap_or_default(),
        consistency_build_micros,
        consistency_verify_micros: per_proof(started),
    })
}

fn leaf(index: u64) -> LogHash {
    leaf_hash(&index.to_le_bytes())
}

#[expect(clippy::cast_precision_loss, reason = "a thousand")]
fn per_proof(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e6 / PROOFS as f64
}
