//! `gristmill ledger evidence`: what convicts a coordinator, read and checked offline.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use gristmill_protocol::coordinator_api::{NetworkInfo, handover_from_text};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_protocol::log::evidence::{EVIDENCE_JSON_MAX_BYTES, Evidence};
use gristmill_transport::coordinator_client::all_known_keys;
use gristmill_transport::witness::evidence_directory;
use serde_json::json;

/// What can be done with evidence.
#[derive(Debug, Subcommand)]
pub enum EvidenceCommand {
    /// Tell what evidence says, in words
    #[command(after_help = "Examples:\n  gristmill ledger evidence show\n  \
                            gristmill ledger evidence show evidence.json --json")]
    Show(EvidenceArguments),
    /// Check evidence: exits with 0 when it convicts, with 1 when it does not
    #[command(after_help = "Example:\n  gristmill ledger evidence verify evidence.json\n\n\
                            Needs no network and trusts nobody. The log's first key is in the evidence; keys that it \
                            was handed over to are those that this installation has met, or those of --network, a file \
                            with what the coordinator answered at /v1/network.")]
    Verify(EvidenceArguments),
}

/// Where the evidence is.
#[derive(Debug, Args)]
pub struct EvidenceArguments {
    /// A file with evidence, or a folder of them [default: what this installation has found or heard of]
    place: Option<PathBuf>,
    /// A file with a coordinator's answer at /v1/network, for the keys that its log was handed over to
    #[arg(long, value_name = "FILE")]
    network: Option<PathBuf>,
}

/// Evidence in a file.
struct Found {
    file: PathBuf,
    evidence: Evidence,
}

pub(super) fn run(command: EvidenceCommand, data_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let (arguments, is_check) = match command {
        EvidenceCommand::Show(arguments) => (arguments, false),
        EvidenceCommand::Verify(arguments) => (arguments, true),
    };
    let place = arguments.place.unwrap_or_else(|| evidence_directory(data_dir));
    let all = read_all(&place)?;
    let mut convicts_all = true;
    let mut lines = Vec::new();
    for Found { file, evidence } in &all {
        let accused = evidence
            .accused()
            .with_context(|| format!("{} names no coordinator's log", file.display()))?;
        let keys = keys_of(accused, arguments.network.as_deref(), data_dir)?;
        let verdict = evidence.verify(&keys);
        convicts_all &= verdict.is_ok();
        let says = match &verdict {
            Ok(lie) => lie.to_string(),
            Err(error) => format!("convicts nobody: {error}"),
        };
        if json {
            let mut line = json!({
                "file": file, "log": keys.origin(), "convicts": verdict.is_ok(), "says": says,
            });
            if !is_check && let Some(object) = line.as_object_mut() {
                object.insert("evidence".into(), serde_json::to_value(evidence)?);
            }
            lines.push(line);
        } else {
            tell(
                file,
                &keys,
                &says,
                verdict.is_ok(),
                (!is_check).then_some(evidence),
            )?;
        }
    }
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&lines)?)?;
    } else if all.is_empty() {
        writeln!(io::stdout(), "There is no evidence in {}.", place.display())?;
    }
    let failed = is_check && (all.is_empty() || !convicts_all);
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn tell(file: &Path, keys: &LogKeys, says: &str, convicts: bool, shown: Option<&Evidence>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", file.display())?;
    writeln!(stdout, "  log      {}", keys.origin())?;
    writeln!(
        stdout,
        "  verdict  {}",
        if convicts { "PROVED" } else { "not proved" }
    )?;
    writeln!(stdout, "  says     {says}")?;
    let notes = match shown {
        None => Vec::new(),
        Some(Evidence::TwoRoots { first, second }) => vec![("checkpoint", first), ("checkpoint", second)],
        Some(Evidence::NotAnExtension { old, new, .. }) => {
            vec![("earlier checkpoint", old), ("later checkpoint", new)]
        }
        Some(Evidence::BrokenReceipt {
            receipt, checkpoint, ..
        }) => {
            writeln!(stdout, "\n  receipt\n\n    {receipt}")?;
            vec![("checkpoint", checkpoint)]
        }
    };
    for (name, note) in notes {
        writeln!(stdout, "\n  {name}\n")?;
        for line in note.to_string().lines() {
            writeln!(stdout, "    {line}")?;
        }
    }
    writeln!(stdout)
}

fn read_all(place: &Path) -> anyhow::Result<Vec<Found>> {
    let metadata = match fs::metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && place.ends_with("evidence") => {
            return Ok(Vec::new());
        }
        metadata => metadata.with_context(|| format!("cannot read {}", place.display()))?,
    };
    if metadata.is_file() {
        return Ok(vec![read(place)?]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

fn read(file: &Path) -> anyhow::Result<Found> {
    let most = EVIDENCE_JSON_MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|opened| opened.take(most).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", file.display()))?;
    let evidence = match bytes.first() {
        Some(b'{') => Evidence::from_json(&bytes),
        _ => Evidence::decode(&bytes),
    };
    Ok(Found {
        file: file.to_owned(),
        evidence: evidence.with_context(|| format!("{} holds no evidence", file.display()))?,
    })
}

/// The keys of the accused log: the first one is in its name, the others are known here or from a file. A hand-over
/// that does not hold leads to no key, whoever gave it.
fn keys_of(accused: AccountId, network: Option<&Path>, data_dir: &Path) -> anyhow::Result<LogKeys> {
    if let Some(file) = network {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let info: NetworkInfo = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not an answer of /v1/network", file.display()))?;
        if info.log.account != accused {
            bail!(
                "{} is of the log of {}, the evidence is against that of {accused}",
                file.display(),
                info.log.account
            );
        }
        let mut keys = LogKeys::new(accused);
        for text in &info.log.keys {
            keys.follow(&handover_from_text(text)?)?;
        }
        return Ok(keys);
    }
    let known = all_known_keys(data_dir)?;
    let of_accused = known.iter().map(|known| known.keys());
    let longest = of_accused
        .filter(|keys| *keys.first() == accused)
        .max_by_key(|keys| keys.keys().len());
    Ok(longest.cloned().unwrap_or_else(|| LogKeys::new(accused)))
}
