//! `gristmill benchmark verify`: checks an offline proof.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::json;

use crate::prover::offline::{OFFLINE_FILE_MAX_BYTES, OfflineProof};

/// Which proof.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// The file that `gristmill benchmark run --offline` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Verifies a file: exit code 0 where it holds, 1 where it doesn't.
pub(super) fn run(arguments: &Arguments, json: bool) -> anyhow::Result<ExitCode> {
    let path = &arguments.file;
    let proof = read(path).with_context(|| format!("{} could not be read", path.display()))?;
    let parameters = &proof.header.transcript.parameters;
    let verdict = proof.verify();
    if json {
        let value = json!({
            "file": path,
            "holds": verdict.is_ok(),
            "reason": verdict.as_ref().err().map(ToString::to_string),
            "units": verdict.as_ref().ok().map(|verified| verified.units),
            "resident_units": verdict.as_ref().ok().map(|verified| verified.resident_units),
            "parameters": parameters,
            "claim": proof.header.claim,
        });
        writeln!(io::stdout(), "{value:#}")?;
    }
    match verdict {
        Ok(verified) => {
            if !json {
                writeln!(
                    io::stdout(),
                    "holds: {} of {} units and {} resident units were computed anew and are right",
                    verified.units,
                    parameters.openings,
                    verified.resident_units
                )?;
                writeln!(
                    io::stderr(),
                    "It shows that the work was done, not when, how fast or by which device: only a coordinator's \
                     certificate does."
                )?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            if !json {
                writeln!(io::stdout(), "shows nothing: {error}")?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn read(path: &Path) -> anyhow::Result<OfflineProof> {
    let mut bytes = Vec::new();
    // One byte more than there can be, so that a longer file is told from one that is just as long.
    std::fs::File::open(path)?
        .take(OFFLINE_FILE_MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= OFFLINE_FILE_MAX_BYTES,
        "it is longer than any offline proof ({OFFLINE_FILE_MAX_BYTES} bytes)"
    );
    Ok(OfflineProof::decode(&bytes)?)
}
