use candle_core::Device;
use proptest::prelude::*;

use super::super::host_fold;
use super::super::strips::strips;
use super::*;
use crate::challenge::dimension::Dimension;
use crate::challenge::fold::{Rounding, fold};
use crate::challenge::residency;

const LIMIT: i32 = 1 << 21;

/// A result of random sums, row after row.
fn result(seed: u64, dimension: Dimension) -> Vec<i32> {
    let mut state = seed;
    let draw = |_| {
        // Knuth's MMIX generator: its upper bits are good enough to fill a matrix.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as i32 % LIMIT - if state >> 63 == 0 { 0 } else { LIMIT }
    };
    (0..dimension.rows() * dimension.rows()).map(draw).collect()
}

/// The strips of a result as a device holds them.
fn strips_of(result: &[i32], dimension: Dimension) -> Vec<Tensor> {
    let rows = dimension.rows();
    let cut = strips(dimension, 40_000_000, u64::MAX);
    assert!(cut.len() > 1);
    let strip = |strip: super::super::strips::Strip| {
        let values: Vec<f32> = (0..strip.rows())
            .flat_map(|place| {
                let row = strip.row_of_a(place, dimension);
                &result[row * rows..(row + 1) * rows]
            })
            .map(|&value| value as f32)
            .collect();
        Tensor::from_vec(values, (strip.rows(), rows), &Device::Cpu).unwrap()
    };
    cut.into_iter().map(strip).collect()
}

fn integers(units: &Tensor) -> Vec<i32> {
    let values: Vec<f32> = units.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(|value| value as i32).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn both_folds_are_the_reference(seed: u64) {
        let dimension = Dimension::SMALLEST;
        let result = result(seed, dimension);
        let reference = fold(&result, dimension, Rounding::Exact);
        let (mut by_operations, mut on_host) = (Vec::new(), Vec::new());
        for strip in strips_of(&result, dimension) {
            by_operations.extend(integers(&unit_values(&strip).unwrap()));
            on_host.extend(host_fold::unit_values(&values(&strip), dimension.rows()));
        }
        prop_assert!(by_operations == reference);
        prop_assert!(on_host == reference);
    }

    #[test]
    fn bfloat16_results_fold_as_rounded_integers(seed: u64) {
        let dimension = Dimension::SMALLEST;
        let result = result(seed, dimension);
        let reference = fold(&result, dimension, Rounding::Bfloat16);
        let mut by_operations = Vec::new();
        for strip in strips_of(&result, dimension) {
            let rounded = strip.to_dtype(DType::BF16).unwrap();
            by_operations.extend(integers(&unit_values(&rounded).unwrap()));
        }
        prop_assert!(by_operations == reference);
    }

    #[test]
    fn what_stays_is_two_bytes_and_folds_as_the_reference(seed: u64, nonce: [u8; 32]) {
        let dimension = Dimension::SMALLEST;
        let result = result(seed, dimension);
        let weights = Weights::new(&nonce);
        let reference = residency::fold(&result, dimension, &weights);
        let (mut by_operations, mut on_host) = (Vec::new(), Vec::new());
        for strip in strips_of(&result, dimension) {
            let (low, high) = low_bytes(&strip).unwrap();
            let host = host_fold::low_bytes(&values(&strip));
            prop_assert!((bytes(&low), bytes(&high)) == host);
            by_operations.extend(integers(&resident_unit_values(&low, &high, &weights).unwrap()));
            let folded = host_fold::resident_unit_values(&host.0, &host.1, dimension.rows(), &weights);
            on_host.extend(folded);
        }
        prop_assert!(by_operations == reference);
        prop_assert!(on_host == reference);
    }
}

#[test]
fn extremes_fold_as_integers() {
    let dimension = Dimension::SMALLEST;
    let entries = dimension.rows() * dimension.rows();
    for entry in [
        0,
        1,
        -1,
        1_024,
        -1_024,
        3_072,
        LIMIT - 1,
        1 - LIMIT,
        LIMIT - 1_024,
    ] {
        let result = vec![entry; entries];
        let weights = Weights {
            low: [255; 8],
            high: [255; 8],
        };
        for strip in strips_of(&result, dimension) {
            let units = integers(&unit_values(&strip).unwrap());
            assert_eq!(units[0], fold(&result, dimension, Rounding::Exact)[0], "{entry}");
            let (low, high) = low_bytes(&strip).unwrap();
            let units = integers(&resident_unit_values(&low, &high, &weights).unwrap());
            assert_eq!(
                units[0],
                residency::fold(&result, dimension, &weights)[0],
                "{entry}"
            );
        }
    }
}

#[test]
fn strips_of_part_of_a_unit_are_refused() {
    let strip = Tensor::zeros((12, 256), DType::F32, &Device::Cpu).unwrap();
    assert!(unit_values(&strip).is_err());
    let strip = Tensor::zeros((16, 12), DType::F32, &Device::Cpu).unwrap();
    assert!(unit_values(&strip).is_err());
}
