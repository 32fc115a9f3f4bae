//! From a provider to a job with it: a stream, a channel that pays, and a session that reserves what it may cost.

use std::sync::Arc;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::OpenJob;
use gristmill_protocol::session::consumer::{ConsumerFailure, ConsumerSession, ConsumerTerms};

use super::Job;
use super::attempt::Attempt;
use super::exchange::Beginning;
use super::outbox::Outbox;
use crate::coordinator_link::Terms;
use crate::core::answer::Answer;
use crate::core::budget::Scope;
use crate::core::failure::ApiFailure;
use crate::core::records::RecordEvent;
use crate::core::router::Route;
use crate::core::verdict::{Action, Verdict};
use crate::market::RunningJob;
use crate::wallet::{Funding, lock};

/// How often a request tries to reserve what it may cost, where others are faster.
const RESERVATIONS_MAX: usize = 8;

impl Job {
    /// Asks one provider and waits for its first output; once more with another channel, where it says that the
    /// first is used up.
    pub(super) async fn ask(&self, route: Route, terms: &Terms) -> Result<Attempt, (Route, Verdict)> {
        let running = Arc::new(RunningJob::begin(self.market.clone(), route.provider));
        let asked = match self.ask_once(&route, terms, &running).await {
            Err(Verdict {
                action: Action::OpenAnotherChannel,
                ..
            }) => self
                .ask_once(&route, terms, &running)
                .await
                .map_err(Verdict::after_another_channel),
            asked => asked,
        };
        asked.map_err(|verdict| (route, verdict))
    }

    async fn ask_once(
        &self,
        route: &Route,
        terms: &Terms,
        running: &Arc<RunningJob>,
    ) -> Result<Attempt, Verdict> {
        let mut attempt = self.open(route, terms, running).await?;
        attempt.begin(&self.recipient).await;
        if let Some(latency_ms) = attempt.first_output_ms() {
            self.market
                .note(route.provider, RecordEvent::FirstOutput { latency_ms });
            return Ok(attempt);
        }
        match self.verdict(&attempt) {
            None => Ok(attempt),
            Some(verdict) => Err(verdict),
        }
    }

    async fn open(
        &self,
        route: &Route,
        terms: &Terms,
        running: &Arc<RunningJob>,
    ) -> Result<Attempt, Verdict> {
        let (market, request) = (&self.market, self.request());
        let scope = self.scope(route);
        let most = scope.cost_max(&route.offer.price, scope.output_tokens());
        let held = self
            .course
            .hold(most.unwrap_or(Credits::MAX))
            .map_err(Verdict::on_no_funds)?;
        let (stream, funded) = tokio::select! {
            ready = async {
                tokio::join!(
                    market.mesh.open_job(route.provider, &route.addresses),
                    market.wallet.fund(route.provider, &scope, &route.offer.price, terms),
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
        let share = held.ask(route.provider);
        let open = OpenJob {
            ticket: funding.ticket.clone(),
            request_id: self.context.request_id.clone(),
            kind: request.kind,
            model: request.model.clone(),
            price_cap: route.offer.price.clone(),
            body_bytes: request.body_bytes(output_limit),
            content_type: request.content_type.clone(),
            trace_parent: share.trace_parent(),
        };
        Ok(Attempt::new(Beginning {
            route: route.clone(),
            kind: request.kind,
            channel: funding.channel,
            output_limit,
            session,
            account: funding.account,
            receiver,
            outbox: Outbox::new(sender, open, request.body_parts(output_limit)),
            running: running.clone(),
            bill: self.bill.clone(),
            share: Some(share),
        }))
    }

    fn scope(&self, route: &Route) -> Scope {
        let request = self.request();
        // The longest that an assumed limit makes the body.
        let body_bytes = request.body_bytes(Some(u64::MAX));
        let scope = Scope {
            kind: request.kind,
            body_bytes,
            output_tokens_max: request.output_tokens_max,
            choices: request.choices,
            context_length: route.offer.context_length,
            output_tokens_assumed: self.market.settings.output_tokens_assumed,
        };
        scope.affordable_with(&route.offer.price, self.course.unspent())
    }

    /// Reserves on a channel what the request may cost. Other jobs may have been faster with the first one.
    async fn session(
        &self,
        route: &Route,
        scope: &Scope,
        funded: (Funding, u64),
        terms: &Terms,
    ) -> Result<(ConsumerSession, Funding, Option<u64>), Verdict> {
        let (price, request) = (&route.offer.price, self.request());
        let (mut funding, mut tokens) = funded;
        for _ in 0..RESERVATIONS_MAX {
            let is_limited = request.kind.is_generated_text() && request.output_tokens_max.is_none();
            let output_limit = is_limited.then_some(tokens);
            let session_terms = ConsumerTerms {
                request_id: self.context.request_id.clone(),
                kind: request.kind,
                provider: route.provider,
                price_cap: price.clone(),
                body_bytes: request.body_bytes(output_limit),
                cost_max: scope.cost_max(price, tokens).unwrap_or(Credits::MAX),
                message_max_bytes: Answer::message_max_bytes(request.kind),
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

    /// What it means that an attempt ended as it did; nothing where it ended well.
    pub(super) fn verdict(&self, attempt: &Attempt) -> Option<Verdict> {
        let outcome = attempt.outcome()?;
        let failure = outcome.result.as_ref().err()?;
        let is_dropped = *failure == ConsumerFailure::Disconnected && !attempt.is_accepted();
        if is_dropped && attempt.running().has_had_company() {
            return Some(Verdict::on_dropped_stream());
        }
        if let ConsumerFailure::Misbehaved(what) = failure {
            tracing::warn!(provider = %attempt.route().provider, what, "a provider misbehaved");
        }
        let verdict = Verdict::on(failure);
        if verdict.action == Action::OpenAnotherChannel {
            self.market.wallet.retire(attempt.channel());
        }
        Some(verdict)
    }
}
