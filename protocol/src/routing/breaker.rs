//! A circuit breaker per provider: who fails again and again is left alone for a while, then asked once.
//!
//! ```text
//!            5 failures in a row                   the time is over
//!   Closed ───────────────────────▶ Open (60 s) ───────────────────▶ HalfOpen: one probe at a time
//!      ▲                              ▲  a lie opens for 10 minutes,     │        │
//!      │                              │  from any state                  │        │ the probe fails
//!      │                              └──────────────────────────────────┼────────┘
//!      └─────────────────────────────────────────────────────────────────┘ it succeeds
//! ```
//!
//! Source of the pattern: M. Nygard, "Release It!", chapter "Stability Patterns".

use serde::{Deserialize, Serialize};

use crate::planted::{self, Bug};

/// So many failures in a row open the breaker.
pub const FAILURES_TO_OPEN: u32 = 5;
/// How long failures open it, in milliseconds.
pub const OPEN_AFTER_FAILURES_MS: u64 = 60_000;
/// How long a broken protocol or a lying meter opens it, in milliseconds.
pub const OPEN_AFTER_LIE_MS: u64 = 600_000;
/// A probe of which nothing was heard for so long holds back no other one, in milliseconds.
pub const PROBE_FORGOTTEN_AFTER_MS: u64 = 120_000;

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// The provider may be asked.
    Closed,
    /// It may not be asked until then, in milliseconds.
    Open {
        /// When that ends.
        until_ms: u64,
    },
    /// It may be asked once, to see whether it is well again.
    HalfOpen,
}

/// The breaker of one provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitBreaker {
    failures_in_a_row: u32,
    open_until_ms: Option<u64>,
    probe_began_at_ms: Option<u64>,
}

impl CircuitBreaker {
    /// How it stands.
    #[must_use]
    pub fn state(&self, now_ms: u64) -> BreakerState {
        match self.open_until_ms {
            None => BreakerState::Closed,
            Some(_) if planted::is(Bug::BreakerStaysOpen) => BreakerState::Open {
                until_ms: now_ms.saturating_add(1_000),
            },
            // A clock that was set back must not keep a provider out for longer than any reason would.
            Some(until_ms) if now_ms < until_ms && until_ms - now_ms <= OPEN_AFTER_LIE_MS => {
                BreakerState::Open { until_ms }
            }
            Some(_) => BreakerState::HalfOpen,
        }
    }

    /// Whether the provider may be sent a job.
    #[must_use]
    pub fn admits(&self, now_ms: u64) -> bool {
        match self.state(now_ms) {
            BreakerState::Closed => true,
            BreakerState::Open { .. } => false,
            BreakerState::HalfOpen => self
                .probe_began_at_ms
                .is_none_or(|began_at_ms| now_ms.abs_diff(began_at_ms) >= PROBE_FORGOTTEN_AFTER_MS),
        }
    }

    /// In how many milliseconds it may be worth asking; zero where it is now.
    #[must_use]
    pub fn wait_ms(&self, now_ms: u64) -> u64 {
        match self.state(now_ms) {
            BreakerState::Open { until_ms } => until_ms - now_ms,
            // A probe tells soon.
            BreakerState::HalfOpen if !self.admits(now_ms) => 1_000,
            BreakerState::HalfOpen | BreakerState::Closed => 0,
        }
    }

    /// A job was sent. While half-open it is the probe.
    pub fn began(&mut self, now_ms: u64) {
        if self.state(now_ms) == BreakerState::HalfOpen {
            self.probe_began_at_ms = Some(now_ms);
        }
    }

    /// A job went well. What was begun before the breaker opened does not close it.
    pub fn succeeded(&mut self, now_ms: u64) {
        if !matches!(self.state(now_ms), BreakerState::Open { .. }) {
            *self = Self::default();
        }
    }

    /// A job failed.
    pub fn failed(&mut self, now_ms: u64) {
        match self.state(now_ms) {
            BreakerState::Closed => {
                self.failures_in_a_row += 1;
                if self.failures_in_a_row >= FAILURES_TO_OPEN {
                    self.open(now_ms, OPEN_AFTER_FAILURES_MS);
                }
            }
            BreakerState::HalfOpen => self.open(now_ms, OPEN_AFTER_FAILURES_MS),
            // Of jobs that had begun before; the provider was not asked again.
            BreakerState::Open { .. } => {}
        }
    }

    /// The provider broke the protocol or lied.
    pub fn misbehaved(&mut self, now_ms: u64) {
        self.open(now_ms, OPEN_AFTER_LIE_MS);
    }

    /// No job runs at the provider any more: a probe that ended neither well nor badly, such as one that its program
    /// gave up, makes room for another one.
    pub const fn idle(&mut self) {
        self.probe_began_at_ms = None;
    }

    const fn open(&mut self, now_ms: u64, for_ms: u64) {
        self.open_until_ms = Some(now_ms.saturating_add(for_ms));
        self.probe_began_at_ms = None;
        self.failures_in_a_row = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after_failures(count: u32) -> CircuitBreaker {
        let mut breaker = CircuitBreaker::default();
        (0..count).for_each(|_| breaker.failed(1_000));
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_for_a_minute() {
        assert_eq!(after_failures(4).state(1_000), BreakerState::Closed);
        let open = after_failures(5);
        assert_eq!(open.state(1_000), BreakerState::Open { until_ms: 61_000 });
        assert!(!open.admits(60_999) && open.admits(61_000));
        assert_eq!((open.wait_ms(1_000), open.wait_ms(61_000)), (60_000, 0));
        let mut interrupted = after_failures(4);
        interrupted.succeeded(1_000);
        (0..4).for_each(|_| interrupted.failed(1_000));
        assert_eq!(interrupted.state(1_000), BreakerState::Closed);
    }

    #[test]
    fn one_probe_decides() {
        let mut breaker = after_failures(5);
        breaker.began(61_000);
        assert!(!breaker.admits(61_000), "only one");
        assert_eq!(breaker.wait_ms(61_000), 1_000);
        let mut well = breaker;
        well.succeeded(62_000);
        assert_eq!(well, CircuitBreaker::default());
        let mut ill = breaker;
        ill.failed(62_000);
        assert_eq!(ill.state(62_000), BreakerState::Open { until_ms: 122_000 });
        let mut given_up = breaker;
        given_up.idle();
        assert!(given_up.admits(61_000));
        assert!(breaker.admits(61_000 + PROBE_FORGOTTEN_AFTER_MS), "lost");
    }

    #[test]
    fn a_lie_opens_at_once_and_for_longer() {
        let mut breaker = CircuitBreaker::default();
        breaker.misbehaved(1_000);
        breaker.succeeded(2_000);
        breaker.failed(2_000);
        assert_eq!(breaker.state(2_000), BreakerState::Open { until_ms: 601_000 });
    }

    #[test]
    fn a_clock_that_is_set_back_keeps_nobody_out() {
        let mut breaker = CircuitBreaker::default();
        breaker.misbehaved(1 << 40);
        assert_eq!(breaker.state(5), BreakerState::HalfOpen);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Ask,
        Succeed,
        Fail,
        Lie,
        Idle,
    }

    /// What a breaker shall do, told in another way: by the history of what happened, not by a state.
    #[derive(Default)]
    struct Model {
        failures: u32,
        /// When it opened last and for how long, if that was not closed by a success.
        opened: Option<(u64, u64)>,
        probe: Option<u64>,
    }

    impl Model {
        fn is_open(&self, now_ms: u64) -> bool {
            self.opened.is_some_and(|(at, length)| now_ms < at + length)
        }

        fn admits(&self, now_ms: u64) -> bool {
            let probing = self
                .probe
                .is_some_and(|began| now_ms < began + PROBE_FORGOTTEN_AFTER_MS);
            !self.is_open(now_ms) && !probing
        }

        fn step(&mut self, step: Step, now_ms: u64) {
            let was_open = self.is_open(now_ms);
            match step {
                Step::Ask if self.opened.is_some() && !was_open => self.probe = Some(now_ms),
                Step::Succeed if !was_open => *self = Self::default(),
                Step::Fail if !was_open => {
                    self.failures += 1;
                    if self.failures == 5 || self.opened.is_some() {
                        self.reopen(now_ms, 60_000);
                    }
                }
                Step::Lie => self.reopen(now_ms, 600_000),
                Step::Idle => self.probe = None,
                Step::Ask | Step::Succeed | Step::Fail => {}
            }
        }

        fn reopen(&mut self, now_ms: u64, length_ms: u64) {
            *self = Self {
                opened: Some((now_ms, length_ms)),
                ..Self::default()
            };
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Ask),
            2 => Just(Step::Succeed),
            8 => Just(Step::Fail),
            1 => Just(Step::Lie),
            1 => Just(Step::Idle),
        ]
    }

    proptest! {
        #[test]
        fn it_is_as_its_model(steps in proptest::collection::vec((step(), 0u64..40_000), 0..120)) {
            let (mut breaker, mut model, mut now_ms) = (CircuitBreaker::default(), Model::default(), 1_000);
            for (step, wait_ms) in steps {
                now_ms += wait_ms;
                prop_assert_eq!(breaker.admits(now_ms), model.admits(now_ms), "before {:?} at {}", step, now_ms);
                prop_assert_eq!(breaker.admits(now_ms), breaker.wait_ms(now_ms) == 0);
                match step {
                    Step::Ask => breaker.began(now_ms),
                    Step::Succeed => breaker.succeeded(now_ms),
                    Step::Fail => breaker.failed(now_ms),
                    Step::Lie => breaker.misbehaved(now_ms),
                    Step::Idle => breaker.idle(),
                }
                model.step(step, now_ms);
                prop_assert_eq!(breaker.admits(now_ms), model.admits(now_ms), "after {:?} at {}", step, now_ms);
            }
        }
    }
}
