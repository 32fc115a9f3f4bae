//! `gristmill benchmark run`: shows what this machine's devices can do.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use gristmill_protocol::hardware::{ChallengeRequest, HardwareClaim, HardwareDigest};
use gristmill_protocol::ids::ChallengeId;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_service::cli::{INTERRUPTED, table};
use gristmill_transport::CoordinatorClient;
use serde_json::{Value, json};

use super::amounts::{Bytes, gibibytes, milliwatts, teraflops};
use super::bars::Bars;
use super::certified;
use crate::fingerprint::Fingerprint;
use crate::inventory::{Device, DeviceKind, Inventory};
use crate::probe;
use crate::prover::offline::{OfflineChallenger, OfflineProof, parameters};
use crate::prover::{
    Again, AlwaysOpen, Budget, ClaimPercent, Control, Interruption, MeasuredRate, Measurement, Prover,
    ProverError, ShowError, StopToken, show, show_within_attempts,
};

/// What to show, and to whom.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The coordinator that poses the challenge and issues the certificate
    #[arg(
        long,
        value_name = "URL",
        env = "GRISTMILL_NODE_COORDINATOR",
        required_unless_present = "offline"
    )]
    coordinator: Option<String>,
    /// Pose the challenge without a coordinator and write the proof to this file; there is no certificate then
    #[arg(long, value_name = "FILE")]
    offline: Option<PathBuf>,
    /// A device such as cuda:0 or cpu, or all; may be given more than once [default: every usable GPU, or the CPU where there
    /// is none]
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Most memory of each device, such as 8GiB; it can't show more than that [default: what is free, half of it where
    /// the device shares it with the machine]
    #[arg(long, value_name = "BYTES")]
    memory_max: Option<Bytes>,
    /// Most power of each device in watts, kept by pauses [default: the device's own limit]
    #[arg(long, value_name = "WATTS", value_parser = milliwatts)]
    power_max: Option<u32>,
    /// How many percent of the measured throughput are claimed; whoever takes a quarter longer than claimed is refused. Less leaves
    /// head room on a machine that does other things too, and a certificate still says what was reached
    #[arg(long, value_name = "PERCENT", value_parser = claim_percent, default_value = "80")]
    claim_percent: ClaimPercent,
}

fn claim_percent(text: &str) -> Result<ClaimPercent, String> {
    let number: u32 = text
        .trim()
        .parse()
        .map_err(|_| format!("'{text}' is no whole number of percent; write it as 80"))?;
    ClaimPercent::new(number).map_err(|error| error.to_string())
}

/// What a device came to.
struct Outcome {
    device: Device,
    measurement: Measurement,
    claim: HardwareClaim,
    shown: Shown,
}

/// What it has to show for it.
enum Shown {
    Certificate(String),
    Offline(Box<OfflineProof>),
}

/// Runs the challenges of all devices at once.
pub(super) async fn run(arguments: Arguments, data_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let inventory = tokio::task::spawn_blocking(probe::inventory).await?;
    let devices = chosen(&inventory, &arguments.devices)?;
    ensure!(
        arguments.offline.is_none() || devices.len() == 1,
        "an offline proof is of one device, and {} are chosen; name one with --device",
        devices.len()
    );
    let coordinator = match &arguments.coordinator {
        Some(url) if arguments.offline.is_none() => Some(Arc::new(certified::coordinator(url, data_dir)?)),
        _ => None,
    };
    // Asked for before anything is computed: a coordinator that can't be reached is told at once.
    let place = match (&coordinator, arguments.offline) {
        (Some(coordinator), _) => Place::Coordinator(coordinator.log_keys().await?),
        (None, Some(file)) => Place::File(file),
        (None, None) => bail!("say --coordinator URL or --offline FILE"),
    };
    let stop = StopToken::default();
    let bars = Bars::new(&devices);
    let control = Control::new(stop.clone(), Arc::new(AlwaysOpen)).with_listener(bars.listener());
    let budget = Budget {
        memory_max_bytes: arguments.memory_max.map(|Bytes(bytes)| bytes),
        power_max_milliwatts: arguments.power_max,
    };
    let interrupt = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.stop();
        }
    });
    let show_one = |number: usize, percent: ClaimPercent| {
        let terms = Terms { budget, percent };
        let (coordinator, control) = (coordinator.clone(), control.for_device(number));
        one(devices[number].clone(), terms, coordinator, control)
    };
    let again = |again: &Again| bars.say(&format!("{}: {again}", devices[again.device].summary()));
    let outcomes = show_within_attempts(devices.len(), arguments.claim_percent, show_one, again).await;
    interrupt.abort();
    bars.clear();
    let outcomes = devices.iter().map(Device::summary).zip(outcomes).collect();
    report(outcomes, &place, json)
}

/// What the owner allows, and what is claimed.
#[derive(Clone, Copy)]
struct Terms {
    budget: Budget,
    percent: ClaimPercent,
}

/// Where the outcome comes from or goes to.
enum Place {
    /// A coordinator with these keys.
    Coordinator(LogKeys),
    /// A file.
    File(PathBuf),
}

/// The devices that were named, or those that a challenge is for.
fn chosen(inventory: &Inventory, names: &[String]) -> anyhow::Result<Vec<Device>> {
    let usable = || inventory.devices.iter().filter(|device| device.usable);
    if names.iter().any(|name| name == "all") {
        return Ok(usable().cloned().collect());
    }
    if names.is_empty() {
        let gpus: Vec<_> = usable()
            .filter(|device| device.kind != DeviceKind::Cpu)
            .cloned()
            .collect();
        if !gpus.is_empty() {
            return Ok(gpus);
        }
        let cpu = usable()
            .next()
            .cloned()
            .context("this machine has no device that a challenge could run on")?;
        return Ok(vec![cpu]);
    }
    let mut devices: Vec<Device> = Vec::new();
    for name in names {
        // A kind alone is its first device.
        let named = |device: &&Device| {
            let kind = device.kind.to_string();
            format!("{kind}:{}", device.index) == *name || (kind == *name && device.index == 0)
        };
        let Some(device) = inventory.devices.iter().find(named) else {
            bail!("there is no device '{name}'; `gristmill benchmark devices` lists them");
        };
        ensure!(
            device.usable,
            "this build of gristmill can't compute on {}; take one that was built for it",
            device.summary()
        );
        if !devices.contains(device) {
            devices.push(device.clone());
        }
    }
    Ok(devices)
}

/// Opens, measures and shows one device.
async fn one(
    device: Device,
    terms: Terms,
    coordinator: Option<Arc<CoordinatorClient>>,
    control: Control,
) -> Result<Outcome, ShowError> {
    let fingerprint = HardwareDigest::from_bytes(Fingerprint::of(&device).digest());
    let (description, measuring) = (device.clone(), control.clone());
    let measured = tokio::task::spawn_blocking(move || {
        let mut prover = Prover::open(&description, &terms.budget)?;
        let measurement = prover.measure(&measuring)?;
        Ok::<_, ProverError>((prover, measurement))
    });
    let (prover, measurement) = measured
        .await
        .map_err(|error| ProverError::DriverGaveUp(error.to_string()))??;
    let claim = prover.claim(&measurement, terms.percent, device.index, fingerprint);
    let request = ChallengeRequest {
        challenge: drawn_id()?,
        claim: claim.clone(),
    };
    let prover = Arc::new(prover);
    let shown = if let Some(coordinator) = coordinator {
        Shown::Certificate(show(prover, &*coordinator, &request, &control).await?)
    } else {
        let challenger = OfflineChallenger::new(parameters(&claim, measurement.dimension));
        show(prover, &challenger, &request, &control).await?;
        let proof = challenger.finish().ok_or(ShowError::OutOfOrder("the end"))?;
        Shown::Offline(Box::new(proof))
    };
    Ok(Outcome {
        device,
        measurement,
        claim,
        shown,
    })
}

/// A name for a challenge that nobody could foresee.
fn drawn_id() -> Result<ChallengeId, ProverError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| ProverError::Challenge(error.to_string()))?;
    Ok(ChallengeId::from_bytes(bytes))
}

fn report(
    outcomes: Vec<(String, Result<Outcome, ShowError>)>,
    place: &Place,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    let mut code = ExitCode::SUCCESS;
    for (device, outcome) in outcomes {
        match outcome {
            Ok(outcome) => {
                for remark in outcome.measurement.remarks() {
                    writeln!(io::stderr(), "{device}: {remark}")?;
                }
                let (row, value) = told(&outcome, place)?;
                rows.push(row);
                values.push(value);
            }
            Err(error) => {
                let is_stop = matches!(
                    error,
                    ShowError::Prover(ProverError::Interrupted(Interruption::Stopped))
                );
                code = if is_stop {
                    ExitCode::from(INTERRUPTED)
                } else {
                    ExitCode::FAILURE
                };
                writeln!(io::stderr(), "{device}: {error}")?;
                values.push(json!({ "device": device, "error": error.to_string() }));
            }
        }
    }
    if json {
        writeln!(io::stdout(), "{:#}", json!({ "devices": values }))?;
    } else if !rows.is_empty() {
        let mut table = table(&["DEVICE", "MEMORY", "THROUGHPUT", "SHOWN BY"]);
        table.add_rows(rows);
        writeln!(io::stdout(), "{}", table.trim_fmt())?;
    }
    Ok(code)
}

/// A row for people and an object for programs. Checks a certificate, and writes the file of an offline proof.
fn told(outcome: &Outcome, place: &Place) -> anyhow::Result<([String; 4], Value)> {
    match (&outcome.shown, place) {
        (Shown::Certificate(text), Place::Coordinator(keys)) => certified::told(&outcome.device, text, keys),
        (Shown::Offline(proof), Place::File(path)) => written(outcome, proof, path),
        _ => bail!("a challenge ended elsewhere than it began"),
    }
}

fn written(outcome: &Outcome, proof: &OfflineProof, path: &Path) -> anyhow::Result<([String; 4], Value)> {
    let bytes = proof.encode()?;
    std::fs::write(path, &bytes)
        .with_context(|| format!("the proof could not be written to {}", path.display()))?;
    let transcript = &proof.header.transcript;
    let claimed = &outcome.claim.throughput;
    let rates: Vec<String> = claimed
        .iter()
        .map(|one| format!("{} in {}", teraflops(one.multiply_adds_per_second), one.precision))
        .collect();
    let row = [
        outcome.device.summary(),
        gibibytes(transcript.parameters.resident_bytes()),
        rates.join(", "),
        format!("{} (nobody else's clock)", path.display()),
    ];
    let value = json!({
        "device": outcome.device,
        "file": path,
        "file_bytes": bytes.len(),
        "proof_bytes": proof.proof.len(),
        "measured": measured(&outcome.measurement),
        "claim": outcome.claim,
        "parameters": transcript.parameters,
        "stage_ms": proof.header.stage_ms,
        "residency_ms": proof.header.residency_ms,
    });
    Ok((row, value))
}

/// What was measured before the challenge, for programs.
fn measured(measurement: &Measurement) -> Vec<Value> {
    let value = |one: &MeasuredRate| {
        json!({
            "precision": one.throughput.precision,
            "multiply_adds_per_second": one.throughput.multiply_adds_per_second,
            "slowest_multiply_adds_per_second": one.slowest,
            "multiplying_share": f64::from(one.multiplying_permille) / 1_000.0,
        })
    };
    measurement.rates.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory() -> Inventory {
        let mut inventory = probe::inventory();
        let cpu = inventory.devices.pop().unwrap();
        let gpu = |index, usable| Device {
            kind: DeviceKind::Cuda,
            index,
            usable,
            ..cpu.clone()
        };
        Inventory::new(
            inventory.host,
            vec![gpu(0, true), gpu(1, false), cpu.clone()],
            vec![],
        )
    }

    fn names(devices: &[Device]) -> Vec<String> {
        devices
            .iter()
            .map(|device| format!("{}:{}", device.kind, device.index))
            .collect()
    }

    #[test]
    fn percentages_are_whole_and_possible() {
        assert_eq!(claim_percent(" 25 ").map(ClaimPercent::get), Ok(25));
        for wrong in ["0", "101", "0.25", "-1", ""] {
            assert!(claim_percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn usable_gpus_are_shown_unless_others_are_named() {
        let mut inventory = inventory();
        let of = |inventory: &Inventory, asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
            chosen(inventory, &asked).map(|devices| names(&devices))
        };
        assert_eq!(of(&inventory, &[]).unwrap(), ["cuda:0"]);
        assert_eq!(of(&inventory, &["all"]).unwrap(), ["cuda:0", "cpu:0"]);
        assert_eq!(of(&inventory, &["cpu:0", "cpu"]).unwrap(), ["cpu:0"]);
        assert!(
            of(&inventory, &["cuda:1"])
                .unwrap_err()
                .to_string()
                .contains("can't compute")
        );
        assert!(
            of(&inventory, &["cuda:7"])
                .unwrap_err()
                .to_string()
                .contains("lists them")
        );
        inventory.devices.remove(0);
        assert_eq!(of(&inventory, &[]).unwrap(), ["cpu:0"]);
    }
}
