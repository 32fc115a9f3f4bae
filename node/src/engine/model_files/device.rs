//! Which device runs the built-in engines: the one place that knows of CUDA and Metal.

use candle_core::{DType, Device};

use super::LoadError;

/// The device of this build: the first GPU where it was built for one, the CPU otherwise.
pub(crate) fn choose() -> Result<Device, LoadError> {
    #[cfg(feature = "cuda")]
    let device = Device::new_cuda(0);
    #[cfg(all(feature = "metal", not(feature = "cuda")))]
    let device = Device::new_metal(0);
    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    let device: candle_core::Result<Device> = Ok(Device::Cpu);
    device.map_err(|error| LoadError::Device {
        problem: error.to_string(),
    })
}

/// The type in which stored weights are best computed with: GPUs multiply half precision natively, CPUs do not.
pub(crate) fn compute_type(stored: DType, device: &Device) -> DType {
    match (stored, device) {
        (DType::BF16 | DType::F16, Device::Cuda(_) | Device::Metal(_)) => stored,
        _ => DType::F32,
    }
}
