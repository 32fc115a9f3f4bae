use super::*;
use crate::health::Slowdown;

const MACHINES: [(&str, &str); 6] = [
    (
        "desktop",
        include_str!("../../tests/recorded/machine-desktop-rtx-4090.json"),
    ),
    (
        "server",
        include_str!("../../tests/recorded/machine-server-h100x2.json"),
    ),
    (
        "spark",
        include_str!("../../tests/recorded/machine-dgx-spark.json"),
    ),
    (
        "amd",
        include_str!("../../tests/recorded/machine-server-mi100.json"),
    ),
    ("lost", include_str!("../../tests/recorded/machine-lost-gpu.json")),
    (
        "laptop",
        include_str!("../../tests/recorded/machine-laptop-m4.json"),
    ),
];

const EVERYTHING: Support = Support {
    cuda: true,
    metal: true,
};

fn machine(name: &str) -> Readings {
    let (_, text) = MACHINES.iter().find(|(found, _)| *found == name).unwrap();
    serde_json::from_str(text).unwrap()
}

fn rows(inventory: &Inventory) -> Vec<String> {
    inventory
        .devices
        .iter()
        .map(|device| device.table_row().join(" | "))
        .collect()
}

#[test]
fn recorded_machines_as_their_owners_see_them() {
    let expected: [(&str, &[&str]); 6] = [
        (
            "desktop",
            &[
                "cuda:0 | NVIDIA GeForce RTX 4090 | 23.1 GiB of 23.9 GiB | sm 8.9 | 3 % | 41 °C | 21 of 450 W | 580.95.05 | yes",
                "cpu:0 | AMD Ryzen 9 7950X 16-Core Processor | 48.0 GiB of 62.0 GiB | 16 cores, 32 threads | - | - | - | - | yes",
            ],
        ),
        (
            "server",
            &[
                "cuda:0 | NVIDIA H100 80GB HBM3 | 39.1 GiB of 79.6 GiB | sm 9.0 | 100 % | 73 °C | 671 of 700 W | 570.172.08 | yes",
                "cpu:0 | Intel(R) Xeon(R) Platinum 8480+ | 55.8 GiB of 64.0 GiB | 112 cores, 224 threads | - | - | - | - | yes",
            ],
        ),
        (
            "spark",
            &[
                "cuda:0 | NVIDIA GB10 | - | sm 12.1 | 0 % | 38 °C | 5 W | 580.95.05 | yes",
                "cpu:0 | Cortex-X925 | 111.7 GiB of 119.6 GiB | 20 cores, 20 threads | - | - | - | - | yes",
            ],
        ),
        (
            "amd",
            &[
                "rocm:0 | Arcturus GL-XL [Instinct MI100] | 31.9 GiB of 31.9 GiB | - | 0 % | 53 °C | 36 of 290 W | 6.3.6 | no",
                "cpu:0 | AMD EPYC 7742 64-Core Processor | 242.1 GiB of 251.7 GiB | 64 cores, 128 threads | - | - | - | - | yes",
            ],
        ),
        (
            "lost",
            &[
                "cuda:0 | NVIDIA GPU | - | - | - | - | - | 535.183.01 | yes",
                "cuda:1 | NVIDIA RTX A5000 | 0.0 GiB of 23.9 GiB | sm 8.6 | 0 % | 92 °C | 60 of 230 W | 535.183.01 | yes",
                "cpu:0 | CPU | - | - | - | - | - | - | yes",
            ],
        ),
        (
            "laptop",
            &[
                "metal:0 | Apple M4 Pro GPU | 27.9 GiB of 48.0 GiB | 20 cores | - | - | - | - | yes",
                "cpu:0 | Apple M4 Pro | 27.9 GiB of 48.0 GiB | 14 cores, 14 threads | - | - | - | - | yes",
            ],
        ),
    ];
    for (name, expected) in expected {
        assert_eq!(rows(&inventory(&machine(name), EVERYTHING)), expected, "{name}");
    }
}

#[test]
fn what_is_out_of_order_is_there_to_be_seen() {
    let inventory = inventory(&machine("lost"), EVERYTHING);
    let health = &inventory.devices[1].health;
    assert_eq!(health.slowdowns, [Slowdown::Overheating, Slowdown::Hardware]);
    assert_eq!(health.ecc_uncorrected_errors, Some(12));
    let link = health.pcie.unwrap();
    assert_eq!((link.width, link.width_max), (Some(1), Some(16)));
    assert!(inventory.notes[0].contains("fallen off the bus"));
}

#[test]
fn readings_are_written_as_they_are_read() {
    for (name, text) in MACHINES {
        let readings: Readings = serde_json::from_str(text).unwrap();
        let written = serde_json::to_string(&readings).unwrap();
        assert_eq!(
            serde_json::from_str::<Readings>(&written).unwrap(),
            readings,
            "{name}"
        );
    }
}

#[test]
#[cfg(feature = "driver")]
fn a_machine_read_by_nvidia_smi_shows_its_instances_as_nvml_would() {
    let text = include_str!("../../tests/recorded/nvidia-smi-a100-mig-v12.xml");
    let readings = |variable: Option<&str>| Readings {
        nvidia: nvidia_smi::parse_xml(text).unwrap(),
        environment: CudaEnvironment {
            visible_devices: variable.map(str::to_owned),
            device_order: Some("PCI_BUS_ID".into()),
        },
        ..machine("desktop")
    };
    let first = |variable| rows(&inventory(&readings(variable), EVERYTHING)).remove(0);
    let instance = "cuda:0 | NVIDIA A100-SXM4-80GB MIG | 39.2 GiB of 39.2 GiB | - | - | 27 °C | 67 of 500 W | 535.54.03 | yes";
    let named = "MIG-GPU-51515151-7d19-9063-b049-000000000001/5/0";
    assert_eq!(first(Some(named)), instance);
    assert!(first(None).contains("MIG | 19.4 GiB of 19.5 GiB"));
    assert!(first(Some("1")).starts_with("cuda:0 | NVIDIA A100-SXM4-80GB | 79.1 GiB of 80.0 GiB"));
}
