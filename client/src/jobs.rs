//! Runs a request on the market: picks a provider, pays it, passes its answer on, and asks another one where it
//! fails: for the whole as long as the program has got nothing, for the rest from then on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill_protocol::identity::AccountId;
use gristmill_protocol::routing::affinity::PrefixDigests;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::core::answer::Answer;
use crate::core::answer_stream::JobSummary;
use crate::core::bill::Bill;
use crate::core::context::RequestContext;
use crate::core::continuation::{Joining, SeamError};
use crate::core::failure::ApiFailure;
use crate::core::request::ProgramRequest;
use crate::core::router::{Route, prefix_of};
use crate::core::verdict::{Action, Verdict};
use crate::market::Market;
use crate::usage::Course;

mod attempt;
mod continuing;
mod explain;
mod opening;
mod outbox;
mod race;
mod recipient;
mod routes;

use continuing::{Continuing, Delivered};
use race::RaceEnd;
pub(crate) use recipient::JobEvent;
use recipient::Recipient;

/// Longest time that a request waits for providers that are busy.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);

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
    /// Who was asked and is not asked again.
    tried: BTreeSet<AccountId>,
    /// Those of them that were only busy.
    busy: BTreeSet<AccountId>,
    /// When the first of the busy ones may be asked again.
    busy_wait: Option<Duration>,
    patient_until: Instant,
    context_length_above: u32,
    /// The beginnings of the prompt.
    prefix: PrefixDigests,
    /// How many providers were asked for what is missing now.
    attempts: u32,
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
        let job = Self {
            market,
            request,
            context,
            course,
            answer,
            recipient,
            bill: Arc::default(),
            tried: BTreeSet::new(),
            busy: BTreeSet::new(),
            busy_wait: None,
            patient_until: Instant::now() + BUSY_PATIENCE,
            context_length_above: 0,
            prefix,
            attempts: 0,
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
        let program_went_away = self.recipient.is_gone() && !self.market.stopping.is_cancelled();
        self.course.end(&outcome, program_went_away);
        self.recipient.end(outcome.map(|_| ())).await;
    }

    /// What is asked for now: the whole, or the rest of an answer that broke off.
    fn request(&self) -> &ProgramRequest {
        match &self.continuing {
            Some(continuing) => &continuing.rest.request,
            None => &self.request,
        }
    }

    /// Asks one provider after the other.
    async fn serve(&mut self) -> Result<JobSummary, ApiFailure> {
        loop {
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
        self.attempts += 1;
        match verdict.action {
            Action::TellProgram => return Err(verdict.failure),
            Action::AskAnother | Action::OpenAnotherChannel => {}
            Action::AskLongerContext => self.context_length_above = route.offer.context_length,
            Action::AskAnotherOrWait(milliseconds) => {
                // A provider that says no at once costs nothing but patience.
                self.attempts -= 1;
                let wait = Duration::from_millis(milliseconds);
                self.busy_wait = Some(self.busy_wait.map_or(wait, |known| known.min(wait)));
                self.busy.insert(route.provider);
            }
        }
        let failure = weightier(self.last.take(), verdict.failure);
        if self.attempts >= self.market.settings.attempts_max {
            return Err(failure);
        }
        self.last = Some(failure);
        Ok(None)
    }

    /// Remembers what happened with a provider, and that it was asked.
    fn note(&mut self, failed: &Failed) {
        let provider = failed.route.provider;
        // Whose other words were no continuation may still write on where the text stands.
        if self.recipient.answer().seam_error() != Some(SeamError::OtherText) {
            self.tried.insert(provider);
        }
        if let Some(event) = failed.verdict.record {
            // An engine's words may quote the prompt; they are for the program alone.
            let code = &failed.verdict.failure.code;
            tracing::debug!(%provider, %code, "a provider did not deliver");
            self.market.note(provider, event);
        }
    }

    /// Waits until those who were busy may be asked again, or takes up a whole answer from the beginning.
    ///
    /// # Errors
    /// What to tell the program, where neither is worth it.
    async fn without_route(&mut self, none: ApiFailure) -> Result<(), ApiFailure> {
        let patience = self.patient_until.saturating_duration_since(Instant::now());
        if let Some(wait) = self.busy_wait.take().filter(|wait| *wait <= patience) {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.recipient.gone() => return Err(self.last.take().unwrap_or(none)),
            }
            let busy = std::mem::take(&mut self.busy);
            self.tried.retain(|provider| !busy.contains(provider));
            return Ok(());
        }
        let failure = self.last.take().unwrap_or(none);
        if self.continuing.is_some() {
            self.begin_anew(&failure)?;
            self.last = Some(failure);
            return Ok(());
        }
        Err(failure)
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
