//! Durable settlements: the embedded store beside PostgreSQL, as it is usually used and batched, on the same machine
//! and disk, and beside the bound of that disk and those cores; then latencies, bytes, starts and proofs.

mod bound;
mod load;
mod proofs;
mod row_locks;
mod startup;
mod timed_disk;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use gristmill_ledger::conformance::server::{Durability, PostgresServer};
use gristmill_ledger::store::postgres::{DatabaseAddress, PostgresOptions, PostgresStore, migrate};
use gristmill_ledger::{EmbeddedOptions, Ledger};
use serde_json::{Value, json};

use self::bound::{Bound, wide};
use self::load::{Latency, Throughput, at_rate, disk_bytes, saturate, saturate_store};
use self::proofs::ProofCosts;
use self::startup::Starts;
use self::timed_disk::TimedDisk;
use self::workload::{CHANNELS, Market};
use super::report::{print, resident_mebibytes};

/// The database role of the service, which owns nothing.
const SERVICE_ROLE: &str = "gristmill_service";

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Settlements to measure the embedded store with, in thousands
    #[arg(long, default_value_t = 100)]
    thousands: u32,
    /// Vouchers that wait at once
    #[arg(long, default_value_t = 200)]
    at_once: usize,
    /// Connections for row locks in PostgreSQL
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Journals to measure starts and proofs with, in records; 0 for none
    #[arg(long, value_delimiter = ',', default_values_t = [1_000_000, 10_000_000])]
    records: Vec<u64>,
    /// Where to write [default: the system's folder for temporary files; it should be on a disk]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Open a ledger, say what it took, and end: what a process of this benchmark does
    #[arg(long, hide = true)]
    open_only: Option<PathBuf>,
}

/// Everything that was measured.
struct Figures {
    bound: Bound,
    embedded: Throughput,
    resident_mebibytes: f64,
    bytes_per_settlement: f64,
    row_locks_per_second: f64,
    batched: Throughput,
    /// Entries per second of each store alone: verified before, no receipts.
    embedded_alone: f64,
    batched_alone: f64,
    latencies: Vec<Latency>,
    starts: Vec<Starts>,
    proofs: Vec<ProofCosts>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    if let Some(folder) = &arguments.open_only {
        return startup::open_only(folder).await;
    }
    let folder = match &arguments.folder {
        Some(folder) => tempfile::tempdir_in(folder),
        None => tempfile::tempdir(),
    }
    .context("there is no folder to write to")?;
    let market = Arc::new(Market::new());
    let rounds = arguments.thousands;

    eprintln!("the terms of the bound …");
    let bound = bound::measure(&market, folder.path(), arguments.at_once)?;
    eprintln!("the embedded store …");
    let (embedded, embedded_alone, bytes_per_settlement) =
        embedded(&market, folder.path(), &arguments, rounds).await?;
    let resident = resident_mebibytes(std::process::id()).unwrap_or_default();
    eprintln!("latencies …");
    let latencies = latencies(&market, folder.path(), embedded.per_second).await?;
    eprintln!("PostgreSQL with row locks …");
    let server = PostgresServer::start(Durability::Synced)?;
    let queues = market.queues(arguments.connections, 1, rounds.div_ceil(10));
    let row_locks_per_second = row_locks::measure(&market, &server.url("postgres"), queues).await?;
    eprintln!("PostgreSQL batched …");
    let (batched, batched_alone) = batched(&market, &server, &arguments, rounds.div_ceil(4)).await?;
    drop(server);
    let (mut starts, mut proofs) = (Vec::new(), Vec::new());
    for records in arguments.records.iter().copied().filter(|records| *records > 0) {
        eprintln!("a journal of {records} records …");
        let place = tempfile::tempdir_in(folder.path())?;
        starts.push(startup::measure(&market, place.path(), records)?);
        proofs.push(proofs::measure(records)?);
    }
    tell(&Figures {
        bound,
        embedded,
        resident_mebibytes: resident,
        bytes_per_settlement,
        row_locks_per_second,
        batched,
        embedded_alone,
        batched_alone,
        latencies,
        starts,
        proofs,
    });
    Ok(())
}

async fn embedded(
    market: &Arc<Market>,
    folder: &Path,
    arguments: &Arguments,
    rounds: u32,
) -> anyhow::Result<(Throughput, f64, f64)> {
    let directory = folder.join("embedded");
    let ledger = Ledger::open(&directory, &EmbeddedOptions::default())?;
    market.open(&ledger).await?;
    // Caches and the first segment are made before the clock runs.
    saturate(market, &ledger, market.queues(arguments.at_once, 1, 5)).await?;
    let queues = market.queues(arguments.at_once, 6, rounds);
    let measured = saturate(market, &ledger, queues).await?;
    let queues = market.queues(arguments.at_once, 6 + rounds, rounds);
    let alone = saturate_store(&ledger, queues).await?;
    ledger.shutdown().await?;
    // What was prepared beyond the end of the journal is given back at a stop in order.
    let settlements = 2.0 * wide(measured.settlements) + 5.0 * CHANNELS as f64;
    let bytes = disk_bytes(&directory)? as f64 / settlements;
    Ok((measured, alone, bytes))
}

async fn latencies(market: &Arc<Market>, folder: &Path, highest: f64) -> anyhow::Result<Vec<Latency>> {
    let disk = TimedDisk::new();
    let options = EmbeddedOptions {
        disk: Arc::new(disk.clone()),
        ..EmbeddedOptions::default()
    };
    let ledger = Ledger::open(&folder.join("latencies"), &options)?;
    market.open(&ledger).await?;
    let (mut latencies, mut first) = (Vec::new(), 1);
    for share in [0.1, 0.5, 0.9] {
        let per_second = highest * share;
        // About four seconds each.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few hundred"
        )]
        let rounds = (per_second * 4.0 / CHANNELS as f64).ceil() as u32;
        let queue = market.queues(1, first, rounds).concat();
        first += rounds;
        latencies.push(at_rate(market, &ledger, &disk, queue, (share, per_second)).await?);
    }
    ledger.shutdown().await?;
    Ok(latencies)
}

async fn batched(
    market: &Arc<Market>,
    server: &PostgresServer,
    arguments: &Arguments,
    rounds: u32,
) -> anyhow::Result<(Throughput, f64)> {
    let owner: DatabaseAddress = server.url("postgres").parse()?;
    migrate(&owner, SERVICE_ROLE).await?;
    let service = server
        .url("postgres")
        .replace("postgres://gristmill@", &format!("postgres://{SERVICE_ROLE}@"));
    let store = PostgresStore::connect(&PostgresOptions::new(service.parse()?)).await?;
    let ledger = Ledger::over(store);
    market.open(&ledger).await?;
    saturate(market, &ledger, market.queues(arguments.at_once, 1, 2)).await?;
    let measured = saturate(market, &ledger, market.queues(arguments.at_once, 3, rounds)).await?;
    let queues = market.queues(arguments.at_once, 3 + rounds, rounds);
    let alone = saturate_store(&ledger, queues).await?;
    ledger.shutdown().await?;
    Ok((measured, alone))
}

fn tell(figures: &Figures) {
    let Figures {
        bound,
        embedded,
        bytes_per_settlement,
        row_locks_per_second,
        batched,
        ..
    } = figures;
    let share = embedded.per_second / bound.per_second();
    let mut rows = vec![
        (
            "embedded store",
            format!(
                "{:.0} settlements per second, {:.0} us of this process each, {bytes_per_settlement:.0} bytes each, \
                 {:.0} MiB resident",
                embedded.per_second, embedded.cpu_micros, figures.resident_mebibytes
            ),
        ),
        (
            "PostgreSQL, row locks",
            format!(
                "{row_locks_per_second:.0} per second; embedded is {:.1} times as fast (target 10)",
                embedded.per_second / row_locks_per_second
            ),
        ),
        (
            "PostgreSQL, batched",
            format!(
                "{:.0} per second; embedded is {:.1} times as fast (target 3)",
                batched.per_second,
                embedded.per_second / batched.per_second
            ),
        ),
        (
            "stores alone",
            format!(
                "{:.0} and {:.0} entries per second, without signatures: embedded is {:.1} times as fast",
                figures.embedded_alone,
                figures.batched_alone,
                figures.embedded_alone / figures.batched_alone
            ),
        ),
        (
            "bound of disk and cores",
            format!(
                "{:.0} per second (sync of {} settlements {:.2} ms, {:.1} us of all cores each); share reached {share:.2}",
                bound.per_second(),
                bound.batch,
                bound.sync_seconds * 1e3,
                bound.cpu_seconds * 1e6
            ),
        ),
    ];
    for (part, micros) in &bound.parts_micros {
        rows.push((part, format!("{micros:.1} us of one core")));
    }
    for latency in &figures.latencies {
        rows.push((
            "acknowledged",
            format!(
                "p50 {:.2} ms, p99 {:.2} ms with signatures, of the ledger alone {:.2} and {:.2} ms, at {:.0} % \
                 ({:.0} per second)",
                latency.p50_ms,
                latency.p99_ms,
                latency.ledger_p50_ms,
                latency.ledger_p99_ms,
                latency.share * 100.0,
                latency.per_second
            ),
        ));
        let disk = &latency.disk;
        rows.push((
            "of it the disk",
            format!(
                "{} syncs: p50 {:.2} ms, p99 {:.2} ms, slowest {:.2} ms; slowest write {:.2} ms; {:.0} ms in stalls of more than 5 ms",
                disk.syncs,
                disk.sync_p50_ms,
                disk.sync_p99_ms,
                disk.slowest_sync_ms,
                disk.slowest_write_ms,
                disk.stalled_ms
            ),
        ));
    }
    for starts in &figures.starts {
        rows.push((
            "start",
            format!(
                "{} records, {:.1} GB: {:.1} s and {:.0} MiB; from the journal alone {:.1} s and {:.0} MiB",
                starts.records,
                starts.disk_bytes as f64 / 1e9,
                starts.usual.seconds,
                starts.usual.resident_mebibytes,
                starts.from_the_journal_alone.seconds,
                starts.from_the_journal_alone.resident_mebibytes
            ),
        ));
    }
    for proofs in &figures.proofs {
        rows.push((
            "proofs",
            format!(
                "{} records: inclusion {:.0} us to build, {:.1} us to verify, {} hashes; consistency {:.0} us and \
                 {:.1} us; {:.0} records integrated per second",
                proofs.size,
                proofs.inclusion_build_micros,
                proofs.inclusion_verify_micros,
                proofs.inclusion_hashes,
                proofs.consistency_build_micros,
                proofs.consistency_verify_micros,
                proofs.integrated_per_second
            ),
        ));
    }
    print(
        "Durable settlements on this machine and disk",
        &rows,
        &as_json(figures, share),
    );
}

fn as_json(figures: &Figures, share: f64) -> Value {
    let Figures {
        bound,
        embedded,
        batched,
        ..
    } = figures;
    let throughput = |measured: &Throughput| {
        json!({
            "settlements": measured.settlements,
            "per_second": measured.per_second,
            "cpu_micros": measured.cpu_micros,
        })
    };
    let latencies: Vec<Value> = figures
        .latencies
        .iter()
        .map(|latency| {
            json!({
                "share": latency.share, "per_second": latency.per_second,
                "p50_ms": latency.p50_ms, "p99_ms": latency.p99_ms,
                "ledger_p50_ms": latency.ledger_p50_ms, "ledger_p99_ms": latency.ledger_p99_ms,
                "disk": {
                    "syncs": latency.disk.syncs, "sync_p50_ms": latency.disk.sync_p50_ms,
                    "sync_p99_ms": latency.disk.sync_p99_ms, "slowest_sync_ms": latency.disk.slowest_sync_ms,
                    "slowest_write_ms": latency.disk.slowest_write_ms, "stalled_ms": latency.disk.stalled_ms,
                },
            })
        })
        .collect();
    let parts: serde_json::Map<String, Value> = bound
        .parts_micros
        .iter()
        .map(|(part, micros)| ((*part).to_owned(), json!(micros)))
        .collect();
    json!({
        "bench": "ledger",
        "embedded": throughput(embedded),
        "postgres_row_locks": { "per_second": figures.row_locks_per_second },
        "postgres_batched": throughput(batched),
        "ratio_to_row_locks": embedded.per_second / figures.row_locks_per_second,
        "ratio_to_batched": embedded.per_second / batched.per_second,
        "stores_alone": {
            "embedded_per_second": figures.embedded_alone,
            "postgres_batched_per_second": figures.batched_alone,
            "ratio": figures.embedded_alone / figures.batched_alone,
        },
        "bound": {
            "per_second": bound.per_second(), "batch": bound.batch, "sync_seconds": bound.sync_seconds,
            "cpu_seconds": bound.cpu_seconds, "one_core_micros": parts, "share_reached": share,
        },
        "bytes_per_settlement": figures.bytes_per_settlement,
        "resident_mebibytes": figures.resident_mebibytes,
        "latencies": latencies,
        "starts": figures.starts,
        "proofs": figures.proofs,
    })
}
