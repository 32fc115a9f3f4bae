//! In which numbers a device multiplies.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Result, Tensor, cuda};
use gristmill_protocol::hardware::Precision;

/// Held from setting candle's switch to starting the product: the switch is one for the whole process, and several
/// devices may be in different stages.
static SWITCH: Mutex<()> = Mutex::new(());

/// What candle holds the inputs and the result in.
pub(super) const fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 | Precision::Tf32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

/// Starts a product in a precision.
pub(super) fn multiply(precision: Precision, left: &Tensor, right: &Tensor) -> Result<Tensor> {
    // A panic of another thread while it held this leaves nothing half done.
    let _held = SWITCH.lock().unwrap_or_else(PoisonError::into_inner);
    // Whoever else computes in this process finds the switch as it was.
    let before = cuda::gemm_reduced_precision_f32();
    cuda::set_gemm_reduced_precision_f32(precision == Precision::Tf32);
    let product = left.matmul(right);
    cuda::set_gemm_reduced_precision_f32(before);
    product
}
