//! Which precisions a device offers: those that it computes exactly in, of those that it computes in at all.

use gristmill_protocol::hardware::Precision;

use super::ProverError;
use super::measure::MeasuredRate;

/// A precision that a device was asked for and does not compute in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Which.
    pub precision: Precision,
    /// What the device or its driver said.
    pub reason: String,
}

/// What became of each precision that was tried.
#[derive(Debug, Default)]
pub(super) struct Offered {
    pub(super) rates: Vec<MeasuredRate>,
    pub(super) inexact: Vec<Precision>,
    pub(super) left_out: Vec<LeftOut>,
}

/// Measures one precision after the other. Where the device refuses a narrow one, it is left out: an older card, or one
/// whose driver has no such kernels, shows the others. Every device computes in f32, so there its refusal is an error,
/// as is everything that is not the device's, such as its owner's stop.
///
/// # Errors
/// The first [`ProverError`] that is not about one precision alone.
pub(super) fn offered(
    precisions: &[Precision],
    mut measure: impl FnMut(Precision) -> Result<MeasuredRate, ProverError>,
) -> Result<Offered, ProverError> {
    let mut offered = Offered::default();
    for &precision in precisions {
        match measure(precision) {
            Ok(rate) => offered.rates.push(rate),
            Err(ProverError::Inexact { .. }) => offered.inexact.push(precision),
            Err(ProverError::Device(error)) if precision != Precision::F32 => {
                let reason = error.to_string();
                offered.left_out.push(LeftOut { precision, reason });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(offered)
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Error};
    use gristmill_protocol::hardware::Throughput;

    use super::super::Interruption;
    use super::*;

    const ALL: [Precision; 3] = [Precision::Bf16, Precision::Tf32, Precision::F32];

    fn rate(precision: Precision) -> MeasuredRate {
        MeasuredRate {
            throughput: Throughput {
                precision,
                multiply_adds_per_second: 1_000,
            },
            slowest: 900,
            multiplying_permille: 800,
        }
    }

    /// What candle says where a device has no kernel for a type.
    fn no_kernel() -> ProverError {
        ProverError::Device(Error::UnsupportedDTypeForOp(DType::BF16, "matmul"))
    }

    #[test]
    fn a_card_without_bf16_shows_the_others() {
        let mut tried = Vec::new();
        let offered = offered(&ALL, |precision| {
            tried.push(precision);
            match precision {
                Precision::Bf16 => Err(no_kernel()),
                _ => Ok(rate(precision)),
            }
        })
        .unwrap();
        assert_eq!(tried, ALL);
        assert_eq!(offered.rates, [rate(Precision::Tf32), rate(Precision::F32)]);
        assert!(offered.inexact.is_empty());
        assert_eq!(offered.left_out.len(), 1);
        assert_eq!(offered.left_out[0].precision, Precision::Bf16);
        assert!(offered.left_out[0].reason.contains("matmul"), "{offered:?}");
    }

    #[test]
    fn inexact_is_told_apart_from_not_at_all() {
        let offered = offered(&ALL, |precision| match precision {
            Precision::Bf16 => Err(ProverError::Inexact {
                precision,
                dimension: 256,
            }),
            Precision::Tf32 => Err(no_kernel()),
            Precision::F32 => Ok(rate(precision)),
        })
        .unwrap();
        assert_eq!(offered.inexact, [Precision::Bf16]);
        assert_eq!(offered.left_out[0].precision, Precision::Tf32);
        assert_eq!(offered.rates, [rate(Precision::F32)]);
    }

    #[test]
    fn a_device_that_fails_in_f32_or_is_stopped_is_given_up() {
        let broken = offered(&ALL, |_| Err(no_kernel()));
        assert!(matches!(broken, Err(ProverError::Device(_))));
        let mut tried = 0;
        let stopped = offered(&ALL, |_| {
            tried += 1;
            Err(Interruption::Stopped.into())
        });
        assert!(matches!(stopped, Err(ProverError::Interrupted(_))));
        assert_eq!(tried, 1, "nothing is tried after a stop");
    }
}
