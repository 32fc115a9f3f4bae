//! GPUs of Macs, from `system_profiler SPDisplaysDataType -json`.

use serde::{Deserialize, Serialize};

use super::Support;
use crate::inventory::{Device, DeviceKind, Host};

/// The most GPUs that are listed.
#[cfg(feature = "driver")]
const GPUS_MAX: usize = 16;

/// What macOS says about a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppleGpuReading {
    /// The model's name, such as `Apple M4 Pro`.
    pub name: String,
    /// Cores of the GPU.
    pub cores: Option<u32>,
    /// Whether it understands Metal.
    pub metal: bool,
}

/// Reads the JSON of `system_profiler`. An entry that makes no sense is left out.
///
/// # Errors
/// What is wrong with a text that is none of its.
#[cfg(feature = "driver")]
pub fn parse_system_profiler(text: &str) -> Result<Vec<AppleGpuReading>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Report {
        #[serde(rename = "SPDisplaysDataType")]
        displays: Vec<serde_json::Value>,
    }
    let report: Report = serde_json::from_str(text)?;
    let field = |entry: &serde_json::Value, name: &str| {
        entry
            .get(name)
            .and_then(serde_json::Value::as_str)
            .map(super::nvidia::plain_text)
    };
    let gpus = report.displays.iter().take(GPUS_MAX).filter_map(|entry| {
        let name = field(entry, "sppci_model").or_else(|| field(entry, "_name"))?;
        let metal = ["spdisplays_mtlgpufamilysupport", "spdisplays_metal"];
        Some(AppleGpuReading {
            name,
            cores: field(entry, "sppci_cores").and_then(|cores| cores.parse().ok()),
            metal: metal
                .iter()
                .any(|name| field(entry, name).is_some_and(|value| value != "spdisplays_notsupported")),
        })
    });
    Ok(gpus.collect())
}

/// The GPUs of a Mac with Apple silicon, which have the processor's memory. Where `system_profiler` told nothing, the
/// one on the processor's chip, which every such Mac has.
#[must_use]
pub fn apple_gpus(host: &Host, readings: &[AppleGpuReading], cpu: &Device, support: Support) -> Vec<Device> {
    let is_apple_silicon = cpu.name.starts_with("Apple") && host.architecture.starts_with('a');
    if !is_apple_silicon {
        return Vec::new();
    }
    let on_chip = AppleGpuReading {
        name: cpu.name.clone(),
        cores: None,
        metal: true,
    };
    let found = if readings.is_empty() {
        std::slice::from_ref(&on_chip)
    } else {
        readings
    };
    let device = |(index, reading): (u32, &AppleGpuReading)| Device {
        cores: reading.cores,
        memory_total_bytes: cpu.memory_total_bytes,
        memory_free_bytes: cpu.memory_free_bytes,
        usable: reading.metal && support.computes_on(DeviceKind::Metal),
        ..Device::new(
            DeviceKind::Metal,
            index,
            &format!("{} GPU", reading.name),
            "Apple",
        )
    };
    (0..).zip(found).map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readings::processor::{CpuReading, cpu_device};

    const METAL: Support = Support {
        cuda: false,
        metal: true,
    };

    fn host(architecture: &str) -> Host {
        Host {
            operating_system: "macOS 26.1".into(),
            architecture: architecture.into(),
        }
    }

    fn m4() -> Device {
        cpu_device(&CpuReading {
            name: "Apple M4 Pro".into(),
            memory_total_bytes: 48 << 30,
            ..CpuReading::default()
        })
    }

    #[test]
    fn apple_silicon_has_a_gpu_in_the_same_memory() {
        let gpus = apple_gpus(&host("aarch64"), &[], &m4(), METAL);
        assert_eq!(
            (gpus.len(), gpus[0].name.as_str(), gpus[0].usable),
            (1, "Apple M4 Pro GPU", true)
        );
        assert_eq!(gpus[0].memory_total_bytes, Some(48 << 30));
        assert!(!apple_gpus(&host("arm64"), &[], &m4(), Support::default())[0].usable);
        assert!(apple_gpus(&host("x86_64"), &[], &cpu_device(&CpuReading::default()), METAL).is_empty());
    }

    #[test]
    #[cfg(feature = "driver")]
    fn the_report_names_gpu_and_cores() {
        let text = include_str!("../../tests/recorded/system-profiler-m4-pro.json");
        let readings = parse_system_profiler(text).unwrap();
        let expected = AppleGpuReading {
            name: "Apple M4 Pro".into(),
            cores: Some(20),
            metal: true,
        };
        assert_eq!(readings, [expected]);
        let gpu = &apple_gpus(&host("aarch64"), &readings, &m4(), METAL)[0];
        assert_eq!(gpu.table_row()[3], "20 cores");

        for hostile in [
            "",
            "[]",
            "{}",
            r#"{"SPDisplaysDataType": 3}"#,
            &text[..text.len() / 2],
        ] {
            assert!(parse_system_profiler(hostile).is_err(), "{hostile}");
        }
        let odd = r#"{"SPDisplaysDataType": [{}, 7, {"_name": "x", "sppci_cores": 12}, {"_name": 3}]}"#;
        let odd = parse_system_profiler(odd).unwrap();
        assert_eq!((odd.len(), odd[0].cores, odd[0].metal), (1, None, false));
    }
}
