//! The sums of a month that is over, beside its file: so that a start does not read years of requests one by one.
//! They are made from the file and can be made again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gristmill_protocol::credits::Credits;
use serde::{Deserialize, Serialize};

use super::store::{UsageFileError, failed, month_path, read_month};
use crate::core::calendar::{Day, Month};
use crate::core::finished_request::FinishedRequest;
use crate::core::keys::KeyId;
use crate::core::usage_report::UsageTable;
use crate::private_file;

const FILE_MAX_BYTES: u64 = 256 << 20;

/// The sums of a month.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MonthSums {
    /// The length of the file that they were made from: a request that began in the month may end after it.
    of_bytes: u64,
    /// By day, model, key and provider.
    pub(crate) table: UsageTable,
    /// What each key spent.
    pub(crate) spent: BTreeMap<KeyId, Credits>,
}

impl MonthSums {
    fn add(&mut self, request: &FinishedRequest) {
        self.table.add(request);
        if let Some(key) = request.key_id {
            let sum = self.spent.entry(key).or_default();
            *sum = sum.saturating_add(request.cost);
        }
    }

    /// Reads a month's requests.
    pub(super) fn of(folder: &Path, month: Month) -> Result<Self, UsageFileError> {
        let mut sums = Self {
            // Before it is read: what is added meanwhile makes them stale.
            of_bytes: file_bytes(folder, month)?,
            ..Self::default()
        };
        read_month(folder, month, |request| sums.add(&request))?;
        Ok(sums)
    }

    /// The sums that were written down, where there are some and they are those of the file as it is.
    pub(super) fn load(folder: &Path, month: Month) -> Result<Option<Self>, UsageFileError> {
        let path = path(folder, month);
        let bytes = private_file::read(&path, FILE_MAX_BYTES).map_err(failed(&path, "read"))?;
        // What makes no sense is made anew.
        let sums: Option<Self> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let of_bytes = file_bytes(folder, month)?;
        Ok(sums.filter(|sums| sums.of_bytes == of_bytes))
    }

    /// Writes down the sums of a month that is long over, where they are not.
    pub(super) fn keep(folder: &Path, month: Month, now_ms: u64) -> Result<(), UsageFileError> {
        // The newest requests are listed one by one, so that the month before this one is read as well.
        let is_long_over = Day::of(month.end_ms()).month() < Day::of(now_ms).month();
        if !is_long_over || Self::load(folder, month)?.is_some() {
            return Ok(());
        }
        let path = path(folder, month);
        // Strings, numbers and lists of them always serialise.
        let json = serde_json::to_vec(&Self::of(folder, month)?).unwrap_or_default();
        private_file::write(&path, &json).map_err(failed(&path, "written"))
    }

    /// Takes them away.
    pub(super) fn remove(folder: &Path, month: Month) -> Result<(), UsageFileError> {
        let path = path(folder, month);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed(&path, "removed")(error))
            }
            _ => Ok(()),
        }
    }
}

fn path(folder: &Path, month: Month) -> PathBuf {
    folder.join(format!("{month}.sums.json"))
}

fn file_bytes(folder: &Path, month: Month) -> Result<u64, UsageFileError> {
    let path = month_path(folder, month);
    let metadata = fs::metadata(&path).map_err(failed(&path, "read"))?;
    Ok(metadata.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::finished_request::tests::finished;
    use crate::core::usage_report::GroupBy;
    use crate::usage::store::{Remembered, UsageFiles, read, tidy};

    const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

    /// How many requests are read one by one, and the sums of everything.
    fn everything(folder: &Path) -> (usize, Vec<(String, u64, u64)>, Credits) {
        let (mut one_by_one, mut table, mut spent) = (0, UsageTable::default(), Credits::ZERO);
        let visit = |remembered| match remembered {
            Remembered::Request(request) => {
                one_by_one += 1;
                spent = spent.saturating_add(request.cost);
                table.add(&request);
            }
            Remembered::Month(sums) => table.merge(sums),
            Remembered::Spent { cost, .. } => spent = spent.saturating_add(cost),
        };
        read(folder, visit).unwrap();
        let rows = table.report(GroupBy::Provider, None, None).rows;
        let days = table.report(GroupBy::Day, None, None).rows;
        let plain = |row: crate::core::usage_report::ReportRow| {
            (row.group, row.sums.requests, row.sums.cost.microcredits())
        };
        (
            one_by_one,
            rows.into_iter().chain(days).map(plain).collect(),
            spent,
        )
    }

    #[test]
    fn sums_stand_for_months_that_are_long_over_until_those_change() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut files = UsageFiles::new(folder.to_owned());
        for (number, day) in (1..).zip([0, 1, 35, 70]) {
            files.append(&finished(number, day * DAY_MS, 10)).unwrap();
        }
        let before = everything(folder);
        assert_eq!((before.0, before.2), (4, Credits::micro(40)));
        let now_ms = 75 * DAY_MS;
        tidy(folder, now_ms).unwrap();
        let after = everything(folder);
        assert_eq!(after.0, 2, "only January is long over in March");
        assert_eq!((&after.1, after.2), (&before.1, before.2));
        // A request that began in January ends in March.
        files.append(&finished(9, 2 * DAY_MS, 5)).unwrap();
        let late = everything(folder);
        assert_eq!(
            (late.0, late.2),
            (5, Credits::micro(45)),
            "stale sums are not used"
        );
        tidy(folder, now_ms).unwrap();
        assert_eq!(everything(folder), (2, late.1, late.2));
        fs::write(folder.join("1970-01.sums.json"), "{").unwrap();
        assert_eq!(everything(folder).0, 5, "what makes no sense is no matter");
    }
}
