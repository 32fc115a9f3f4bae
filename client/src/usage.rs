//! What requests come to: what they may cost while they run, and, when they are over, sums and the newest ones in
//! memory, every one on disk, metrics, and spans. Prompts and answers are not known here.
//!
//! `jobs` says how a request goes ([`Course`]). Sums are read by `GET /v1/usage?by=day|model|key|provider`
//! ([`UsageBook::report`]), the newest requests by `GET /v1/usage/requests` ([`UsageBook::recent`]); both serve the
//! local page too. `gristmill client usage` reads the files ([`store`]).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use gristmill_protocol::credits::Credits;
use gristmill_telemetry::otlp::SpanExporter;
use gristmill_transport::Clock;
use tokio::sync::mpsc;

use crate::core::calendar::Day;
use crate::core::finished_request::FinishedRequest;
use crate::core::keys::Program;
use crate::core::spans::spans;
use crate::core::spending::{CapReached, DayBudget, Reserved, Spending};
use crate::core::usage_report::{GroupBy, Report, UsageTable};
use crate::metrics::Metrics;
use crate::wallet::lock;

mod course;
mod month_sums;
pub(crate) mod store;
mod writer;

pub(crate) use course::{Course, Share};
use store::Remembered;
pub use store::UsageFileError;
pub(crate) use writer::UsageWriter;

/// The newest requests that are kept in memory.
pub(crate) const RECENT_MAX: usize = 500;
/// Requests that may wait to be written.
const QUEUE_LINES: usize = 4_096;

#[derive(Default)]
struct Finished {
    table: UsageTable,
    /// The newest at the end.
    recent: VecDeque<Arc<FinishedRequest>>,
}

impl Finished {
    fn add(&mut self, request: Arc<FinishedRequest>) {
        self.table.add(&request);
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(request);
    }
}

/// What all requests came to.
pub(crate) struct UsageBook {
    clock: Clock,
    finished: Mutex<Finished>,
    spending: Mutex<Spending>,
    to_write: mpsc::Sender<Arc<FinishedRequest>>,
    metrics: Metrics,
    exporter: Option<SpanExporter>,
}

impl UsageBook {
    /// The book with what its folder remembers, and what writes to that. Reads files, so it takes its time.
    pub(crate) fn open(
        folder: PathBuf,
        budget: DayBudget,
        clock: Clock,
        exporter: Option<SpanExporter>,
    ) -> Result<(Self, UsageWriter), UsageFileError> {
        store::tidy(&folder, clock())?;
        let (mut finished, mut spending) = (Finished::default(), Spending::new(budget));
        store::read(&folder, |remembered| match remembered {
            Remembered::Spent { key, cost, at_ms } => spending.recall(Some(key), cost, at_ms),
            Remembered::Month(table) => finished.table.merge(table),
            Remembered::Request(request) => {
                spending.recall(request.key_id, request.cost, request.started_at_ms);
                finished.add(request.into());
            }
        })?;
        let (to_write, queue) = mpsc::channel(QUEUE_LINES);
        let book = Self {
            clock,
            finished: Mutex::new(finished),
            spending: Mutex::new(spending),
            to_write,
            metrics: Metrics::new(),
            exporter,
        };
        Ok((book, UsageWriter::new(folder, queue)))
    }

    /// Sums from a day on; those of one key, where it is named.
    pub(crate) fn report(&self, by: GroupBy, since: Option<Day>, key: Option<&str>) -> Report {
        lock(&self.finished).table.report(by, since, key)
    }

    /// The newest requests, the very newest first; those of one key, where it is named.
    pub(crate) fn recent(&self, limit: usize, key: Option<&str>) -> Vec<Arc<FinishedRequest>> {
        let finished = lock(&self.finished);
        let newest = finished.recent.iter().rev();
        let wanted = newest.filter(|request| key.is_none_or(|key| request.key.as_deref() == Some(key)));
        wanted.take(limit).cloned().collect()
    }

    /// What programs spent today, where that is past the alarm.
    pub(crate) fn alarming(&self) -> Option<Credits> {
        lock(&self.spending).alarming((self.clock)())
    }

    /// What programs spent today.
    pub(crate) fn spent_today(&self) -> Credits {
        let mut spending = lock(&self.spending);
        spending
            .of_all((self.clock)())
            .within(crate::core::keys::Period::Day)
    }

    /// The metrics.
    pub(crate) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where spans go, if anywhere.
    pub(crate) const fn exporter(&self) -> Option<&SpanExporter> {
        self.exporter.as_ref()
    }

    fn reserve(&self, program: &Program, amount: Credits) -> Result<Reserved, CapReached> {
        lock(&self.spending).reserve(program.key(), program.allowance().cap, amount, (self.clock)())
    }

    fn left(&self, program: &Program) -> Option<Credits> {
        let key = program.key().zip(program.allowance().cap);
        lock(&self.spending).left(key, (self.clock)())
    }

    fn unspent(&self, program: &Program) -> Option<Credits> {
        let key = program.key().zip(program.allowance().cap);
        lock(&self.spending).unspent(key, (self.clock)())
    }

    fn settle(&self, reserved: Reserved, cost: Credits) {
        let passed = lock(&self.spending).settle(reserved, cost, (self.clock)());
        if let Some(spent_today) = passed {
            tracing::warn!(%spent_today, "programs have spent more than budget_alarm today (UTC)");
        }
    }

    /// Takes note of a request that is over.
    fn note(&self, request: FinishedRequest) {
        let request = Arc::new(request.bounded());
        self.metrics.observe(&request);
        if let Some(exporter) = &self.exporter {
            for span in spans(&request) {
                exporter.export(span);
            }
        }
        lock(&self.finished).add(request.clone());
        if self.to_write.try_send(request).is_err() {
            // The disk is full or very slow, which the writer has said; answers don't wait for it.
            self.metrics.note_unwritten();
        }
    }
}

#[cfg(test)]
mod tests;
