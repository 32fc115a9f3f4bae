//! `gristmill client providers`: who offers something, and which hardware of theirs is verified.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use gristmill_protocol::hardware::Precision;
use gristmill_service::cli::{align_right, table};
use gristmill_service::clock::unix_ms;

use super::directory;
use super::running_proxy::RunningProxy;
use crate::core::calendar::Day;
use crate::core::providers::{DeviceView, ProviderList, ProviderView, providers_on_offer};
use crate::settings::Settings;

const HEADER: [&str; 9] = [
    "PROVIDER", "HARDWARE", "DEVICE", "MEMORY", "F32", "BF16", "SHOWN", "EXPIRES", "MODELS",
];
/// Bytes in a gibibyte.
const GIBIBYTE: u64 = 1 << 30;
/// Models that are named in a row.
const MODELS_SHOWN: usize = 3;

pub(super) async fn show(settings: &Settings, data_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let list = match RunningProxy::find(settings, data_dir).await? {
        Some(proxy) => proxy.providers().await?,
        None => {
            let (board, coordinator) = directory::read(settings).await?;
            providers_on_offer(&board, Some(coordinator), None, unix_ms())
        }
    };
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&list)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if list.data.is_empty() {
        writeln!(
            io::stderr(),
            "Nobody offers anything now; 'gristmill node serve' would."
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = table(&HEADER);
    for row in list.data.iter().flat_map(rows) {
        table.add_row(row);
    }
    align_right(&mut table, &[3, 4, 5]);
    writeln!(io::stdout(), "{}", table.trim_fmt())?;
    writeln!(io::stderr(), "{}", notes(&list))?;
    Ok(ExitCode::SUCCESS)
}

fn notes(list: &ProviderList) -> String {
    let mut notes =
        "Verified: shown to the coordinator, whose certificate was checked here. F32 and BF16 are 10^9 \
                     multiply-adds a second; times are UTC. Devices are named by their owners."
            .to_owned();
    let left_out = list.total.saturating_sub(list.data.len());
    if left_out > 0 {
        notes = format!("{notes}\n{left_out} more are left out.");
    }
    notes
}

/// A row for each device, or one that says that none is verified.
fn rows(provider: &ProviderView) -> Vec<[String; 9]> {
    let shown: Vec<&str> = provider
        .models
        .iter()
        .take(MODELS_SHOWN)
        .map(String::as_str)
        .collect();
    let more = provider.models.len().saturating_sub(MODELS_SHOWN);
    let models = match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    };
    let row = |device: Option<&DeviceView>| {
        let text = |of: &dyn Fn(&DeviceView) -> String| device.map(of).unwrap_or_default();
        [
            provider.id.to_string(),
            provider.hardware.name().to_owned(),
            text(&|device| device.name.clone()),
            text(&|device| gibibytes(device.memory_bytes)),
            text(&|device| rate(device, Precision::F32)),
            text(&|device| rate(device, Precision::Bf16)),
            text(&|device| Day::of(device.shown_at.saturating_mul(1_000)).to_string()),
            text(&|device| minute(device.expires_at)),
            models.clone(),
        ]
    };
    if provider.devices.is_empty() {
        return vec![row(None)];
    }
    provider.devices.iter().map(|device| row(Some(device))).collect()
}

/// Bytes in gibibytes with one digit, rounded down: nobody is shown more than was shown.
fn gibibytes(bytes: u64) -> String {
    let (whole, rest) = (bytes / GIBIBYTE, bytes % GIBIBYTE);
    format!("{whole}.{} GiB", rest * 10 / GIBIBYTE)
}

/// Multiply-adds per second in thousands of millions, rounded down; empty where the precision was not shown.
fn rate(device: &DeviceView, precision: Precision) -> String {
    let rate = device.multiply_adds_per_second.get(&precision);
    rate.map(|rate| (rate / 1_000_000_000).to_string())
        .unwrap_or_default()
}

/// A Unix time in seconds to the minute.
fn minute(seconds: u64) -> String {
    let of_day = seconds / 60 % (24 * 60);
    let day = Day::of(seconds.saturating_mul(1_000));
    format!("{day} {:02}:{:02}", of_day / 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::providers::Verification;
    use gristmill_protocol::hardware::HardwareKind;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::listing::PrivacyTier;
    use std::collections::{BTreeMap, BTreeSet};

    fn provider(devices: Vec<DeviceView>) -> ProviderView {
        ProviderView {
            id: Keypair::from_secret(&[1; 32]).account(),
            object: "provider".into(),
            models: ["a", "b", "c", "d"].map(str::to_owned).into(),
            region: String::new(),
            privacy: PrivacyTier::Standard,
            slots: 1,
            free_slots: 1,
            hardware: if devices.is_empty() {
                Verification::Unverified
            } else {
                Verification::Verified
            },
            devices,
        }
    }

    #[test]
    fn a_row_says_what_was_shown_and_until_when_it_counts() {
        let device = DeviceView {
            name: "NVIDIA H200".into(),
            vendor: "NVIDIA".into(),
            kind: HardwareKind::Cuda,
            memory_bytes: (24 << 30) + (1 << 29),
            multiply_adds_per_second: BTreeMap::from([(Precision::F32, 25_999_999_999_999)]),
            score: 1,
            method: "m/1".into(),
            shown_at: 1_800_000_000,
            expires_at: 1_800_021_600,
            fingerprint_changed: false,
        };
        let rows = rows(&provider(vec![device.clone(), device]));
        assert_eq!(rows.len(), 2);
        assert_eq!(
            rows[0][1..],
            [
                "verified",
                "NVIDIA H200",
                "24.5 GiB",
                "25999",
                "",
                "2027-01-15",
                "2027-01-15 14:00",
                "a, b, c and 1 more",
            ]
        );
    }

    #[test]
    fn who_has_shown_nothing_has_one_row_without_a_device() {
        let mut unverified = provider(vec![]);
        unverified.models = BTreeSet::from(["a".to_owned()]);
        let rows = rows(&unverified);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0][1..], ["unverified", "", "", "", "", "", "", "a"]);
    }
}
