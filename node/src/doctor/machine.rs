//! What is looked at on the machine itself: folder, disk, key, devices.

use gristmill_benchmark::inventory::{Device, DeviceKind, Inventory};

use super::facts::{Access, DataFolder, Facts, Key};
use super::{Check, Finding, Verdict};

/// Less than this is too little for receipts, vouchers and logs.
const DISK_MIN_BYTES: u64 = 100 << 20;
/// Less than this is soon too little.
const DISK_LOW_BYTES: u64 = 1 << 30;
/// Less free memory than this is none: a CUDA context alone takes some hundred megabytes.
const DEVICE_MEMORY_MIN_BYTES: u64 = 1 << 30;
/// The oldest driver for programs built with CUDA 12 (NVIDIA, CUDA Compatibility, table 1).
const DRIVER_MIN: u32 = 525;
/// The oldest driver for programs built with CUDA 13 (the same).
const DRIVER_CUDA_13: u32 = 580;
/// From here on a GPU is about to slow itself down.
const HOT_CELSIUS: u32 = 90;

pub(super) fn data_folder(folder: &DataFolder) -> Vec<Finding> {
    let path = folder.path.display();
    let mut findings = vec![match &folder.access {
        Access::Writable if folder.in_use => Finding::new(
            Check::DataFolder,
            Verdict::Fit,
            format!("{path} is in use by a running node or client"),
            "",
        ),
        Access::Writable => Finding::fit(Check::DataFolder, format!("{path} can be written")),
        Access::CanBeMade => Finding::fit(
            Check::DataFolder,
            format!("{path} is not there yet and will be made"),
        ),
        Access::No(reason) => Finding::new(
            Check::DataFolder,
            Verdict::Unfit,
            format!("{path} can't be written: {reason}"),
            "give its folder to the user who runs the node, or choose another one with --data-dir",
        ),
        Access::Unknown => Finding::new(
            Check::DataFolder,
            Verdict::Unknown,
            format!("whether {path} can be written can't be told on this system"),
            "see whether the user who runs the node can make a file there",
        ),
    }];
    let too_little = "free some space on that disk, or choose another folder with --data-dir";
    findings.push(match folder.free_bytes {
        None => Finding::new(
            Check::DiskSpace,
            Verdict::Unknown,
            format!("how much space is left for {path} can't be told"),
            "see to it that there is at least 1 GiB",
        ),
        Some(free) if free < DISK_MIN_BYTES => Finding::new(
            Check::DiskSpace,
            Verdict::Unfit,
            format!("only {} MiB are left for {path}", free >> 20),
            too_little,
        ),
        Some(free) if free < DISK_LOW_BYTES => Finding::new(
            Check::DiskSpace,
            Verdict::Note,
            format!("{} MiB are left for {path}", free >> 20),
            too_little,
        ),
        Some(free) => Finding::fit(
            Check::DiskSpace,
            format!("{} GiB are left for {path}", free >> 30),
        ),
    });
    findings
}

pub(super) fn key(key: &Key) -> Finding {
    match key {
        Key::None => Finding::fit(Check::Key, "there is no key yet; the first start makes one"),
        Key::Account(account) => Finding::fit(Check::Key, format!("the key of account {account} is private")),
        // The message of the key file says what to do.
        Key::Wrong(reason) => Finding::new(Check::Key, Verdict::Unfit, reason.clone(), ""),
    }
}

pub(super) fn devices(facts: &Facts) -> Vec<Finding> {
    let Some(inventory) = &facts.inventory else {
        return vec![Finding::new(
            Check::Devices,
            Verdict::Unknown,
            "the drivers of this machine did not answer in time",
            "see whether nvidia-smi answers; a driver that hangs needs a restart of the machine",
        )];
    };
    let mut findings = vec![listed(facts, inventory)];
    for note in &inventory.notes {
        findings.push(Finding::new(Check::Devices, Verdict::Note, note.clone(), ""));
    }
    findings.extend(driver(facts, inventory));
    for device in inventory
        .devices
        .iter()
        .filter(|device| device.kind != DeviceKind::Cpu)
    {
        findings.extend(memory(facts, device));
        findings.extend(health(device));
    }
    findings
}

/// What there is to compute on.
fn listed(facts: &Facts, inventory: &Inventory) -> Finding {
    let gpus: Vec<_> = inventory
        .devices
        .iter()
        .filter(|device| device.kind != DeviceKind::Cpu)
        .collect();
    let names = |devices: &[&Device]| {
        let names: Vec<_> = devices.iter().map(|device| device.summary()).collect();
        names.join("; ")
    };
    let sells_servers = has_upstreams(facts);
    match (gpus.as_slice(), inventory.selected()) {
        ([], None) => Finding::new(
            Check::Devices,
            Verdict::Unfit,
            "there is no device that this build computes on",
            "use a build for this machine",
        ),
        ([], Some(cpu)) => Finding::new(
            Check::Devices,
            Verdict::Note,
            format!(
                "no GPU is seen; models that the node runs itself run on {}",
                cpu.summary()
            ),
            "where there is a GPU: install its driver, and see whether CUDA_VISIBLE_DEVICES hides it",
        ),
        (gpus, _) if gpus.iter().any(|gpu| gpu.usable) || sells_servers => {
            Finding::fit(Check::Devices, names(gpus))
        }
        (gpus, _) => Finding::new(
            Check::Devices,
            Verdict::Note,
            format!("{}: this build does not compute on it", names(gpus)),
            "serve its models with a server such as vLLM or Ollama, or use a build for it (--features cuda or metal)",
        ),
    }
}

fn has_upstreams(facts: &Facts) -> bool {
    let upstreams = facts.settings.iter().flat_map(|settings| &settings.upstreams);
    upstreams
        .into_iter()
        .any(|upstream| matches!(upstream.models, Ok(models) if models > 0))
}

fn driver(facts: &Facts, inventory: &Inventory) -> Option<Finding> {
    let gpu = inventory
        .devices
        .iter()
        .find(|device| device.kind == DeviceKind::Cuda)?;
    let Some(version) = &gpu.driver_version else {
        return Some(Finding::new(
            Check::Driver,
            Verdict::Unknown,
            "the NVIDIA driver does not tell its version",
            "see whether nvidia-smi works",
        ));
    };
    let computes = facts
        .settings
        .as_ref()
        .is_ok_and(|settings| settings.computes_on_cuda);
    let remedy = "install a newer driver (https://www.nvidia.com/drivers) and restart the machine";
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    Some(match major {
        None => Finding::new(
            Check::Driver,
            Verdict::Unknown,
            format!("'{version}' is no version of an NVIDIA driver"),
            "see whether nvidia-smi works",
        ),
        Some(major) if major < DRIVER_MIN => Finding::new(
            Check::Driver,
            if computes { Verdict::Unfit } else { Verdict::Note },
            format!("the NVIDIA driver {version} is too old: programs built with CUDA 12 need {DRIVER_MIN}"),
            remedy,
        ),
        Some(major) if major < DRIVER_CUDA_13 => Finding::new(
            Check::Driver,
            Verdict::Note,
            format!(
                "the NVIDIA driver {version} runs programs built with CUDA 12; CUDA 13 needs {DRIVER_CUDA_13}"
            ),
            remedy,
        ),
        Some(_) => Finding::fit(Check::Driver, format!("the NVIDIA driver is {version}")),
    })
}

fn memory(facts: &Facts, device: &Device) -> Option<Finding> {
    let (free, total) = (device.memory_free_bytes?, device.memory_total_bytes?);
    let place = format!("{}:{}", device.kind, device.index);
    let what = format!("{place} has {} MiB of {} MiB free", free >> 20, total >> 20);
    // A small card is not unfit for being small.
    if free >= DEVICE_MEMORY_MIN_BYTES.min(total / 2) {
        return Some(Finding::fit(Check::DeviceMemory, what));
    }
    let runs_models = facts
        .settings
        .as_ref()
        .is_ok_and(|settings| settings.has_built_in_models);
    Some(if has_upstreams(facts) && !runs_models {
        Finding::new(
            Check::DeviceMemory,
            Verdict::Note,
            format!("{what}: servers keep it for themselves"),
            "that is fine for selling their models; a proof of this hardware needs free memory, so let them take less \
             (vLLM: --gpu-memory-utilization)",
        )
    } else {
        Finding::new(
            Check::DeviceMemory,
            Verdict::Unfit,
            what,
            "end what takes it; nvidia-smi lists programs with the memory they have",
        )
    })
}

fn health(device: &Device) -> Vec<Finding> {
    let place = format!("{}:{}", device.kind, device.index);
    let health = &device.health;
    let mut findings = Vec::new();
    let mut find = |verdict, what: String, remedy: &str| {
        findings.push(Finding::new(Check::DeviceHealth, verdict, what, remedy));
    };
    if let Some(errors @ 1..) = health.ecc_uncorrected_errors {
        find(
            Verdict::Unfit,
            format!("{place} has {errors} errors of its memory that could not be corrected"),
            "answers may be wrong: take it off the market and reset it (nvidia-smi -r); where they come back, have it \
             replaced",
        );
    }
    for slowdown in &health.slowdowns {
        let verdict = if slowdown.is_fault() {
            Verdict::Unfit
        } else {
            Verdict::Note
        };
        let remedy = match verdict {
            Verdict::Unfit => {
                "cool it better, clean its fans and filters, see to its power supply and cables"
            }
            _ => "normal under load; a higher limit (nvidia-smi -pl) makes it faster",
        };
        find(verdict, format!("{place} is slowed down by {slowdown}"), remedy);
    }
    if let Some(celsius @ HOT_CELSIUS..) = device.temperature_celsius {
        find(
            Verdict::Note,
            format!("{place} has {celsius} °C"),
            "cool it better, or it will slow itself down",
        );
    }
    if let Some(link) = health.pcie
        && let (Some(width), Some(width_max)) = (link.width, link.width_max)
        && width < width_max
    {
        find(
            Verdict::Note,
            format!("{place} uses {width} of {width_max} PCI Express lanes, so models load more slowly"),
            "put it into another slot, or take out what shares its lanes",
        );
    }
    if findings.is_empty() && !health.is_unknown() {
        findings.push(Finding::fit(
            Check::DeviceHealth,
            format!("{place} runs unhindered, and no errors of its memory are known"),
        ));
    }
    findings
}
