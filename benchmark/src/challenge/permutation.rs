//! The order in which a round takes the rows of B.
//!
//! `C[i, j] = sum over x of A[i, x] * B[p(x), j]`. A permutation of the inner index has no shortcut from one round to
//! the next, as there is one for changed signs or permuted columns; on a device it is one gather of rows.

use super::dimension::Dimension;
use super::philox::Key;

const CONTEXT: &str = "gristmill hardware permutation 1";
/// Third word of the counter, as the matrices have 0 and 1.
const STREAM: u64 = 2;

/// The permutation of the round whose chain value is `chain_value`: a shuffle of Fisher and Yates from the last
/// place down, each place drawn as the high half of a word times the number of places left.
#[must_use]
pub fn of_round(chain_value: &[u8; 32], dimension: Dimension) -> Vec<u32> {
    let key = Key::from_digest(&blake3::derive_key(CONTEXT, chain_value));
    let mut order: Vec<u32> = (0..dimension.get()).collect();
    let words = (1_u64..).flat_map(|block| key.block([block, 0, STREAM, 0]));
    for (last, word) in (1..order.len()).rev().zip(words) {
        order.swap(last, place(word, last as u64 + 1));
    }
    order
}

/// A place below `places`. The bias is below `places` in 2^64.
#[allow(clippy::cast_possible_truncation, reason = "below the number of places")]
const fn place(word: u64, places: u64) -> usize {
    ((word as u128 * places as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_permutation_that_the_chain_value_determines() {
        for rows in [256, 2048, 16_384] {
            let dimension = Dimension::new(rows).unwrap();
            let order = of_round(&[7; 32], dimension);
            assert_eq!(order, of_round(&[7; 32], dimension));
            assert_ne!(order, of_round(&[8; 32], dimension));
            let mut sorted = order;
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..rows));
        }
    }

    /// Made with numpy 2.4.6 and blake3 1.0.11 as `docs/PROOF.md` shows: chain value 7, 7, ...; 256 rows.
    #[test]
    fn the_same_order_as_numpy_makes() {
        let order = of_round(&[7; 32], Dimension::SMALLEST);
        assert_eq!(order[..8], [229, 13, 226, 164, 21, 38, 74, 53]);
        assert_eq!(order[248..], [159, 92, 80, 77, 27, 161, 149, 163]);
    }

    /// Each of the first places holds each value about equally often: chi square of 256 values over 2,560 shuffles.
    #[test]
    fn every_value_comes_to_every_place() {
        for place in [0, 128, 255] {
            let mut counts = [0_u32; 256];
            for seed in 0..2560_u32 {
                let mut chain_value = [0; 32];
                chain_value[..4].copy_from_slice(&seed.to_le_bytes());
                let order = of_round(&chain_value, Dimension::SMALLEST);
                counts[order[place] as usize] += 1;
            }
            // Ten expected for each. 255 degrees of freedom: mean 255, standard deviation 22.6.
            let chi_square: u32 = counts.iter().map(|count| count.abs_diff(10).pow(2)).sum::<u32>() / 10;
            assert!((142..=368).contains(&chi_square), "place {place}: {chi_square}");
        }
    }
}
