//! Reads the machine: NVML for NVIDIA GPUs, the operating system for the rest. Nothing here decides.

use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

use crate::inventory::{Host, Inventory};
use crate::readings::{
    CpuReading, CudaEnvironment, NvmlReading, NvmlReadings, Support, apple_gpu, cpu_device, cuda_devices,
};

/// NVML's `NVML_DEVICE_MIG_ENABLE`.
const MIG_ENABLED: u32 = 1;

/// Takes the inventory of this machine. What cannot be read is a note in it, never a failure.
///
/// Loads the NVIDIA driver's library, which can take a second: call it outside of async tasks.
#[must_use]
pub fn inventory() -> Inventory {
    let support = Support {
        cuda: candle_core::utils::cuda_is_available(),
        metal: candle_core::utils::metal_is_available(),
    };
    let host = Host {
        operating_system: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
        architecture: std::env::consts::ARCH.to_owned(),
    };
    let environment = CudaEnvironment {
        visible_devices: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
        device_order: std::env::var("CUDA_DEVICE_ORDER").ok(),
    };
    let mut notes = Vec::new();
    let readings = read_nvml(&mut notes);
    let (mut devices, cuda_notes) = cuda_devices(&readings, &environment, support);
    notes.extend(cuda_notes);
    let cpu = cpu_device(&read_cpu(&mut notes));
    if cfg!(target_os = "macos") {
        devices.extend(apple_gpu(&host, &cpu, support));
    }
    devices.push(cpu);
    Inventory::new(host, devices, notes)
}

fn read_nvml(notes: &mut Vec<String>) -> NvmlReadings {
    let nvml = match Nvml::init() {
        Ok(nvml) => nvml,
        // No library, no driver: a machine without an NVIDIA GPU.
        Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => return NvmlReadings::default(),
        Err(error) => {
            notes.push(format!(
                "NVML is installed but does not start: {error}; see whether nvidia-smi works"
            ));
            return NvmlReadings::default();
        }
    };
    let count = nvml.device_count().unwrap_or_else(|error| {
        notes.push(format!("NVML does not tell how many GPUs there are: {error}"));
        0
    });
    let devices = (0..count).map(|index| read_gpu(&nvml, index, notes)).collect();
    NvmlReadings {
        driver_version: nvml.sys_driver_version().ok(),
        devices,
    }
}

/// One GPU. A lost one keeps its place, so that the indexes of the others stay true.
fn read_gpu(nvml: &Nvml, index: u32, notes: &mut Vec<String>) -> NvmlReading {
    let device = match nvml.device_by_index(index) {
        Ok(device) => device,
        Err(error) => {
            notes.push(format!("NVML cannot open GPU {index}: {error}"));
            return NvmlReading::default();
        }
    };
    let memory = told(device.memory_info(), index, "memory", notes);
    NvmlReading {
        name: told(device.name(), index, "name", notes),
        uuid: told(device.uuid(), index, "UUID", notes),
        memory_total_bytes: memory.as_ref().map(|memory| memory.total),
        memory_free_bytes: memory.as_ref().map(|memory| memory.free),
        compute_capability: told(
            device.cuda_compute_capability(),
            index,
            "compute capability",
            notes,
        )
        .map(|capability| (capability.major, capability.minor)),
        utilization_percent: told(device.utilization_rates(), index, "utilization", notes)
            .map(|rates| rates.gpu),
        temperature_celsius: told(
            device.temperature(TemperatureSensor::Gpu),
            index,
            "temperature",
            notes,
        ),
        power_milliwatts: told(device.power_usage(), index, "power", notes),
        power_limit_milliwatts: told(device.enforced_power_limit(), index, "power limit", notes),
        split: told(device.mig_mode(), index, "MIG mode", notes)
            .is_some_and(|mode| mode.current == MIG_ENABLED),
    }
}

/// An answer of NVML. "Not supported" and functions older libraries lack are normal; other errors are noted.
fn told<T>(answer: Result<T, NvmlError>, index: u32, what: &str, notes: &mut Vec<String>) -> Option<T> {
    match answer {
        Ok(value) => Some(value),
        Err(NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_)) => None,
        Err(error) => {
            notes.push(format!("NVML does not tell the {what} of GPU {index}: {error}"));
            None
        }
    }
}

fn read_cpu(notes: &mut Vec<String>) -> CpuReading {
    let parts = RefreshKind::nothing()
        .with_cpu(CpuRefreshKind::nothing())
        .with_memory(MemoryRefreshKind::nothing().with_ram());
    let threads = std::thread::available_parallelism()
        .ok()
        .and_then(|threads| u32::try_from(threads.get()).ok());
    let cores = System::physical_core_count()
        .ok()
        .and_then(|cores| u32::try_from(cores).ok());
    let system = match System::new_with_specifics(parts) {
        Ok(system) => system,
        Err(error) => {
            notes.push(format!(
                "the operating system does not tell CPU and memory: {error}"
            ));
            return CpuReading {
                cores,
                threads,
                ..CpuReading::default()
            };
        }
    };
    let cpu = system.cpus().first();
    CpuReading {
        name: cpu.map(|cpu| cpu.brand().trim().to_owned()).unwrap_or_default(),
        vendor: cpu.map(|cpu| cpu.vendor_id().to_owned()).unwrap_or_default(),
        cores,
        threads,
        memory_total_bytes: system.total_memory(),
        memory_available_bytes: system.available_memory(),
        container_memory_bytes: system
            .cgroup_limits()
            .map(|limits| (limits.total_memory, limits.free_memory)),
    }
}
