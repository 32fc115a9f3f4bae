//! A group gathers for so long and no longer, whatever its members, neighbours and certified relatives do.

use std::collections::BTreeMap;

use gristmill_protocol::hardware::{ChallengeStep, NextStep};
use gristmill_protocol::ids::ChallengeId;
use proptest::prelude::*;

use super::desk::{Desk, Device, account, claim, refusal};
use crate::session::Policy;
use crate::session::course::Phase;

const ADDRESS: Option<&str> = Some("192.0.2.1");
const MINUTE_MS: u64 = 60_000;

/// Goes on for a while as a driver does: a tick whenever one is due. Sees to it that none is due at once again.
fn pass(desk: &mut Desk, ms: u64, mut look: impl FnMut(&Desk)) {
    let end_ms = desk.now_ms + ms;
    loop {
        let due_ms = desk.challenges.wake_ms(desk.now_ms);
        assert!(
            due_ms.is_none_or(|due_ms| due_ms > desk.now_ms),
            "the driver would turn in circles"
        );
        let next_ms = due_ms.map_or(end_ms, |due_ms| due_ms.min(end_ms));
        desk.advance(next_ms - desk.now_ms);
        look(desk);
        if next_ms == end_ms {
            return;
        }
    }
}

fn has_begun(desk: &Desk, device: &Device) -> bool {
    matches!(
        desk.challenges.courses[&device.challenge].phase,
        Phase::Stage { .. }
    )
}

/// Opens a challenge that is never ready.
fn dawdle(desk: &mut Desk, owner: u8, at: Option<&str>, uuid: Option<&str>, index: u32) {
    let device = desk.open(owner, at, claim(uuid, index)).unwrap();
    let mut next = device.opened.next.clone();
    while let NextStep::Echo { nonce } = next {
        next = desk.next(&device, ChallengeStep::Echo { nonce });
    }
}

/// When a device that is ready begins while somebody else comes every so often, in milliseconds from its opening.
fn begins_beside(mut come: impl FnMut(&mut Desk, u32), every_ms: u64) -> Option<u64> {
    let mut desk = Desk::new();
    let one = desk.open(1, ADDRESS, claim(Some("honest"), 0)).unwrap();
    let opened_ms = desk.now_ms;
    desk.prepare(&one, 0);
    let mut begun_ms = None;
    for turn in 0..(60 * MINUTE_MS / every_ms) {
        come(&mut desk, turn as u32);
        pass(&mut desk, every_ms, |desk| {
            if has_begun(desk, &one) && begun_ms.is_none() {
                begun_ms = Some(desk.now_ms - opened_ms);
            }
        });
        if begun_ms.is_some() {
            break;
        }
    }
    begun_ms
}

#[test]
fn neighbours_hold_no_group_open_beyond_its_end() {
    let bound = Policy::default().gather_within_ms;
    // Nobody comes: it begins once the group is settled.
    assert_eq!(begins_beside(|_, _| {}, MINUTE_MS), Some(1_000));
    // One challenge after the other that is never ready.
    let silent = |desk: &mut Desk, turn| {
        dawdle(desk, 2, ADDRESS, None, turn);
    };
    assert_eq!(begins_beside(silent, MINUTE_MS), Some(bound));
    // The same device again and again, which takes its own place.
    let same = |desk: &mut Desk, _| {
        dawdle(desk, 2, ADDRESS, Some("again"), 0);
    };
    assert_eq!(begins_beside(same, MINUTE_MS), Some(bound));
    // Ready ones, each just before the group is settled: there can be so many of them and no more.
    let ready = |desk: &mut Desk, turn: u32| {
        let owner = 2 + (turn / 60) as u8;
        if let Ok(other) = desk.open(owner, ADDRESS, claim(None, turn % 60)) {
            desk.prepare(&other, 0);
        }
    };
    assert!(begins_beside(ready, 900).is_some_and(|begun_ms| begun_ms < bound));
    // Owners at other addresses, who bring groups that are younger.
    let bridges = |desk: &mut Desk, turn: u32| {
        let owner = 2 + turn as u8;
        dawdle(desk, owner, Some("198.51.100.7"), None, 0);
        dawdle(desk, owner, ADDRESS, None, 1);
    };
    assert_eq!(begins_beside(bridges, 2 * MINUTE_MS), Some(bound));
}

#[test]
fn who_is_not_ready_at_the_end_begins_with_the_next_group() {
    let policy = Policy::default();
    let mut desk = Desk::new();
    let one = desk.open(1, ADDRESS, claim(Some("a"), 0)).unwrap();
    desk.prepare(&one, 0);
    // Somebody holds the group open to its end.
    for turn in 0..7 {
        dawdle(&mut desk, 9, ADDRESS, None, turn);
        pass(&mut desk, 2 * MINUTE_MS, |_| {});
    }
    dawdle(&mut desk, 9, ADDRESS, None, 9);
    pass(&mut desk, MINUTE_MS - 1_000, |_| {});
    let two = desk.open(2, ADDRESS, claim(Some("b"), 0)).unwrap();
    assert_eq!(
        desk.now_ms - super::desk::BEGIN_MS,
        policy.gather_within_ms - 1_000
    );
    pass(&mut desk, 1_000, |_| {});
    assert!(has_begun(&desk, &one));
    let groups = |desk: &Desk| {
        let group = |device: &Device| desk.challenges.courses[&device.challenge].group;
        (group(&one), group(&two))
    };
    assert_ne!(groups(&desk).0, groups(&desk).1);
    desk.prepare(&two, 0);
    pass(&mut desk, 1_000, |_| {});
    assert!(!has_begun(&desk, &two), "one runs");
    desk.advance(2_000);
    desk.commit_stage(&one, 0);
    desk.commit_residency(&one);
    assert!(matches!(desk.prove(&one), NextStep::Certified { .. }));
    // From here on it is like any newcomer: the certified neighbour has to take part.
    let again = desk.open(1, ADDRESS, claim(Some("a"), 0)).unwrap();
    desk.prepare(&again, 0);
    // The one that is never ready is out within this time.
    let mut begun = (None, None);
    pass(&mut desk, policy.prepare_within_ms, |desk| {
        let at = |device| has_begun(desk, device).then_some(desk.now_ms);
        begun = (begun.0.or(at(&two)), begun.1.or(at(&again)));
    });
    assert!(begun.0.is_some() && begun.0 == begun.1, "{begun:?}");
}

#[test]
fn newcomers_do_not_put_off_that_a_device_is_given_up() {
    let policy = Policy::default();
    let mut desk = Desk::new();
    desk.certify(1, None, claim(Some("a"), 0));
    let two = desk.open(1, ADDRESS, claim(Some("b"), 1)).unwrap();
    desk.prepare(&two, 0);
    let ready_ms = desk.now_ms;
    for turn in 0..9 {
        let other = desk.open(9, ADDRESS, claim(None, turn)).unwrap();
        desk.prepare(&other, 0);
        pass(&mut desk, MINUTE_MS, |_| {});
    }
    dawdle(&mut desk, 9, ADDRESS, None, 9);
    let left_ms = ready_ms + policy.together_within_ms - desk.now_ms;
    pass(&mut desk, left_ms - 1, |_| {});
    assert_eq!(desk.now(&two), None);
    desk.advance(1);
    assert_eq!(refusal(&desk.now(&two).unwrap()), "together");
}

#[test]
fn who_came_late_and_misses_a_certified_device_is_waited_for_in_the_next_group() {
    let policy = Policy::default();
    let mut desk = Desk::new();
    desk.certify(1, None, claim(Some("a"), 0));
    // Somebody holds a group at the address open.
    for turn in 0..8 {
        dawdle(&mut desk, 9, ADDRESS, None, turn);
        pass(&mut desk, 2 * MINUTE_MS - 10_000, |_| {});
    }
    let two = desk.open(1, ADDRESS, claim(Some("b"), 1)).unwrap();
    desk.prepare(&two, 0);
    pass(&mut desk, 3 * MINUTE_MS, |_| {});
    assert_eq!(desk.now(&two), None, "the group parted, and it waits on");
    assert!(desk.challenges.status(&account(1), desk.now_ms).devices[0].challenge_wanted);
    let one = desk.open(1, None, claim(Some("a"), 0)).unwrap();
    desk.prepare(&one, 0);
    pass(&mut desk, policy.settle_ms, |_| {});
    assert!(has_begun(&desk, &one) && has_begun(&desk, &two));
}

/// What others do.
#[derive(Clone, Debug)]
enum Act {
    Open {
        owner: u8,
        address: u8,
        uuid: u8,
    },
    /// Some device does what it is told next, so many times.
    Go {
        device: usize,
        steps: u8,
    },
    Pass {
        ms: u64,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (1u8..6, 0u8..3, 0u8..6).prop_map(|(owner, address, uuid)| Act::Open { owner, address, uuid }),
        4 => (0usize..6, 1u8..12).prop_map(|(device, steps)| Act::Go { device, steps }),
        3 => prop_oneof![0u64..2_000, 0u64..20_000, 0u64..100_000].prop_map(|ms| Act::Pass { ms }),
    ];
    prop::collection::vec(act, 1..160)
}

/// Ends so near that acts by chance come to them.
fn near_ends() -> Policy {
    Policy {
        together_within_ms: 30_000,
        gather_within_ms: 40_000,
        ..Policy::default()
    }
}

#[derive(Default)]
struct Watched {
    opened_ms: BTreeMap<ChallengeId, u64>,
    has_certified: bool,
}

impl Watched {
    /// Nobody is before its first stage any more when its time is over.
    fn look(&mut self, desk: &Desk) {
        let policy = near_ends();
        self.has_certified |= desk.challenges.counts().devices > 0;
        let ready_ms = policy.echo_within_ms + policy.prepare_within_ms;
        let missing_ms = if self.has_certified {
            policy.together_within_ms
        } else {
            0
        };
        for (name, course) in &desk.challenges.courses {
            let waits = matches!(
                course.phase,
                Phase::Echo { .. } | Phase::Preparing { .. } | Phase::Waiting { .. }
            );
            if waits && course.stages.is_empty() {
                let waited_ms = desk.now_ms - self.opened_ms[name];
                let bound_ms = ready_ms + missing_ms + policy.gather_within_ms;
                assert!(waited_ms <= bound_ms, "{name} waits for {waited_ms} ms");
            }
            if let Some(since_ms) = course.waiting_since().filter(|_| course.stages.is_empty()) {
                let waited_ms = desk.now_ms - since_ms;
                assert!(
                    waited_ms < missing_ms + policy.gather_within_ms,
                    "{name} is ready for {waited_ms} ms"
                );
            }
        }
    }
}

/// Does what a device is told, as far as it is told at once.
fn go(desk: &mut Desk, device: &Device, steps: u8) {
    for _ in 0..steps {
        let call = desk.step(device, ChallengeStep::Wait);
        match desk.answer(call) {
            Some(Ok(NextStep::Echo { nonce })) => desk.step(device, ChallengeStep::Echo { nonce }),
            Some(Ok(NextStep::Prepare { .. })) => desk.step(device, ChallengeStep::Ready),
            Some(Ok(NextStep::Stage { .. })) => desk.commit_stage(device, 0),
            Some(Ok(NextStep::Residency { .. })) => desk.commit_residency(device),
            Some(Ok(NextStep::Open { .. })) => desk.upload(device),
            _ => return,
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_member_begins_or_ends_within_the_bound(acts in acts()) {
        let mut desk = Desk::with(near_ends(), []);
        let mut watched = Watched::default();
        let mut devices = Vec::new();
        for act in acts {
            match act {
                Act::Open { owner, address, uuid } => {
                    let address = (address > 0).then(|| format!("192.0.2.{address}"));
                    let uuid = (uuid > 0).then(|| uuid.to_string());
                    if let Ok(device) = desk.open(owner, address.as_deref(), claim(uuid.as_deref(), 0)) {
                        watched.opened_ms.insert(device.challenge, desk.now_ms);
                        devices.push(device);
                    }
                }
                Act::Go { device, steps } => {
                    if let Some(device) = devices.iter().rev().nth(device) {
                        go(&mut desk, device, steps);
                    }
                }
                Act::Pass { ms } => pass(&mut desk, ms, |desk| watched.look(desk)),
            }
            watched.look(&desk);
        }
    }
}
