//! The proof of hardware `gristmill-matmul/1`: what prover and verifier must compute alike, to the bit.
//!
//! A prover multiplies integer matrices that a seed determines, round after round, folds each result into one number
//! per 64 entries, commits to these numbers, and shows a few of them after the commitment. The specification, byte for
//! byte, is `docs/PROOF.md`. Everything here is a pure function of its arguments: no clock, no randomness, no floats.

pub mod bookkeeping;
pub mod chain;
pub mod commitment;
pub mod dimension;
pub mod fold;
pub mod matrices;
pub mod openings;
pub mod permutation;
pub mod philox;
pub mod proof;
pub mod recomputation;
pub mod residency;
pub mod soundness;
pub mod transcript;
pub mod verifier;
