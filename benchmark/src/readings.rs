//! From what drivers and operating systems tell to [`Device`]s. Plain data in, plain data out: a reading recorded
//! on one machine can be tested on every other.

use crate::inventory::{Device, DeviceKind, Host};
use crate::visibility::visible_devices;

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

/// What NVML says about one GPU. What it would not tell is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NvmlReading {
    /// The model's name.
    pub name: Option<String>,
    /// `GPU-` and 32 hexadecimal digits.
    pub uuid: Option<String>,
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
    /// Whether the GPU is split into MIG instances.
    pub split: bool,
}

/// What NVML says about a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NvmlReadings {
    /// Version of the driver.
    pub driver_version: Option<String>,
    /// The GPUs in PCI bus order.
    pub devices: Vec<NvmlReading>,
}

/// The variables of the environment that say what CUDA shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CudaEnvironment {
    /// `CUDA_VISIBLE_DEVICES`.
    pub visible_devices: Option<String>,
    /// `CUDA_DEVICE_ORDER`.
    pub device_order: Option<String>,
}

/// The visible NVIDIA GPUs, and notes for the owner.
#[must_use]
pub fn cuda_devices(
    readings: &NvmlReadings,
    environment: &CudaEnvironment,
    support: Support,
) -> (Vec<Device>, Vec<String>) {
    let uuids: Vec<Option<String>> = readings
        .devices
        .iter()
        .map(|reading| reading.uuid.clone())
        .collect();
    let visible = visible_devices(environment.visible_devices.as_deref(), &uuids);
    let shown: Vec<&NvmlReading> = visible
        .positions
        .iter()
        .filter_map(|position| readings.devices.get(*position))
        .collect();
    let devices: Vec<Device> = (0..)
        .zip(&shown)
        .map(|(index, reading)| cuda_device(index, reading, readings.driver_version.clone(), support))
        .collect();

    let mut notes: Vec<String> = visible.note.into_iter().collect();
    let hidden = readings.devices.len() - devices.len();
    if hidden > 0 {
        notes.push(format!(
            "CUDA_VISIBLE_DEVICES hides {hidden} of {} GPUs",
            readings.devices.len()
        ));
    }
    let differ = readings
        .devices
        .iter()
        .any(|reading| reading.name != readings.devices[0].name);
    if differ && environment.device_order.as_deref() != Some("PCI_BUS_ID") {
        notes.push(
            "the GPUs differ, and CUDA may count them in another order than shown here; \
             set CUDA_DEVICE_ORDER=PCI_BUS_ID so that both agree"
                .to_owned(),
        );
    }
    for device in devices
        .iter()
        .zip(&shown)
        .filter(|(_, reading)| reading.split)
        .map(|(device, _)| device)
    {
        let index = device.index;
        notes.push(format!(
            "cuda:{index} is split into MIG instances, which are not listed one by one"
        ));
    }
    if !devices.is_empty() && !support.cuda {
        notes.push("this build computes on the CPU; build with '--features cuda' to use the GPU".to_owned());
    }
    (devices, notes)
}

fn cuda_device(
    index: u32,
    reading: &NvmlReading,
    driver_version: Option<String>,
    support: Support,
) -> Device {
    Device {
        kind: DeviceKind::Cuda,
        index,
        name: reading.name.clone().unwrap_or_else(|| "NVIDIA GPU".to_owned()),
        vendor: "NVIDIA".to_owned(),
        uuid: reading.uuid.clone(),
        memory_total_bytes: reading.memory_total_bytes,
        memory_free_bytes: reading.memory_free_bytes,
        cores: None,
        threads: None,
        driver_version,
        compute_capability: reading
            .compute_capability
            .map(|(major, minor)| format!("{major}.{minor}")),
        utilization_percent: reading.utilization_percent,
        temperature_celsius: reading.temperature_celsius,
        power_milliwatts: reading.power_milliwatts,
        power_limit_milliwatts: reading.power_limit_milliwatts,
        usable: support.computes_on(DeviceKind::Cuda),
    }
}

/// What the operating system says about the processor and its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuReading {
    /// The model's name.
    pub name: String,
    /// The identification of its maker, such as `GenuineIntel`.
    pub vendor: String,
    /// Physical cores.
    pub cores: Option<u32>,
    /// Threads that this process may run at once.
    pub threads: Option<u32>,
    /// Memory of the machine in bytes; zero where unknown.
    pub memory_total_bytes: u64,
    /// Memory that programs could still have, in bytes.
    pub memory_available_bytes: u64,
    /// Total and free bytes of the container that this process runs in.
    pub container_memory_bytes: Option<(u64, u64)>,
}

/// The processor as a device.
#[must_use]
pub fn cpu_device(reading: &CpuReading) -> Device {
    let (total, free) = reading.container_memory_bytes.map_or(
        (reading.memory_total_bytes, reading.memory_available_bytes),
        |(total, free)| {
            (
                reading.memory_total_bytes.min(total),
                reading.memory_available_bytes.min(free),
            )
        },
    );
    let vendor = match reading.vendor.as_str() {
        "GenuineIntel" => "Intel",
        "AuthenticAMD" => "AMD",
        other => other,
    };
    Device {
        kind: DeviceKind::Cpu,
        index: 0,
        name: if reading.name.is_empty() {
            "CPU".to_owned()
        } else {
            reading.name.clone()
        },
        vendor: vendor.to_owned(),
        uuid: None,
        memory_total_bytes: (total > 0).then_some(total),
        memory_free_bytes: (total > 0).then_some(free),
        cores: reading.cores,
        threads: reading.threads,
        driver_version: None,
        compute_capability: None,
        utilization_percent: None,
        temperature_celsius: None,
        power_milliwatts: None,
        power_limit_milliwatts: None,
        usable: true,
    }
}

/// The GPU of a Mac with Apple silicon: every one has exactly one, on the processor's chip and in its memory.
#[must_use]
pub fn apple_gpu(host: &Host, cpu: &Device, support: Support) -> Option<Device> {
    let apple_silicon = cpu.name.starts_with("Apple") && host.architecture.starts_with("a");
    apple_silicon.then(|| Device {
        kind: DeviceKind::Metal,
        name: format!("{} GPU", cpu.name),
        vendor: "Apple".to_owned(),
        cores: None,
        threads: None,
        usable: support.computes_on(DeviceKind::Metal),
        ..cpu.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtx_4090() -> NvmlReading {
        NvmlReading {
            name: Some("NVIDIA GeForce RTX 4090".into()),
            uuid: Some("GPU-1a2b3c4d-0000-1111-2222-333344445555".into()),
            memory_total_bytes: Some(25_757_220_864),
            memory_free_bytes: Some(24_904_597_504),
            compute_capability: Some((8, 9)),
            utilization_percent: Some(3),
            temperature_celsius: Some(41),
            power_milliwatts: Some(21_480),
            power_limit_milliwatts: Some(450_000),
            split: false,
        }
    }

    /// A GPU with the processor's memory: NVML answers "not supported" to most questions.
    fn gb10() -> NvmlReading {
        NvmlReading {
            name: Some("NVIDIA GB10".into()),
            uuid: Some("GPU-99999999-0000-1111-2222-333344445555".into()),
            compute_capability: Some((12, 1)),
            ..NvmlReading::default()
        }
    }

    const CUDA: Support = Support {
        cuda: true,
        metal: false,
    };

    fn readings(devices: Vec<NvmlReading>) -> NvmlReadings {
        NvmlReadings {
            driver_version: Some("580.95.05".into()),
            devices,
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
            &readings(vec![NvmlReading::default()]),
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
        let split = NvmlReading {
            split: true,
            ..rtx_4090()
        };
        let both = readings(vec![split, gb10()]);
        let (devices, notes) = cuda_devices(&both, &CudaEnvironment::default(), Support::default());
        assert!(devices.iter().all(|device| !device.usable));
        assert_eq!(notes.len(), 3);
        assert!(notes[0].contains("CUDA_DEVICE_ORDER=PCI_BUS_ID"));
        assert!(notes[1].starts_with("cuda:0 is split into MIG"));
        assert!(notes[2].contains("--features cuda"));
        assert_eq!(
            cuda_devices(&NvmlReadings::default(), &CudaEnvironment::default(), CUDA),
            (vec![], vec![])
        );
    }

    #[test]
    fn a_container_has_no_more_memory_than_it_was_given() {
        let reading = CpuReading {
            name: "AMD Ryzen 9 7950X".into(),
            vendor: "AuthenticAMD".into(),
            cores: Some(16),
            threads: Some(32),
            memory_total_bytes: 64 << 30,
            memory_available_bytes: 40 << 30,
            container_memory_bytes: None,
        };
        let device = cpu_device(&reading);
        assert_eq!(
            (device.memory_total_bytes, device.memory_free_bytes),
            (Some(64 << 30), Some(40 << 30))
        );
        assert_eq!(device.vendor, "AMD");
        assert_eq!(device.table_row()[3], "16 cores, 32 threads");
        let contained = cpu_device(&CpuReading {
            container_memory_bytes: Some((8 << 30, 3 << 30)),
            ..reading.clone()
        });
        assert_eq!(
            (contained.memory_total_bytes, contained.memory_free_bytes),
            (Some(8 << 30), Some(3 << 30))
        );
        let unlimited = cpu_device(&CpuReading {
            container_memory_bytes: Some((u64::MAX, u64::MAX)),
            ..reading
        });
        assert_eq!(unlimited, device);
        assert_eq!(cpu_device(&CpuReading::default()).memory_total_bytes, None);
    }

    #[test]
    fn apple_silicon_has_a_gpu_in_the_same_memory() {
        let host = |architecture: &str| Host {
            operating_system: "macOS 26.1".into(),
            architecture: architecture.into(),
        };
        let cpu = cpu_device(&CpuReading {
            name: "Apple M4 Pro".into(),
            memory_total_bytes: 48 << 30,
            ..CpuReading::default()
        });
        let gpu = apple_gpu(
            &host("aarch64"),
            &cpu,
            Support {
                cuda: false,
                metal: true,
            },
        )
        .unwrap();
        assert_eq!(
            (gpu.kind, gpu.name.as_str(), gpu.usable),
            (DeviceKind::Metal, "Apple M4 Pro GPU", true)
        );
        assert_eq!(gpu.memory_total_bytes, Some(48 << 30));
        assert!(apple_gpu(&host("arm64"), &cpu, Support::default()).is_some_and(|gpu| !gpu.usable));
        assert_eq!(
            apple_gpu(&host("x86_64"), &cpu_device(&CpuReading::default()), CUDA),
            None
        );
    }
}
