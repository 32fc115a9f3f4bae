//! NVIDIA GPUs: NVML, and `nvidia-smi` where that can't be opened.

use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::error::NvmlError;

use super::command;
use crate::health::{PcieLink, Slowdown};
use crate::readings::nvidia::{MigInstance, NvidiaReading, NvidiaReadings};
use crate::readings::nvidia_smi::{
    CSV_ARGUMENTS, OUTPUT_MAX_BYTES, XML_ARGUMENTS, add_compute_capabilities, parse_xml,
};

/// NVML's `NVML_DEVICE_MIG_ENABLE`.
const MIG_ENABLED: u32 = 1;
/// The program of the driver.
const PROGRAM: &str = "nvidia-smi";

/// The NVIDIA GPUs of this machine.
pub(super) fn read(notes: &mut Vec<String>) -> NvidiaReadings {
    match Nvml::init() {
        Ok(nvml) => read_nvml(&nvml, notes),
        // No library, no driver: a machine without an NVIDIA GPU, or one with nothing but the program.
        Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound) => {
            read_nvidia_smi(notes).unwrap_or_default()
        }
        Err(error) => {
            notes.push(format!(
                "NVML is installed but does not start: {error}; see whether nvidia-smi works"
            ));
            read_nvidia_smi(notes).unwrap_or_default()
        }
    }
}

/// What the program says; `None` where there is none, or it says nothing that can be read.
fn read_nvidia_smi(notes: &mut Vec<String>) -> Option<NvidiaReadings> {
    let text = match command::output(PROGRAM, &XML_ARGUMENTS, OUTPUT_MAX_BYTES) {
        Ok(text) => text?,
        Err(error) => {
            notes.push(error.to_string());
            return None;
        }
    };
    match parse_xml(&text) {
        Ok(mut readings) => {
            if let Ok(Some(csv)) = command::output(PROGRAM, &CSV_ARGUMENTS, OUTPUT_MAX_BYTES) {
                add_compute_capabilities(&mut readings, &csv);
            }
            Some(readings)
        }
        Err(error) => {
            notes.push(format!("nvidia-smi can't be understood: {error}"));
            None
        }
    }
}

fn read_nvml(nvml: &Nvml, notes: &mut Vec<String>) -> NvidiaReadings {
    let count = nvml.device_count().unwrap_or_else(|error| {
        notes.push(format!("NVML does not tell how many GPUs there are: {error}"));
        0
    });
    NvidiaReadings {
        driver_version: nvml.sys_driver_version().ok(),
        gpus: (0..count).map(|index| read_gpu(nvml, index, notes)).collect(),
    }
}

/// One GPU. A lost one keeps its place, so that the indexes of the others stay true.
fn read_gpu(nvml: &Nvml, index: u32, notes: &mut Vec<String>) -> NvidiaReading {
    let device = match nvml.device_by_index(index) {
        Ok(device) => device,
        Err(error) => {
            notes.push(format!("NVML cannot open GPU {index}: {error}"));
            return NvidiaReading::default();
        }
    };
    let memory = told(device.memory_info(), index, "memory", notes);
    let mig_enabled =
        told(device.mig_mode(), index, "MIG mode", notes).map(|mode| mode.current == MIG_ENABLED);
    let capability = told(
        device.cuda_compute_capability(),
        index,
        "compute capability",
        notes,
    );
    let uncorrected = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    let reasons = told(device.current_throttle_reasons(), index, "slowdowns", notes);
    NvidiaReading {
        name: told(device.name(), index, "name", notes),
        uuid: told(device.uuid(), index, "UUID", notes),
        serial: told(device.serial(), index, "serial number", notes),
        memory_total_bytes: memory.as_ref().map(|memory| memory.total),
        memory_free_bytes: memory.as_ref().map(|memory| memory.free),
        compute_capability: capability.map(|capability| (capability.major, capability.minor)),
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
        pcie: PcieLink {
            generation: told(device.current_pcie_link_gen(), index, "PCIe generation", notes),
            generation_max: told(device.max_pcie_link_gen(), index, "PCIe generation", notes),
            width: told(device.current_pcie_link_width(), index, "PCIe width", notes),
            width_max: told(device.max_pcie_link_width(), index, "PCIe width", notes),
        },
        ecc_enabled: told(device.is_ecc_enabled(), index, "ECC mode", notes)
            .map(|mode| mode.currently_enabled),
        ecc_uncorrected_errors: told(uncorrected, index, "ECC errors", notes),
        slowdowns: reasons.map(slowdowns).unwrap_or_default(),
        mig_enabled,
        instances: if mig_enabled == Some(true) {
            read_instances(&device, index, notes)
        } else {
            Vec::new()
        },
    }
}

fn read_instances(
    device: &nvml_wrapper::Device<'_>,
    index: u32,
    notes: &mut Vec<String>,
) -> Vec<MigInstance> {
    let most = told(device.mig_device_count(), index, "number of MIG instances", notes).unwrap_or(0);
    let mut instances = Vec::new();
    for place in 0..most {
        let instance = match device.mig_device_by_index(place) {
            Ok(instance) => instance,
            // Places are counted up to the most that there could be.
            Err(NvmlError::NotFound) => continue,
            Err(error) => {
                notes.push(format!(
                    "NVML cannot open MIG instance {place} of GPU {index}: {error}"
                ));
                continue;
            }
        };
        let memory = told(instance.memory_info(), index, "memory of an instance", notes);
        instances.push(MigInstance {
            uuid: told(instance.uuid(), index, "UUID of an instance", notes),
            name: told(instance.name(), index, "name of an instance", notes),
            // NVML tells them by functions that its wrapper lacks; the UUID names the instance as well.
            gpu_instance: None,
            compute_instance: None,
            memory_total_bytes: memory.as_ref().map(|memory| memory.total),
            memory_free_bytes: memory.as_ref().map(|memory| memory.free),
        });
    }
    instances
}

fn slowdowns(reasons: ThrottleReasons) -> Vec<Slowdown> {
    let known = [
        (ThrottleReasons::SW_POWER_CAP, Slowdown::PowerCap),
        (ThrottleReasons::SW_THERMAL_SLOWDOWN, Slowdown::Heat),
        (ThrottleReasons::HW_THERMAL_SLOWDOWN, Slowdown::Overheating),
        (ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN, Slowdown::PowerBrake),
        (ThrottleReasons::HW_SLOWDOWN, Slowdown::Hardware),
    ];
    let active = known.into_iter().filter(|(reason, _)| reasons.contains(*reason));
    active.map(|(_, slowdown)| slowdown).collect()
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
