//! The processor.

use serde::{Deserialize, Serialize};

use crate::inventory::{Device, DeviceKind};

/// What the operating system says about the processor and its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CpuReading {
    /// The model's name.
    pub name: String,
    /// The identification of its maker, such as `GenuineIntel`.
    pub vendor: String,
    /// Physical cores.
    pub cores: Option<u32>,
    /// Threads that this process may run at once.
    pub threads: Option<u32>,
    /// What it has for multiplying matrices, such as `avx2`.
    pub features: Vec<String>,
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
    let name = match reading.name.as_str() {
        "" => "CPU",
        name => name,
    };
    Device {
        memory_total_bytes: (total > 0).then_some(total),
        memory_free_bytes: (total > 0).then_some(free),
        cores: reading.cores,
        threads: reading.threads,
        features: reading.features.clone(),
        usable: true,
        ..Device::new(DeviceKind::Cpu, 0, name, vendor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_no_more_memory_than_it_was_given() {
        let reading = CpuReading {
            name: "AMD Ryzen 9 7950X".into(),
            vendor: "AuthenticAMD".into(),
            cores: Some(16),
            threads: Some(32),
            features: vec!["avx2".into()],
            memory_total_bytes: 64 << 30,
            memory_available_bytes: 40 << 30,
            container_memory_bytes: None,
        };
        let device = cpu_device(&reading);
        assert_eq!(
            (device.memory_total_bytes, device.memory_free_bytes),
            (Some(64 << 30), Some(40 << 30))
        );
        assert_eq!((device.vendor.as_str(), device.features.len()), ("AMD", 1));
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
}
