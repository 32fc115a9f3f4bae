//! `simulate resume`: goes on with what was stopped. A stopped run is a file: what was asked for, what is finished,
//! and the snapshot of the variant that was on its way. A stopped sweep is its folder.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{INTERRUPTED, run, sweep};
use crate::engine::Simulation;
use crate::results::RunResult;
use crate::scenario::plan::{Recipe, Variant};
use crate::world::MarketWorld;

/// The first bytes of a stopped run's file.
const MAGIC: &[u8; 8] = b"GRSTRUN\x01";
/// Most bytes of what stands before the snapshot.
const HEAD_MAX: u64 = 256 << 20;

/// What `simulate resume` is told.
#[derive(Clone, Debug, Args)]
pub struct Arguments {
    /// What the stopped command named: the file of a run, or the folder of a sweep
    #[arg(value_name = "FILE_OR_FOLDER")]
    place: PathBuf,
    #[command(flatten)]
    share: sweep::Share,
}

/// A command that was stopped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Paused {
    pub(super) recipe: Recipe,
    pub(super) seed: u64,
    pub(super) threads: usize,
    pub(super) output: Option<PathBuf>,
    pub(super) force: bool,
    /// The results of the first variants.
    pub(super) finished: Vec<RunResult>,
}

/// A snapshot that waits to be read.
pub(super) type Snapshot = BufReader<File>;

pub(super) fn resume(arguments: &Arguments, json: bool, stop: &AtomicBool) -> anyhow::Result<ExitCode> {
    let place = &arguments.place;
    if place.is_dir() {
        return sweep::go_on(place, &arguments.share, json, stop);
    }
    let (paused, snapshot) = read(place)?;
    run::check_output(paused.output.as_deref(), paused.force)?;
    let plan = paused
        .recipe
        .plan()
        .with_context(|| format!("{} is damaged", place.display()))?;
    let ended = run::go_on(paused, &plan, Some(snapshot), json, stop)?;
    // Stopped again, it has written its file anew, in this very place as a rule.
    if ended != ExitCode::from(INTERRUPTED) {
        std::fs::remove_file(place)
            .with_context(|| format!("{} is finished and could not be removed", place.display()))?;
    }
    Ok(ended)
}

/// Where a stopped run is kept: beside its results, or in the current folder.
pub(super) fn place(paused: &Paused) -> PathBuf {
    match &paused.output {
        Some(output) => {
            let mut name = output.as_os_str().to_owned();
            name.push(".stopped");
            PathBuf::from(name)
        }
        None => PathBuf::from(format!("{}-seed-{}.stopped", paused.recipe.name, paused.seed)),
    }
}

/// Writes a stopped run: beside its place first, so that a half one is never found.
pub(super) fn write(
    path: &Path,
    paused: &Paused,
    simulation: &mut Simulation<MarketWorld>,
    variant: &Variant,
) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let what = || format!("the stopped run could not be written to {}", path.display());
    let head = serde_json::to_vec(paused).with_context(what)?;
    let mut file = BufWriter::new(File::create(&beside).with_context(what)?);
    file.write_all(MAGIC).with_context(what)?;
    file.write_all(&u64::try_from(head.len()).unwrap_or(u64::MAX).to_le_bytes())
        .with_context(what)?;
    file.write_all(&head).with_context(what)?;
    simulation
        .write_snapshot(variant.identity(), &mut file)
        .with_context(what)?;
    let file = file
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .with_context(what)?;
    file.sync_all().with_context(what)?;
    std::fs::rename(&beside, path).with_context(what)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a stopped run is read before it goes on"
)]
fn read(path: &Path) -> anyhow::Result<(Paused, Snapshot)> {
    let what = || format!("{} holds no stopped run", path.display());
    let mut file = BufReader::new(File::open(path).with_context(what)?);
    let (mut magic, mut length) = ([0; 8], [0; 8]);
    file.read_exact(&mut magic).with_context(what)?;
    file.read_exact(&mut length).with_context(what)?;
    let length = u64::from_le_bytes(length);
    if magic != *MAGIC || length > HEAD_MAX {
        bail!("{}; name the file that a stopped run named", what());
    }
    let mut head = Vec::new();
    file.by_ref()
        .take(length)
        .read_to_end(&mut head)
        .with_context(what)?;
    let paused = serde_json::from_slice(&head).with_context(what)?;
    Ok((paused, file))
}
