//! NVIDIA GPUs, from NVML or, where that can't be opened, from `nvidia-smi`.

use serde::{Deserialize, Serialize};

use super::{CudaEnvironment, Support};
use crate::fingerprint::TEXT_MAX_BYTES;
use crate::health::{Health, PcieLink, Slowdown};
use crate::inventory::{Device, DeviceKind};
use crate::visibility::{GpuNames, InstanceNames, Visible, visible_devices};

/// What the driver says about one GPU. What it would not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvidiaReading {
    /// The model's name.
    pub name: Option<String>,
    /// `GPU-` and 32 hexadecimal digits.
    pub uuid: Option<String>,
    /// The serial number of the board.
    pub serial: Option<String>,
    /// Total memory in bytes. GPUs that share the processor's memory have none to tell.
    pub memory_total_bytes: Option<u64>,
    /// Free memory in bytes.
    pub memory_free_bytes: Option<u64>,
    /// Major and minor compute capability.
    pub compute_capability: Option<(i32, i32)>,
    /// Share of the sampling period in which a kernel ran, in percent.
    pub utilization_percent: Option<u32>,
    /// Temperature of the chip in degrees Celsius.
    pub temperature_celsius: Option<u32>,
    /// Power drawn now, in milliwatts.
    pub power_milliwatts: Option<u32>,
    /// The enforced limit of power, in milliwatts.
    pub power_limit_milliwatts: Option<u32>,
    /// Its link to the machine.
    pub pcie: PcieLink,
    /// Whether its memory corrects errors.
    pub ecc_enabled: Option<bool>,
    /// Errors of its memory that could not be corrected, since the driver was loaded.
    pub ecc_uncorrected_errors: Option<u64>,
    /// Why it runs slower than it could.
    pub slowdowns: Vec<Slowdown>,
    /// Whether it is in the mode in which it is split into instances.
    pub mig_enabled: Option<bool>,
    /// Its instances.
    pub instances: Vec<MigInstance>,
}

/// What the driver says about an instance of a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MigInstance {
    /// `MIG-` and what follows.
    pub uuid: Option<String>,
    /// The model's name with the size of the instance.
    pub name: Option<String>,
    /// The number of its GPU instance.
    pub gpu_instance: Option<u32>,
    /// The number of its compute instance.
    pub compute_instance: Option<u32>,
    /// Total memory in bytes.
    pub memory_total_bytes: Option<u64>,
    /// Free memory in bytes.
    pub memory_free_bytes: Option<u64>,
}

/// What the driver says about a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvidiaReadings {
    /// Version of the driver.
    pub driver_version: Option<String>,
    /// The GPUs in PCI bus order.
    pub gpus: Vec<NvidiaReading>,
}

/// A text of a driver as it is shown and compared: at most [`TEXT_MAX_BYTES`], without control characters.
#[must_use]
pub fn plain_text(text: &str) -> String {
    let mut plain: String = text
        .trim()
        .chars()
        .filter(|character| !character.is_control())
        .collect();
    plain.truncate(plain.floor_char_boundary(TEXT_MAX_BYTES));
    plain
}

/// The visible NVIDIA GPUs, and notes for the owner.
#[must_use]
pub fn cuda_devices(
    readings: &NvidiaReadings,
    environment: &CudaEnvironment,
    support: Support,
) -> (Vec<Device>, Vec<String>) {
    let names: Vec<GpuNames> = readings.gpus.iter().map(names).collect();
    let visible = visible_devices(environment.visible_devices.as_deref(), &names);
    let devices: Vec<Device> = (0..)
        .zip(&visible.devices)
        .filter_map(|(index, visible)| cuda_device(index, *visible, readings, support))
        .collect();

    let mut notes = visible.notes;
    let hidden = readings.gpus.len().saturating_sub(devices.len());
    // Where instances are seen, the note about them says it all.
    let sees_instance = visible.devices.iter().any(|device| device.instance.is_some());
    if hidden > 0 && environment.visible_devices.is_some() && !sees_instance {
        notes.push(format!(
            "CUDA_VISIBLE_DEVICES hides {hidden} of {} GPUs",
            readings.gpus.len()
        ));
    }
    let differ = readings
        .gpus
        .iter()
        .any(|reading| reading.name != readings.gpus[0].name);
    if differ && environment.device_order.as_deref() != Some("PCI_BUS_ID") {
        notes.push(
            "the GPUs differ, and CUDA may count them in another order than shown here; \
             set CUDA_DEVICE_ORDER=PCI_BUS_ID so that both agree"
                .to_owned(),
        );
    }
    if !devices.is_empty() && !support.cuda {
        notes.push("this build computes on the CPU; build with '--features cuda' to use the GPU".to_owned());
    }
    (devices, notes)
}

fn names(reading: &NvidiaReading) -> GpuNames {
    let instance = |instance: &MigInstance| InstanceNames {
        uuid: instance.uuid.clone(),
        gpu_instance: instance.gpu_instance,
        compute_instance: instance.compute_instance,
    };
    GpuNames {
        uuid: reading.uuid.clone(),
        split: reading.mig_enabled == Some(true),
        instances: reading.instances.iter().map(instance).collect(),
    }
}

fn cuda_device(index: u32, visible: Visible, readings: &NvidiaReadings, support: Support) -> Option<Device> {
    let reading = readings.gpus.get(visible.gpu)?;
    let name = reading.name.as_deref().unwrap_or("NVIDIA GPU");
    let device = Device {
        uuid: reading.uuid.clone(),
        serial: reading.serial.clone(),
        memory_total_bytes: reading.memory_total_bytes,
        memory_free_bytes: reading.memory_free_bytes,
        driver_version: readings.driver_version.clone(),
        compute_capability: reading
            .compute_capability
            .map(|(major, minor)| format!("{major}.{minor}")),
        utilization_percent: reading.utilization_percent,
        temperature_celsius: reading.temperature_celsius,
        power_milliwatts: reading.power_milliwatts,
        power_limit_milliwatts: reading.power_limit_milliwatts,
        health: Health {
            pcie: reading.pcie.known(),
            ecc_enabled: reading.ecc_enabled,
            ecc_uncorrected_errors: reading.ecc_uncorrected_errors,
            mig_enabled: reading.mig_enabled,
            slowdowns: reading.slowdowns.clone(),
        },
        usable: support.computes_on(DeviceKind::Cuda),
        ..Device::new(DeviceKind::Cuda, index, name, "NVIDIA")
    };
    let Some(instance) = visible.instance else {
        return Some(device);
    };
    let instance = reading.instances.get(instance)?;
    Some(Device {
        name: instance.name.clone().unwrap_or_else(|| format!("{name} MIG")),
        uuid: instance.uuid.clone(),
        parent_uuid: device.uuid,
        memory_total_bytes: instance.memory_total_bytes,
        memory_free_bytes: instance.memory_free_bytes,
        // The GPU's own figure is about all instances together.
        utilization_percent: None,
        ..device
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtx_4090() -> NvidiaReading {
        NvidiaReading {
            name: Some("NVIDIA GeForce RTX 4090".into()),
            uuid: Some("GPU-1a2b3c4d-0000-1111-2222-333344445555".into()),
            memory_total_bytes: Some(25_757_220_864),
            memory_free_bytes: Some(24_904_597_504),
            compute_capability: Some((8, 9)),
            utilization_percent: Some(3),
            temperature_celsius: Some(41),
            power_milliwatts: Some(21_480),
            power_limit_milliwatts: Some(450_000),
            ..NvidiaReading::default()
        }
    }

    /// A GPU with the processor's memory: NVML answers "not supported" to most questions.
    fn gb10() -> NvidiaReading {
        NvidiaReading {
            name: Some("NVIDIA GB10".into()),
            uuid: Some("GPU-99999999-0000-1111-2222-333344445555".into()),
            compute_capability: Some((12, 1)),
            ..NvidiaReading::default()
        }
    }

    const CUDA: Support = Support {
        cuda: true,
        metal: false,
    };

    fn readings(devices: Vec<NvidiaReading>) -> NvidiaReadings {
        NvidiaReadings {
            driver_version: Some("580.95.05".into()),
            gpus: devices,
        }
    }

    #[test]
    fn a_reading_becomes_a_device() {
        let (devices, notes) = cuda_devices(&readings(vec![rtx_4090()]), &CudaEnvironment::default(), CUDA);
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].compute_capability.as_deref(), Some("8.9"));
        assert_eq!(devices[0].driver_version.as_deref(), Some("580.95.05"));
        assert_eq!(
            devices[0].table_row(),
            [
                "cuda:0",
                "NVIDIA GeForce RTX 4090",
                "23.1 GiB of 23.9 GiB",
                "sm 8.9",
                "3 %",
                "41 °C",
                "21 of 450 W",
                "580.95.05",
                "yes"
            ]
        );
    }

    #[test]
    fn what_is_not_told_is_absent_and_never_zero() {
        let (devices, _) = cuda_devices(&readings(vec![gb10()]), &CudaEnvironment::default(), CUDA);
        let json = serde_json::to_value(&devices[0]).unwrap();
        assert_eq!(json["compute_capability"], "12.1");
        assert!(json.get("memory_total_bytes").is_none() && json.get("power_milliwatts").is_none());
        let (devices, _) = cuda_devices(
            &readings(vec![NvidiaReading::default()]),
            &CudaEnvironment::default(),
            CUDA,
        );
        assert_eq!(devices[0].name, "NVIDIA GPU");
    }

    #[test]
    fn hidden_gpus_are_not_listed_and_the_order_is_that_of_the_variable() {
        let environment = CudaEnvironment {
            visible_devices: Some("GPU-99999999,0".into()),
            device_order: Some("PCI_BUS_ID".into()),
        };
        let (devices, notes) = cuda_devices(&readings(vec![rtx_4090(), gb10()]), &environment, CUDA);
        let names: Vec<_> = devices
            .iter()
            .map(|device| (device.index, device.name.as_str()))
            .collect();
        assert_eq!(names, [(0, "NVIDIA GB10"), (1, "NVIDIA GeForce RTX 4090")]);
        assert_eq!(notes, Vec::<String>::new());

        let none = CudaEnvironment {
            visible_devices: Some(String::new()),
            ..environment
        };
        let (devices, notes) = cuda_devices(&readings(vec![rtx_4090(), gb10()]), &none, CUDA);
        assert!(devices.is_empty());
        assert_eq!(notes, ["CUDA_VISIBLE_DEVICES hides 2 of 2 GPUs"]);
    }

    #[test]
    fn owners_are_told_what_surprises() {
        let both = readings(vec![rtx_4090(), gb10()]);
        let (devices, notes) = cuda_devices(&both, &CudaEnvironment::default(), Support::default());
        assert!(devices.iter().all(|device| !device.usable));
        assert_eq!(notes.len(), 2);
        assert!(notes[0].contains("CUDA_DEVICE_ORDER=PCI_BUS_ID"));
        assert!(notes[1].contains("--features cuda"));
        assert_eq!(
            cuda_devices(&NvidiaReadings::default(), &CudaEnvironment::default(), CUDA),
            (vec![], vec![])
        );
    }

    #[test]
    fn an_instance_has_its_own_memory_and_says_whose_it_is() {
        let parent = NvidiaReading {
            name: Some("NVIDIA A100-SXM4-80GB".into()),
            mig_enabled: Some(true),
            instances: vec![
                MigInstance {
                    uuid: Some("MIG-1".into()),
                    memory_total_bytes: Some(10 << 30),
                    ..MigInstance::default()
                },
                MigInstance {
                    name: Some("NVIDIA A100-SXM4-80GB MIG 2g.20gb".into()),
                    memory_total_bytes: Some(20 << 30),
                    ..MigInstance::default()
                },
            ],
            ..rtx_4090()
        };
        let (devices, notes) =
            cuda_devices(&readings(vec![parent.clone()]), &CudaEnvironment::default(), CUDA);
        assert_eq!((devices.len(), notes.len()), (1, 1), "{notes:?}");
        assert_eq!(devices[0].name, "NVIDIA A100-SXM4-80GB MIG");
        assert_eq!(devices[0].uuid.as_deref(), Some("MIG-1"));
        assert_eq!(devices[0].parent_uuid, parent.uuid);
        assert_eq!(
            (devices[0].memory_total_bytes, devices[0].memory_free_bytes),
            (Some(10 << 30), None)
        );
    }

    #[test]
    fn texts_of_drivers_are_plain_and_short() {
        assert_eq!(plain_text(" a\u{1b}[31m\n "), "a[31m");
        assert_eq!(plain_text(&"ä".repeat(500)).len(), 256);
    }
}
