//! How attempts and jobs end, and what is learned from it.

use gristmill_protocol::job::RefusalCode;
use gristmill_protocol::routing::records::RecordEvent;
use gristmill_protocol::session::consumer::{ConsumerEvent, ConsumerFailure, ConsumerOutcome};
use gristmill_protocol::usage::Unit;

use super::attempts::milliseconds;
use super::{Attempt, Consumer, Job};
use crate::checkers::bounds::ConsumerBounds;
use crate::checkers::liveness::FailedJob;
use crate::engine::{Breach, NodeId};
use crate::people::job_text::BYTES_PER_TOKEN;
use crate::people::popularity::ModelSize;
use crate::people::quality::answers_rightly;
use crate::world::event::{JobId, StreamId};
use crate::world::roster::Part;
use crate::world::scene::Scene;
use crate::world::tally::Unserved;

impl Consumer {
    /// A session is over.
    pub(super) fn ended(
        &mut self,
        stream: StreamId,
        outcome: ConsumerOutcome,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        let (job, now_ms) = (stream.job(), scene.now_ms());
        let Some(asked) = self.jobs.get_mut(&job) else {
            return Ok(());
        };
        let Some(place) = asked.live.iter().position(|attempt| attempt.stream == stream) else {
            return Ok(());
        };
        let attempt = asked.live.remove(place);
        let model = asked.request.model;
        self.records.note(attempt.account, RecordEvent::JobEnded, now_ms);
        self.check_rest(&attempt, scene)?;
        match outcome.result {
            Ok(_) => {
                let metered = outcome.usage.count(Unit::OutputToken);
                let text_bytes = u64::from(attempt.got) * BYTES_PER_TOKEN;
                ConsumerBounds::believes(metered, text_bytes, scene.place())?;
                self.delivered(&attempt, metered, scene);
                self.look_closely(&attempt, model, metered, scene);
                self.end_served(job, scene);
                Ok(())
            }
            Err(failure) => self.attempt_failed(job, &attempt, &failure, scene),
        }
    }

    /// A channel on which no job runs has everything left that was not received.
    fn check_rest(&self, ended: &Attempt, scene: &Scene<'_, '_>) -> Result<(), Breach> {
        let mut live = self.jobs.values().flat_map(|job| &job.live);
        let is_used = live.any(|attempt| attempt.channel == ended.channel && attempt.session.is_some());
        let channel = self.channels.get(&ended.channel);
        match channel.and_then(|channel| channel.account.awake()) {
            Some(account) if !is_used => self.bounds.at_rest(&ended.channel, account.left(), scene.place()),
            _ => Ok(()),
        }
    }

    fn delivered(&mut self, attempt: &Attempt, output_tokens: u64, scene: &Scene<'_, '_>) {
        let first_us = attempt.first_us.unwrap_or(attempt.sent_us);
        let output_ms = milliseconds(scene.now_us().saturating_sub(first_us) / 1_000);
        let delivered = RecordEvent::Delivered {
            output_tokens,
            output_ms,
        };
        self.records.note(attempt.account, delivered, scene.now_ms());
        self.history.delivered(attempt.provider);
    }

    /// Counts the tokens again, or asks what only the right model knows, as often as the scenario says. A count by the
    /// model's tokenizer is without error; what questions show adds up.
    fn look_closely(&mut self, attempt: &Attempt, model: ModelSize, metered: u64, scene: &mut Scene<'_, '_>) {
        let world = scene.world;
        let defences = &world.config.defences;
        let is_audited = defences.audits(scene.random());
        let is_inflated = is_audited && defences.is_inflated(metered, u64::from(attempt.got));
        let is_checked = defences.spot_checks(scene.random());
        let is_other = is_checked && {
            let served = match world.roster.part(attempt.provider) {
                Part::Provider(group) => {
                    let group = world.config.providers.get(group);
                    group.map_or(model, |group| group.conduct().serves_model(model))
                }
                _ => model,
            };
            let evidence = self.evidence.entry(attempt.account).or_default();
            evidence.answered(model, answers_rightly(served, scene.random()));
            evidence.is_found()
        };
        if is_inflated || is_other {
            scene.tally.lies_found += 1;
            scene.tell(Some(attempt.stream.job()), || {
                format!("Node {} is found to lie.", attempt.provider)
            });
            self.records
                .note(attempt.account, RecordEvent::Misbehaved, scene.now_ms());
            self.history.lied(attempt.provider, scene.now_us());
        }
    }

    fn attempt_failed(
        &mut self,
        job: JobId,
        attempt: &Attempt,
        failure: &ConsumerFailure,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Breach> {
        let (now_ms, account) = (scene.now_ms(), attempt.account);
        let continuation = self.config(scene).continuation;
        let Some(asked) = self.jobs.get_mut(&job) else {
            return Ok(());
        };
        scene.tell(Some(job), || format!("Node {}: {failure}.", attempt.provider));
        match failure {
            ConsumerFailure::Refused(refused) => {
                scene.tally.refused += 1;
                if refused.code == RefusalCode::Busy {
                    scene.tally.busy += 1;
                    let retry_after_ms = u64::from(refused.retry_after_ms);
                    asked.busy.insert(account);
                    asked.busy_wait_ms = Some(
                        asked
                            .busy_wait_ms
                            .map_or(retry_after_ms, |known| known.min(retry_after_ms)),
                    );
                    self.records
                        .note(account, RecordEvent::Busy { retry_after_ms }, now_ms);
                } else {
                    asked.attempts += 1;
                    self.retire(attempt, refused.code);
                }
            }
            ConsumerFailure::Misbehaved(_) => {
                scene.tally.misbehaved += 1;
                asked.attempts += 1;
                self.records.note(account, RecordEvent::Misbehaved, now_ms);
                self.history.lied(attempt.provider, scene.now_us());
            }
            // Told to stop: the other one of a pair was faster, or the program has left.
            ConsumerFailure::Cancelled => {}
            ConsumerFailure::Failed(_)
            | ConsumerFailure::AboveReservation(_)
            | ConsumerFailure::Disconnected
            | ConsumerFailure::TimedOut => {
                asked.attempts += 1;
                if attempt.got == 0 {
                    asked.failed.insert(account);
                }
                self.records.note(account, RecordEvent::Failed, now_ms);
                self.history
                    .broke(attempt.provider, attempt.sent_us, scene.now_us());
            }
        }
        let Some(asked) = self.jobs.get_mut(&job) else {
            return Ok(());
        };
        if asked.is_over {
            self.forget_when_silent(job);
            return Ok(());
        }
        if !asked.live.is_empty() {
            return Ok(());
        }
        if asked.got >= asked.request.output_tokens {
            self.end_served(job, scene);
            return Ok(());
        }
        if asked.got > 0 && !continuation {
            self.end_unserved(job, Unserved::BrokeOff, scene);
            return Ok(());
        }
        if attempt.got > 0 {
            asked.attempts = 0;
            scene.tally.continuations += 1;
            let got = asked.got;
            scene.tell(Some(job), || {
                format!("It broke off after {got} tokens; the rest is bought elsewhere.")
            });
        }
        self.route(job, scene)
    }

    /// A channel that its provider does not take any more is not used again.
    fn retire(&mut self, attempt: &Attempt, code: RefusalCode) {
        let is_of_channel = matches!(code, RefusalCode::ChannelExhausted | RefusalCode::InvalidTicket);
        if let Some(channel) = self.channels.get_mut(&attempt.channel).filter(|_| is_of_channel) {
            channel.use_until_ms = 0;
        }
    }

    fn end_served(&mut self, job: JobId, scene: &mut Scene<'_, '_>) {
        let Some(asked) = self.jobs.get_mut(&job).filter(|asked| !asked.is_over) else {
            return;
        };
        asked.is_over = true;
        let model = asked.request.model;
        let took_ms = (scene.now_us() - asked.asked_us) / 1_000;
        self.forget_when_silent(job);
        self.served += 1;
        self.history.served(model);
        scene.tally.served += 1;
        scene.tally.answer_ms.add(took_ms);
        scene.trace(SERVED, job.0);
        scene.tell(Some(job), || {
            format!("The answer is complete after {took_ms} ms.")
        });
    }

    /// A job that is over is forgotten with the last word of the last provider. What waits for a channel never began.
    fn forget_when_silent(&mut self, job: JobId) {
        if let Some(asked) = self.jobs.get_mut(&job).filter(|asked| asked.is_over) {
            asked.live.retain(|attempt| attempt.session.is_some());
            if asked.live.is_empty() {
                self.jobs.remove(&job);
            }
        }
    }

    /// The program is told why there is no answer.
    pub(super) fn end_unserved(&mut self, job: JobId, why: Unserved, scene: &mut Scene<'_, '_>) {
        if let Some(asked) = self.jobs.get_mut(&job).filter(|asked| !asked.is_over) {
            asked.is_over = true;
            if asked.got == 0 && asked.live.iter().all(|attempt| attempt.session.is_none()) {
                self.history.unserved(failed(asked, None, scene.now_us()));
            }
            self.forget_when_silent(job);
            scene.tally.unserved(why);
            scene.trace(UNSERVED, job.0);
            scene.tell(Some(job), || {
                format!("The program is told: {}.", why.name().replace('_', " "))
            });
        }
    }

    /// The program waits no longer.
    pub(super) fn give_up(&mut self, job: JobId, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let Some(asked) = self.jobs.get(&job) else {
            return Ok(());
        };
        if asked.is_over {
            return Ok(());
        }
        let now_us = scene.now_us();
        if let [attempt] = asked.live.as_slice()
            && attempt.session.is_some()
            && attempt.sent_us - asked.asked_us < (now_us - asked.asked_us) / 2
        {
            self.history
                .unserved(failed(asked, Some(attempt.provider), now_us));
        }
        let streams: Vec<StreamId> = asked.live.iter().map(|attempt| attempt.stream).collect();
        // Before its attempts end: nobody else is asked for it then.
        self.end_unserved(job, Unserved::TooLate, scene);
        for stream in streams {
            self.session_event(stream, ConsumerEvent::Reject, scene)?;
        }
        Ok(())
    }
}

/// What a program is told of now, and who had it for long.
fn failed(asked: &Job, held_by: Option<NodeId>, ended_us: u64) -> FailedJob {
    FailedJob {
        model: asked.request.model,
        asked_us: asked.asked_us,
        ended_us,
        input_tokens: asked.request.input_tokens,
        output_tokens: asked.request.output_tokens,
        cost_max: asked.cost_max,
        held_by,
    }
}

/// What a trace says of a job's end.
const SERVED: u64 = 5;
const UNSERVED: u64 = 6;
