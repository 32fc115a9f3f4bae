//! Finished requests on disk: one line of JSON each, a file for each month (UTC), readable by their owner alone.
//!
//! Files are only added to. A line that a power cut left half-written is passed over, and the next one begins anew.
//! Of months that are over there are sums, which are read in their place ([`MonthSums`]). Months that are too old go; what keys had spent in them stays in `carried.json`, since a key may be bounded for
//! ever.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use gristmill_protocol::credits::Credits;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::core::calendar::{Day, Month};
use crate::core::finished_request::{FinishedRequest, LINE_MAX_BYTES};
use crate::core::keys::KeyId;
use crate::core::usage_report::UsageTable;
use crate::private_file;

use super::month_sums::MonthSums;

/// The folder, in the data directory.
pub(crate) const FOLDER: &str = "client/usage";
/// Months of which every request is kept.
const MONTHS_KEPT: usize = 36;
const CARRIED_FILE: &str = "carried.json";
const CARRIED_MAX_BYTES: u64 = 16 << 20;
const EXTENSION: &str = "jsonl";

/// Why the usage can't be read or written.
#[derive(Debug, Error)]
#[error("the usage in {path} can't be {action}: {source}", path = path.display())]
pub struct UsageFileError {
    path: PathBuf,
    action: &'static str,
    source: io::Error,
}

pub(super) fn failed<'a>(path: &'a Path, action: &'static str) -> impl Fn(io::Error) -> UsageFileError + 'a {
    move |source| UsageFileError {
        path: path.to_owned(),
        action,
        source,
    }
}

/// What is left of months that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Carried {
    /// The last of them.
    through: Option<Month>,
    /// What keys had spent in them, in microcredits.
    spent: BTreeMap<KeyId, Credits>,
}

/// What is read back.
pub(crate) enum Remembered {
    /// A request.
    Request(Box<FinishedRequest>),
    /// All requests of a month that is over.
    Month(UsageTable),
    /// What a key had spent in a month that is over, or in those that are gone, and when that ended.
    Spent { key: KeyId, cost: Credits, at_ms: u64 },
}

/// Reads everything, the oldest month first.
pub(crate) fn read(folder: &Path, mut visit: impl FnMut(Remembered)) -> Result<(), UsageFileError> {
    let spent_until = |month: Month, spent: BTreeMap<KeyId, Credits>, visit: &mut dyn FnMut(Remembered)| {
        let at_ms = month.end_ms().saturating_sub(1);
        for (key, cost) in spent {
            visit(Remembered::Spent { key, cost, at_ms });
        }
    };
    let carried = read_carried(folder)?;
    if let Some(through) = carried.through {
        spent_until(through, carried.spent, &mut visit);
    }
    for month in months(folder)? {
        // Its sums were carried over already; the next start takes it away.
        if carried.through.is_some_and(|through| month <= through) {
            continue;
        }
        if let Some(sums) = MonthSums::load(folder, month)? {
            spent_until(month, sums.spent, &mut visit);
            visit(Remembered::Month(sums.table));
            continue;
        }
        read_month(folder, month, |request| {
            visit(Remembered::Request(Box::new(request)));
        })?;
    }
    Ok(())
}

/// Sums up months that are over, and takes those away that are too old.
pub(crate) fn tidy(folder: &Path, now_ms: u64) -> Result<(), UsageFileError> {
    let mut carried = read_carried(folder)?;
    let months = months(folder)?;
    let (old, kept) = months.split_at(months.len().saturating_sub(MONTHS_KEPT));
    for month in old {
        if carried.through.is_none_or(|through| *month > through) {
            for (key, cost) in MonthSums::of(folder, *month)?.spent {
                let sum = carried.spent.entry(key).or_default();
                *sum = sum.saturating_add(cost);
            }
            carried.through = Some(*month);
            let path = folder.join(CARRIED_FILE);
            // Strings and numbers always serialise.
            let json = serde_json::to_vec(&carried).unwrap_or_default();
            private_file::write(&path, &json).map_err(failed(&path, "written"))?;
        }
        MonthSums::remove(folder, *month)?;
        let path = month_path(folder, *month);
        fs::remove_file(&path).map_err(failed(&path, "removed"))?;
    }
    for month in kept {
        MonthSums::keep(folder, *month, now_ms)?;
    }
    Ok(())
}

fn read_carried(folder: &Path) -> Result<Carried, UsageFileError> {
    let path = folder.join(CARRIED_FILE);
    let bytes = private_file::read(&path, CARRIED_MAX_BYTES).map_err(failed(&path, "read"))?;
    match bytes {
        None => Ok(Carried::default()),
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| failed(&path, "read")(error.into())),
    }
}

pub(super) fn month_path(folder: &Path, month: Month) -> PathBuf {
    folder.join(format!("{month}.{EXTENSION}"))
}

/// The months of which there are files, the oldest first.
fn months(folder: &Path) -> Result<Vec<Month>, UsageFileError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(folder, "read")(error)),
    };
    let mut months = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed(folder, "read"))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if path.extension().is_some_and(|extension| extension == EXTENSION)
            && let Some(month) = stem.and_then(|stem| stem.parse().ok())
        {
            months.push(month);
        }
    }
    months.sort_unstable();
    Ok(months)
}

pub(super) fn read_month(
    folder: &Path,
    month: Month,
    mut visit: impl FnMut(FinishedRequest),
) -> Result<(), UsageFileError> {
    let path = month_path(folder, month);
    let file = File::open(&path).map_err(failed(&path, "read"))?;
    let mut lines = BufReader::new(file);
    let (mut line, mut unreadable) = (Vec::new(), 0_u64);
    loop {
        line.clear();
        let limit = LINE_MAX_BYTES as u64;
        let read = lines.by_ref().take(limit).read_until(b'\n', &mut line);
        if read.map_err(failed(&path, "read"))? == 0 {
            break;
        }
        if line.len() == LINE_MAX_BYTES && line.last() != Some(&b'\n') {
            lines.skip_until(b'\n').map_err(failed(&path, "read"))?;
        }
        match FinishedRequest::from_line(&line) {
            Some(request) => visit(request),
            None => unreadable += u64::from(line != b"\n"),
        }
    }
    if unreadable > 0 {
        tracing::warn!(file = %path.display(), lines = unreadable, "lines of the usage are unreadable and passed over");
    }
    Ok(())
}

/// Adds to the files.
pub(crate) struct UsageFiles {
    folder: PathBuf,
    open: Option<(Month, File)>,
    is_unsynced: bool,
}

impl UsageFiles {
    /// Files in a folder, which need not be there yet.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            open: None,
            is_unsynced: false,
        }
    }

    /// Adds a request to the file of the month in which it began.
    pub(crate) fn append(&mut self, request: &FinishedRequest) -> Result<(), UsageFileError> {
        let month = Day::of(request.started_at_ms).month();
        let path = month_path(&self.folder, month);
        let written = failed(&path, "written");
        if self.open.as_ref().is_none_or(|(open, _)| *open != month) {
            self.sync()?;
            self.open = None;
        }
        let file = match &mut self.open {
            Some((_, file)) => file,
            None => &mut self.open.insert((month, open_month(&path).map_err(&written)?)).1,
        };
        // In one piece, so that others never read half a line.
        let added = file.write_all(&request.to_line());
        if added.is_err() {
            // What was half-written is closed off when the file is opened again.
            self.open = None;
        }
        self.is_unsynced = true;
        added.map_err(written)
    }

    /// Whether everything that was added outlives a power cut.
    pub(crate) const fn is_synced(&self) -> bool {
        !self.is_unsynced
    }

    /// Makes what was added outlive a power cut.
    pub(crate) fn sync(&mut self) -> Result<(), UsageFileError> {
        if !std::mem::take(&mut self.is_unsynced) {
            return Ok(());
        }
        match &self.open {
            Some((month, file)) => {
                let path = month_path(&self.folder, *month);
                file.sync_data().map_err(failed(&path, "written"))
            }
            None => Ok(()),
        }
    }
}

/// Opens a month's file and ends a line that was left half-written.
fn open_month(path: &Path) -> io::Result<File> {
    let mut file = private_file::open_to_append(path)?;
    if file.metadata()?.len() > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
        }
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::finished_request::tests::finished;

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

    fn everything(folder: &Path) -> (Vec<FinishedRequest>, Credits) {
        let (mut requests, mut carried) = (Vec::new(), Credits::ZERO);
        let visit = |found| match found {
            Remembered::Request(request) => requests.push(*request),
            Remembered::Month(_) => panic!("nothing is summed up here"),
            Remembered::Spent { cost, .. } => carried = carried.saturating_add(cost),
        };
        read(folder, visit).unwrap();
        (requests, carried)
    }

    #[test]
    fn requests_are_read_as_they_were_added_month_by_month() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("client/usage");
        assert_eq!(everything(&folder), (vec![], Credits::ZERO));
        let (first, second, late) = (
            finished(1, 0, 5),
            finished(2, 40 * DAY_MS, 6),
            finished(3, 30 * DAY_MS, 7),
        );
        let mut files = UsageFiles::new(folder.clone());
        for request in [&first, &second, &late] {
            files.append(request).unwrap();
        }
        files.sync().unwrap();
        assert_eq!(everything(&folder).0, [first, late, second]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(folder.join("1970-01.jsonl"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_power_cut_at_any_byte_costs_one_line_at_most() {
        let (before, cut, after) = (finished(1, 0, 5), finished(2, 0, 6), finished(3, 0, 7));
        let line = cut.to_line();
        for kept in 0..line.len() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("1970-01.jsonl");
            fs::write(&path, [before.to_line().as_slice(), &line[..kept]].concat()).unwrap();
            UsageFiles::new(folder.path().to_owned()).append(&after).unwrap();
            let (requests, _) = everything(folder.path());
            // Only its end was lost.
            let is_whole = kept == line.len() - 1;
            let expected = [Some(&before), is_whole.then_some(&cut), Some(&after)];
            assert!(requests.iter().eq(expected.into_iter().flatten()), "{kept}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_no_reason_to_read_it_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1970-01.jsonl");
        let long = [
            vec![b'x'; 3 * LINE_MAX_BYTES],
            b"\n".to_vec(),
            finished(1, 0, 5).to_line(),
        ];
        fs::write(&path, long.concat()).unwrap();
        assert_eq!(everything(folder.path()).0, [finished(1, 0, 5)]);
    }

    #[test]
    fn old_months_go_and_what_keys_had_spent_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut files = UsageFiles::new(folder.to_owned());
        // The first of each month is within its 31 days.
        let mut months = Vec::new();
        let mut at_ms = 0;
        for number in 0..MONTHS_KEPT + 2 {
            files.append(&finished(1, at_ms, 1 << number.min(3))).unwrap();
            months.push(at_ms);
            at_ms = Day::of(at_ms).month().end_ms();
        }
        let old = fs::read(folder.join("1970-01.jsonl")).unwrap();
        tidy(folder, 0).unwrap();
        let (requests, carried) = everything(folder);
        assert_eq!((requests.len(), carried), (MONTHS_KEPT, Credits::micro(3)));
        assert_eq!(requests[0].started_at_ms, months[2]);
        // The process was killed after the sums were written and before the file was gone.
        fs::write(folder.join("1970-01.jsonl"), old).unwrap();
        assert_eq!(everything(folder).1, Credits::micro(3));
        tidy(folder, 0).unwrap();
        assert_eq!(everything(folder), (requests, carried), "nothing counts twice");
    }
}
