//! What a client keeps of programs: their keys, what they asked and spent, and the tasks that carry it away.

use std::path::Path;
use std::sync::Arc;

use gristmill_telemetry::otlp::span_exporter;
use gristmill_transport::Clock;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{StartError, end};
use crate::core::spending::DayBudget;
use crate::keys::Keyring;
use crate::settings::Settings;
use crate::usage::{UsageBook, UsageWriter, store};

/// The name under which spans are sent.
const SERVICE: &str = "gristmill-client";

/// The books of a client that starts.
pub(super) struct Books {
    pub(super) keys: Keyring,
    pub(super) usage: Arc<UsageBook>,
    pub(super) tasks: BookTasks,
}

/// What carries finished requests to the disk and spans to the collector.
pub(super) struct BookTasks {
    writer: JoinHandle<()>,
    exporter: Option<JoinHandle<()>>,
    ended: CancellationToken,
    _ended_when_dropped: DropGuard,
}

/// Opens the books. They are closed by [`BookTasks::end`].
pub(super) async fn open(settings: &Settings, data_dir: &Path, clock: Clock) -> Result<Books, StartError> {
    let (exporter, exporting) = match &settings.otlp_endpoint {
        Some(endpoint) => {
            let (exporter, driver) = span_exporter(endpoint, SERVICE, env!("CARGO_PKG_VERSION"))?;
            (Some(exporter), Some(driver))
        }
        None => (None, None),
    };
    let (data_dir, of_settings) = (data_dir.to_owned(), settings.api_keys.clone());
    let budget = DayBudget {
        alarm: settings.budget_alarm,
        stop: settings.budget_stop,
    };
    // Years of requests may have to be read.
    let read = move || -> Result<(Keyring, UsageBook, UsageWriter), StartError> {
        let keys = Keyring::open(&data_dir, of_settings)?;
        let (usage, writer) = UsageBook::open(data_dir.join(store::FOLDER), budget, clock, exporter)?;
        Ok((keys, usage, writer))
    };
    let (keys, usage, writer) = match spawn_blocking(read).await {
        Ok(read) => read?,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it this task.
            Err(_) => std::future::pending().await,
        },
    };
    settings.check_access(keys.has_program_keys())?;
    let ended = CancellationToken::new();
    let tasks = BookTasks {
        writer: tokio::spawn(writer.run(ended.clone())),
        exporter: exporting.map(|driver| tokio::spawn(driver.run(ended.clone().cancelled_owned()))),
        _ended_when_dropped: ended.clone().drop_guard(),
        ended,
    };
    Ok(Books {
        keys,
        usage: Arc::new(usage),
        tasks,
    })
}

impl BookTasks {
    /// Writes and sends what is left. No request may be running any more.
    pub(super) async fn end(&mut self) {
        self.ended.cancel();
        end("the writer of usage", &mut self.writer).await;
        if let Some(exporter) = &mut self.exporter {
            end("the exporter of traces", exporter).await;
        }
    }
}
