//! `gristmill node status`: how a running node stands, as its local API tells.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use gristmill_service::cli::{align_right, table, wrong_configuration};
use gristmill_service::clock::unix_ms;
use serde::Deserialize;
use serde_json::Value;

use crate::settings::{FileSection, LOCAL_API_PORT, LocalApi, ServeArguments, Settings};

/// How long a node on this machine may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
const HEADER: [&str; 7] = ["DEVICE", "MEMORY", "F32", "BF16", "SCORE", "SHOWN", "EXPIRES"];
const GIBIBYTE: u64 = 1 << 30;

/// The arguments of `gristmill node status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct StatusArguments {
    /// Where the node's local API listens [default: 127.0.0.1:7430]
    #[arg(long, env = "GRISTMILL_NODE_LOCAL_API", value_name = "ADDRESS:PORT")]
    pub local_api: Option<String>,
}

/// What is shown to people. The API tells more, and later ones may tell other things.
#[derive(Debug, Deserialize)]
struct Status {
    account: String,
    coordinator: Coordinator,
    mesh: Mesh,
    offers: Vec<Offer>,
    slots: Slots,
    hardware: Hardware,
}

#[derive(Debug, Deserialize)]
struct Coordinator {
    url: String,
    account: Option<String>,
    distrusted_because: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Mesh {
    peers: usize,
}

#[derive(Debug, Deserialize)]
struct Offer {
    kind: String,
    model: String,
}

#[derive(Debug, Deserialize)]
struct Slots {
    total: u32,
    jobs: u32,
}

#[derive(Debug, Deserialize)]
struct Hardware {
    verified: bool,
    activity: String,
    devices: Vec<Showing>,
    certificates: Vec<Certificate>,
    failure: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Showing {
    device: String,
    doing: String,
    percent: u64,
}

#[derive(Debug, Deserialize)]
struct Certificate {
    device: String,
    memory_bytes: u64,
    throughput: Vec<Throughput>,
    score: u64,
    shown_at: u64,
    expires_at: u64,
    fingerprint_changed: bool,
}

#[derive(Debug, Deserialize)]
struct Throughput {
    precision: String,
    multiply_adds_per_second: u64,
}

pub(super) async fn show(
    arguments: StatusArguments,
    file: FileSection,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let arguments = ServeArguments {
        local_api: arguments.local_api,
        ..ServeArguments::default()
    };
    let settings = match Settings::resolve(arguments, file) {
        Ok(settings) => settings,
        Err(error) => return wrong_configuration(&error),
    };
    let status = ask(settings.local_api).await?;
    if json {
        writeln!(out, "{status}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let status: Status = serde_json::from_value(status)
        .context("the node's answer is not understood; it is of another version, so use --json")?;
    print(&status, unix_ms() / 1_000, out)?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(local_api: LocalApi) -> anyhow::Result<Value> {
    let address = match local_api {
        LocalApi::At(address) => address,
        LocalApi::Default => SocketAddr::from((Ipv4Addr::LOCALHOST, LOCAL_API_PORT)),
        LocalApi::Off => {
            bail!("the node's local API is off in the settings, so it tells nobody how it stands")
        }
    };
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("no HTTP client")?;
    let answer = http.get(format!("http://{address}/v1/status")).send().await;
    let answer = answer.with_context(|| {
        format!(
            "no node answers at {address}; start one with 'gristmill node serve', or say where it listens with \
             --local-api"
        )
    })?;
    let status: Value = answer
        .json()
        .await
        .with_context(|| format!("what answers at {address} is no node"))?;
    if status.get("account").is_none() {
        bail!("what answers at {address} is no node");
    }
    Ok(status)
}

fn print(status: &Status, now: u64, out: &mut impl Write) -> io::Result<()> {
    let coordinator = match (
        &status.coordinator.distrusted_because,
        &status.coordinator.account,
    ) {
        (Some(reason), _) => format!("not trusted: {reason}"),
        (None, Some(_)) => "reached".to_owned(),
        (None, None) => "not reached yet".to_owned(),
    };
    writeln!(out, "Node {}", status.account)?;
    writeln!(out, "  coordinator  {}: {coordinator}", status.coordinator.url)?;
    writeln!(out, "  peers        {}", status.mesh.peers)?;
    writeln!(
        out,
        "  jobs         {} in {} places",
        status.slots.jobs, status.slots.total
    )?;
    for offer in &status.offers {
        writeln!(out, "  offers       {} ({})", offer.model, offer.kind)?;
    }
    let hardware = &status.hardware;
    let standing = if hardware.verified {
        "verified"
    } else {
        "unverified"
    };
    let reason = match (hardware.activity.as_str(), &hardware.failure) {
        ("off", _) => ": off in the settings".to_owned(),
        ("showing", _) => ", being shown".to_owned(),
        (_, Some(failure)) => format!(": {failure}"),
        _ => String::new(),
    };
    writeln!(out, "  hardware     {standing}{reason}")?;
    for device in &hardware.devices {
        writeln!(
            out,
            "               {}: {} {} %",
            device.device, device.doing, device.percent
        )?;
    }
    if hardware.certificates.is_empty() {
        return Ok(());
    }
    let mut table = table(&HEADER);
    for certificate in &hardware.certificates {
        table.add_row(row(certificate, now));
    }
    align_right(&mut table, &[1, 2, 3, 4]);
    writeln!(out, "\n{}", table.trim_fmt())?;
    writeln!(out, "\nF32 and BF16 are 10^9 multiply-adds a second.")
}

fn row(certificate: &Certificate, now: u64) -> [String; 7] {
    let rate = |precision: &str| {
        let mut throughput = certificate.throughput.iter();
        let shown = throughput.find(|one| one.precision == precision);
        shown.map_or_else(String::new, |one| {
            (one.multiply_adds_per_second / 1_000_000_000).to_string()
        })
    };
    let memory = certificate.memory_bytes;
    let changed = if certificate.fingerprint_changed {
        " (another one than before)"
    } else {
        ""
    };
    [
        format!("{}{changed}", certificate.device),
        format!("{}.{} GiB", memory / GIBIBYTE, memory % GIBIBYTE * 10 / GIBIBYTE),
        rate("f32"),
        rate("bf16"),
        certificate.score.to_string(),
        format!("{} ago", span(now.saturating_sub(certificate.shown_at))),
        format!("in {}", span(certificate.expires_at.saturating_sub(now))),
    ]
}

/// Seconds in words, to the minute.
fn span(seconds: u64) -> String {
    match (seconds / 3_600, seconds / 60 % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(hardware: &Value) -> Status {
        serde_json::from_value(json!({
            "account": "12D3KooWnode", "version": "0.1.0",
            "coordinator": {"url": "http://127.0.0.1:7400", "account": "12D3KooWcoordinator",
                "distrusted_because": null},
            "mesh": {"addresses": [], "peers": 3},
            "offers": [{"kind": "chat_completions", "model": "guide"}],
            "slots": {"total": 4, "jobs": 1, "queue_length": 16},
            "hardware": hardware,
        }))
        .unwrap()
    }

    fn printed(hardware: &Value) -> String {
        let mut out = Vec::new();
        print(&status(hardware), 1_800_003_700, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn owners_see_what_is_verified_and_until_when() {
        let text = printed(&json!({
            "verified": true, "activity": "waiting", "devices": [], "failure": null,
            "certificates": [{
                "device": "NVIDIA H200", "memory_bytes": (24_u64 << 30) + (1 << 29), "score": 77,
                "throughput": [{"precision": "f32", "multiply_adds_per_second": 25_999_999_999_999_u64}],
                "shown_at": 1_800_000_000, "expires_at": 1_800_021_600, "fingerprint_changed": false,
            }],
        }));
        assert!(text.contains("hardware     verified\n"), "{text}");
        let row = text.lines().find(|line| line.contains("NVIDIA H200")).unwrap();
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(
            cells[..],
            [
                "NVIDIA", "H200", "24.5", "GiB", "25999", "77", "1", "h", "1", "min", "ago", "in", "4", "h",
                "58", "min"
            ]
        );
    }

    #[test]
    fn owners_see_why_nothing_is_verified() {
        let hardware = |activity, failure: Option<&str>| json!({"verified": false, "activity": activity, "devices": [], "certificates": [], "failure": failure});
        assert!(printed(&hardware("off", None)).contains("unverified: off in the settings"));
        let failed = printed(&hardware(
            "waiting",
            Some("the coordinator issues no certificates"),
        ));
        assert!(failed.contains("unverified: the coordinator issues"), "{failed}");
        let mut showing = hardware("showing", None);
        showing["devices"] = json!([{"device": "A processor", "doing": "multiplying in f32", "percent": 40}]);
        assert!(printed(&showing).contains("A processor: multiplying in f32 40 %"));
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_an_error_that_says_what_to_do() {
        let off = ask(LocalApi::Off).await.unwrap_err();
        assert!(off.to_string().contains("off in the settings"));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let nobody = ask(LocalApi::At(address)).await.unwrap_err();
        assert!(nobody.to_string().contains("gristmill node serve"), "{nobody}");
    }
}
