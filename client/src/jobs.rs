//! Runs a request on the market: picks a provider, pays it, passes its answer on, and asks another one where it
//! fails: for the whole as long as the program has got nothing, for the rest from then on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill_protocol::routing::affinity::PrefixDigests;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::core::answer::Answer;
use crate::core::answer_stream::JobSummary;
use crate::core::bill::Bill;
use crate::core::context::RequestContext;
use crate::core::continuation::{Joining, SeamError};
use crate::core::failure::ApiFailure;
use crate::core::records::RecordEvent;
use crate::core::request::ProgramRequest;
use crate::core::router::{Route, prefix_of};
use crate::core::verdict::{Action, Verdict};
use crate::market::Market;
use crate::usage::Course;
use crate::wallet::lock;

mod attempt;
mod continuing;
mod exchange;
mod explain;
mod opening;
mod outbox;
mod race;
mod recipient;
mod rounds;
mod routes;

use continuing::{Continuing, Delivered};
pub(crate) use explain::no_route;
use race::RaceEnd;
pub(crate) use recipient::JobEvent;
use recipient::Recipient;
use rounds::Rounds;

/// A request on its way.
pub(crate) struct Job {
    market: Arc<Market>,
    /// What the program asked for.
    request: ProgramRequest,
    context: RequestContext,
    /// What is kept of it.
    course: Arc<Course>,
    /// An answer of which nothing has come yet.
    answer: Answer,
    recipient: Recipient,
    /// Who was paid, and what.
    bill: Arc<Mutex<Bill>>,
    /// When the request began.
    began: Instant,
    /// Who was asked, and who may be asked again when.
    rounds: Rounds,
    context_length_above: u32,
    /// The beginnings of the prompt.
    prefix: PrefixDigests,
    /// The weightiest reason why that did not go well.
    last: Option<ApiFailure>,
    /// The answer that somebody else began, if one is being continued.
    continuing: Option<Continuing>,
    continuations: u32,
    joining: Joining,
    /// The limit of output tokens of the whole answer, where the program set none.
    output_limit: Option<u64>,
}

/// A provider that did not bring the answer to its end.
struct Failed {
    route: Route,
    verdict: Verdict,
    /// What it delivered, where it had begun to answer.
    delivered: Option<Delivered>,
}

impl Job {
    /// A job and where its answer comes from. Dropping that cancels the job.
    pub(crate) fn new(
        market: Arc<Market>,
        request: ProgramRequest,
        context: RequestContext,
        course: Arc<Course>,
    ) -> (Self, mpsc::Receiver<JobEvent>) {
        let answer = Answer::to(&request, &context.request_id, market.now_ms() / 1_000);
        let (recipient, events) = Recipient::new(answer.clone(), market.stopping.clone());
        let prefix = prefix_of(&request.model, &request.body);
        let rounds = Rounds::new(market.settings.attempts_max, context.overrides.timeout_ms);
        let job = Self {
            market,
            request,
            context,
            course,
            answer,
            recipient,
            bill: Arc::default(),
            began: Instant::now(),
            rounds,
            context_length_above: 0,
            prefix,
            last: None,
            continuing: None,
            continuations: 0,
            joining: Joining::Compared,
            output_limit: None,
        };
        (job, events)
    }

    /// Runs to the end, and tells the program how it ended.
    pub(crate) async fn run(mut self) {
        let outcome = self.serve_in_time().await;
        let milliseconds = self.elapsed_ms();
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
        let program_went_away = self.recipient.is_gone() && !self.market.stopping.is_cancelled();
        self.course.end(&outcome, program_went_away);
        self.recipient.end(outcome.map(|_| ())).await;
    }

    /// What is asked for at present: the whole, or the rest of an answer that broke off.
    fn request(&self) -> &ProgramRequest {
        match &self.continuing {
            Some(continuing) => &continuing.rest.request,
            None => &self.request,
        }
    }

    /// Milliseconds since the request began.
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Serves the request within the time that its program gives it. What runs by then is cancelled.
    async fn serve_in_time(&mut self) -> Result<JobSummary, ApiFailure> {
        let Some(timeout_ms) = self.context.overrides.timeout_ms else {
            return self.serve().await;
        };
        let deadline = self.began + Duration::from_millis(timeout_ms);
        let served = timeout_at(deadline, self.serve()).await;
        served.unwrap_or_else(|_| Err(ApiFailure::timeout_exceeded(timeout_ms)))
    }

    /// Asks one provider after the other.
    async fn serve(&mut self) -> Result<JobSummary, ApiFailure> {
        loop {
            if self.rounds.is_over() {
                // Somebody was asked, and failed.
                let failure = self.last.take().unwrap_or_else(ApiFailure::internal);
                self.next_round(failure).await?;
            }
            let (route, terms) = match self.route().await {
                Ok(found) => found,
                Err(none) => {
                    self.without_route(none).await?;
                    continue;
                }
            };
            let RaceEnd { winner, failures } = self.first_output(route, &terms).await;
            match winner {
                Some(attempt) => {
                    for failed in &failures {
                        self.note(failed);
                    }
                    match self.receive(attempt).await {
                        Ok(summary) => return Ok(summary),
                        Err(failed) => {
                            if let Some(summary) = self.after(failed).await? {
                                return Ok(summary);
                            }
                        }
                    }
                }
                None => {
                    for failed in failures {
                        self.after(failed).await?;
                    }
                }
            }
        }
    }

    /// Decides what follows when a provider did not bring the answer to its end: nothing more, where all of it is
    /// there; the next one, where none comes back.
    async fn after(&mut self, failed: Failed) -> Result<Option<JobSummary>, ApiFailure> {
        self.note(&failed);
        let Failed {
            route,
            verdict,
            delivered,
        } = failed;
        if self.recipient.is_gone() {
            return Err(verdict.failure);
        }
        let has_delivered = delivered.is_some();
        if let Some(delivered) = delivered {
            if let Some(summary) = self.complete(&delivered).await {
                return Ok(Some(summary));
            }
            self.go_on(&route, &verdict, &delivered)?;
            if self.continuing.is_some() {
                self.last = Some(verdict.failure);
                return Ok(None);
            }
        }
        let provider = route.provider;
        // Who delivered is paid, and is not asked for the same once more.
        let may_be_asked_again = !has_delivered && verdict.may_pass;
        match verdict.action {
            Action::TellProgram => return Err(verdict.failure),
            Action::AskAnother | Action::OpenAnotherChannel => {
                self.rounds.has_failed(provider, may_be_asked_again);
            }
            Action::AskLongerContext => {
                self.context_length_above = route.offer.context_length;
                self.rounds.has_failed(provider, false);
            }
            Action::AskAnotherOrWait(milliseconds) => self.rounds.was_busy(provider, milliseconds),
        }
        self.last = Some(weightier(self.last.take(), verdict.failure));
        Ok(None)
    }

    /// Remembers what happened with a provider, and that it was asked.
    fn note(&mut self, failed: &Failed) {
        // A request that asks somebody in several rounds is one failure all the same.
        let is_counted = |rounds: &mut Rounds, event| {
            event != RecordEvent::Failed || rounds.is_first_failure(failed.route.provider)
        };
        let provider = failed.route.provider;
        // Whose other words were no continuation may still write on where the text stands.
        if self.recipient.answer().seam_error() != Some(SeamError::OtherText) {
            self.rounds.has_tried(provider);
        }
        if let Some(event) = failed.verdict.record {
            // An engine's words may quote the prompt; they are for the program alone.
            let code = &failed.verdict.failure.code;
            tracing::debug!(%provider, %code, "a provider did not deliver");
            if is_counted(&mut self.rounds, event) {
                self.market.note(provider, event);
            }
        }
    }

    /// Waits for the next round, or takes up a whole answer from the beginning.
    ///
    /// # Errors
    /// What to tell the program, where neither is worth it.
    async fn without_route(&mut self, none: ApiFailure) -> Result<(), ApiFailure> {
        let failure = self.last.take().unwrap_or(none);
        match self.next_round(failure).await {
            Err(failure) if self.continuing.is_some() && !self.recipient.is_gone() => {
                self.begin_anew(&failure)?;
                self.last = Some(failure);
                Ok(())
            }
            waited => waited,
        }
    }

    /// Waits until those who failed or had no room may be asked again.
    ///
    /// # Errors
    /// The failure, where that is not worth it: nobody could be asked, or not in time.
    async fn next_round(&mut self, failure: ApiFailure) -> Result<(), ApiFailure> {
        if !self.may_be_asked_later() {
            return Err(failure);
        }
        let (now_ms, has_others) = (self.elapsed_ms(), self.has_others());
        let wait_ms = self
            .rounds
            .next(&failure, has_others, now_ms, &mut *lock(&self.market.random));
        let Some(wait_ms) = wait_ms else {
            return Err(failure);
        };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            () = self.recipient.gone() => return Err(failure),
        }
        self.last = Some(failure);
        Ok(())
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
