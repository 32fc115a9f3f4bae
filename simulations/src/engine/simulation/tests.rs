use super::*;
use crate::engine::{Context, SnapshotError, node_at, slot_of};

/// Tokens that wander from node to node and split now and then, and one rule: no node sees `seen_max` of them.
struct Wanderers {
    nodes: NodeId,
    seen_max: u64,
    surveys: u64,
}

impl World for Wanderers {
    type Event = u32;
    type Shard = Vec<u64>;
    type Shared = u64;

    fn lookahead_us(&self) -> u64 {
        500
    }

    fn handle(
        &self,
        shard: &mut Vec<u64>,
        node: NodeId,
        token: u32,
        context: &mut Context<'_, u32>,
    ) -> Result<(), Breach> {
        let seen = &mut shard[slot_of(node)];
        *seen += 1;
        context.trace(1, *seen);
        context.tell(Some(u64::from(token)), || format!("saw token {token}"));
        if *seen > self.seen_max {
            return Err(Breach {
                rule: "seen".to_owned(),
                message: format!("{seen} tokens"),
                node,
                at_us: context.now_us(),
            });
        }
        let to = u32::try_from(context.random().below(u64::from(self.nodes))).unwrap();
        let delay_us = 500 + context.random().exponential(20_000);
        context.send(to, delay_us, token);
        if context.random().chance(0.001) {
            context.after(1, token + 1);
        }
        Ok(())
    }

    fn survey(&mut self, shards: &mut [&mut Vec<u64>], _now_us: u64) -> Result<(), Breach> {
        self.surveys += 1;
        assert_eq!(shards.len(), SHARDS);
        Ok(())
    }

    fn shared(&self) -> u64 {
        self.surveys
    }

    fn restore(&mut self, shared: u64) {
        self.surveys = shared;
    }
}

const NODES: NodeId = 100;
static NEVER: AtomicBool = AtomicBool::new(false);

fn world(seen_max: u64) -> Wanderers {
    Wanderers {
        nodes: NODES,
        seen_max,
        surveys: 0,
    }
}

fn begun(seed: u64, seen_max: u64) -> Simulation<Wanderers> {
    let mut simulation = Simulation::new(world(seen_max), seed, NODES, |shard| {
        vec![0; nodes_of_shard(NODES, shard)]
    });
    (0..NODES).for_each(|node| simulation.schedule(u64::from(node) * 7, node, 0));
    simulation
}

fn go(simulation: &mut Simulation<Wanderers>, until_us: u64, threads: usize) -> Ended {
    let stop = Stop {
        requested: &NEVER,
        threads,
        interest: None,
    };
    simulation
        .run(Limits::until_us(until_us), stop, |_, _| ())
        .unwrap()
}

#[test]
fn nodes_and_places_belong_together() {
    for node in [0, 1, 15, 16, 17, 99] {
        assert_eq!(node_at(shard_of(node), slot_of(node)), node);
    }
    assert_eq!(
        (0..SHARDS)
            .map(|shard| nodes_of_shard(NODES, shard))
            .sum::<usize>(),
        100
    );
    assert_eq!(nodes_of_shard(17, 0), 2);
    assert_eq!(nodes_of_shard(17, 1), 1);
}

#[test]
fn a_seed_gives_one_digest_on_any_number_of_threads() {
    let digest = |seed, threads| {
        let mut simulation = begun(seed, u64::MAX);
        assert_eq!(go(&mut simulation, 5_000_000, threads), Ended::AtEnd);
        (
            simulation.digest(),
            simulation.events(),
            simulation.epochs().to_vec(),
        )
    };
    let one = digest(7, 1);
    assert!(one.1 > 20_000, "{}", one.1);
    assert_eq!(one, digest(7, 2));
    assert_eq!(one, digest(7, 5));
    assert_ne!(one.0, digest(8, 1).0);
    assert_eq!(one.2.len(), 5);
    assert_eq!(
        one.0, "137c5f409f4a8c3a10394bf86fcea9238f2e4b21fcf704c5af1a2430565ded53",
        "the digest is the same on every machine"
    );
}

#[test]
fn a_run_that_was_stopped_and_read_back_goes_on_as_if_it_had_not() {
    let mut whole = begun(7, u64::MAX);
    go(&mut whole, 4_000_000, 2);
    let mut part = begun(7, u64::MAX);
    go(&mut part, 2_000_000, 1);
    let mut file = Vec::new();
    part.write_snapshot([1; 32], &mut file).unwrap();
    let mut read = Simulation::read_snapshot(world(u64::MAX), [1; 32], 7, &mut file.as_slice()).unwrap();
    go(&mut read, 4_000_000, 1);
    // Also the one that was written goes on.
    go(&mut part, 4_000_000, 1);
    for mut other in [read, part] {
        assert_eq!((other.digest(), other.events()), (whole.digest(), whole.events()));
        assert_eq!(other.parts().1, whole.parts().1);
        assert_eq!(other.parts().0.surveys, 4);
    }
    let again = |identity, seed, file: &[u8]| {
        Simulation::read_snapshot(world(0), identity, seed, &mut &file[..]).map(|_| ())
    };
    assert!(matches!(
        again([2; 32], 7, &file),
        Err(SnapshotError::OtherRun { .. })
    ));
    assert!(matches!(
        again([1; 32], 8, &file),
        Err(SnapshotError::OtherRun { .. })
    ));
    assert!(matches!(
        again([1; 32], 7, &file[..file.len() - 1]),
        Err(SnapshotError::Read(_))
    ));
    assert!(matches!(
        again([1; 32], 7, b"something else"),
        Err(SnapshotError::Foreign)
    ));
}

#[test]
fn a_stopped_run_goes_on() {
    let requested = AtomicBool::new(false);
    let mut simulation = begun(7, u64::MAX);
    let stop = Stop {
        requested: &requested,
        threads: 1,
        interest: None,
    };
    let ended = simulation.run(Limits::until_us(3_000_000), stop, |now_us, events| {
        assert_eq!(now_us, 1_000_000);
        assert!(events > 0);
        requested.store(true, Ordering::Relaxed);
    });
    assert_eq!((ended, simulation.now_us()), (Ok(Ended::Stopped), 1_000_000));
    go(&mut simulation, 3_000_000, 1);
    let mut whole = begun(7, u64::MAX);
    go(&mut whole, 3_000_000, 1);
    assert_eq!(simulation.digest(), whole.digest());
}

#[test]
fn a_broken_rule_stops_the_run_at_the_same_event_on_any_number_of_threads() {
    let broken = |threads| {
        let mut simulation = begun(7, 50);
        let Ended::Broken(breach) = go(&mut simulation, 100_000_000, threads) else {
            panic!("no rule was broken")
        };
        (breach, simulation.events(), simulation.digest())
    };
    let one = broken(1);
    assert_eq!(
        (one.0.rule.as_str(), one.0.message.as_str()),
        ("seen", "51 tokens")
    );
    assert_eq!(one, broken(2));
}

#[test]
fn limits_hold() {
    let run = |limits| {
        let stop = Stop {
            requested: &NEVER,
            threads: 1,
            interest: None,
        };
        begun(7, u64::MAX).run(limits, stop, |_, _| ())
    };
    let usual = Limits::until_us(3_000_000);
    let events = run(Limits {
        events_max: 100,
        ..usual
    });
    assert!(
        matches!(
            events,
            Err(LimitError::Events {
                limit: 100,
                at_ms: 1_000
            })
        ),
        "{events:?}"
    );
    let pending = run(Limits {
        pending_max: 99,
        ..usual
    });
    assert!(
        matches!(pending, Err(LimitError::Pending { limit: 99, .. })),
        "{pending:?}"
    );
}

#[test]
fn a_story_is_told_in_order_and_changes_nothing() {
    let interest = Interest::Job(1);
    let mut told = begun(7, u64::MAX);
    let stop = Stop {
        requested: &NEVER,
        threads: 2,
        interest: Some(&interest),
    };
    told.run(Limits::until_us(3_000_000), stop, |_, _| ()).unwrap();
    let stories = told.take_stories();
    assert!(!stories.is_empty());
    assert!(
        stories
            .iter()
            .all(|story| story.words == "saw token 1" && story.job == Some(1))
    );
    assert!(stories.windows(2).all(|pair| pair[0].at_us <= pair[1].at_us));
    let mut silent = begun(7, u64::MAX);
    go(&mut silent, 3_000_000, 1);
    assert_eq!(told.digest(), silent.digest());
}

#[test]
fn nothing_left_to_happen_is_the_end() {
    let mut simulation = Simulation::new(world(u64::MAX), 7, 0, |_| Vec::new());
    assert_eq!(go(&mut simulation, 9_000_000, 2), Ended::AtEnd);
    assert_eq!((simulation.now_us(), simulation.events()), (9_000_000, 0));
}
