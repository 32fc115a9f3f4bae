//! Folders of runs and experiments: the only part of the results that touches files.
//!
//! A folder appears whole or not at all: it is written beside its place and renamed. What is read may be from anybody;
//! no file is read beyond a limit.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::comma_separated::{self, TableError};
use super::table::{Table, Tables, tables};
use super::{Experiment, FORMAT, Manifest, ResultError, RunResult, report};

/// A run's manifest: what makes a folder a run's folder.
pub const MANIFEST: &str = "manifest.json";
/// The scenario as it was run.
pub const SCENARIO: &str = "scenario.toml";
/// What makes a folder an experiment's folder.
pub const EXPERIMENT: &str = "experiment.json";
/// The report for people.
pub const REPORT: &str = "report.html";
/// The folder of an experiment's runs.
pub const RUNS: &str = "runs";

const METRICS: &str = "metrics";
const SERIES: &str = "series";
const DISTRIBUTIONS: &str = "distributions";
const TABLES: &str = "tables.csv";

const MEBIBYTE: u64 = 1 << 20;
const MANIFEST_LIMIT: u64 = 4 * MEBIBYTE;
const SCENARIO_LIMIT: u64 = MEBIBYTE;
const TABLE_LIMIT: u64 = 512 * MEBIBYTE;
/// The most runs of one experiment.
pub const MAX_RUNS: usize = 100_000;

/// What to do where the folder is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it and say so.
    Refuse,
    /// Replace it, if it holds a result.
    Replace,
}

/// Why a result was not stored. The folder is as it was before.
#[derive(Debug, Error)]
pub enum WriteError {
    /// Something is there already.
    #[error("{} is there already; name another folder with --output, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// What is there is no result.
    #[error("{} holds something else than a result and is not replaced; name another folder with --output", .0.display())]
    Foreign(PathBuf),
    /// The result itself cannot be written down.
    #[error(transparent)]
    Result(#[from] ResultError),
    /// A file or folder cannot be written.
    #[error("{} could not be written: {source}; is there room, and may this user write there?", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file's content could not be put together.
    #[error("{} could not be put together: {problem}", path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Why a folder is not read as a result.
#[derive(Debug, Error)]
pub enum ReadError {
    /// A file that cannot be read.
    #[error("{} could not be read: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that is too large to be what it should be.
    #[error("{} is larger than {} MiB, so it is no file of a result", path.display(), limit / MEBIBYTE)]
    TooLarge {
        /// Which one.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// A file that is not what it should be.
    #[error("{} is damaged: {problem}; run it again with --force", path.display())]
    Damaged {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A result of a newer program.
    #[error("{} has format {format}, and this program knows {FORMAT} at most; update it", path.display())]
    Newer {
        /// The manifest.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// No result at all.
    #[error("{} holds no result: it has neither {MANIFEST} nor {EXPERIMENT}", .0.display())]
    NoResult(PathBuf),
    /// More runs than one experiment may have.
    #[error("{} holds more than {MAX_RUNS} runs; merge them in parts", .0.display())]
    TooMany(PathBuf),
}

/// Stores a run in a folder of its own, with its report. Series, distributions and tables without a single row are left out.
///
/// # Errors
/// [`WriteError`]; nothing is there then that was not there before.
pub fn write_run(folder: &Path, run: &RunResult, existing: Existing) -> Result<(), WriteError> {
    run.check()?;
    appear(folder, existing, |inside| {
        fill_run(inside, run)?;
        let page = report::page(&Experiment::of_run(run.clone()));
        put(&inside.join(REPORT), page.as_bytes())
    })
}

/// Stores an experiment: its runs, their figures in merged tables, and the report.
///
/// # Errors
/// [`WriteError`]; nothing is there then that was not there before.
pub fn write_experiment(
    folder: &Path,
    experiment: &Experiment,
    existing: Existing,
) -> Result<(), WriteError> {
    experiment.runs.iter().try_for_each(RunResult::check)?;
    appear(folder, existing, |inside| {
        for (place, run) in experiment.runs.iter().enumerate() {
            let folder = inside.join(RUNS).join(run_name(place, run));
            make_folder(&folder)?;
            fill_run(&folder, run)?;
        }
        fill_experiment(inside, experiment)
    })
}

/// Renews the merged tables and the report of an experiment whose runs are in its folder already, each file whole.
///
/// # Errors
/// [`WriteError`]; files that were renewed before the error stay.
pub fn renew_experiment(folder: &Path, experiment: &Experiment) -> Result<(), WriteError> {
    experiment.runs.iter().try_for_each(RunResult::check)?;
    fill_experiment(folder, experiment)
}

/// A folder's name for a run of an experiment, in their order.
#[must_use]
pub fn run_name(place: usize, run: &RunResult) -> String {
    format!("{place:05}-seed-{}", run.manifest.seed)
}

/// Reads a run's folder.
///
/// # Errors
/// [`ReadError`] naming the file and what is wrong with it.
pub fn read_run(folder: &Path) -> Result<RunResult, ReadError> {
    let path = folder.join(MANIFEST);
    if !path.is_file() {
        return Err(ReadError::NoResult(folder.to_owned()));
    }
    let manifest: Manifest = json(&path)?;
    if manifest.format > FORMAT {
        let format = manifest.format;
        return Err(ReadError::Newer { path, format });
    }
    let scenario_path = folder.join(SCENARIO);
    let scenario = String::from_utf8(bounded(&scenario_path, SCENARIO_LIMIT)?)
        .map_err(|_| damaged(&scenario_path, "it is no UTF-8"))?;
    if RunResult::digest_of(&scenario) != manifest.scenario_digest {
        let problem = "it is not the scenario that was run: its digest differs from the manifest's";
        return Err(damaged(&scenario_path, problem));
    }
    let named = |name: &str| folder.join(format!("{name}.csv"));
    let run = RunResult {
        manifest,
        scenario,
        metrics: table(&named(METRICS), comma_separated::read_metrics)?,
        series: table(&named(SERIES), comma_separated::read_series)?,
        distributions: table(&named(DISTRIBUTIONS), comma_separated::read_distributions)?,
        tables: table(&folder.join(TABLES), comma_separated::read_listings)?,
    };
    run.check().map_err(|error| damaged(folder, error))?;
    Ok(run)
}

/// Reads an experiment's folder, or a run's as an experiment of one run.
///
/// # Errors
/// [`ReadError`] naming the file and what is wrong with it.
pub fn read_experiment(folder: &Path) -> Result<Experiment, ReadError> {
    let path = folder.join(EXPERIMENT);
    if !path.is_file() {
        return read_run(folder).map(Experiment::of_run);
    }
    let mut experiment: Experiment = json(&path)?;
    experiment.runs = Vec::new();
    for run in run_folders(folder)? {
        experiment.runs.push(read_run(&run)?);
    }
    Ok(experiment)
}

/// Reads all runs in some folders, of whichever runs or experiments they are, to be merged.
///
/// # Errors
/// [`ReadError`] naming the first file that is wrong, and what is.
pub fn read_runs(folders: &[PathBuf]) -> Result<Vec<RunResult>, ReadError> {
    let mut runs = Vec::new();
    for folder in folders {
        for run in run_folders(folder)? {
            runs.push(read_run(&run)?);
        }
        if runs.len() > MAX_RUNS {
            return Err(ReadError::TooMany(folder.clone()));
        }
    }
    Ok(runs)
}

/// The folders of runs in a folder and in those in it, three deep, in the order of their names.
///
/// # Errors
/// [`ReadError`] where a folder cannot be listed or there are too many.
pub fn run_folders(folder: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let mut found = Vec::new();
    search(folder, 3, &mut found)?;
    if found.is_empty() {
        return Err(ReadError::NoResult(folder.to_owned()));
    }
    Ok(found)
}

fn search(folder: &Path, depth: u32, found: &mut Vec<PathBuf>) -> Result<(), ReadError> {
    if folder.join(MANIFEST).is_file() {
        found.push(folder.to_owned());
        return if found.len() > MAX_RUNS {
            Err(ReadError::TooMany(folder.to_owned()))
        } else {
            Ok(())
        };
    }
    let failed = |source| ReadError::File {
        path: folder.to_owned(),
        source,
    };
    let mut inner = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Not through links: they may lead round in a circle.
        if depth > 0 && !is_hidden && entry.file_type().map_err(failed)?.is_dir() {
            inner.push(entry.path());
        }
    }
    inner.sort();
    inner
        .iter()
        .try_for_each(|folder| search(folder, depth - 1, found))
}

fn damaged(path: &Path, problem: impl ToString) -> ReadError {
    ReadError::Damaged {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ReadError> {
    let text = bounded(path, MANIFEST_LIMIT)?;
    serde_json::from_slice(&text).map_err(|error| damaged(path, error))
}

fn table<T>(path: &Path, read: fn(&[u8]) -> Result<T, TableError>) -> Result<T, ReadError> {
    let text = bounded(path, TABLE_LIMIT)?;
    read(&text).map_err(|error| damaged(path, error))
}

#[expect(
    clippy::disallowed_methods,
    reason = "results are stored and read after a run, never within one"
)]
fn bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let failed = |source| ReadError::File {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // The size that the system tells is not asked for: it may change meanwhile.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        let path = path.to_owned();
        return Err(ReadError::TooLarge { path, limit });
    }
    Ok(bytes)
}

fn fill_run(folder: &Path, run: &RunResult) -> Result<(), WriteError> {
    put(&folder.join(MANIFEST), &as_json(folder, &run.manifest)?)?;
    put(&folder.join(SCENARIO), run.scenario.as_bytes())?;
    put_tables(folder, &tables(std::slice::from_ref(run)))?;
    let path = folder.join(TABLES);
    let listings = comma_separated::write_listings(&run.tables).map_err(|error| content(&path, error))?;
    put(&path, &listings)
}

fn fill_experiment(folder: &Path, experiment: &Experiment) -> Result<(), WriteError> {
    // The runs lie in folders of their own.
    let told = Experiment {
        name: experiment.name.clone(),
        answer: experiment.answer.clone(),
        grid: experiment.grid.clone(),
        missing: experiment.missing.clone(),
        runs: Vec::new(),
    };
    put(&folder.join(EXPERIMENT), &as_json(folder, &told)?)?;
    put_tables(folder, &tables(&experiment.runs))?;
    put(&folder.join(REPORT), report::page(experiment).as_bytes())
}

fn as_json(folder: &Path, value: &impl serde::Serialize) -> Result<Vec<u8>, WriteError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| content(folder, error))?;
    text.push(b'\n');
    Ok(text)
}

fn put_tables(folder: &Path, tables: &Tables) -> Result<(), WriteError> {
    for (name, table) in [
        (METRICS, &tables.metrics),
        (SERIES, &tables.series),
        (DISTRIBUTIONS, &tables.distributions),
    ] {
        let path = folder.join(format!("{name}.csv"));
        put(
            &path,
            &comma_separated::write(table).map_err(|error| content(&path, error))?,
        )?;
        put_parquet(&folder.join(format!("{name}.parquet")), table)?;
    }
    Ok(())
}

#[cfg(feature = "parquet")]
fn put_parquet(path: &Path, table: &Table) -> Result<(), WriteError> {
    put(
        path,
        &super::parquet::write(table).map_err(|error| content(path, error))?,
    )
}

#[cfg(not(feature = "parquet"))]
fn put_parquet(_path: &Path, _table: &Table) -> Result<(), WriteError> {
    Ok(())
}

fn content(path: &Path, problem: impl ToString) -> WriteError {
    WriteError::Content {
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> WriteError + '_ {
    |source| WriteError::File {
        path: path.to_owned(),
        source,
    }
}

/// Writes a file whole or not at all.
fn put(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let beside = beside(path, "partial");
    let written = std::fs::File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        // Before the rename, or a crash could leave the name without the content.
        file.sync_all()
    });
    written
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|source| {
            let _ = std::fs::remove_file(&beside);
            failed(path)(source)
        })
}

fn make_folder(path: &Path) -> Result<(), WriteError> {
    std::fs::create_dir_all(path).map_err(failed(path))
}

/// A hidden name in the same folder, of this process alone.
fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{what}-{}", std::process::id()))
}

/// Makes a folder with its content appear at once.
fn appear(
    folder: &Path,
    existing: Existing,
    fill: impl FnOnce(&Path) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    may_appear(folder, existing)?;
    let partial = beside(folder, "partial");
    let _ = std::fs::remove_dir_all(&partial);
    make_folder(&partial)?;
    let filled = fill(&partial).and_then(|()| take_the_place(&partial, folder, existing));
    if filled.is_err() {
        let _ = std::fs::remove_dir_all(&partial);
    }
    filled
}

fn may_appear(folder: &Path, existing: Existing) -> Result<(), WriteError> {
    if !folder.exists() && !folder.is_symlink() {
        return Ok(());
    }
    if existing == Existing::Refuse {
        return Err(WriteError::Exists(folder.to_owned()));
    }
    // What --force removes must be ours: a slip of the keys must not cost somebody's home.
    let is_result = [MANIFEST, EXPERIMENT]
        .iter()
        .any(|file| folder.join(file).is_file());
    if is_result && !folder.is_symlink() {
        return Ok(());
    }
    Err(WriteError::Foreign(folder.to_owned()))
}

fn take_the_place(partial: &Path, folder: &Path, existing: Existing) -> Result<(), WriteError> {
    may_appear(folder, existing)?;
    if !folder.exists() {
        return std::fs::rename(partial, folder).map_err(failed(folder));
    }
    let replaced = beside(folder, "replaced");
    std::fs::rename(folder, &replaced).map_err(failed(folder))?;
    if let Err(source) = std::fs::rename(partial, folder) {
        let _ = std::fs::rename(&replaced, folder);
        return Err(failed(folder)(source));
    }
    std::fs::remove_dir_all(&replaced).map_err(failed(&replaced))
}

#[cfg(test)]
mod tests;
