//! What `nvidia-smi` prints, for machines on which NVML can't be opened from here: containers and virtual machines
//! that have the program but not the library.
//!
//! Source: the `nvidia-smi` manual, `-q -x` ("Produce XML output … in place of the default human-readable format.
//! … DTD … nvsmi_device_v10.dtd" and later) and `--query-gpu=… --format=csv`. Fields have moved between versions of
//! the DTD: where one has two places, both are read. A value that is no number of the expected unit ("N/A",
//! "Requested functionality has been deprecated", "Insufficient Permissions", "[Unknown Error]") is not told.

use roxmltree::{Document, Node, ParsingOptions};
use thiserror::Error;

use super::nvidia::{MigInstance, NvidiaReading, NvidiaReadings, plain_text};
use crate::health::{PcieLink, Slowdown};

/// What the program is asked for first.
pub const XML_ARGUMENTS: [&str; 2] = ["-q", "-x"];
/// What it is asked for then, since the XML does not have it.
pub const CSV_ARGUMENTS: [&str; 2] = ["--query-gpu=uuid,compute_cap", "--format=csv,noheader"];
/// The most bytes of its answer. One GPU with all its clocks takes about 130 kB.
pub const OUTPUT_MAX_BYTES: usize = 16 << 20;
/// The most GPUs that are read: more than any machine has.
pub const GPUS_MAX: usize = 256;
/// The most instances of one GPU. MIG allows seven.
const INSTANCES_MAX: usize = 16;
/// The most elements and texts of the XML.
const NODES_MAX: u32 = 2_000_000;

/// An output that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NvidiaSmiError {
    /// Longer than [`OUTPUT_MAX_BYTES`].
    #[error("its output has more than {OUTPUT_MAX_BYTES} bytes")]
    TooLong,
    /// Not XML.
    #[error("its output is no XML: {0}")]
    Xml(String),
    /// XML of something else.
    #[error("its output is a '{0}', not an nvidia_smi_log")]
    OtherDocument(String),
    /// More GPUs than [`GPUS_MAX`].
    #[error("its output names {0} GPUs; at most {GPUS_MAX} are read")]
    TooManyGpus(usize),
}

/// Reads the output of `nvidia-smi -q -x`.
///
/// # Errors
/// [`NvidiaSmiError`] where the text as a whole is not what it should be. A field that is not is just not told.
pub fn parse_xml(text: &str) -> Result<NvidiaReadings, NvidiaSmiError> {
    if text.len() > OUTPUT_MAX_BYTES {
        return Err(NvidiaSmiError::TooLong);
    }
    // The document names its DTD. None is fetched, and references to entities are bounded by the parser.
    let options = ParsingOptions {
        allow_dtd: true,
        nodes_limit: NODES_MAX,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options)
        .map_err(|error| NvidiaSmiError::Xml(plain_text(&error.to_string())))?;
    let root = document.root_element();
    if root.tag_name().name() != "nvidia_smi_log" {
        return Err(NvidiaSmiError::OtherDocument(plain_text(root.tag_name().name())));
    }
    let gpus: Vec<Node<'_, '_>> = children(root, "gpu").collect();
    if gpus.len() > GPUS_MAX {
        return Err(NvidiaSmiError::TooManyGpus(gpus.len()));
    }
    Ok(NvidiaReadings {
        driver_version: value(root, &["driver_version"]),
        gpus: gpus.into_iter().map(gpu).collect(),
    })
}

/// Adds what `nvidia-smi --query-gpu=uuid,compute_cap --format=csv,noheader` told: a line for each GPU. Lines that are
/// anything else are left out.
pub fn add_compute_capabilities(readings: &mut NvidiaReadings, csv: &str) {
    for line in csv.lines().take(GPUS_MAX) {
        let Some((uuid, capability)) = line.split_once(',') else {
            continue;
        };
        let numbers = capability.trim().split_once('.');
        let numbers = numbers.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
        for gpu in &mut readings.gpus {
            if gpu.uuid.as_deref() == Some(uuid.trim()) {
                gpu.compute_capability = numbers;
            }
        }
    }
}

fn gpu(gpu: Node<'_, '_>) -> NvidiaReading {
    let enabled = |path: &[&str]| match value(gpu, path)?.as_str() {
        "Enabled" => Some(true),
        "Disabled" => Some(false),
        _ => None,
    };
    let percent = value(gpu, &["utilization", "gpu_util"]).and_then(|text| unit(&text, "%")?.parse().ok());
    let celsius = value(gpu, &["temperature", "gpu_temp"]).and_then(|text| unit(&text, "C")?.parse().ok());
    let drawn: [&[&str]; 4] = [
        &["gpu_power_readings", "instant_power_draw"],
        &["gpu_power_readings", "power_draw"],
        &["gpu_power_readings", "average_power_draw"],
        &["power_readings", "power_draw"],
    ];
    let limit: [&[&str]; 3] = [
        &["gpu_power_readings", "current_power_limit"],
        &["power_readings", "enforced_power_limit"],
        &["power_readings", "power_limit"],
    ];
    NvidiaReading {
        name: value(gpu, &["product_name"]),
        uuid: value(gpu, &["uuid"]),
        serial: value(gpu, &["serial"]),
        memory_total_bytes: mebibytes(gpu, "total"),
        memory_free_bytes: mebibytes(gpu, "free"),
        compute_capability: None,
        utilization_percent: percent.filter(|percent| *percent <= 100),
        temperature_celsius: celsius,
        power_milliwatts: drawn.iter().find_map(|path| milliwatts(&value(gpu, path)?)),
        power_limit_milliwatts: limit.iter().find_map(|path| milliwatts(&value(gpu, path)?)),
        pcie: pcie(gpu),
        ecc_enabled: enabled(&["ecc_mode", "current_ecc"]),
        ecc_uncorrected_errors: uncorrected_errors(gpu),
        slowdowns: slowdowns(gpu),
        mig_enabled: enabled(&["mig_mode", "current_mig"]),
        instances: child(gpu, "mig_devices")
            .into_iter()
            .flat_map(|devices| children(devices, "mig_device"))
            .take(INSTANCES_MAX)
            .map(instance)
            .collect(),
    }
}

fn instance(node: Node<'_, '_>) -> MigInstance {
    let number = |name| value(node, &[name]).and_then(|text| text.parse().ok());
    MigInstance {
        uuid: value(node, &["uuid"]),
        name: None,
        gpu_instance: number("gpu_instance_id"),
        compute_instance: number("compute_instance_id"),
        memory_total_bytes: mebibytes(node, "total"),
        memory_free_bytes: mebibytes(node, "free"),
    }
}

fn pcie(gpu: Node<'_, '_>) -> PcieLink {
    let link = |group, name| value(gpu, &["pci", "pci_gpu_link_info", group, name]);
    let lanes =
        |name| link("link_widths", name).and_then(|text: String| text.strip_suffix('x')?.parse().ok());
    let generation = |name| link("pcie_gen", name).and_then(|text| text.parse().ok());
    PcieLink {
        generation: generation("current_link_gen"),
        generation_max: generation("max_link_gen"),
        width: lanes("current_link_width"),
        width_max: lanes("max_link_width"),
    }
}

/// Errors since the driver was loaded that were not corrected. `None` where the device tells none of the counters.
fn uncorrected_errors(gpu: Node<'_, '_>) -> Option<u64> {
    let counters: [&[&str]; 5] = [
        &["ecc_errors", "volatile", "sram_uncorrectable"],
        &["ecc_errors", "volatile", "sram_uncorrectable_parity"],
        &["ecc_errors", "volatile", "sram_uncorrectable_secded"],
        &["ecc_errors", "volatile", "dram_uncorrectable"],
        &["ecc_errors", "volatile", "double_bit", "total"],
    ];
    let told = counters
        .iter()
        .filter_map(|path| value(gpu, path)?.parse::<u64>().ok());
    told.reduce(u64::saturating_add)
}

fn slowdowns(gpu: Node<'_, '_>) -> Vec<Slowdown> {
    // The group and the beginning of its fields' names, since 2023 and before.
    let groups = [
        ("clocks_event_reasons", "clocks_event_reason"),
        ("clocks_throttle_reasons", "clocks_throttle_reason"),
    ];
    let reasons = [
        ("sw_power_cap", Slowdown::PowerCap),
        ("sw_thermal_slowdown", Slowdown::Heat),
        ("hw_thermal_slowdown", Slowdown::Overheating),
        ("hw_power_brake_slowdown", Slowdown::PowerBrake),
        ("hw_slowdown", Slowdown::Hardware),
    ];
    let is_active = |name: &str| {
        groups.iter().any(|(group, prefix)| {
            value(gpu, &[group, &format!("{prefix}_{name}")]).as_deref() == Some("Active")
        })
    };
    reasons
        .iter()
        .filter(|(name, _)| is_active(name))
        .map(|(_, slowdown)| *slowdown)
        .collect()
}

fn mebibytes(node: Node<'_, '_>, name: &str) -> Option<u64> {
    let text = value(node, &["fb_memory_usage", name])?;
    unit(&text, "MiB")?.parse::<u64>().ok()?.checked_mul(1 << 20)
}

/// Watts with up to three digits after the point.
fn milliwatts(text: &str) -> Option<u32> {
    let watts = unit(text, "W")?;
    let (whole, part) = watts.split_once('.').unwrap_or((watts, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let part: u32 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1_000)?.checked_add(part)
}

/// What stands before a unit.
fn unit<'a>(text: &'a str, unit: &str) -> Option<&'a str> {
    text.strip_suffix(unit)?.strip_suffix(' ')
}

fn children<'a, 'input>(node: Node<'a, 'input>, name: &'a str) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children()
        .filter(move |child| child.is_element() && child.tag_name().name() == name)
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &'a str) -> Option<Node<'a, 'input>> {
    children(node, name).next()
}

/// The text at the end of a path of elements, where it says anything.
fn value(node: Node<'_, '_>, path: &[&str]) -> Option<String> {
    let mut node = node;
    for name in path {
        node = node
            .children()
            .find(|child| child.is_element() && child.tag_name().name() == *name)?;
    }
    let text = plain_text(node.text()?);
    (!text.is_empty() && text != "N/A").then_some(text)
}

#[cfg(test)]
mod tests;
