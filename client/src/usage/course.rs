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

/// One request, from its beginning to its end. It is noted once: when it was told how it ended and no provider is busy
/// with it any more, or, where nobody tells it, as failed when it is dropped.
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
    /// How many providers are busy with it.
    busy: usize,
    ended: Option<Ended>,
    is_noted: bool,
}

/// What the program was told.
struct Ended {
    status: u16,
    code: Option<String>,
    duration_ms: u64,
}

/// What one provider has to do with a request, as long as it is busy with it.
pub(crate) struct Share {
    provider: AccountId,
    trace: Option<TracePosition>,
    asked_after_ms: u64,
    held: Held,
    /// Where it stands among the shares, once something was delivered or it is over.
    place: Option<usize>,
    cost: Credits,
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

    /// What its program may still spend beside what is held for requests that run; nothing where it is not bounded.
    pub(crate) fn left(&self) -> Option<Credits> {
        self.book.left(&self.program)
    }

    /// What its program has not spent of what it may; nothing where it is not bounded.
    pub(crate) fn unspent(&self) -> Option<Credits> {
        self.book.unspent(&self.program)
    }

    /// Whether it has ended, so that what it costs is known; but for what a provider that was cancelled still sends.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.progress).ended.is_some()
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
        let (status, code) = match outcome {
            Ok(_) => (200, None),
            Err(_) if program_went_away => {
                let (status, code) = PROGRAM_WENT_AWAY;
                (status, Some(code.to_owned()))
            }
            Err(failure) => (failure.status, Some(failure.code.clone().into_owned())),
        };
        let duration_ms = self.now_ms();
        lock(&self.progress).ended.get_or_insert(Ended {
            status,
            code,
            duration_ms,
        });
        self.note_if_complete();
    }

    fn note_if_complete(&self) {
        let mut progress = lock(&self.progress);
        if progress.is_noted || progress.busy > 0 {
            return;
        }
        let Some(ended) = &progress.ended else { return };
        let providers = progress.shares.clone();
        let usage = providers
            .iter()
            .fold(Usage::new(), |usage, share| sum(&usage, &share.usage));
        let costs = providers.iter().map(|share| share.cost);
        let request = FinishedRequest {
            request_id: self.request_id.clone(),
            key: self.program.label().map(str::to_owned),
            key_id: self.program.key(),
            model: self.model.clone(),
            kind: self.kind,
            is_stream: self.is_stream,
            cost: costs.fold(Credits::ZERO, Credits::saturating_add),
            providers,
            started_at_ms: self.started_at_ms,
            first_token_ms: progress.first_output_ms,
            duration_ms: ended.duration_ms,
            usage,
            status: ended.status,
            code: ended.code.clone(),
            trace: self.trace,
        };
        progress.is_noted = true;
        drop(progress);
        self.book.note(request);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        // Its task has ended without a word: it panicked, or the runtime is gone.
        self.end(&Err::<(), _>(ApiFailure::internal()), false);
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
        lock(&course.progress).busy += 1;
        Share {
            provider,
            trace: course.trace.map(|trace| trace.child(&mut rand::rng())),
            asked_after_ms: course.now_ms(),
            place: None,
            cost: Credits::ZERO,
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

    /// What it has delivered so far.
    pub(crate) fn delivered(&mut self, usage: &Usage, cost: Credits) {
        self.cost = cost;
        let duration_ms = self.held.course.now_ms().saturating_sub(self.asked_after_ms);
        let share = ProviderShare {
            provider: self.provider,
            usage: usage.clone(),
            cost,
            asked_after_ms: self.asked_after_ms,
            duration_ms,
            is_complete: false,
            trace: self.trace,
        };
        let shares = &mut lock(&self.held.course.progress).shares;
        match self.place.and_then(|place| shares.get_mut(place)) {
            Some(known) => *known = share,
            None => {
                self.place = Some(shares.len());
                shares.push(share);
            }
        }
    }

    /// The provider has done its part, or as much of it as it will.
    pub(crate) fn end(self, is_complete: bool) {
        let shares = &mut lock(&self.held.course.progress).shares;
        if let Some(share) = self.place.and_then(|place| shares.get_mut(place)) {
            share.is_complete = is_complete;
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.settle(self.cost);
        let course = &self.held.course;
        let mut progress = lock(&course.progress);
        progress.busy = progress.busy.saturating_sub(1);
        drop(progress);
        course.note_if_complete();
    }
}
