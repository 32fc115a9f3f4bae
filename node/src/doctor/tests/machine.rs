use gristmill_benchmark::health::Slowdown;

use super::*;

#[test]
fn folder_disk_key_and_settings() {
    use Check::{DataFolder, DiskSpace, Key as KeyFile, Settings};
    use Verdict::{Fit, Note, Unfit, Unknown};
    hold(&[
        (
            "new",
            |facts| facts.data_folder.access = Access::CanBeMade,
            DataFolder,
            Fit,
            "will be made",
        ),
        (
            "locked",
            |facts| facts.data_folder.access = Access::No("Permission denied".into()),
            DataFolder,
            Unfit,
            "--data-dir",
        ),
        (
            "odd",
            |facts| facts.data_folder.access = Access::Unknown,
            DataFolder,
            Unknown,
            "can't be told",
        ),
        (
            "full",
            |facts| facts.data_folder.free_bytes = Some((100 << 20) - 1),
            DiskSpace,
            Unfit,
            "99 MiB",
        ),
        (
            "nearly full",
            |facts| facts.data_folder.free_bytes = Some(100 << 20),
            DiskSpace,
            Note,
            "100 MiB",
        ),
        (
            "enough",
            |facts| facts.data_folder.free_bytes = Some(1 << 30),
            DiskSpace,
            Fit,
            "1 GiB",
        ),
        ("no key", |facts| facts.key = Key::None, KeyFile, Fit, "makes one"),
        (
            "open key",
            |facts| facts.key = Key::Wrong("can be read by others; run: chmod 600".into()),
            KeyFile,
            Unfit,
            "chmod",
        ),
        (
            "bad settings",
            |facts| facts.settings = Err("slots is 0; it must be 1 to 1024".into()),
            Settings,
            Unfit,
            "slots is 0",
        ),
    ]);
}

#[test]
fn devices() {
    use Check::{DeviceHealth, DeviceMemory, Devices, Driver, HardwareBudget};
    use Verdict::{Fit, Note, Unfit, Unknown};
    hold(&[
        (
            "stuck driver",
            |facts| facts.inventory = None,
            Devices,
            Unknown,
            "did not answer",
        ),
        (
            "no GPU",
            |facts| {
                facts.inventory.as_mut().unwrap().devices.remove(0);
            },
            Devices,
            Note,
            "no GPU",
        ),
        (
            "nothing",
            |facts| facts.inventory.as_mut().unwrap().devices.clear(),
            Devices,
            Unfit,
            "no device",
        ),
        (
            "unused GPU",
            |facts| {
                gpu(facts).usable = false;
                set(facts).upstreams.clear();
            },
            Devices,
            Note,
            "--features cuda",
        ),
        (
            "GPU of a server",
            |facts| gpu(facts).usable = false,
            Devices,
            Fit,
            "A5000",
        ),
        (
            "hidden",
            |facts| {
                facts
                    .inventory
                    .as_mut()
                    .unwrap()
                    .notes
                    .push("hides 1 of 2".into());
            },
            Devices,
            Note,
            "hides",
        ),
        (
            "old driver",
            |facts| gpu(facts).driver_version = Some("470.256.02".into()),
            Driver,
            Unfit,
            "525",
        ),
        (
            "old driver, not needed",
            |facts| {
                gpu(facts).driver_version = Some("470.256.02".into());
                set(facts).computes_on_cuda = false;
            },
            Driver,
            Note,
            "525",
        ),
        (
            "driver of yesterday",
            |facts| gpu(facts).driver_version = Some("525.60.13".into()),
            Driver,
            Note,
            "580",
        ),
        (
            "driver of today",
            |facts| gpu(facts).driver_version = Some("580.0".into()),
            Driver,
            Fit,
            "580.0",
        ),
        (
            "driver of nowhere",
            |facts| gpu(facts).driver_version = Some("N/A".into()),
            Driver,
            Unknown,
            "no version",
        ),
        (
            "silent driver",
            |facts| gpu(facts).driver_version = None,
            Driver,
            Unknown,
            "nvidia-smi",
        ),
        ("budget", |_| {}, HardwareBudget, Fit, "may take 19712 MiB"),
        (
            "budget of memory",
            |facts| {
                gpu(facts).memory_free_bytes = Some(770 << 20);
                set(facts).hardware.memory_max_bytes = Some(64 << 20);
            },
            HardwareBudget,
            Note,
            "needs",
        ),
        (
            "budget of power",
            |facts| {
                gpu(facts).power_limit_milliwatts = None;
                set(facts).hardware.power_max_watts = Some(100);
            },
            HardwareBudget,
            Note,
            "power_max_watts",
        ),
        (
            "full card of a server",
            |facts| gpu(facts).memory_free_bytes = Some(100 << 20),
            DeviceMemory,
            Note,
            "gpu-memory-utilization",
        ),
        (
            "full card",
            |facts| {
                gpu(facts).memory_free_bytes = Some(100 << 20);
                set(facts).has_built_in_models = true;
            },
            DeviceMemory,
            Unfit,
            "100 MiB of 24576 MiB",
        ),
        (
            "small card",
            |facts| {
                gpu(facts).memory_total_bytes = Some(1 << 30);
                gpu(facts).memory_free_bytes = Some(1 << 29);
            },
            DeviceMemory,
            Fit,
            "512 MiB",
        ),
        (
            "memory errors",
            |facts| gpu(facts).health.ecc_uncorrected_errors = Some(3),
            DeviceHealth,
            Unfit,
            "3 errors",
        ),
        (
            "hot",
            |facts| gpu(facts).health.slowdowns = vec![Slowdown::Heat],
            DeviceHealth,
            Unfit,
            "cool",
        ),
        (
            "power brake",
            |facts| gpu(facts).health.slowdowns = vec![Slowdown::PowerBrake],
            DeviceHealth,
            Unfit,
            "power supply",
        ),
        (
            "at its limit",
            |facts| gpu(facts).health.slowdowns = vec![Slowdown::PowerCap],
            DeviceHealth,
            Note,
            "normal",
        ),
        (
            "nearly hot",
            |facts| gpu(facts).temperature_celsius = Some(90),
            DeviceHealth,
            Note,
            "90 °C",
        ),
        (
            "one lane",
            |facts| gpu(facts).health.pcie.as_mut().unwrap().width = Some(1),
            DeviceHealth,
            Note,
            "1 of 16",
        ),
    ]);
}
