//! What becomes of an answer that broke off: it goes on with another provider, or ends as it is.

use gristmill_protocol::listing::Offer;
use gristmill_protocol::session::consumer::ConsumerFailure;
use gristmill_protocol::usage::{Unit, Usage};

use super::attempt::Attempt;
use super::recipient::Stop;
use super::{Failed, Job};
use crate::core::answer_stream::JobSummary;
use crate::core::bill::joined;
use crate::core::continuation::{CONTINUATIONS_MAX, Continuation, Joining, Obstacle, SeamError, plan};
use crate::core::failure::ApiFailure;
use crate::core::records::RecordEvent;
use crate::core::router::Route;
use crate::core::verdict::{Action, Verdict};
use crate::wallet::lock;

/// An answer that somebody else began.
pub(super) struct Continuing {
    /// What is still to be bought.
    pub(super) rest: Continuation,
    /// The offer that broke off.
    pub(super) before: Offer,
    /// The usage of those who wrote the answer so far.
    earlier: Usage,
}

/// What a provider delivered before it failed.
pub(super) struct Delivered {
    usage: Usage,
    output_limit: Option<u64>,
    /// Whether it only ended too early: what it had said stands.
    is_broken_off: bool,
    summary: JobSummary,
}

impl Job {
    /// Hands an attempt's answer to the program, to its end.
    pub(super) async fn receive(&mut self, mut attempt: Attempt) -> Result<JobSummary, Failed> {
        let stop = attempt.finish(&mut self.recipient).await;
        let elapsed_ms = attempt.elapsed_ms();
        let verdict = match stop {
            Some(Stop::Unusable(failure)) => Some(Verdict::on_unusable(failure)),
            Some(Stop::Gone) | None => self.verdict(&attempt),
        };
        let summary = self.summary(&attempt);
        if verdict.is_none() {
            self.note_delivery(&attempt, elapsed_ms);
        }
        let verdict = match verdict {
            Some(verdict) => verdict,
            None => match self.recipient.complete(&summary).await {
                // Who went away has paid for what was made.
                Ok(()) | Err(Stop::Gone) => return Ok(summary),
                Err(Stop::Unusable(failure)) => Verdict::on_unusable(failure),
            },
        };
        Err(self.failed(&attempt, verdict, summary))
    }

    /// Takes note of an attempt that ended well: how fast it was, and who has read the prompt.
    fn note_delivery(&self, attempt: &Attempt, elapsed_ms: f64) {
        let provider = attempt.route().provider;
        let usage = attempt.outcome().map(|outcome| &outcome.usage);
        let delivered = RecordEvent::Delivered {
            output_tokens: usage.map_or(0, |usage| usage.count(Unit::OutputToken)),
            output_ms: elapsed_ms - attempt.first_output_ms().unwrap_or(elapsed_ms),
        };
        let now_ms = self.market.now_ms();
        let mut records = lock(&self.market.records);
        records.note(provider, delivered, now_ms);
        records.remember_prefix(&self.prefix, provider, now_ms);
    }

    fn failed(&self, attempt: &Attempt, verdict: Verdict, summary: JobSummary) -> Failed {
        let outcome = attempt.outcome();
        let failure = outcome.and_then(|outcome| outcome.result.as_ref().err());
        let delivered = Delivered {
            usage: outcome.map_or_else(Usage::new, |outcome| outcome.usage.clone()),
            output_limit: attempt.output_limit(),
            is_broken_off: matches!(
                failure,
                Some(ConsumerFailure::Disconnected | ConsumerFailure::TimedOut | ConsumerFailure::Failed(_))
            ),
            summary,
        };
        let mut verdict = verdict;
        if self.recipient.answer().seam_error() == Some(SeamError::OtherText) {
            // Two machines may well differ in their words.
            verdict.record = None;
        }
        Failed {
            route: attempt.route().clone(),
            verdict,
            delivered: Some(delivered),
        }
    }

    /// What the request came to, if this attempt was the last.
    fn summary(&self, attempt: &Attempt) -> JobSummary {
        let usage = attempt
            .outcome()
            .map_or_else(Usage::new, |outcome| outcome.usage.clone());
        let bill = lock(&self.bill).clone();
        JobSummary {
            request_id: self.context.request_id.clone(),
            provider: attempt.route().provider,
            channel: attempt.channel(),
            usage: match &self.continuing {
                Some(continuing) => joined(&continuing.earlier, continuing.rest.tokens_before, &usage),
                None => usage,
            },
            cost: bill.cost(),
            bill,
        }
    }

    /// Completes an answer of which nothing is missing but its provider's last word.
    pub(super) async fn complete(&mut self, delivered: &Delivered) -> Option<JobSummary> {
        if !delivered.is_broken_off || !self.recipient.answer().is_finished() {
            return None;
        }
        let summary = delivered.summary.clone();
        match self.recipient.complete(&summary).await {
            Ok(()) | Err(Stop::Gone) => Some(summary),
            Err(Stop::Unusable(_)) => None,
        }
    }

    /// Prepares to buy the rest of an answer that broke off.
    ///
    /// # Errors
    /// The failure to tell the program, where the rest can't be bought.
    pub(super) fn go_on(
        &mut self,
        route: &Route,
        verdict: &Verdict,
        delivered: &Delivered,
    ) -> Result<(), ApiFailure> {
        match self.plan(verdict, delivered) {
            Ok(rest) => {
                tracing::info!(
                    request_id = %self.context.request_id,
                    provider = %route.provider,
                    code = %verdict.failure.code,
                    "an answer broke off; its rest is bought from another provider"
                );
                self.recipient.go_on(&rest);
                let (earlier, before) = match self.continuing.take() {
                    Some(known) => (
                        joined(&known.earlier, known.rest.tokens_before, &delivered.usage),
                        known.before,
                    ),
                    None => (delivered.usage.clone(), route.offer.clone()),
                };
                self.continuing = Some(Continuing {
                    rest,
                    before,
                    earlier,
                });
                self.continuations += 1;
                self.rounds.begin_rest();
                Ok(())
            }
            Err(obstacle) => {
                tracing::debug!(?obstacle, "an answer that broke off is not continued");
                self.begin_anew(&verdict.failure)
            }
        }
    }

    fn plan(&mut self, verdict: &Verdict, delivered: &Delivered) -> Result<Continuation, Option<Obstacle>> {
        let answer = self.recipient.answer();
        let may_go_on = verdict.action != Action::TellProgram
            && self.continuations < CONTINUATIONS_MAX
            && !answer.is_finished();
        let Some(partial) = answer.partial().filter(|_| may_go_on) else {
            return Err(None);
        };
        if answer.seam_error() == Some(SeamError::OtherText) {
            self.joining = Joining::AsItComes;
        }
        if self.continuing.is_none() {
            self.output_limit = delivered.output_limit;
        }
        plan(&self.request, partial, self.output_limit, self.joining).map_err(Some)
    }

    /// Forgets what came of an answer, where the program has got nothing of it yet.
    ///
    /// # Errors
    /// The failure to tell the program otherwise.
    pub(super) fn begin_anew(&mut self, failure: &ApiFailure) -> Result<(), ApiFailure> {
        if self.recipient.has_delivered() {
            return Err(failure.clone());
        }
        self.recipient.restart(self.answer.clone());
        self.continuing = None;
        Ok(())
    }
}
