//! The journal of vouchers on disk, and how it is made short again.
//!
//! Writing it anew goes through a second directory: `vouchers.new` is written and synced, `vouchers` becomes
//! `vouchers.old`, `vouchers.new` becomes `vouchers`, `vouchers.old` is deleted. Whatever interrupts this, one of
//! them is whole, and opening finds it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gristmill_ledger::journal::{Journal, JournalError, JournalOptions, NewRecord, Records};
use gristmill_ledger::record::{CONTENT_MAX_BYTES, JournalKind};
use gristmill_protocol::codec;

use crate::core::voucher_book::{VoucherBook, VoucherRecord};

/// Tells a journal of vouchers from others.
const KIND: JournalKind = *b"vouchers";
/// A file with fewer records than this is never worth writing anew.
const SHORT_RECORDS: usize = 1_000;
/// Records written between two syncs when the file is written anew.
const BATCH_RECORDS: usize = 1_000;
/// How often a reader tries again where a writer has just put a shorter file in place.
const READ_ATTEMPTS: u32 = 5;

fn options() -> JournalOptions {
    JournalOptions::new(KIND)
}

fn beside(directory: &Path, suffix: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    directory.with_file_name(name)
}

fn failed<'path>(action: &'static str, path: &'path Path) -> impl Fn(io::Error) -> JournalError + 'path {
    move |source| JournalError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Opens the journal and reads it; writes it anew where most of it is outdated.
pub(super) fn open(directory: &Path, now_ms: u64) -> Result<(Journal, VoucherBook), JournalError> {
    finish_interrupted_rewrite(directory)?;
    let (journal, records) = Journal::open(directory, options())?;
    if let Some(cut) = journal.cut_tail() {
        tracing::warn!(bytes = cut.bytes, kept_in = %cut.kept_in.display(), "a voucher was being written when the node stopped");
    }
    let (mut book, count) = replay(records)?;
    book.forget_ended(now_ms);
    let needed = book.records().count();
    if count < SHORT_RECORDS || count < needed * 2 {
        return Ok((journal, book));
    }
    drop(journal);
    let journal = rewrite(directory, &book, now_ms)?;
    tracing::debug!(
        before = count,
        after = needed,
        "the voucher file was written anew"
    );
    Ok((journal, book))
}

/// Appends records and syncs them.
pub(super) fn append(
    journal: &mut Journal,
    records: &[VoucherRecord],
    now_ms: u64,
) -> Result<(), JournalError> {
    let encode = |record| NewRecord {
        time_ms: now_ms,
        content: codec::encode(record),
    };
    let batch: Vec<_> = records.iter().map(encode).collect();
    if batch.is_empty() {
        return Ok(());
    }
    journal.append_batch(&batch)?;
    journal.sync()
}

/// Writes the file anew from a book. The journal in `directory` must not be open.
pub(super) fn rewrite(directory: &Path, book: &VoucherBook, now_ms: u64) -> Result<Journal, JournalError> {
    let (new, old) = (beside(directory, ".new"), beside(directory, ".old"));
    remove(&new)?;
    let (mut journal, _) = Journal::open(&new, options())?;
    let records: Vec<_> = book.records().collect();
    for batch in records.chunks(BATCH_RECORDS) {
        append(&mut journal, batch, now_ms)?;
    }
    drop(journal);
    remove(&old)?;
    fs::rename(directory, &old).map_err(failed("move", directory))?;
    fs::rename(&new, directory).map_err(failed("move", &new))?;
    sync_parent(directory)?;
    remove(&old)?;
    Ok(Journal::open(directory, options())?.0)
}

/// Brings the directories back to one after an interruption of [`rewrite`].
fn finish_interrupted_rewrite(directory: &Path) -> Result<(), JournalError> {
    let (new, old) = (beside(directory, ".new"), beside(directory, ".old"));
    if !directory.exists() && old.exists() {
        fs::rename(&old, directory).map_err(failed("move", &old))?;
        sync_parent(directory)?;
    }
    remove(&new)?;
    remove(&old)
}

fn remove(directory: &Path) -> Result<(), JournalError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("delete", directory)(error)),
        _ => Ok(()),
    }
}

/// Makes the names beside a directory durable. Windows keeps them without being asked and can't open directories.
#[cfg(unix)]
fn sync_parent(directory: &Path) -> Result<(), JournalError> {
    let parent = directory.parent().unwrap_or(directory);
    fs::File::open(parent)
        .and_then(|opened| opened.sync_all())
        .map_err(failed("sync", parent))
}

#[cfg(not(unix))]
fn sync_parent(_directory: &Path) -> Result<(), JournalError> {
    Ok(())
}

fn replay(records: Records) -> Result<(VoucherBook, usize), JournalError> {
    let (mut book, mut count) = (VoucherBook::default(), 0);
    for record in records {
        let (_, record) = record?;
        count += 1;
        match codec::decode::<VoucherRecord, CONTENT_MAX_BYTES>(&record.content) {
            Ok(content) => {
                book.apply(&content);
            }
            // The checksum holds, so a later version of this program wrote it.
            Err(error) => {
                tracing::warn!(sequence = record.sequence, %error, "a record of the voucher file is unknown");
            }
        }
    }
    Ok((book, count))
}

/// Reads the book without disturbing whoever writes it. Empty where there is no file.
///
/// # Errors
/// [`JournalError`] where the file is damaged or unreadable.
pub(crate) fn read_book(directory: &Path) -> Result<VoucherBook, JournalError> {
    let read = || match directory.exists() {
        true => Records::read(directory, KIND)
            .and_then(replay)
            .map(|(book, _)| book),
        false if beside(directory, ".old").exists() => Records::read(&beside(directory, ".old"), KIND)
            .and_then(replay)
            .map(|(book, _)| book),
        false => Ok(VoucherBook::default()),
    };
    for _ in 1..READ_ATTEMPTS {
        if let Ok(book) = read() {
            return Ok(book);
        }
    }
    read()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::voucher_book::tests::kept;

    fn filled(directory: &Path, vouchers: u32) -> VoucherBook {
        let (mut journal, mut book) = open(directory, 0).unwrap();
        let records: Vec<_> = (1..=vouchers)
            .map(|cumulative| kept(1, cumulative, u64::MAX))
            .collect();
        append(&mut journal, &records, 0).unwrap();
        for record in &records {
            book.apply(record);
        }
        book
    }

    fn count(directory: &Path) -> usize {
        Records::read(directory, KIND).unwrap().count()
    }

    #[test]
    fn a_file_of_outdated_vouchers_becomes_short_when_opened() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("vouchers");
        let book = filled(&directory, 1_500);
        assert_eq!(count(&directory), 1_500);
        let (journal, found) = open(&directory, 0).unwrap();
        assert_eq!(found, book);
        drop(journal);
        assert_eq!(count(&directory), 1);
        assert_eq!(read_book(&directory).unwrap(), book);
        let names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|item| item.unwrap().file_name())
            .collect();
        assert_eq!(names, ["vouchers"]);
    }

    #[test]
    fn an_interruption_at_any_step_of_a_rewrite_loses_nothing() {
        for step in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            let directory = folder.path().join("vouchers");
            let book = filled(&directory, 3);
            let (new, old) = (beside(&directory, ".new"), beside(&directory, ".old"));
            // Half a new file; the old one moved away; the new one in place and the old one not deleted.
            fs::create_dir(&new).unwrap();
            fs::write(new.join("00000001.log"), "half").unwrap();
            if step == 1 {
                fs::rename(&directory, &old).unwrap();
            }
            if step == 2 {
                fs::create_dir(&old).unwrap();
                fs::write(old.join("00000001.log"), "outdated").unwrap();
            }
            assert_eq!(read_book(&directory).unwrap(), book, "read at step {step}");
            let (_journal, found) = open(&directory, 0).unwrap();
            assert_eq!(found, book, "opened at step {step}");
            assert!(!new.exists() && !old.exists());
        }
    }

    #[test]
    fn damage_stops_the_start_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("vouchers");
        filled(&directory, 3);
        filled(&directory, 3);
        let path = directory.join("00000001.log");
        let mut bytes = fs::read(&path).unwrap();
        bytes[60] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(open(&directory, 0), Err(JournalError::Damaged { .. })));
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}
