//! AMD GPUs, from the files of the amdgpu driver and, for names, `rocm-smi`.
//!
//! Source: the kernel's documentation of amdgpu ("AMDGPU sysfs", `mem_info_vram_total`, `gpu_busy_percent`,
//! `unique_id`, hwmon's `temp1_input`, `power1_average`, `power1_cap`) and of PCI devices (`current_link_speed`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RocmEnvironment;
use super::nvidia::plain_text;
use crate::health::{Health, PcieLink};
use crate::inventory::{Device, DeviceKind};
use crate::visibility::rocm::visible_gpus;

/// What `vendor` says for AMD.
pub const VENDOR_ID: &str = "0x1002";
/// The files that are read, in the folder of the device.
pub const FILES: [&str; 12] = [
    "vendor",
    "device",
    "product_name",
    "unique_id",
    "serial_number",
    "mem_info_vram_total",
    "mem_info_vram_used",
    "gpu_busy_percent",
    "current_link_speed",
    "current_link_width",
    "max_link_speed",
    "max_link_width",
];
/// The files that are read in the device's folder of hwmon.
pub const HWMON_FILES: [&str; 4] = ["temp1_input", "power1_average", "power1_input", "power1_cap"];

/// What the driver says about one GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AmdReading {
    /// Its place on the PCI bus, such as `0000:83:00.0`.
    pub pci_address: String,
    /// What stands in the files of [`FILES`] and [`HWMON_FILES`] that are there.
    pub files: BTreeMap<String, String>,
    /// The model's name, where `rocm-smi` told it.
    pub name: Option<String>,
    /// The driver's version, where it tells one.
    pub driver_version: Option<String>,
}

/// The AMD GPUs that programs see, counted as they count them, and notes for the owner.
#[must_use]
pub fn visible_devices(readings: &[AmdReading], environment: &RocmEnvironment) -> (Vec<Device>, Vec<String>) {
    let uuids: Vec<_> = readings
        .iter()
        .map(|reading| amd_device(0, reading).uuid)
        .collect();
    let (places, notes) = visible_gpus(
        environment.rocr_visible_devices.as_deref(),
        environment.hip_visible_devices.as_deref(),
        &uuids,
    );
    let visible = places.into_iter().filter_map(|place| readings.get(place));
    let devices = (0..)
        .zip(visible)
        .map(|(index, reading)| amd_device(index, reading));
    (devices.collect(), notes)
}

/// A GPU from what its driver says.
#[must_use]
pub fn amd_device(index: u32, reading: &AmdReading) -> Device {
    let text = |file: &str| {
        let text = reading.files.get(file).map(|text| plain_text(text))?;
        (!text.is_empty()).then_some(text)
    };
    let number = |file: &str| text(file).and_then(|text| text.parse::<u64>().ok());
    let small = |number: u64| u32::try_from(number).ok();
    let milliwatts = |file: &str| number(file).and_then(|microwatts| small(microwatts / 1_000));
    let total = number("mem_info_vram_total").filter(|total| *total > 0);
    let used = number("mem_info_vram_used");
    let name = reading
        .name
        .as_deref()
        .map(plain_text)
        .or_else(|| text("product_name"))
        .unwrap_or_else(|| match text("device") {
            Some(device) => format!("AMD GPU {device}"),
            None => "AMD GPU".to_owned(),
        });
    let pcie = PcieLink {
        generation: text("current_link_speed").and_then(|speed| generation(&speed)),
        generation_max: text("max_link_speed").and_then(|speed| generation(&speed)),
        width: number("current_link_width").and_then(small),
        width_max: number("max_link_width").and_then(small),
    };
    Device {
        uuid: text("unique_id").map(|id| format!("GPU-{id}")),
        serial: text("serial_number"),
        memory_total_bytes: total,
        memory_free_bytes: total.zip(used).map(|(total, used)| total.saturating_sub(used)),
        driver_version: reading.driver_version.as_deref().map(plain_text),
        utilization_percent: number("gpu_busy_percent")
            .and_then(small)
            .filter(|percent| *percent <= 100),
        temperature_celsius: number("temp1_input").and_then(|milli| small(milli / 1_000)),
        power_milliwatts: milliwatts("power1_average").or_else(|| milliwatts("power1_input")),
        power_limit_milliwatts: milliwatts("power1_cap"),
        health: Health {
            pcie: pcie.known(),
            ..Health::default()
        },
        ..Device::new(DeviceKind::Rocm, index, &name, "AMD")
    }
}

/// The generation of a PCI Express link from its speed, such as `16.0 GT/s PCIe`.
fn generation(speed: &str) -> Option<u32> {
    let (gigatransfers, _) = speed.split_once(" GT/s")?;
    match gigatransfers {
        "2.5" => Some(1),
        "5.0" => Some(2),
        "8.0" => Some(3),
        "16.0" => Some(4),
        "32.0" => Some(5),
        "64.0" => Some(6),
        _ => None,
    }
}

/// Names by place on the PCI bus, from `rocm-smi --showproductname --showbus --showdriverversion --json`, and the
/// driver's version. Empty where the text is none of its.
#[cfg(feature = "driver")]
#[must_use]
pub fn parse_rocm_smi(text: &str) -> (BTreeMap<String, String>, Option<String>) {
    let cards: BTreeMap<String, BTreeMap<String, serde_json::Value>> =
        serde_json::from_str(text).unwrap_or_default();
    let field = |card: &BTreeMap<String, serde_json::Value>, names: &[&str]| {
        let value = names.iter().find_map(|name| card.get(*name))?;
        value.as_str().filter(|text| *text != "N/A").map(plain_text)
    };
    let driver = cards
        .get("system")
        .and_then(|card| field(card, &["Driver version"]));
    // Which of its fields holds the model's name has changed with its versions.
    let named = |card| {
        Some((
            field(card, &["PCI Bus"])?,
            field(card, &["Card series", "Card Series", "Card model"])?,
        ))
    };
    let names = cards.values().filter_map(named);
    (
        names
            .map(|(bus, name)| (bus.to_ascii_lowercase(), name))
            .collect(),
        driver,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(files: &[(&str, &str)]) -> AmdReading {
        AmdReading {
            files: files
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
            ..AmdReading::default()
        }
    }

    #[test]
    fn files_become_a_device() {
        let device = amd_device(
            1,
            &reading(&[
                ("vendor", "0x1002\n"),
                ("device", "0x738c\n"),
                ("unique_id", "79ccd55167a2124a\n"),
                ("mem_info_vram_total", "34342961152\n"),
                ("mem_info_vram_used", "6750208\n"),
                ("gpu_busy_percent", "7\n"),
                ("current_link_speed", "16.0 GT/s PCIe\n"),
                ("max_link_speed", "16.0 GT/s PCIe\n"),
                ("current_link_width", "8\n"),
                ("max_link_width", "16\n"),
                ("temp1_input", "53000\n"),
                ("power1_average", "36000000\n"),
                ("power1_cap", "290000000\n"),
            ]),
        );
        assert_eq!(
            device.table_row(),
            [
                "rocm:1",
                "AMD GPU 0x738c",
                "31.9 GiB of 31.9 GiB",
                "-",
                "7 %",
                "53 °C",
                "36 of 290 W",
                "-",
                "no"
            ]
        );
        assert_eq!(device.uuid.as_deref(), Some("GPU-79ccd55167a2124a"));
        let link = device.health.pcie.unwrap();
        assert_eq!(
            (link.generation, link.width, link.width_max),
            (Some(4), Some(8), Some(16))
        );
    }

    #[test]
    fn hidden_gpus_are_left_out_and_the_others_counted_anew() {
        let readings = [
            reading(&[("unique_id", "79ccd55167a2124a")]),
            reading(&[("unique_id", "0000000000000002")]),
        ];
        let environment = RocmEnvironment {
            rocr_visible_devices: Some("GPU-0000000000000002".into()),
            hip_visible_devices: Some("0".into()),
        };
        let (devices, notes) = visible_devices(&readings, &environment);
        assert_eq!(devices.len(), 1);
        assert_eq!(
            (devices[0].index, devices[0].uuid.as_deref()),
            (0, Some("GPU-0000000000000002"))
        );
        assert_eq!(notes.len(), 1);
        assert_eq!(visible_devices(&readings, &RocmEnvironment::default()).0.len(), 2);
    }

    #[test]
    fn files_that_make_no_sense_are_told_nothing_of() {
        let device = amd_device(
            0,
            &reading(&[
                ("mem_info_vram_total", "0"),
                ("mem_info_vram_used", "5"),
                ("gpu_busy_percent", "4000000000"),
                ("temp1_input", "-40000"),
                ("power1_cap", "99999999999999999999"),
                ("current_link_speed", "Unknown"),
                ("unique_id", "\n"),
            ]),
        );
        assert_eq!(device, Device::new(DeviceKind::Rocm, 0, "AMD GPU", "AMD"));
        let more_used_than_there_is = reading(&[("mem_info_vram_total", "10"), ("mem_info_vram_used", "11")]);
        assert_eq!(amd_device(0, &more_used_than_there_is).memory_free_bytes, Some(0));
    }

    #[test]
    #[cfg(feature = "driver")]
    fn names_come_from_rocm_smi_where_it_is_there() {
        let text = include_str!("../../tests/recorded/rocm-smi-mi100.json");
        let (names, driver) = parse_rocm_smi(text);
        assert_eq!(driver.as_deref(), Some("6.3.6"));
        assert_eq!(names.len(), 2);
        assert_eq!(names["0000:a3:00.0"], "Arcturus GL-XL [Instinct MI100]");
        for hostile in ["", "[]", "{\"card0\": 3}", &text[..text.len() / 2]] {
            assert_eq!(parse_rocm_smi(hostile), (BTreeMap::new(), None), "{hostile}");
        }
    }
}
