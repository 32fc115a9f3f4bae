//! How a start grows with the journal: a journal of settlements is written, and a new process opens it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use gristmill_ledger::entry::{Entry, Settle};
use gristmill_ledger::journal::{Journal, JournalOptions, NewRecord};
use gristmill_ledger::store::{LEDGER_JOURNAL, journal_directory};
use gristmill_ledger::{EmbeddedOptions, Ledger};
use serde::{Deserialize, Serialize};

use super::load::disk_bytes;
use super::workload::{CHANNELS, Market, now_ms};

const BATCH: usize = 4_096;

/// What a start took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) records: u64,
    pub(super) seconds: f64,
    pub(super) resident_mebibytes: f64,
}

/// Starts over a journal of so many records.
#[derive(Debug, Serialize)]
pub(super) struct Starts {
    pub(super) records: u64,
    pub(super) disk_bytes: u64,
    /// Nothing there but the journal: book, index and snapshot are made.
    pub(super) from_the_journal_alone: Start,
    /// As after a stop in order.
    pub(super) usual: Start,
}

pub(super) fn measure(market: &Market, folder: &Path, records: u64) -> anyhow::Result<Starts> {
    write_journal(market, folder, records)?;
    let from_the_journal_alone = open_in_a_new_process(folder)?;
    let usual = open_in_a_new_process(folder)?;
    ensure!(
        usual.records == records,
        "{} of {records} records are there",
        usual.records
    );
    Ok(Starts {
        records,
        disk_bytes: disk_bytes(folder)?,
        from_the_journal_alone,
        usual,
    })
}

/// A journal as a ledger with these entries leaves it, written without one: real vouchers, nobody waits for a sync.
fn write_journal(market: &Market, folder: &Path, records: u64) -> anyhow::Result<()> {
    let options = JournalOptions::new(LEDGER_JOURNAL);
    let (mut journal, _) = Journal::open(&journal_directory(folder), options)?;
    let mut written = 0;
    let mut append = |entries: Vec<Entry>| -> anyhow::Result<u64> {
        for chunk in entries.chunks(BATCH) {
            let batch: Vec<NewRecord> = chunk.iter().map(record).collect();
            journal.append_batch(&batch)?;
            written += u64::try_from(batch.len())?;
        }
        journal.sync()?;
        Ok(written)
    };
    let mut count = append(market.opening())?;
    let mut round = 1;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    while count < records {
        let missing = records - count;
        let rounds = u32::try_from(missing.div_ceil(CHANNELS).min(100))?;
        let queues = market.queues(cores, round, rounds);
        let entries = queues.into_iter().flatten().map(|voucher| {
            let channel = voucher.content_unchecked().channel;
            Entry::Settle(Settle { channel, voucher })
        });
        count = append(entries.take(usize::try_from(missing)?).collect())?;
        round += rounds;
    }
    Ok(())
}

fn record(entry: &Entry) -> NewRecord {
    NewRecord {
        time_ms: now_ms(),
        content: entry.encode_salted(&[4; 16]),
    }
}

fn open_in_a_new_process(folder: &Path) -> anyhow::Result<Start> {
    let output = Command::new(std::env::current_exe()?)
        .args(["bench", "ledger", "--open-only"])
        .arg(folder)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "opening {} failed", folder.display());
    serde_json::from_slice(&output.stdout).context("the opening process said something else than its figures")
}

/// What that process does: opens, says what it took, ends in order.
#[expect(clippy::print_stdout, reason = "the figures are what the command is for")]
pub(super) async fn open_only(folder: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let ledger = Ledger::open(folder, &EmbeddedOptions::default())?;
    let seconds = started.elapsed().as_secs_f64();
    let start = Start {
        records: ledger.head().await?.sequence,
        seconds,
        resident_mebibytes: super::super::report::resident_mebibytes(std::process::id()).unwrap_or_default(),
    };
    ledger.shutdown().await?;
    println!("{}", serde_json::to_string(&start)?);
    Ok(())
}
