//! Runs a request on the market: picks a provider, pays it, passes its answer on, and asks another one where it fails
//! before the program has got anything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::{JobKind, OpenJob};
use gristmill_protocol::session::consumer::{ConsumerFailure, ConsumerSession, ConsumerTerms};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::coordinator_link::{LinkState, Terms};
use crate::core::answer::Answer;
use crate::core::answer_stream::JobSummary;
use crate::core::budget::Scope;
use crate::core::context::RequestContext;
use crate::core::failure::ApiFailure;
use crate::core::records::RecordEvent;
use crate::core::request::ProgramRequest;
use crate::core::router::{Asker, Needs, NoRoute, Route, choose};
use crate::core::verdict::{Action, Verdict};
use crate::market::{Market, RunningJob};
use crate::wallet::{Funding, lock};

mod attempt;
mod explain;
mod outbox;
mod recipient;

use attempt::{Attempt, AttemptEnd, JobClock};
use outbox::Outbox;
pub(crate) use recipient::JobEvent;
use recipient::{Recipient, Stop};

/// Longest time that a request waits for providers that are busy.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// How often a request tries to reserve what it may cost, where others are faster.
const RESERVATIONS_MAX: usize = 8;
/// How long the last voucher may take after a job.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(10);

/// A request on its way.
pub(crate) struct Job {
    market: Arc<Market>,
    request: ProgramRequest,
    context: RequestContext,
    /// An answer of which nothing has come yet.
    answer: Answer,
    recipient: Recipient,
    /// Who was asked and is not asked again.
    tried: BTreeSet<AccountId>,
    /// Those of them that were only busy.
    busy: BTreeSet<AccountId>,
    context_length_above: u32,
}

impl Job {
    /// A job and where its answer comes from. Dropping that cancels the job.
    pub(crate) fn new(
        market: Arc<Market>,
        request: ProgramRequest,
        context: RequestContext,
    ) -> (Self, mpsc::Receiver<JobEvent>) {
        let answer = Answer::to(&request, &context.request_id, market.now_ms() / 1_000);
        let (recipient, events) = Recipient::new(answer.clone(), market.stopping.clone());
        let job = Self {
            market,
            request,
            context,
            answer,
            recipient,
            tried: BTreeSet::new(),
            busy: BTreeSet::new(),
            context_length_above: 0,
        };
        (job, events)
    }

    /// Runs to the end, and tells the program how it ended.
    pub(crate) async fn run(mut self) {
        let began = Instant::now();
        let outcome = self.serve().await;
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &outcome {
            Ok(summary) => tracing::info!(
                request_id = %self.context.request_id,
                provider = %summary.provider,
                model = %self.request.model,
                usage = ?summary.usage,
                cost = %summary.cost,
                milliseconds,
                "request answered"
            ),
            Err(failure) => tracing::info!(
                request_id = %self.context.request_id,
                model = %self.request.model,
                status = failure.status,
                code = %failure.code,
                milliseconds,
                "request failed"
            ),
        }
        self.recipient.end(outcome.map(|_| ())).await;
    }

    /// Asks one provider after the other.
    async fn serve(&mut self) -> Result<JobSummary, ApiFailure> {
        let patient_until = Instant::now() + BUSY_PATIENCE;
        let mut last: Option<ApiFailure> = None;
        let mut wait_ms = u64::MAX;
        let mut attempts = 0;
        while attempts < self.market.settings.attempts_max {
            let (route, terms) = match self.route().await {
                Ok(found) => found,
                Err(none) => {
                    let waited = self.wait_for_busy(&mut wait_ms, patient_until).await;
                    match (waited, last) {
                        (true, still) => last = still,
                        (false, Some(failure)) => return Err(failure),
                        (false, None) => return Err(none),
                    }
                    continue;
                }
            };
            let verdict = match self.attempt(&route, &terms).await {
                Ok(summary) => return Ok(summary),
                Err(verdict) => verdict,
            };
            if self.recipient.has_delivered() || self.market.stopping.is_cancelled() {
                return Err(verdict.failure);
            }
            self.tried.insert(route.provider);
            attempts += 1;
            match verdict.action {
                Action::TellProgram => return Err(verdict.failure),
                Action::AskAnother | Action::OpenAnotherChannel => {}
                Action::AskLongerContext => self.context_length_above = route.offer.context_length,
                Action::AskAnotherOrWait(milliseconds) => {
                    // A provider that says no at once costs nothing but patience.
                    attempts -= 1;
                    wait_ms = wait_ms.min(milliseconds);
                    self.busy.insert(route.provider);
                }
            }
            last = Some(weightier(last, verdict.failure));
        }
        Err(last.unwrap_or_else(ApiFailure::internal))
    }

    /// Waits until those who were busy may be asked again. Tells whether it is worth it.
    async fn wait_for_busy(&mut self, wait_ms: &mut u64, until: Instant) -> bool {
        let wait = Duration::from_millis(std::mem::replace(wait_ms, u64::MAX));
        if self.busy.is_empty() || wait > until.saturating_duration_since(Instant::now()) {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.recipient.gone() => return false,
        }
        let busy = std::mem::take(&mut self.busy);
        self.tried.retain(|provider| !busy.contains(provider));
        true
    }

    /// The best provider to ask next. Where there is none, the coordinator may know more than gossip has brought.
    async fn route(&self) -> Result<(Route, Terms), ApiFailure> {
        let market = &self.market;
        if market.link.terms().is_none() {
            market.link.refresh_listings().await;
        }
        let Some(terms) = market.link.terms() else {
            let reason = match market.link.state() {
                LinkState::Away(reason) => reason,
                _ => "it has not answered yet".to_owned(),
            };
            return Err(ApiFailure::coordinator_unavailable(&reason));
        };
        match self.choose(&terms) {
            Ok(route) => Ok((route, terms)),
            Err(_) if self.tried.is_empty() => {
                market.link.refresh_listings().await;
                let chosen = self.choose(&terms);
                chosen
                    .map(|route| (route, terms))
                    .map_err(|none| self.explain(none))
            }
            Err(none) => Err(self.explain(none)),
        }
    }

    fn choose(&self, terms: &Terms) -> Result<Route, NoRoute> {
        let (market, request) = (&self.market, &self.request);
        let needs = Needs {
            kind: request.kind,
            model: &request.model,
            capabilities: &request.needs,
            body_bytes: request.body.len() as u64,
            output_tokens_max: request
                .output_tokens_max
                .map(|most| most.saturating_mul(request.choices)),
            choices: request.choices,
            max_price_per_million: market.settings.max_price_per_million,
            context_length_above: self.context_length_above,
        };
        let asker = Asker {
            account: market.account,
            coordinator: terms.coordinator,
            tried: &self.tried,
            funded: &market.wallet.funded(terms.coordinator),
        };
        let now_ms = market.now_ms();
        let records = lock(&market.records);
        let random = &mut *lock(&market.random);
        market
            .mesh
            .with_board(|board| choose(board, &needs, &asker, &records, now_ms, random))
    }

    fn explain(&self, none: NoRoute) -> ApiFailure {
        explain::no_route(none, &self.request, self.market.settings.max_price_per_million)
    }

    /// Asks one provider; once more with another channel, where it says that the first is used up.
    async fn attempt(&mut self, route: &Route, terms: &Terms) -> Result<JobSummary, Verdict> {
        let market = self.market.clone();
        let running = Arc::new(RunningJob::begin(market.clone(), route.provider));
        let mut verdict = self.attempt_once(route, terms, &running).await;
        if let Err(Verdict {
            action: Action::OpenAnotherChannel,
            ..
        }) = &verdict
            && !self.recipient.has_delivered()
        {
            verdict = self
                .attempt_once(route, terms, &running)
                .await
                .map_err(Verdict::after_another_channel);
        }
        if let Err(Verdict {
            record: Some(event),
            failure,
            ..
        }) = &verdict
        {
            // An engine's words may quote the prompt; they are for the program alone.
            tracing::debug!(provider = %route.provider, code = %failure.code, "a provider did not deliver");
            market.note(route.provider, *event);
        }
        verdict
    }

    async fn attempt_once(
        &mut self,
        route: &Route,
        terms: &Terms,
        running: &Arc<RunningJob>,
    ) -> Result<JobSummary, Verdict> {
        self.recipient.restart(self.answer.clone());
        let scope = self.scope(route);
        let (stream, funded) = tokio::select! {
            ready = async {
                tokio::join!(
                    self.market.mesh.open_job(route.provider, &route.addresses),
                    self.market.wallet.fund(route.provider, &scope, &route.offer.price, terms),
                )
            } => ready,
            () = self.recipient.gone() => return Err(Verdict::on(&ConsumerFailure::Cancelled)),
        };
        let stream = stream.map_err(|error| {
            tracing::debug!(%error, "no job stream");
            Verdict::on_unreachable()
        })?;
        let funded = funded.map_err(Verdict::on_no_funds)?;
        let (session, funding, output_limit) = self.session(route, &scope, funded, terms).await?;
        let (sender, receiver) = stream.split();
        let open = OpenJob {
            ticket: funding.ticket.clone(),
            request_id: self.context.request_id.clone(),
            kind: self.request.kind,
            model: self.request.model.clone(),
            price_cap: route.offer.price.clone(),
            body_bytes: self.request.body_bytes(output_limit),
            content_type: String::new(),
            trace_parent: self.context.trace_parent,
        };
        let attempt = Attempt {
            session,
            account: funding.account.clone(),
            receiver,
            outbox: Outbox::new(sender, open, self.request.body_parts(output_limit)),
            clock: JobClock::start(),
        };
        let (end, outbox) = attempt.run(&mut self.recipient).await;
        self.market.wallet.note_change();
        if let Some(rest) = outbox.close() {
            // Until its stream is closed the provider counts it among those that it has open.
            let running = running.clone();
            self.market.tasks.spawn(async move {
                let _ = timeout(CLOSING_TIMEOUT, rest).await;
                drop(running);
            });
        }
        self.judge(route, &funding, end, running).await
    }

    fn scope(&self, route: &Route) -> Scope {
        // The longest that an assumed limit makes the body.
        let body_bytes = self.request.body_bytes(Some(u64::MAX));
        Scope {
            kind: self.request.kind,
            body_bytes,
            output_tokens_max: self.request.output_tokens_max,
            choices: self.request.choices,
            context_length: route.offer.context_length,
            output_tokens_assumed: self.market.settings.output_tokens_assumed,
        }
    }

    /// Reserves on a channel what the request may cost. Other jobs may have been faster with the first one.
    async fn session(
        &self,
        route: &Route,
        scope: &Scope,
        funded: (Funding, u64),
        terms: &Terms,
    ) -> Result<(ConsumerSession, Funding, Option<u64>), Verdict> {
        let price = &route.offer.price;
        let (mut funding, mut tokens) = funded;
        for _ in 0..RESERVATIONS_MAX {
            let is_limited =
                self.request.kind == JobKind::ChatCompletions && self.request.output_tokens_max.is_none();
            let output_limit = is_limited.then_some(tokens);
            let session_terms = ConsumerTerms {
                request_id: self.context.request_id.clone(),
                kind: self.request.kind,
                provider: route.provider,
                price_cap: price.clone(),
                body_bytes: self.request.body_bytes(output_limit),
                cost_max: scope.cost_max(price, tokens).unwrap_or(Credits::MAX),
                message_max_bytes: Answer::message_max_bytes(self.request.kind),
            };
            let timeouts = self.market.settings.job_timeouts;
            let opened = ConsumerSession::open(session_terms, timeouts, &mut lock(&funding.account), 0);
            match opened {
                Ok(session) => return Ok((session, funding, output_limit)),
                Err(error) => tracing::debug!(%error, "another job was faster"),
            }
            let again = self.market.wallet.fund(route.provider, scope, price, terms).await;
            (funding, tokens) = again.map_err(Verdict::on_no_funds)?;
        }
        Err(Verdict::on_no_funds(ApiFailure::too_many_requests()))
    }

    async fn judge(
        &mut self,
        route: &Route,
        funding: &Funding,
        end: AttemptEnd,
        running: &RunningJob,
    ) -> Result<JobSummary, Verdict> {
        if let Some(latency_ms) = self.recipient.first_message_ms() {
            self.market
                .note(route.provider, RecordEvent::FirstOutput { latency_ms });
        }
        if let Some(failure) = end.unusable {
            return Err(Verdict::on_unusable(failure));
        }
        if let Err(failure) = &end.outcome.result {
            let is_dropped = *failure == ConsumerFailure::Disconnected && !self.recipient.is_accepted();
            if is_dropped && running.has_had_company() {
                return Err(Verdict::on_dropped_stream());
            }
            if let ConsumerFailure::Misbehaved(what) = failure {
                tracing::warn!(provider = %route.provider, what, "a provider misbehaved");
            }
            let verdict = Verdict::on(failure);
            if verdict.action == Action::OpenAnotherChannel {
                self.market.wallet.retire(funding.channel);
            }
            return Err(verdict);
        }
        let summary = JobSummary {
            request_id: self.context.request_id.clone(),
            provider: route.provider,
            channel: funding.channel,
            usage: end.outcome.usage,
            cost: end.outcome.cost,
        };
        match self.recipient.complete(&summary).await {
            // Who went away has paid for what was made.
            Ok(()) | Err(Stop::Gone) => Ok(summary),
            Err(Stop::Unusable(failure)) => Err(Verdict::on_unusable(failure)),
        }
    }
}

/// Of two reasons why two providers did not serve a request the one that says more: what the developer can change
/// before what failed, and that before who was not there.
fn weightier(last: Option<ApiFailure>, newer: ApiFailure) -> ApiFailure {
    let weight = |failure: &ApiFailure| match failure.status {
        402 => 3,
        400..=499 => 2,
        503 => 0,
        _ => 1,
    };
    match last {
        Some(last) if weight(&last) > weight(&newer) => last,
        _ => newer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_changed_is_told_first() {
        let failure = |status| ApiFailure::new(status, "code", "message");
        for (last, newer, told) in [
            (402, 503, 402),
            (503, 402, 402),
            (502, 503, 502),
            (503, 504, 504),
            (413, 502, 413),
            (502, 504, 504),
        ] {
            assert_eq!(
                weightier(Some(failure(last)), failure(newer)).status,
                told,
                "{last} {newer}"
            );
        }
        assert_eq!(weightier(None, failure(503)).status, 503);
    }
}
