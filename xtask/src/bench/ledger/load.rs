//! Driving a ledger: as hard as it goes, and at a given rate.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use gristmill_ledger::Ledger;
use tokio::task::JoinSet;

use super::super::report::{processor_seconds, quantile};
use super::bound::wide;
use super::timed_disk::{DiskFigures, TimedDisk};
use super::workload::{Market, Queue, checked, post};

/// What a ledger did.
pub(super) struct Throughput {
    pub(super) per_second: f64,
    pub(super) settlements: usize,
    /// Processor time of this process per settlement, in microseconds. A database's is not in it.
    pub(super) cpu_micros: f64,
}

/// Acknowledgement times at a rate.
pub(super) struct Latency {
    /// Share of the highest rate.
    pub(super) share: f64,
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Of the ledger alone: from a verified entry to its acknowledgement.
    pub(super) ledger_p50_ms: f64,
    pub(super) ledger_p99_ms: f64,
    /// What the disk did meanwhile.
    pub(super) disk: DiskFigures,
}

/// Settles all queues, each by a task of its own, as fast as it goes.
pub(super) async fn saturate(
    market: &Arc<Market>,
    ledger: &Ledger,
    queues: Vec<Queue>,
) -> anyhow::Result<Throughput> {
    let settlements = queues.iter().map(Vec::len).sum();
    let cpu_before = processor_seconds().unwrap_or_default();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for queue in queues {
        let (market, ledger) = (Arc::clone(market), ledger.clone());
        tasks.spawn(async move {
            for voucher in queue {
                market.settle(&ledger, voucher).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu = processor_seconds().unwrap_or_default() - cpu_before;
    Ok(Throughput {
        per_second: wide(settlements) / seconds,
        settlements,
        cpu_micros: cpu * 1e6 / wide(settlements),
    })
}

/// Posts entries that are verified already, and signs nothing: the store alone. Gives entries per second.
pub(super) async fn saturate_store(ledger: &Ledger, queues: Vec<Queue>) -> anyhow::Result<f64> {
    let count: usize = queues.iter().map(Vec::len).sum();
    let verify = |queue: Queue| queue.into_iter().map(checked).collect::<anyhow::Result<Vec<_>>>();
    let queues = queues
        .into_iter()
        .map(verify)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for queue in queues {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            for entry in queue {
                post(&ledger, entry).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(wide(count) / started.elapsed().as_secs_f64())
}

/// Settles at a steady rate, whether or not the ledger keeps up, and counts each from when it was due.
pub(super) async fn at_rate(
    market: &Arc<Market>,
    ledger: &Ledger,
    disk: &TimedDisk,
    queue: Queue,
    (share, per_second): (f64, f64),
) -> anyhow::Result<Latency> {
    let mut tasks: JoinSet<anyhow::Result<(f64, f64)>> = JoinSet::new();
    let mut times = Vec::with_capacity(queue.len());
    let mut ledger_times = Vec::with_capacity(queue.len());
    let mut note = |(whole, of_ledger): (f64, f64)| {
        times.push(whole);
        ledger_times.push(of_ledger);
    };
    // What it did before was not for these.
    disk.take();
    let started = Instant::now();
    for (number, voucher) in queue.into_iter().enumerate() {
        let due = started + Duration::from_secs_f64(wide(number) / per_second);
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        let (market, ledger) = (Arc::clone(market), ledger.clone());
        tasks.spawn(async move {
            let of_ledger = market.settle(&ledger, voucher).await?;
            Ok((due.elapsed().as_secs_f64() * 1e3, of_ledger.as_secs_f64() * 1e3))
        });
        while let Some(ended) = tasks.try_join_next() {
            note(ended??);
        }
    }
    while let Some(ended) = tasks.join_next().await {
        note(ended??);
    }
    Ok(Latency {
        share,
        per_second,
        p50_ms: quantile(&times, 0.5),
        p99_ms: quantile(&times, 0.99),
        ledger_p50_ms: quantile(&ledger_times, 0.5),
        ledger_p99_ms: quantile(&ledger_times, 0.99),
        disk: disk.take(),
    })
}

/// Bytes that a folder takes on the disk.
pub(super) fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for item in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let item = item?;
        let found = item.metadata()?;
        sum += match found.is_dir() {
            true => disk_bytes(&item.path())?,
            // Blocks of 512 bytes, whatever the file system's own are: stat(2).
            false => found.blocks() * 512,
        };
    }
    Ok(sum)
}
