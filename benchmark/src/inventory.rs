//! The devices of one machine, as data: what the node announces and what the command line shows.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::health::Health;

/// By which interface a device computes. The order is the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// An NVIDIA GPU.
    Cuda,
    /// An Apple GPU.
    Metal,
    /// An AMD GPU.
    Rocm,
    /// The processor itself.
    Cpu,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Cuda => "cuda",
            Self::Metal => "metal",
            Self::Rocm => "rocm",
            Self::Cpu => "cpu",
        })
    }
}

/// One device. A field that the machine does not tell is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// By which interface it computes.
    pub kind: DeviceKind,
    /// Its number among the visible devices of its kind, as programs count them from 0.
    pub index: u32,
    /// The maker's name for the model.
    pub name: String,
    /// Who makes it; empty where unknown.
    pub vendor: String,
    /// The driver's lasting name for this very device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// The UUID of the GPU that this is an instance (MIG) of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_uuid: Option<String>,
    /// The maker's serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Memory that it computes in, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// How much of it could be had now, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_free_bytes: Option<u64>,
    /// Physical cores of a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Threads that this process may run at once on a processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// What a processor has for multiplying matrices, such as `avx2`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Version of the driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_version: Option<String>,
    /// CUDA compute capability, such as `8.9`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_capability: Option<String>,
    /// Share of the last moments in which it was busy, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization_percent: Option<u32>,
    /// Temperature in degrees Celsius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_celsius: Option<u32>,
    /// Power drawn now, in milliwatts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_milliwatts: Option<u32>,
    /// Power that it may draw at most, in milliwatts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power_limit_milliwatts: Option<u32>,
    /// What could be out of order.
    #[serde(default, skip_serializing_if = "Health::is_unknown")]
    pub health: Health,
    /// Whether this build of the program can compute on it.
    pub usable: bool,
}

/// What the devices stand in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The operating system and its version.
    pub operating_system: String,
    /// The processor architecture, such as `x86_64`.
    pub architecture: String,
}

/// Everything that was found on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The machine.
    pub host: Host,
    /// Its devices by kind and index; the processor comes last.
    pub devices: Vec<Device>,
    /// What could not be read, and what the owner should know, for people.
    pub notes: Vec<String>,
}

impl Inventory {
    /// An inventory with its devices in order.
    #[must_use]
    pub fn new(host: Host, mut devices: Vec<Device>, notes: Vec<String>) -> Self {
        devices.sort_by_key(|device| (device.kind, device.index));
        Self { host, devices, notes }
    }

    /// The device that an engine of this build computes on unless told otherwise: the first usable one.
    #[must_use]
    pub fn selected(&self) -> Option<&Device> {
        self.devices.iter().find(|device| device.usable)
    }

    /// One line about the selected device, for a start-up message.
    #[must_use]
    pub fn selected_device_summary(&self) -> String {
        self.selected()
            .map_or_else(|| "no usable device".to_owned(), Device::summary)
    }
}

impl Device {
    /// A device of which nothing is known but what it is.
    #[must_use]
    pub fn new(kind: DeviceKind, index: u32, name: &str, vendor: &str) -> Self {
        Self {
            kind,
            index,
            name: name.to_owned(),
            vendor: vendor.to_owned(),
            uuid: None,
            parent_uuid: None,
            serial: None,
            memory_total_bytes: None,
            memory_free_bytes: None,
            cores: None,
            threads: None,
            features: Vec::new(),
            driver_version: None,
            compute_capability: None,
            utilization_percent: None,
            temperature_celsius: None,
            power_milliwatts: None,
            power_limit_milliwatts: None,
            health: Health::default(),
            usable: false,
        }
    }

    /// One line: kind, index, name, memory.
    #[must_use]
    pub fn summary(&self) -> String {
        let memory = self
            .memory_total_bytes
            .map(|bytes| format!(", {}", gibibytes(bytes)))
            .unwrap_or_default();
        let threads = self
            .threads
            .map(|threads| format!(", {threads} threads"))
            .unwrap_or_default();
        format!("{}:{} {}{memory}{threads}", self.kind, self.index, self.name)
    }

    /// What a table shows of the device, one text per entry of [`TABLE_HEADER`].
    #[must_use]
    pub fn table_row(&self) -> [String; TABLE_HEADER.len()] {
        let unknown = || "-".to_owned();
        let text = |value: &Option<String>| value.clone().unwrap_or_else(unknown);
        let memory = match (self.memory_free_bytes, self.memory_total_bytes) {
            (Some(free), Some(total)) => format!("{} of {}", gibibytes(free), gibibytes(total)),
            (None, Some(total)) => gibibytes(total),
            (_, None) => unknown(),
        };
        let cores = match (self.cores, self.threads) {
            (Some(cores), Some(threads)) => format!("{cores} cores, {threads} threads"),
            (None, Some(threads)) => format!("{threads} threads"),
            (Some(cores), None) => format!("{cores} cores"),
            (None, None) => unknown(),
        };
        let compute = self
            .compute_capability
            .as_ref()
            .map_or(cores, |capability| format!("sm {capability}"));
        [
            format!("{}:{}", self.kind, self.index),
            self.name.clone(),
            memory,
            compute,
            self.utilization_percent
                .map_or_else(unknown, |percent| format!("{percent} %")),
            self.temperature_celsius
                .map_or_else(unknown, |celsius| format!("{celsius} °C")),
            power(self.power_milliwatts, self.power_limit_milliwatts).unwrap_or_else(unknown),
            text(&self.driver_version),
            if self.usable { "yes" } else { "no" }.to_owned(),
        ]
    }
}

/// The columns of [`Device::table_row`].
pub const TABLE_HEADER: [&str; 9] = [
    "Device",
    "Name",
    "Memory free",
    "Compute",
    "Busy",
    "Temperature",
    "Power",
    "Driver",
    "Usable",
];

fn power(drawn: Option<u32>, limit: Option<u32>) -> Option<String> {
    let watts = |milliwatts: u32| milliwatts.saturating_add(500) / 1_000;
    match (drawn, limit) {
        (Some(drawn), Some(limit)) => Some(format!("{} of {} W", watts(drawn), watts(limit))),
        (Some(drawn), None) => Some(format!("{} W", watts(drawn))),
        (None, _) => None,
    }
}

/// Bytes as GiB with one digit, rounded down: a figure that is never more than there is.
fn gibibytes(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    format!("{}.{} GiB", bytes / GIB, bytes % GIB * 10 / GIB)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readings::Support;

    fn device(kind: DeviceKind, index: u32, usable: bool) -> Device {
        Device {
            usable,
            ..Device::new(kind, index, &format!("{kind} {index}"), "")
        }
    }

    fn inventory(devices: Vec<Device>) -> Inventory {
        let host = Host {
            operating_system: "Debian 13".into(),
            architecture: "x86_64".into(),
        };
        Inventory::new(host, devices, vec![])
    }

    #[test]
    fn devices_come_by_kind_and_index_and_the_first_usable_one_is_selected() {
        let inventory = inventory(vec![
            device(DeviceKind::Cpu, 0, true),
            device(DeviceKind::Cuda, 1, true),
            device(DeviceKind::Cuda, 0, false),
        ]);
        let order: Vec<_> = inventory
            .devices
            .iter()
            .map(|device| (device.kind, device.index))
            .collect();
        assert_eq!(
            order,
            [(DeviceKind::Cuda, 0), (DeviceKind::Cuda, 1), (DeviceKind::Cpu, 0)]
        );
        assert_eq!(inventory.selected_device_summary(), "cuda:1 cuda 1");
        let support = Support::default();
        assert!(!support.computes_on(DeviceKind::Cuda) && support.computes_on(DeviceKind::Cpu));
    }

    #[test]
    fn json_carries_every_field_there_and_back() {
        let mut full = device(DeviceKind::Cuda, 0, true);
        full.uuid = Some("GPU-1".into());
        full.power_milliwatts = Some(1);
        let inventory = inventory(vec![full, device(DeviceKind::Cpu, 0, true)]);
        let json = serde_json::to_string(&inventory).unwrap();
        assert!(json.contains(r#""kind":"cuda""#), "{json}");
        assert_eq!(serde_json::from_str::<Inventory>(&json).unwrap(), inventory);
    }

    #[test]
    fn figures_never_show_more_than_there_is() {
        assert_eq!(gibibytes(0), "0.0 GiB");
        assert_eq!(gibibytes((1 << 30) - 1), "0.9 GiB");
        assert_eq!(gibibytes(25_757_220_864), "23.9 GiB");
        assert_eq!(power(Some(44_499), Some(450_000)).as_deref(), Some("44 of 450 W"));
        assert_eq!(power(Some(500), None).as_deref(), Some("1 W"));
        assert_eq!(power(None, Some(450_000)), None);
    }
}
