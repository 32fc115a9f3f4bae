//! `gristmill coordinator hardware`: the certificates that hold.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use gristmill_protocol::hardware::{CertificateView, CertificatesPage};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::ChallengeId;

use super::CoordinatorPlace;
use super::operator::OperatorCalls;
use crate::settings::FileSection;

/// The arguments of `gristmill coordinator hardware`.
#[derive(Debug, Args)]
pub struct HardwareArguments {
    /// Only this account's certificates [default: everybody's]
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<AccountId>,
    #[command(flatten)]
    place: CoordinatorPlace,
}

pub(super) async fn hardware(
    arguments: HardwareArguments,
    file: &FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let calls = OperatorCalls::new(&arguments.place, file, data_dir)?;
    let mut after: Option<ChallengeId> = None;
    let mut stdout = io::stdout().lock();
    let mut count = 0_usize;
    loop {
        let page: CertificatesPage = calls.certificates(arguments.account, after).await?;
        for view in &page.certificates {
            count += 1;
            match json {
                true => writeln!(stdout, "{}", serde_json::to_string(view)?)?,
                false => writeln!(stdout, "{}", line(view, gristmill_service::clock::unix_ms()))?,
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if count == 0 && !json {
        writeln!(io::stderr(), "No hardware is certified now.")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for people: whose, what, what it has shown, for how long.
fn line(view: &CertificateView, now_ms: u64) -> String {
    let certificate = &view.certificate;
    let rates: Vec<String> = certificate
        .throughput
        .iter()
        .map(|one| {
            format!(
                "{} {} GMAC/s",
                one.precision,
                one.multiply_adds_per_second / 1_000_000_000
            )
        })
        .collect();
    let mut marks = String::new();
    if certificate.fingerprint_changed {
        marks.push_str("  FINGERPRINT CHANGED");
    }
    if !view.renewable {
        marks.push_str("  to be challenged again");
    }
    format!(
        "{}  {} {} ({})  {} MiB  {}  score {}  for {} minutes{marks}",
        view.account,
        certificate.device.kind,
        certificate.device.index,
        certificate.device.name,
        certificate.memory_bytes >> 20,
        rates.join(", "),
        certificate.score,
        certificate.exp.saturating_sub(now_ms / 1_000) / 60,
    )
}
