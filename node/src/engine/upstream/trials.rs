//! What is found out about a model by trying it: once when its upstream appears, and again when it comes back. Models
//! that would have to be loaded first are left alone until somebody else has loaded them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gristmill_protocol::job::JobKind;
use gristmill_protocol::listing::Capability;
use serde_json::{Value, json};

use super::models::{UpstreamKind, UpstreamModel};

/// How long a trial that could not be held is put off, the first time. Twice as long each further time.
const AGAIN_AFTER_MS: u64 = 15_000;
/// Longest time that one is put off.
const AGAIN_AFTER_MAX_MS: u64 = 60 * 60 * 1_000;

/// Something that can be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trial {
    /// A partial answer is written on.
    Continuation,
    /// A request with tools is taken: vLLM and llama.cpp refuse one unless they were started for it.
    Tools,
}

impl Trial {
    const ALL: [Self; 2] = [Self::Continuation, Self::Tools];

    /// What a success shows.
    const fn capability(self) -> Capability {
        match self {
            Self::Continuation => Capability::Continuation,
            Self::Tools => Capability::Tools,
        }
    }

    /// Whether it makes sense for a model.
    fn concerns(self, software: UpstreamKind, model: &UpstreamModel) -> bool {
        let is_open = match self {
            Self::Continuation => true,
            Self::Tools => matches!(software, UpstreamKind::Vllm | UpstreamKind::LlamaCpp),
        };
        let capability = self.capability();
        let is_settled = model.capabilities.contains(&capability) || model.refused.contains(&capability);
        is_open && !is_settled && model.serves(JobKind::ChatCompletions)
    }
}

/// A request with a tool, as small as can be.
pub(super) fn tools_body() -> Value {
    json!({
        "messages": [{"role": "user", "content": "Hello"}],
        "tools": [{"type": "function", "function": {
            "name": "time", "description": "Tells the time.", "parameters": {"type": "object", "properties": {}},
        }}],
        "tool_choice": "auto",
        "temperature": 0,
        "max_tokens": 1,
    })
}

/// How a trial went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The model can.
    Can,
    /// The model, or its server, can't.
    Cannot,
    /// The server was busy, or gone.
    Unknown,
}

impl Verdict {
    /// What a refusal with this status shows.
    pub(super) const fn of_refusal(status: u16) -> Self {
        match status {
            408 | 429 | 502..=504 => Self::Unknown,
            _ => Self::Cannot,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum State {
    Settled(bool),
    PutOff { times: u32, until_ms: u64 },
}

/// What was tried, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Trials(BTreeMap<(String, Trial), State>);

impl Trials {
    /// What is to be tried now.
    pub(super) fn due(
        &self,
        software: UpstreamKind,
        models: &[Arc<UpstreamModel>],
        now_ms: u64,
    ) -> Vec<(Arc<UpstreamModel>, Trial)> {
        let is_due = |model: &UpstreamModel, trial: Trial| match self.0.get(&(model.id.clone(), trial)) {
            None => true,
            Some(State::Settled(_)) => false,
            Some(State::PutOff { until_ms, .. }) => now_ms >= *until_ms,
        };
        let loaded = models.iter().filter(|model| model.is_loaded);
        loaded
            .flat_map(|model| Trial::ALL.map(|trial| (Arc::clone(model), trial)))
            .filter(|(model, trial)| trial.concerns(software, model) && is_due(model, *trial))
            .collect()
    }

    /// Takes note of how a trial went. Returns whether anything is known now that was not.
    pub(super) fn note(&mut self, id: &str, trial: Trial, verdict: Verdict, now_ms: u64) -> bool {
        let key = (id.to_owned(), trial);
        let times = match self.0.get(&key) {
            Some(State::PutOff { times, .. }) => *times,
            _ => 0,
        };
        let state = match verdict {
            Verdict::Can => State::Settled(true),
            Verdict::Cannot => State::Settled(false),
            Verdict::Unknown => {
                let wait_ms = AGAIN_AFTER_MS
                    .saturating_mul(1 << times.min(16))
                    .min(AGAIN_AFTER_MAX_MS);
                State::PutOff {
                    times: times.saturating_add(1),
                    until_ms: now_ms.saturating_add(wait_ms),
                }
            }
        };
        self.0.insert(key, state);
        verdict == Verdict::Can
    }

    /// What a model was seen to do.
    pub(super) fn seen(&self, id: &str) -> BTreeSet<Capability> {
        let can = |trial: &Trial| matches!(self.0.get(&(id.to_owned(), *trial)), Some(State::Settled(true)));
        Trial::ALL
            .into_iter()
            .filter(can)
            .map(Trial::capability)
            .collect()
    }

    /// Forgets what is no longer there: what comes back may have been started otherwise.
    pub(super) fn keep(&mut self, models: &[Arc<UpstreamModel>]) {
        self.0
            .retain(|(id, _), _| models.iter().any(|model| model.id == *id));
    }
}

#[cfg(test)]
mod tests {
    use super::super::models::entries;
    use super::*;

    fn model(id: &str) -> UpstreamModel {
        let entry = entries(&json!({"data": [{"id": id}]})).unwrap().remove(0);
        let kinds = BTreeSet::from([JobKind::ChatCompletions]);
        UpstreamModel::new(&entry, UpstreamKind::Vllm, kinds, None)
    }

    fn due(trials: &Trials, software: UpstreamKind, model: UpstreamModel, now_ms: u64) -> Vec<Trial> {
        let due = trials.due(software, &[Arc::new(model)], now_ms);
        due.into_iter().map(|(_, trial)| trial).collect()
    }

    #[test]
    fn each_thing_is_tried_once_and_again_when_the_upstream_comes_back() {
        let mut trials = Trials::default();
        let vllm = |trials: &Trials| due(trials, UpstreamKind::Vllm, model("m"), 0);
        assert_eq!(vllm(&trials), Trial::ALL);
        assert!(trials.note("m", Trial::Continuation, Verdict::Can, 0));
        assert!(!trials.note("m", Trial::Tools, Verdict::Cannot, 0));
        assert_eq!(vllm(&trials), []);
        assert_eq!(trials.seen("m"), BTreeSet::from([Capability::Continuation]));
        trials.keep(&[]);
        assert_eq!(vllm(&trials), Trial::ALL);
        assert_eq!(trials.seen("m"), BTreeSet::new());
    }

    #[test]
    fn what_could_not_be_tried_is_tried_later_and_ever_more_rarely() {
        let mut trials = Trials::default();
        let mut now_ms = 0;
        for times in 0..30_u32 {
            assert_eq!(
                due(&trials, UpstreamKind::Ollama, model("m"), now_ms),
                [Trial::Continuation]
            );
            trials.note("m", Trial::Continuation, Verdict::Unknown, now_ms);
            let wait_ms = (AGAIN_AFTER_MS << times.min(16)).min(AGAIN_AFTER_MAX_MS);
            assert_eq!(
                due(&trials, UpstreamKind::Ollama, model("m"), now_ms + wait_ms - 1),
                []
            );
            now_ms += wait_ms;
        }
    }

    #[test]
    fn what_is_settled_or_would_have_to_be_loaded_is_left_alone() {
        let trials = Trials::default();
        let mut asleep = model("m");
        asleep.is_loaded = false;
        assert_eq!(due(&trials, UpstreamKind::Vllm, asleep, 0), []);
        let mut embeds = model("m");
        embeds.kinds = BTreeSet::from([JobKind::Embeddings]);
        assert_eq!(due(&trials, UpstreamKind::Vllm, embeds, 0), []);
        let mut set = model("m");
        set.refused.insert(Capability::Continuation);
        set.capabilities.insert(Capability::Tools);
        assert_eq!(due(&trials, UpstreamKind::Vllm, set, 0), []);
        assert_eq!(Verdict::of_refusal(503), Verdict::Unknown);
        assert_eq!(Verdict::of_refusal(400), Verdict::Cannot);
    }
}
