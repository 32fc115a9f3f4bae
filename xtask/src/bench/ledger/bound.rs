//! The two terms of the bound `batch / (t_fsync + batch * t_cpu)`: what a sync of one batch takes on this disk, and
//! what the unavoidable computing of one settlement takes on all cores of this machine.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use gristmill_ledger::book::{Applied, Book};
use gristmill_ledger::entry::{CheckedEntry, Entry, Settle};
use gristmill_ledger::outcome::Posted;
use gristmill_ledger::record::record_hash;

use super::super::report::median;
use super::workload::{Market, now_ms};

/// Bytes of a settlement's record in the journal, about; measured exactly elsewhere.
const RECORD_BYTES: usize = 300;
const SYNCS: usize = 200;

/// The terms of the bound, for a batch of so many settlements.
pub(super) struct Bound {
    pub(super) batch: usize,
    /// The median time of one `fdatasync` of a batch, in seconds.
    pub(super) sync_seconds: f64,
    /// Computing per settlement, all cores at work, in seconds.
    pub(super) cpu_seconds: f64,
    /// The parts of it, on one core, in microseconds.
    pub(super) parts_micros: [(&'static str, f64); 4],
}

impl Bound {
    /// Settlements per second that can't be passed.
    pub(super) fn per_second(&self) -> f64 {
        let batch = wide(self.batch);
        batch / (self.sync_seconds + batch * self.cpu_seconds)
    }
}

pub(super) fn measure(market: &Market, folder: &Path, batch: usize) -> anyhow::Result<Bound> {
    let sync_seconds = sync_seconds(folder, batch * RECORD_BYTES)?;
    let (entries, posted) = settlements(market)?;
    let parts = [
        (
            "verify the voucher",
            micros(&entries, |entry| {
                std::hint::black_box(entry.clone().check().is_ok());
            }),
        ),
        ("book, record, hash", book_micros(market, &entries)?),
        (
            "sign the receipt",
            micros(&posted, |posted| {
                std::hint::black_box(market.receipt_bytes(posted).is_ok());
            }),
        ),
        (
            "encode the entry",
            micros(&entries, |entry| {
                std::hint::black_box(entry.encode());
            }),
        ),
    ];
    let cores = wide(std::thread::available_parallelism().map_or(1, usize::from));
    let on_one_core: f64 = parts.iter().map(|(_, micros)| micros).sum();
    Ok(Bound {
        batch,
        sync_seconds,
        cpu_seconds: on_one_core / 1e6 / cores,
        parts_micros: parts,
    })
}

/// Writes and syncs over space that is there already, as a journal does that prepares its segments.
fn sync_seconds(folder: &Path, bytes: usize) -> anyhow::Result<f64> {
    let path = folder.join("sync.measured");
    let mut file = std::fs::File::create(&path)?;
    let zeros = vec![0; bytes];
    for _ in 0..SYNCS {
        file.write_all(&zeros)?;
    }
    file.sync_all()?;
    let content = vec![7; bytes];
    let mut times = Vec::with_capacity(SYNCS);
    for number in 0..SYNCS {
        let offset = u64::try_from(number * bytes)?;
        let started = Instant::now();
        file.write_all_at(&content, offset)?;
        file.sync_data()?;
        times.push(started.elapsed().as_secs_f64());
    }
    std::fs::remove_file(&path)?;
    Ok(median(&times))
}

fn opened(market: &Market) -> anyhow::Result<Book> {
    let mut book = Book::new();
    for entry in market.opening() {
        book.apply(&entry.check()?, now_ms())
            .context("the market can't be opened")?;
    }
    Ok(book)
}

fn settlements(market: &Market) -> anyhow::Result<(Vec<Entry>, Vec<Posted>)> {
    let mut book = opened(market)?;
    let (mut entries, mut posted) = (Vec::new(), Vec::new());
    for voucher in market.queues(1, 1, 2).into_iter().flatten() {
        let channel = voucher.content_unchecked().channel;
        let entry = Entry::Settle(Settle { channel, voucher });
        let applied = book.apply(&entry.clone().check()?, now_ms())?;
        if let Applied::New { sequence, outcome } = applied {
            posted.push(Posted {
                sequence,
                time_ms: now_ms(),
                record_hash: record_hash(sequence, 0, &entry.encode()),
                outcome,
                repeated: false,
            });
        }
        entries.push(entry);
    }
    Ok((entries, posted))
}

/// Microseconds of one core per item, for about a second.
fn micros<T>(items: &[T], work: impl Fn(&T)) -> f64 {
    let started = Instant::now();
    let mut count = 0usize;
    while started.elapsed() < Duration::from_millis(700) {
        items.iter().for_each(&work);
        count += items.len();
    }
    started.elapsed().as_secs_f64() * 1e6 / wide(count)
}

/// Microseconds of one core for applying an entry to the book and hashing its record.
fn book_micros(market: &Market, entries: &[Entry]) -> anyhow::Result<f64> {
    let checked: Vec<CheckedEntry> = entries
        .iter()
        .map(|entry| entry.clone().check())
        .collect::<Result<_, _>>()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let mut book = opened(market)?;
        let started = Instant::now();
        for entry in &checked {
            book.apply(entry, 1)?;
            let content = entry.entry().encode_salted(&[3; 16]);
            std::hint::black_box(record_hash(1, 1, &content));
        }
        times.push(started.elapsed().as_secs_f64() * 1e6 / wide(checked.len()));
    }
    Ok(median(&times))
}

#[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
pub(super) fn wide(count: usize) -> f64 {
    count as f64
}
