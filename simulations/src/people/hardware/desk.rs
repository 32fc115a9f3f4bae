//! The coordinator's desk for proofs of hardware: what the shipped driver does around the shipped machine.
//!
//! The machine itself can't be written down, so the desk keeps what was said to it: with the same numbers it comes to the
//! same state again, which is what a snapshot needs.

mod state;

use gristmill_benchmark::session::Policy;
use gristmill_protocol::hardware::CERTIFICATE_LIFE_SECONDS;
use gristmill_protocol::identity::Keypair;
use serde::{Deserialize, Serialize};

use self::state::State;
use super::{DeskAnswer, ProverCall};
use crate::engine::{NodeId, Random};

/// Most calls that a desk hears in a run; it takes up no more challenges then.
const HEARD_MAX: usize = 2_000_000;
/// In place of a time that never comes: a hundred years, in seconds.
const NEVER_S: u64 = 100 * 365 * 86_400;

/// What a scenario varies of the shipped policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeskConfig {
    /// The longest time between two challenges that the coordinator demands, in seconds; as shipped, 18 hours.
    pub challenge_every_s: u64,
    /// Units of each stage that are opened; as shipped, 271.
    pub openings: u32,
}

impl Default for DeskConfig {
    fn default() -> Self {
        Self {
            challenge_every_s: 18 * 3_600,
            openings: Policy::default().openings,
        }
    }
}

impl DeskConfig {
    /// A device is challenged again so many times in a day at least; never again where it is none.
    #[must_use]
    pub fn of_challenges_per_day(per_day: f64) -> Self {
        let every_s = if per_day > 0.0 {
            std::time::Duration::try_from_secs_f64(86_400.0 / per_day)
                .map_or(NEVER_S, |every| every.as_secs())
        } else {
            NEVER_S
        };
        Self {
            challenge_every_s: every_s.clamp(1, NEVER_S),
            ..Self::default()
        }
    }

    fn policy(self) -> Policy {
        let every_ms = self.challenge_every_s.saturating_mul(1_000);
        let shipped = Policy::default();
        Policy {
            again_after_ms: shipped.again_after_ms.min(every_ms),
            // The time of the next challenge is drawn up to this less the life of a certificate.
            shown_life_ms: every_ms.saturating_add(CERTIFICATE_LIFE_SECONDS * 1_000),
            openings: self.openings,
            ..shipped
        }
    }
}

/// How a challenge ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a certificate for so many bytes of memory and this score.
    Shown {
        /// Memory, in bytes.
        memory_bytes: u64,
        /// The score.
        score: u64,
    },
    /// Without one, and why: the shipped machine's code.
    Refused(&'static str),
}

/// Who calls, and which of its calls it is: an answer names the call that it is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Who.
    pub node: NodeId,
    /// Its count of its calls.
    pub number: u32,
}

/// What follows from a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A provider is answered.
    Answer(Call, DeskAnswer),
    /// A provider's challenge ended; for figures.
    Over(NodeId, Outcome),
}

/// What happened at the desk, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Heard {
    now_ms: u64,
    said: Said,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Said {
    /// Time went by.
    Nothing,
    /// The coordinator is back after an outage.
    Restarted,
    /// A provider called.
    Call(Call, ProverCall),
}

/// The coordinator's desk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Desk {
    config: DeskConfig,
    seed: u64,
    heard: Vec<Heard>,
    /// What the calls have led to; made anew where it is missing.
    #[serde(skip)]
    state: Option<Box<State>>,
}

impl Desk {
    /// A desk that has heard nothing.
    #[must_use]
    pub const fn new(config: DeskConfig, seed: u64) -> Self {
        Self {
            config,
            seed,
            heard: Vec::new(),
            state: None,
        }
    }

    /// A provider calls, at this time in Unix milliseconds.
    pub fn hear(&mut self, coordinator: &Keypair, call: Call, said: ProverCall, now_ms: u64) -> Vec<Told> {
        if let ProverCall::Status(account) = said {
            // Changes nothing, so it need not be kept.
            let status = self.state(coordinator).challenges.status(&account, now_ms);
            return vec![Told::Answer(call, DeskAnswer::Standing(status))];
        }
        if self.heard.len() >= HEARD_MAX {
            return vec![Told::Answer(call, DeskAnswer::Refused("full".to_owned()))];
        }
        let said = Said::Call(call, said);
        self.go_on(coordinator, Heard { now_ms, said })
    }

    /// Time went by.
    pub fn tick(&mut self, coordinator: &Keypair, now_ms: u64) -> Vec<Told> {
        let said = Said::Nothing;
        self.go_on(coordinator, Heard { now_ms, said })
    }

    /// The coordinator is back after an outage: it knows what was on its disk, which is the certificates.
    pub fn restart(&mut self, coordinator: &Keypair, now_ms: u64) -> Vec<Told> {
        let said = Said::Restarted;
        self.go_on(coordinator, Heard { now_ms, said })
    }

    /// When [`Desk::tick`] is due, in Unix milliseconds, where nothing else is heard.
    #[must_use]
    pub fn wake_ms(&mut self, coordinator: &Keypair, now_ms: u64) -> Option<u64> {
        self.state(coordinator).challenges.wake_ms(now_ms)
    }

    fn go_on(&mut self, coordinator: &Keypair, heard: Heard) -> Vec<Told> {
        let turn = self.heard.len();
        let random = Random::of_purpose(self.seed, "challenges", turn as u64);
        let told = self.state(coordinator).happen(coordinator, heard, random);
        self.heard.push(heard);
        told
    }

    fn state(&mut self, coordinator: &Keypair) -> &mut State {
        let (config, seed, heard) = (self.config, self.seed, &self.heard);
        self.state.get_or_insert_with(|| {
            let mut state = Box::new(State::new(config.policy(), coordinator.account()));
            for (turn, heard) in heard.iter().enumerate() {
                let random = Random::of_purpose(seed, "challenges", turn as u64);
                state.happen(coordinator, *heard, random);
            }
            state
        })
    }
}
