use super::*;
use std::collections::VecDeque;

use gristmill_protocol::identity::Keypair;
use gristmill_protocol::log::checkpoint::{Checkpoint, origin_of};
use gristmill_protocol::log::evidence::Evidence;
use gristmill_protocol::log::hash::{LogHash, leaf_hash};
use gristmill_protocol::log::tile::Tile;
use gristmill_protocol::log::tile_tree::TileTree;
use gristmill_protocol::log::witness::WITHHELD_AFTER_MS;
use proptest::prelude::*;
use rand::SeedableRng as _;

const NOW: u64 = 1_800_000_000_000;
const PACE: Pace = Pace {
    poll_ms: 10_000,
    cosign_ms: Some(10_000),
};

fn keypair(byte: u8) -> Keypair {
    Keypair::from_secret(&[byte; 32])
}

fn peer(byte: u8) -> AccountId {
    keypair(byte).account()
}

fn keys() -> LogKeys {
    LogKeys::new(peer(1))
}

/// A log of up to 256 leaves, so that one tile tells all.
#[derive(Clone)]
struct Log {
    leaves: Vec<LogHash>,
}

impl Log {
    fn new(size: u64) -> Self {
        let leaf = |number: u64| leaf_hash(&number.to_le_bytes());
        Self {
            leaves: (0..size).map(leaf).collect(),
        }
    }

    fn forked_at(&self, index: usize) -> Self {
        let mut forked = self.clone();
        forked.leaves[index] = leaf_hash(b"another");
        forked
    }

    fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn read(&self) -> impl FnMut(Tile) -> Result<Vec<u8>, ()> {
        |tile: Tile| {
            assert_eq!((tile.level(), tile.index()), (0, 0));
            let hashes = self.leaves.iter().take(tile.width().into());
            Ok(hashes.flat_map(|hash| *hash.bytes()).collect())
        }
    }

    fn checkpoint(&self, size: u64) -> SignedCheckpoint {
        let root = match size {
            0 => gristmill_protocol::log::hash::empty_root(),
            size => TileTree::new(size, self.read()).subtree(0, size).unwrap(),
        };
        SignedCheckpoint::sign(&Checkpoint::new(&origin_of(&peer(1)), size, root), &keypair(1)).unwrap()
    }

    fn note(&self, size: u64) -> SignedNote {
        self.checkpoint(size).into_note()
    }

    fn extension(&self, from: u64, to: u64) -> Extension {
        Extension::build(from, to, self.read()).unwrap()
    }
}

fn heard(log: &Log, size: u64, from: u8) -> Input {
    Input::Heard {
        checkpoint: log.checkpoint(size),
        from: peer(from),
    }
}

fn watch() -> Watch {
    Watch::new(keys(), None, PACE)
}

/// Handles an input, and then all fetches that it leads to, from what this coordinator shows.
fn with_log(watch: &mut Watch, log: &Log, input: Input, now_ms: u64) -> Vec<Action> {
    let mut inputs = VecDeque::from([input]);
    let mut all = Vec::new();
    while let Some(input) = inputs.pop_front() {
        for action in watch.handle(input, now_ms, 0) {
            if let Action::Fetch { from, to } = action {
                inputs.push_back(match to <= log.size() {
                    true => Input::Extended(log.extension(from, to)),
                    false => Input::FetchFailed { from, to },
                });
            }
            all.push(action);
        }
    }
    all
}

fn alarms(actions: &[Action]) -> Vec<&Evidence> {
    let mut alarms = Vec::new();
    for action in actions {
        if let Action::Alarm(evidence, _) = action {
            alarms.push(&**evidence);
        }
    }
    alarms
}

#[test]
fn the_log_is_looked_at_at_once_and_then_around_every_ten_seconds() {
    let mut watch = watch();
    let polls = |watch: &mut Watch, now_ms| watch.handle(Input::Tick, now_ms, 0).contains(&Action::Poll);
    assert!(polls(&mut watch, NOW));
    assert!(!polls(&mut watch, NOW + 1_000), "one look at a time");
    assert!(
        polls(&mut watch, NOW + POLL_PATIENCE_MS),
        "an answer that never comes"
    );
    for (random, wait_ms) in [(0, 8_000), (2_000, 10_000), (4_000, 12_000)] {
        let _ = watch.handle(Input::Polled(None), NOW, random);
        assert!(!polls(&mut watch, NOW + wait_ms - 1), "{random}");
        assert!(polls(&mut watch, NOW + wait_ms), "{random}");
    }
    let _ = watch.handle(Input::Polled(None), NOW, 0);
    assert!(polls(&mut watch, NOW - 3_600_000), "the clock was set back");
}

#[test]
fn what_is_consistent_is_kept_announced_and_cosigned_in_this_order() {
    let (mut watch, log) = (watch(), Log::new(9));
    let actions = with_log(&mut watch, &log, Input::Polled(Some(log.note(5))), NOW);
    let five = log.checkpoint(5);
    assert_eq!(
        actions,
        [
            Action::Keep(five.clone()),
            Action::Announce(five.clone()),
            Action::Cosign(five)
        ]
    );
    // Soon after, the next one is not cosigned before its time.
    let actions = with_log(&mut watch, &log, Input::Polled(Some(log.note(7))), NOW + 9_000);
    assert_eq!(
        actions,
        [
            Action::Fetch { from: 5, to: 7 },
            Action::Keep(log.checkpoint(7)),
            Action::Announce(log.checkpoint(7))
        ]
    );
    let actions = watch.handle(Input::Tick, NOW + 10_000, 0);
    assert_eq!(actions, [Action::Cosign(log.checkpoint(7))]);
}

#[test]
fn newer_ones_wait_for_the_next_look_and_are_all_checked() {
    let (mut watch, log) = (watch(), Log::new(60));
    let _ = with_log(&mut watch, &log, Input::Polled(Some(log.note(5))), NOW);
    for size in 6..=40 {
        assert!(with_log(&mut watch, &log, heard(&log, size, 2), NOW + 1).is_empty());
    }
    // A fork among them is found although the newest one is honest.
    let fork = log.forked_at(3);
    assert!(with_log(&mut watch, &log, heard(&fork, 41, 3), NOW + 1).is_empty());
    let mut actions = with_log(&mut watch, &log, Input::Polled(Some(log.note(50))), NOW + 10_000);
    for tick in 0..200 {
        actions.extend(with_log(&mut watch, &log, Input::Tick, NOW + 10_000 + tick * 250));
    }
    let evidence = alarms(&actions);
    assert!(
        matches!(evidence[..], [Evidence::NotAnExtension { .. }]),
        "{evidence:?}"
    );
    assert!(evidence[0].verify(&keys()).is_ok());
    assert_eq!(watch.latest().map(SignedCheckpoint::size), Some(50));
}

#[test]
fn two_roots_are_found_whether_kept_waiting_or_shown() {
    let log = Log::new(20);
    let fork = log.forked_at(0);
    // Both newer than what is kept: neither waits for the next look.
    let mut first = watch();
    let _ = with_log(&mut first, &log, Input::Polled(Some(log.note(5))), NOW);
    assert!(with_log(&mut first, &log, heard(&log, 9, 2), NOW).is_empty());
    let actions = with_log(&mut first, &log, heard(&fork, 9, 3), NOW);
    assert!(matches!(alarms(&actions)[..], [Evidence::TwoRoots { .. }]));
    // One is kept.
    let mut second = watch();
    let _ = with_log(&mut second, &log, Input::Polled(Some(log.note(5))), NOW);
    let actions = with_log(&mut second, &log, heard(&fork, 5, 3), NOW);
    assert!(matches!(alarms(&actions)[..], [Evidence::TwoRoots { .. }]));
    // The coordinator shows the other one.
    let mut third = watch();
    let _ = with_log(&mut third, &log, Input::Polled(Some(log.note(5))), NOW);
    let actions = with_log(&mut third, &log, Input::Polled(Some(fork.note(5))), NOW + 10_000);
    assert!(matches!(alarms(&actions)[..], [Evidence::TwoRoots { .. }]));
    // Once caught, nothing is cosigned any more.
    let actions = with_log(&mut third, &log, Input::Polled(Some(log.note(9))), NOW + 60_000);
    assert!(!actions.iter().any(|action| matches!(action, Action::Cosign(_))));
}

#[test]
fn a_log_that_shows_no_proof_is_told_of_after_a_minute() {
    let (mut watch, log) = (watch(), Log::new(5));
    let fork = Log::new(9).forked_at(3);
    let _ = with_log(&mut watch, &log, Input::Polled(Some(log.note(5))), NOW);
    let _ = with_log(&mut watch, &log, heard(&fork, 9, 2), NOW);
    let mut told = Vec::new();
    for second in 0..=120 {
        let now_ms = NOW + second * 1_000;
        let mut actions = with_log(&mut watch, &log, Input::Tick, now_ms);
        if actions.contains(&Action::Poll) {
            actions.extend(with_log(
                &mut watch,
                &log,
                Input::Polled(Some(log.note(5))),
                now_ms,
            ));
        }
        let withheld = actions
            .iter()
            .filter(|action| matches!(action, Action::Withheld { size: 9, .. }));
        told.extend(withheld.map(|_| second));
        assert!(alarms(&actions).is_empty());
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0] * 1_000 >= WITHHELD_AFTER_MS);
    assert_eq!(watch.withheld().map(|(size, _)| size), Some(9));
}

#[test]
fn a_checkpoint_by_an_unknown_key_makes_it_ask_for_keys() {
    let (mut watch, log) = (watch(), Log::new(5));
    let checkpoint = log.checkpoint(5).checkpoint().clone();
    let by_new = SignedCheckpoint::sign(&checkpoint, &keypair(7)).unwrap();
    let shown = || Input::Polled(Some(by_new.note().clone()));
    assert_eq!(watch.handle(shown(), NOW, 0), [Action::AskForKeys]);
    assert!(watch.latest().is_none());
    let mut keys = keys();
    keys.add_key(peer(7));
    let _ = watch.handle(Input::Keys(keys), NOW, 0);
    let _ = watch.handle(shown(), NOW + 10_000, 0);
    assert_eq!(watch.latest().map(SignedCheckpoint::size), Some(5));
}

#[test]
fn receipts_are_checked_once_the_log_covers_them_and_lacking_ones_are_told() {
    let (mut watch, log) = (watch(), Log::new(9));
    let receipt = |sequence| OwnReceipt {
        sequence,
        token: "token".into(),
    };
    let _ = with_log(&mut watch, &log, Input::Polled(Some(log.note(5))), NOW);
    let actions = watch.handle(Input::Receipts(vec![receipt(4), receipt(9)]), NOW, 0);
    let expected = Action::Check {
        checkpoint: log.checkpoint(5),
        receipts: vec![receipt(4)],
    };
    assert_eq!(actions, [expected]);
    let proved = ProvedReceipt {
        sequence: 4,
        proof: "proof".into(),
    };
    let found = vec![(4, ReceiptFound::Proved(proved.clone()))];
    assert_eq!(
        watch.handle(Input::Checked(found), NOW, 0),
        [Action::Proved(vec![proved])]
    );
    let mut told = Vec::new();
    for look in 1..10 {
        let now_ms = NOW + look * 10_000;
        let actions = with_log(&mut watch, &log, Input::Polled(Some(log.note(5))), now_ms);
        if actions.contains(&Action::Missing(vec![9])) {
            told.push(look);
        }
    }
    assert_eq!(told, [7], "a minute after it was first lacking");
}

#[test]
fn a_log_that_is_not_shown_does_not_count_as_lacking_a_receipt() {
    let (mut watch, log) = (watch(), Log::new(9));
    let _ = with_log(&mut watch, &log, Input::Polled(Some(log.note(5))), NOW);
    let receipt = OwnReceipt {
        sequence: 9,
        token: "token".into(),
    };
    let _ = watch.handle(Input::Receipts(vec![receipt]), NOW, 0);
    let malformed = SignedNote::sign("text\n", "name", &keypair(1)).unwrap();
    // Shown without it again and again, but never for a minute without a break.
    for look in 0..60 {
        let shown = match (look % 4, look < 30) {
            (3, true) => None,
            (3, false) => Some(malformed.clone()),
            _ => Some(log.note(5)),
        };
        let actions = with_log(&mut watch, &log, Input::Polled(shown), NOW + look * 15_000);
        assert!(!actions.contains(&Action::Missing(vec![9])), "{look}");
    }
}

/// One honest coordinator, and everything that may go wrong around it: for seeds, the number of records, restarts of
/// the node from what it kept, a coordinator that is away or slow, stale and repeated checkpoints from peers, answers
/// that never come, clocks that jump.
fn honest_run(seed: u64) {
    let mut random = seeded(seed);
    let log = Log::new(250);
    let (mut size, mut now_ms) = (random.random_range(0..20), NOW);
    let mut watch = watch();
    let mut kept: Option<SignedCheckpoint> = None;
    let mut asked: Vec<Action> = Vec::new();
    let mut receipts = 0;
    let mut check = |watch: &mut Watch, input, now_ms, random: u64, asked: &mut Vec<Action>| {
        for action in watch.handle(input, now_ms, random) {
            match action {
                Action::Alarm(evidence, lie) => panic!("seed {seed}: {lie} {evidence:?}"),
                Action::Missing(sequences) => panic!("seed {seed}: missing {sequences:?}"),
                Action::Keep(checkpoint) => {
                    assert!(kept.as_ref().is_none_or(|kept| kept.size() < checkpoint.size()));
                    kept = Some(checkpoint);
                }
                Action::Poll | Action::Fetch { .. } | Action::Check { .. } => asked.push(action),
                _ => {}
            }
        }
        kept.clone()
    };
    for step in 0..400 {
        now_ms += random.random_range(0..4_000);
        if random.random_bool(0.02) {
            now_ms = now_ms.saturating_sub(random.random_range(0..100_000));
        }
        if random.random_bool(0.5) {
            size = (size + random.random_range(0..3)).min(log.size());
        }
        let quiet = step > 350;
        let input = match random.random_range(0..if quiet { 3 } else { 10 }) {
            0 => Input::Tick,
            1 | 2 if !asked.is_empty() => {
                let place = random.random_range(0..asked.len());
                match asked.swap_remove(place) {
                    // Away, slow, or answering with a checkpoint of a moment ago.
                    Action::Poll if !quiet && random.random_bool(0.3) => Input::Polled(None),
                    Action::Poll => {
                        let shown = size.saturating_sub(random.random_range(0..2));
                        Input::Polled(Some(log.note(shown)))
                    }
                    Action::Fetch { from, to } if !quiet && random.random_bool(0.3) => {
                        Input::FetchFailed { from, to }
                    }
                    Action::Fetch { from, to } => Input::Extended(log.extension(from, to)),
                    Action::Check { receipts, .. } => Input::Checked(
                        receipts
                            .into_iter()
                            .map(|receipt| {
                                let sequence = receipt.sequence;
                                let proof = String::new();
                                (sequence, ReceiptFound::Proved(ProvedReceipt { sequence, proof }))
                            })
                            .collect(),
                    ),
                    other => panic!("{other:?}"),
                }
            }
            1 | 2 => Input::Tick,
            3 => {
                receipts = size.max(receipts);
                Input::Receipts(vec![OwnReceipt {
                    sequence: size.max(1),
                    token: String::new(),
                }])
            }
            // The node restarts; what it asked for is lost.
            4 if random.random_bool(0.1) => {
                asked.clear();
                watch = Watch::new(
                    keys(),
                    check(&mut watch, Input::Tick, now_ms, 0, &mut Vec::new()),
                    PACE,
                );
                Input::Tick
            }
            // An answer that never comes.
            5 if !asked.is_empty() => {
                asked.remove(0);
                Input::Tick
            }
            _ => heard(&log, random.random_range(0..=size), random.random_range(2..6)),
        };
        let draw = random.random();
        check(&mut watch, input, now_ms, draw, &mut asked);
    }
    // Left alone with a coordinator that answers, it has the newest checkpoint soon.
    for _ in 0..200 {
        now_ms += 1_000;
        let inputs: Vec<_> = std::mem::take(&mut asked)
            .into_iter()
            .map(|action| match action {
                Action::Poll => Input::Polled(Some(log.note(size))),
                Action::Fetch { from, to } => Input::Extended(log.extension(from, to)),
                _ => Input::Checked(Vec::new()),
            })
            .chain([Input::Tick])
            .collect();
        for input in inputs {
            check(&mut watch, input, now_ms, 0, &mut asked);
        }
    }
    assert_eq!(
        watch.latest().map(SignedCheckpoint::size),
        Some(size),
        "seed {seed}"
    );
    assert_eq!(watch.withheld(), None, "seed {seed}");
}

fn seeded(seed: u64) -> rand::rngs::StdRng {
    rand::rngs::StdRng::seed_from_u64(seed)
}

#[test]
fn honest_coordinators_never_raise_an_alarm() {
    for seed in 0..120 {
        honest_run(seed);
    }
}

/// Two histories that part somewhere; one peer is shown one, the other one the other. Whatever the sizes, once each
/// has told the other what it was shown and both logs have grown on, somebody has evidence.
fn forked_run(seed: u64) {
    let mut random = seeded(seed);
    let honest = Log::new(200);
    let part = random.random_range(0..100);
    let logs = [honest.clone(), honest.forked_at(part)];
    let mut watches = [watch(), watch()];
    let mut sizes = [0u64; 2].map(|_| random.random_range(part as u64 + 1..120));
    let mut now_ms = NOW;
    for _ in 0..100 {
        now_ms += 10_000;
        for side in 0..2 {
            sizes[side] = (sizes[side] + random.random_range(0..10)).min(200);
            let shown = Input::Polled(Some(logs[side].note(sizes[side])));
            let mut actions = with_log(&mut watches[side], &logs[side], shown, now_ms);
            let told = heard(&logs[1 - side], sizes[1 - side], 9);
            actions.extend(with_log(&mut watches[side], &logs[side], told, now_ms));
            actions.extend(with_log(
                &mut watches[side],
                &logs[side],
                Input::Tick,
                now_ms + 500,
            ));
            if let Some(evidence) = alarms(&actions).first() {
                assert!(evidence.verify(&keys()).is_ok());
                return;
            }
        }
    }
    panic!("seed {seed}: a fork at {part} was not caught");
}

#[test]
fn forks_are_always_caught() {
    for seed in 0..150 {
        forked_run(seed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn honest_coordinators_never_raise_an_alarm_for_any_seed(seed in any::<u64>()) {
        honest_run(seed);
    }
}
