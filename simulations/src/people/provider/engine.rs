//! The engine behind a job: how far it is, and how long it takes.

use gristmill_protocol::session::provider::ProviderEvent;
use gristmill_protocol::usage::Usage;
use serde::{Deserialize, Serialize};

use super::Provider;
use crate::engine::Breach;
use crate::people::{job_text, whole};
use crate::world::event::{StreamId, Timer};
use crate::world::scene::Scene;

/// How far the engine of a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Engine {
    /// The body has not come, or there is no slot yet.
    Waiting,
    /// It reads and writes; so many tokens were handed over.
    Runs {
        made: u32,
        /// Since when, in microseconds.
        since_us: u64,
        /// Whether the next part is ready and waits for a voucher.
        is_blocked: bool,
    },
    /// It has ended or was stopped, after so many tokens.
    Over { made: u32 },
}

impl Engine {
    /// How many tokens the session was handed.
    pub(super) const fn handed_over(self) -> u32 {
        match self {
            Self::Waiting => 0,
            Self::Runs { made, .. } | Self::Over { made } => made,
        }
    }
}

impl Provider {
    /// Lets waiting jobs begin while there are free slots.
    pub(super) fn begin_engines(&mut self, scene: &mut Scene<'_, '_>) {
        let (config, device) = (self.config(scene), self.device_now(scene));
        let sharers = self.sharers(scene);
        while u64::from(self.running) < config.slots() {
            let Some(stream) = self.queue.pop_front() else {
                return;
            };
            let Some(job) = self.jobs.get_mut(&stream) else {
                continue;
            };
            self.running += 1;
            job.engine = Engine::Runs {
                made: 0,
                since_us: scene.now_us(),
                is_blocked: false,
            };
            // Who answers with a smaller model is faster.
            let model = config.conduct().serves_model(job.model);
            let first = job.output_tokens.min(whole(config.tokens_per_chunk.get()));
            let us =
                config.reading_us(device, model, job.input_tokens) + config.writing_us(device, model, first);
            scene.after(us * sharers, Timer::Engine(stream));
            scene.tell(Some(stream.job()), || {
                "A slot is free: the engine reads the prompt.".to_owned()
            });
        }
    }

    /// The engine's next part is ready.
    pub(super) fn engine_made(&mut self, stream: StreamId, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        if let Some(job) = self.jobs.get_mut(&stream)
            && let Engine::Runs { is_blocked, .. } = &mut job.engine
        {
            *is_blocked = true;
            self.hand_over(stream, scene)?;
        }
        Ok(())
    }

    /// Hands the part that is ready to the session, where that wants it.
    pub(super) fn hand_over(&mut self, stream: StreamId, scene: &mut Scene<'_, '_>) -> Result<(), Breach> {
        let (config, device) = (self.config(scene), self.device_now(scene));
        let sharers = self.sharers(scene);
        let Some(job) = self.jobs.get_mut(&stream) else {
            return Ok(());
        };
        let Engine::Runs { made, is_blocked, .. } = &mut job.engine else {
            return Ok(());
        };
        if !*is_blocked || !job.session.awake().is_some_and(|session| session.wants_output()) {
            return Ok(());
        }
        *is_blocked = false;
        let chunk = whole(config.tokens_per_chunk.get());
        let part = job.output_tokens.saturating_sub(*made).min(chunk);
        *made += part;
        let (made, total) = (*made, job.output_tokens);
        let metered = config.conduct().metered_tokens(u64::from(made));
        let usage = Usage::tokens(u64::from(job.input_tokens), metered);
        let most = config.conduct().delivers(u64::from(total));
        let falls_silent = most.is_some_and(|most| u64::from(made) >= most);
        if made < total && !falls_silent {
            let next = (total - made).min(chunk);
            let model = config.conduct().serves_model(job.model);
            let us = config.writing_us(device, model, next) * sharers;
            scene.after(us, Timer::Engine(stream));
        }
        let output = ProviderEvent::EngineOutput {
            message: job_text::message(part),
            meter: usage.clone(),
        };
        self.session_event(stream, output, scene)?;
        if made >= total {
            scene.tally.inflated_tokens += metered.saturating_sub(u64::from(made));
            self.stop_engine(stream, scene);
            self.session_event(stream, ProviderEvent::EngineFinished { usage }, scene)?;
        }
        Ok(())
    }

    /// The engine of a job is free for another one.
    pub(super) fn stop_engine(&mut self, stream: StreamId, scene: &mut Scene<'_, '_>) {
        let Some(job) = self.jobs.get_mut(&stream) else {
            return;
        };
        match job.engine {
            Engine::Waiting => {
                job.engine = Engine::Over { made: 0 };
                self.queue.retain(|waiting| *waiting != stream);
            }
            Engine::Runs { made, since_us, .. } => {
                job.engine = Engine::Over { made };
                self.busy_us += scene.now_us() - since_us;
                self.running = self.running.saturating_sub(1);
                self.begin_engines(scene);
            }
            Engine::Over { .. } => {}
        }
    }
}
