use gristmill_benchmark::health::{Health, PcieLink};
use gristmill_benchmark::inventory::{Device, DeviceKind, Host, Inventory};

use super::facts::{
    Access, ClockDifference, CoordinatorFacts, DataFolder, Key, Port, PortOutcome, SettingsFacts,
    UpstreamFacts,
};
use super::*;
use crate::settings::HardwareSettings;

mod machine;
mod network;

fn port(address: &str, socket: &str, outcome: PortOutcome) -> Port {
    Port {
        address: address.to_owned(),
        socket: Some(socket.parse().unwrap()),
        outcome,
    }
}

fn settings() -> SettingsFacts {
    SettingsFacts {
        coordinator_url: "https://coordinator.example.org".into(),
        coordinator: Ok(CoordinatorFacts {
            network: "village".into(),
            version: "0.1.0".into(),
            clock: Some(ClockDifference {
                behind_ms: 40,
                uncertain_ms: 520,
            }),
            mistrust: None,
        }),
        upstreams: vec![UpstreamFacts {
            url: "http://127.0.0.1:8000/".into(),
            named: true,
            models: Ok(1),
        }],
        has_built_in_models: false,
        mesh_ports: vec![port(
            "/ip4/0.0.0.0/udp/7410/quic-v1",
            "0.0.0.0:7410",
            PortOutcome::Free,
        )],
        mesh_ports_chosen: true,
        has_public_address: true,
        local_api: Some((port("127.0.0.1:7430", "127.0.0.1:7430", PortOutcome::Free), false)),
        computes_on_cuda: true,
        hardware: HardwareSettings::default(),
    }
}

fn card() -> Device {
    Device {
        memory_total_bytes: Some(24 << 30),
        memory_free_bytes: Some(20 << 30),
        driver_version: Some("580.95.05".into()),
        temperature_celsius: Some(60),
        usable: true,
        health: Health {
            ecc_enabled: Some(true),
            ecc_uncorrected_errors: Some(0),
            pcie: Some(PcieLink {
                generation: Some(1),
                generation_max: Some(4),
                width: Some(16),
                width_max: Some(16),
            }),
            ..Health::default()
        },
        ..Device::new(DeviceKind::Cuda, 0, "NVIDIA RTX A5000", "NVIDIA")
    }
}

/// A machine of which nothing is to be said.
fn healthy() -> Facts {
    let host = Host {
        operating_system: "Debian 13".into(),
        architecture: "x86_64".into(),
    };
    let cpu = Device {
        usable: true,
        ..Device::new(DeviceKind::Cpu, 0, "CPU", "Intel")
    };
    Facts {
        settings: Ok(settings()),
        data_folder: DataFolder {
            path: "/data".into(),
            access: Access::Writable,
            in_use: false,
            free_bytes: Some(100 << 30),
        },
        key: Key::Account("abc".into()),
        inventory: Some(Inventory::new(host, vec![card(), cpu], vec![])),
    }
}

/// The settings of facts that have some.
fn set(facts: &mut Facts) -> &mut SettingsFacts {
    facts.settings.as_mut().unwrap()
}

fn gpu(facts: &mut Facts) -> &mut Device {
    &mut facts.inventory.as_mut().unwrap().devices[0]
}

/// What a change of the healthy machine must come to.
type Case = (&'static str, fn(&mut Facts), Check, Verdict, &'static str);

fn hold(cases: &[Case]) {
    for (name, change, check, verdict, says) in cases {
        let mut facts = healthy();
        change(&mut facts);
        let report = examine(&facts);
        let found = report.findings.iter().any(|finding| {
            let text = format!("{} -> {}", finding.what, finding.remedy);
            finding.check == *check && finding.verdict == *verdict && text.contains(says)
        });
        assert!(found, "{name}: {report:#?}");
        assert_eq!(
            report.verdict.max(Verdict::Note),
            (*verdict).max(Verdict::Note),
            "{name}: {report:#?}"
        );
        for finding in &report.findings {
            let is_mended = finding.verdict < Verdict::Unknown
                || !finding.remedy.is_empty()
                // These bring the remedy in their own words.
                || finding.check == Check::Key;
            assert!(is_mended, "{name}: {finding:?} says no remedy");
        }
    }
}

#[test]
fn a_healthy_machine_is_fit_and_every_check_has_a_line() {
    let report = examine(&healthy());
    assert!(report.fit && report.exit_code() == 0, "{report:#?}");
    let worst = report
        .findings
        .iter()
        .filter(|finding| finding.verdict != Verdict::Fit);
    // Whether others reach it can't be told from here, and is said to be so.
    assert_eq!(
        worst.map(|finding| finding.check).collect::<Vec<_>>(),
        [Check::Reachability]
    );
    let lines: std::collections::HashSet<_> = report.findings.iter().map(|finding| finding.check).collect();
    assert_eq!(lines.len(), 15);
}

#[test]
fn the_exit_code_is_that_of_the_worst_line() {
    let code = |change: fn(&mut Facts)| {
        let mut facts = healthy();
        change(&mut facts);
        examine(&facts).exit_code()
    };
    assert_eq!(code(|facts| facts.data_folder.free_bytes = Some(500 << 20)), 0);
    assert_eq!(code(|facts| facts.data_folder.free_bytes = None), 2);
    assert_eq!(code(|facts| facts.data_folder.free_bytes = Some(0)), 1);
    assert_eq!(
        code(|facts| {
            facts.data_folder.free_bytes = None;
            facts.key = Key::Wrong("readable by others".into());
        }),
        1
    );
}
