//! From what drivers and operating systems tell to an [`Inventory`]. Plain data in, plain data out: a reading recorded
//! on one machine (`gristmill benchmark devices --raw`) can be tested on every other.

use serde::{Deserialize, Serialize};

use crate::inventory::{DeviceKind, Host, Inventory};

pub mod amd;
pub mod apple;
pub mod nvidia;
#[cfg(feature = "driver")]
pub mod nvidia_smi;
pub mod processor;

use amd::AmdReading;
use apple::AppleGpuReading;
use nvidia::NvidiaReadings;
use processor::CpuReading;

/// Which kinds of device this build of the program can compute on. The processor always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Support {
    /// Built with CUDA.
    pub cuda: bool,
    /// Built with Metal.
    pub metal: bool,
}

impl Support {
    /// Whether devices of a kind can be computed on.
    #[must_use]
    pub const fn computes_on(self, kind: DeviceKind) -> bool {
        match kind {
            DeviceKind::Cuda => self.cuda,
            DeviceKind::Metal => self.metal,
            // There is no engine for it yet: such devices are listed, not computed on.
            DeviceKind::Rocm => false,
            DeviceKind::Cpu => true,
        }
    }
}

/// The variables of the environment that say what CUDA shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CudaEnvironment {
    /// `CUDA_VISIBLE_DEVICES`.
    pub visible_devices: Option<String>,
    /// `CUDA_DEVICE_ORDER`.
    pub device_order: Option<String>,
}

/// The variables of the environment that say which AMD GPUs programs see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RocmEnvironment {
    /// `ROCR_VISIBLE_DEVICES`.
    pub rocr_visible_devices: Option<String>,
    /// `HIP_VISIBLE_DEVICES`.
    pub hip_visible_devices: Option<String>,
}

/// Everything that was read on a machine, before anything is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Readings {
    /// The machine.
    pub host: Host,
    /// What decides which NVIDIA GPUs are visible.
    #[serde(default)]
    pub environment: CudaEnvironment,
    /// What decides which AMD GPUs are visible.
    #[serde(default)]
    pub rocm_environment: RocmEnvironment,
    /// NVIDIA GPUs.
    #[serde(default)]
    pub nvidia: NvidiaReadings,
    /// AMD GPUs in PCI bus order.
    #[serde(default)]
    pub amd: Vec<AmdReading>,
    /// GPUs that macOS shows.
    #[serde(default)]
    pub apple: Vec<AppleGpuReading>,
    /// The processor.
    #[serde(default)]
    pub cpu: CpuReading,
    /// What could not be read, for people.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// The inventory of the machine that was read.
#[must_use]
pub fn inventory(readings: &Readings, support: Support) -> Inventory {
    let mut notes = readings.notes.clone();
    let (mut devices, cuda_notes) = nvidia::cuda_devices(&readings.nvidia, &readings.environment, support);
    notes.extend(cuda_notes);
    let (rocm, rocm_notes) = amd::visible_devices(&readings.amd, &readings.rocm_environment);
    devices.extend(rocm);
    notes.extend(rocm_notes);
    let cpu = processor::cpu_device(&readings.cpu);
    devices.extend(apple::apple_gpus(&readings.host, &readings.apple, &cpu, support));
    devices.push(cpu);
    Inventory::new(readings.host.clone(), devices, notes)
}

#[cfg(test)]
mod tests;
