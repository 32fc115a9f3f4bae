//! How one request goes: who is asked, what is held for it and spent on it, and what is kept of it in the end.

use std::sync::{Arc, Mutex};

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::{JobKind, RequestId};
use gristmill_protocol::trace::TraceParent;
use gristmill_protocol::usage::Usage;
use gristmill_telemetry::trace_position::TracePosition;
use tokio::time::Instant;

use super::UsageBook;
use crate::core::bill::sum;
use crate::core::context::RequestContext;
use crate::core::failure::ApiFailure;
use crate::core::finished_request::{FinishedRequest, ProviderShare};
use crate::core::keys::Program;
use crate::core::request::ProgramRequest;
use crate::core::spending::Reserved;
use crate::wallet::lock;

/// The status of a request whose program went away before its answer was whole: nginx's, for want of a standard one.
const PROGRAM_WENT_AWAY: (u16, &str) = (499, "client_closed_request");

/// One request, from its beginning to its end. It is noted once: when it is told how it ended, or, where nobody tells
/// it any more, as failed when it is dropped.
pub(crate) struct Course {
    book: Arc<UsageBook>,
    request_id: RequestId,
    program: Program,
    model: String,
    kind: JobKind,
    is_stream: bool,
    /// The program's own position in a trace.
    caller: Option<TraceParent>,
    /// The position of this request, where spans are exported.
    trace: Option<TracePosition>,
    started_at_ms: u64,
    began: Instant,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    first_output_ms: Option<u64>,
    shares: Vec<ProviderShare>,
    is_noted: bool,
}

/// What one provider has to do with a request, as long as it is busy with it.
pub(crate) struct Share {
    provider: AccountId,
    trace: Option<TracePosition>,
    asked_after_ms: u64,
    held: Held,
}

impl Course {
    pub(crate) fn begin(book: &Arc<UsageBook>, request: &ProgramRequest, context: &RequestContext) -> Self {
        let caller = context.trace_parent;
        let begin = |_: &_| TracePosition::begin(caller, &mut rand::rng());
        Self {
            request_id: context.request_id.clone(),
            program: context.program.clone(),
            model: request.model.clone(),
            kind: request.kind,
            is_stream: request.stream,
            caller,
            trace: book.exporter.as_ref().map(begin),
            started_at_ms: (book.clock)(),
            began: Instant::now(),
            progress: Mutex::default(),
            book: book.clone(),
        }
    }

    /// Holds the most that a provider can ask for its part.
    ///
    /// # Errors
    /// What the program is told, where it may not spend so much.
    pub(crate) fn hold(self: &Arc<Self>, amount: Credits) -> Result<Held, ApiFailure> {
        match self.book.reserve(&self.program, amount) {
            Ok(reserved) => Ok(Held {
                course: self.clone(),
                reserved: Some(reserved),
            }),
            Err(reached) => Err(reached.to_failure()),
        }
    }

    /// Whether it has ended, so that what it costs is known.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.progress).is_noted
    }

    /// What it costs so far.
    pub(crate) fn cost(&self) -> Credits {
        let progress = lock(&self.progress);
        let costs = progress.shares.iter().map(|share| share.cost);
        costs.fold(Credits::ZERO, Credits::saturating_add)
    }

    /// Who delivered something, in the order in which they were asked, each named once.
    pub(crate) fn paid_providers(&self) -> Vec<AccountId> {
        let mut providers = Vec::new();
        for share in &lock(&self.progress).shares {
            let delivered = share.usage != Usage::new();
            if delivered && !providers.contains(&share.provider) {
                providers.push(share.provider);
            }
        }
        providers
    }

    /// The first output came. Later ones change nothing.
    pub(crate) fn first_output(&self) {
        let now_ms = self.now_ms();
        lock(&self.progress).first_output_ms.get_or_insert(now_ms);
    }

    /// The request is over.
    pub(crate) fn end<T>(&self, outcome: &Result<T, ApiFailure>, program_went_away: bool) {
        match outcome {
            Ok(_) => self.note(200, None),
            Err(_) if program_went_away => {
                let (status, code) = PROGRAM_WENT_AWAY;
                self.note(status, Some(code.to_owned()));
            }
            Err(failure) => self.note(failure.status, Some(failure.code.clone().into_owned())),
        }
    }

    fn note(&self, status: u16, code: Option<String>) {
        let mut progress = lock(&self.progress);
        if std::mem::replace(&mut progress.is_noted, true) {
            return;
        }
        let providers = progress.shares.clone();
        let usage = providers
            .iter()
            .fold(Usage::new(), |usage, share| sum(&usage, &share.usage));
        let first_token_ms = progress.first_output_ms;
        drop(progress);
        self.book.note(FinishedRequest {
            request_id: self.request_id.clone(),
            key: self.program.label().map(str::to_owned),
            key_id: self.program.key(),
            model: self.model.clone(),
            kind: self.kind,
            is_stream: self.is_stream,
            providers,
            started_at_ms: self.started_at_ms,
            first_token_ms,
            duration_ms: self.now_ms(),
            usage,
            cost: self.cost(),
            status,
            code,
            trace: self.trace,
        });
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        // Its task has ended without a word: it panicked, or the runtime is gone.
        let failure = ApiFailure::internal();
        self.note(failure.status, Some(failure.code.into_owned()));
    }
}

/// Credits that are held for one provider's part of a request. Dropping it gives them back.
pub(crate) struct Held {
    course: Arc<Course>,
    reserved: Option<Reserved>,
}

impl Held {
    /// The provider is asked now.
    pub(crate) fn ask(self, provider: AccountId) -> Share {
        let course = &self.course;
        Share {
            provider,
            trace: course.trace.map(|trace| trace.child(&mut rand::rng())),
            asked_after_ms: course.now_ms(),
            held: self,
        }
    }

    fn settle(&mut self, cost: Credits) {
        if let Some(reserved) = self.reserved.take() {
            self.course.book.settle(reserved, cost);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.settle(Credits::ZERO);
    }
}

impl Share {
    /// What the provider is told of the trace: our span, where it is exported, and otherwise the program's.
    pub(crate) fn trace_parent(&self) -> Option<TraceParent> {
        let own = self.trace.map(|trace| trace.own);
        own.or(self.held.course.caller)
    }

    /// The first output came.
    pub(crate) fn first_output(&self) {
        self.held.course.first_output();
    }

    /// The provider has done its part, or as much of it as it will.
    pub(crate) fn end(mut self, usage: &Usage, cost: Credits, is_complete: bool) {
        let course = self.held.course.clone();
        let share = ProviderShare {
            provider: self.provider,
            usage: usage.clone(),
            cost,
            asked_after_ms: self.asked_after_ms,
            duration_ms: course.now_ms().saturating_sub(self.asked_after_ms),
            is_complete,
            trace: self.trace,
        };
        lock(&course.progress).shares.push(share);
        self.held.settle(cost);
    }
}
