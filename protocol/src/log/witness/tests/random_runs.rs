//! Random runs of a witness against an honest log and against one with two histories.

use super::*;

/// What happens to a witness next, in a random run.
#[derive(Clone, Debug)]
enum Step {
    /// A checkpoint of one of the two histories is heard.
    Hear {
        of_fork: bool,
        size: u64,
    },
    /// The fetch under way is answered, fails, or is answered with the other history's hashes.
    Answer,
    Fail,
    AnswerWrongly,
    /// Time passes.
    Wait {
        ms: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 0..=SIZE).prop_map(|(of_fork, size)| Step::Hear { of_fork, size }),
        4 => Just(Step::Answer),
        1 => Just(Step::Fail),
        1 => Just(Step::AnswerWrongly),
        1 => (0u64..40_000).prop_map(|ms| Step::Wait { ms }),
    ]
}

/// A run of a witness against a log that may show two histories, with everything that must hold at all times.
struct Run {
    log: TestLog,
    fork: TestLog,
    witness: Witness,
    now_ms: u64,
    under_way: Option<(u64, u64)>,
    persisted: Option<SignedCheckpoint>,
    heard: Vec<SignedCheckpoint>,
}

impl Run {
    fn new(log: TestLog, fork: TestLog) -> Self {
        let witness = Witness::new(log.keys(), None);
        let heard = Vec::new();
        Self {
            log,
            fork,
            witness,
            now_ms: 1_000_000,
            under_way: None,
            persisted: None,
            heard,
        }
    }

    fn hear(&mut self, of_fork: bool, size: u64) {
        let log = if of_fork { &self.fork } else { &self.log };
        let checkpoint = log.checkpoint(size);
        self.heard.push(checkpoint.clone());
        self.handle(Event::HeardNote(checkpoint.into_note()));
    }

    /// Which history the larger tree of the fetch under way is of.
    fn answer(&mut self, wrongly: bool) {
        let Some((from, to)) = self.under_way.take() else {
            return;
        };
        let latest = self.witness.latest().unwrap();
        // The witness may have given up on it meanwhile; then any answer will do.
        let root = match latest.size() == to {
            true => *latest.root(),
            false => self
                .witness
                .pending
                .asked(from, to)
                .map_or(self.log.root(to), |pending| *pending.root()),
        };
        let of_log = root == self.log.root(to);
        let log = if of_log != wrongly { &self.log } else { &self.fork };
        self.handle(Event::Extended(log.extension(from, to)));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Hear { of_fork, size } => self.hear(of_fork, size),
            Step::Answer => self.answer(false),
            Step::AnswerWrongly => self.answer(true),
            Step::Fail => {
                if let Some((from, to)) = self.under_way.take() {
                    self.handle(Event::FetchFailed { from, to });
                }
            }
            Step::Wait { ms } => {
                self.now_ms += ms;
                self.handle(Event::Tick);
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let before = self.witness.latest().map_or(0, SignedCheckpoint::size);
        let caught_before = self.witness.caught().is_some();
        let effects = self.witness.handle(event, self.now_ms);
        for effect in effects {
            match effect {
                Effect::FetchExtension { from, to } => {
                    assert!(from <= to);
                    self.under_way = Some((from, to));
                }
                Effect::Persist(checkpoint) => self.persisted = Some(checkpoint),
                Effect::Accepted { checkpoint, cosign } => {
                    assert_eq!(self.persisted.as_ref(), Some(&checkpoint), "persisted first");
                    assert!(checkpoint.size() >= before, "never back");
                    assert_eq!(cosign, !caught_before);
                }
                Effect::Alarm(evidence, lie) => {
                    assert!(!caught_before, "told once");
                    assert_eq!(evidence.verify(&self.log.keys()), Ok(lie));
                }
                Effect::Ignore(_) | Effect::Withheld { .. } => {}
            }
        }
        assert!(self.witness.pending() <= WITNESS_PENDING_MAX);
        assert!(self.witness.recent.len() <= WITNESS_RECENT_MAX);
        assert_eq!(self.witness.latest(), self.persisted.as_ref());
    }

    /// The log answers everything rightly until nothing is left to ask.
    fn settle(&mut self) {
        for _ in 0..200 {
            match self.under_way {
                Some(_) => self.answer(false),
                None => {
                    self.now_ms += RETRY_MAX_MS;
                    self.handle(Event::Tick);
                }
            }
        }
        assert_eq!(self.witness.pending(), 0);
    }
}

proptest! {
    #[test]
    fn an_honest_log_is_never_accused_and_always_followed(steps in proptest::collection::vec(step(), 0..60)) {
        let log = honest();
        let mut run = Run::new(log.clone(), log);
        for step in &steps {
            run.step(step);
            prop_assert_eq!(run.witness.caught(), None);
        }
        let newest = run.heard.iter().map(SignedCheckpoint::size).max();
        run.settle();
        prop_assert_eq!(run.witness.caught(), None);
        // Of more than can wait, the newest are kept.
        prop_assert_eq!(run.witness.latest().map(SignedCheckpoint::size), newest);
    }

    #[test]
    fn a_log_with_two_histories_is_caught(
        at in 0..SIZE - 1,
        kind in 0u8..3,
        heard in proptest::collection::vec((any::<bool>(), 0..SIZE), 2..7),
        steps in proptest::collection::vec(step(), 0..20),
    ) {
        let log = honest();
        let fork = match kind {
            0 => log.with_changed(at),
            1 => log.with_dropped(at),
            _ => log.with_reordered(at),
        };
        let mut run = Run::new(log.clone(), fork.clone());
        // Few enough that all can wait; what else happens does not matter.
        for (place, (of_fork, size)) in heard.into_iter().enumerate() {
            run.hear(of_fork, size);
            for step in steps.iter().skip(place).take(3) {
                match step {
                    Step::Hear { .. } => {}
                    other => run.step(other),
                }
            }
        }
        // Both histories were shown, at sizes where they differ.
        let differs = |checkpoint: &&SignedCheckpoint| log.root(checkpoint.size()) != fork.root(checkpoint.size());
        let shown = |of: &TestLog| {
            run.heard.iter().filter(differs).any(|checkpoint| *checkpoint.root() == of.root(checkpoint.size()))
        };
        let both_shown = shown(&log) && shown(&fork);
        run.settle();
        prop_assert_eq!(run.witness.caught().is_some(), both_shown, "{:?}", run.heard);
    }
}
