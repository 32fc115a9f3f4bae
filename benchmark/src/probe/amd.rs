//! AMD GPUs: the files of the amdgpu driver, and `rocm-smi` for their names.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use super::command;
use crate::readings::amd::{AmdReading, FILES, HWMON_FILES, VENDOR_ID, parse_rocm_smi};

/// Where the kernel lists graphics cards.
const CARDS: &str = "/sys/class/drm";
/// The most bytes of a file: the kernel writes one page at most.
const FILE_MAX_BYTES: u64 = 4_096;
/// The most cards that are read.
const CARDS_MAX: usize = 64;
/// The most bytes that `rocm-smi` may print.
const OUTPUT_MAX_BYTES: usize = 1 << 20;

/// The AMD GPUs of this machine in PCI bus order.
pub(super) fn read(notes: &mut Vec<String>) -> Vec<AmdReading> {
    let mut readings = read_cards(Path::new(CARDS));
    if readings.is_empty() {
        return readings;
    }
    let arguments = ["--showproductname", "--showbus", "--showdriverversion", "--json"];
    match command::output("rocm-smi", &arguments, OUTPUT_MAX_BYTES) {
        Ok(Some(text)) => {
            let (names, driver) = parse_rocm_smi(&text);
            for reading in &mut readings {
                reading.name = names.get(&reading.pci_address).cloned();
                reading.driver_version.clone_from(&driver);
            }
        }
        Ok(None) => {}
        Err(error) => notes.push(error.to_string()),
    }
    readings
}

fn read_cards(cards: &Path) -> Vec<AmdReading> {
    let Ok(entries) = fs::read_dir(cards) else {
        return Vec::new();
    };
    let is_card = |name: &str| {
        name.strip_prefix("card")
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut readings: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_card))
        .take(CARDS_MAX)
        .filter_map(|entry| read_card(&entry.path().join("device")))
        .collect();
    readings.sort_by(|one, other| one.pci_address.cmp(&other.pci_address));
    readings
}

fn read_card(folder: &Path) -> Option<AmdReading> {
    let mut files = BTreeMap::new();
    let mut keep = |folder: &Path, name: &str| {
        if let Some(text) = read_file(&folder.join(name)) {
            files.entry(name.to_owned()).or_insert(text);
        }
    };
    FILES.iter().for_each(|name| keep(folder, name));
    for entry in fs::read_dir(folder.join("hwmon")).into_iter().flatten().flatten() {
        HWMON_FILES.iter().for_each(|name| keep(&entry.path(), name));
    }
    if files
        .get("vendor")
        .is_none_or(|vendor| vendor.trim() != VENDOR_ID)
    {
        return None;
    }
    let pci_address = fs::canonicalize(folder).ok()?;
    let pci_address = pci_address.file_name()?.to_string_lossy().to_ascii_lowercase();
    Some(AmdReading {
        pci_address,
        files,
        ..AmdReading::default()
    })
}

fn read_file(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path)
        .ok()?
        .take(FILE_MAX_BYTES)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn cards_of_other_makers_and_connectors_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let card = |name: &str, bus: &str, vendor: &str| {
            let device = folder.path().join("devices").join(bus);
            fs::create_dir_all(device.join("hwmon/hwmon3")).unwrap();
            fs::write(device.join("vendor"), vendor).unwrap();
            fs::write(device.join("mem_info_vram_total"), "34342961152\n").unwrap();
            fs::write(device.join("hwmon/hwmon3/temp1_input"), "53000\n").unwrap();
            let card = folder.path().join("drm").join(name);
            fs::create_dir_all(&card).unwrap();
            std::os::unix::fs::symlink(&device, card.join("device")).unwrap();
        };
        card("card0", "0000:a3:00.0", "0x1002\n");
        card("card1", "0000:83:00.0", "0x1002\n");
        card("card2", "0000:01:00.0", "0x10de\n");
        card("card0-DP-1", "0000:a3:00.0", "0x1002\n");
        let readings = read_cards(&folder.path().join("drm"));
        let addresses: Vec<_> = readings
            .iter()
            .map(|reading| reading.pci_address.as_str())
            .collect();
        assert_eq!(addresses, ["0000:83:00.0", "0000:a3:00.0"]);
        assert_eq!(readings[0].files["temp1_input"], "53000\n");
        assert!(read_cards(&folder.path().join("nowhere")).is_empty());
    }
}
