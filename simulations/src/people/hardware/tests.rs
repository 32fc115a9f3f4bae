//! A coordinator and some providers in virtual time, with nothing around them.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_benchmark::challenge::soundness::{Share, miss};
use gristmill_protocol::identity::Keypair;

use super::*;
use crate::engine::{NodeId, Random};
use crate::people::conduct::{ProofPlay, ProviderConduct};
use crate::people::liars::FakeGpu;

const EPOCH_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 3_600_000;

/// A provider of the test.
#[derive(Clone, Copy, Debug)]
struct Player {
    has: DeviceClass,
    claims: DeviceClass,
    play: ProofPlay,
    /// Has the claimed device until then, and its own from then on.
    rents_until_ms: u64,
    address: u32,
    /// Whether it has one device with all others that share.
    shares_device: bool,
}

impl Player {
    fn honest(has: DeviceClass, address: u32) -> Self {
        Self {
            has,
            claims: has,
            play: ProofPlay::ComputesAll,
            rents_until_ms: 0,
            address,
            shares_device: false,
        }
    }

    fn liar(has: DeviceClass, liar: &FakeGpu, address: u32) -> Self {
        let claims = liar.claimed_device(has);
        Self {
            claims,
            play: liar.answers_challenge(claims),
            ..Self::honest(has, address)
        }
    }
}

enum Arrival {
    AtDesk(NodeId, ProverCall),
    AtProver(NodeId, DeskAnswer),
    /// The provider sees to its certificate.
    Renewal(NodeId),
    Tick,
}

struct Room {
    desk: Desk,
    coordinator: Keypair,
    players: Vec<Player>,
    provers: Vec<Prover>,
    arrivals: BTreeMap<(u64, u64), Arrival>,
    count: u64,
    now_ms: u64,
    ticks: BTreeSet<u64>,
    outcomes: Vec<(NodeId, u64, Outcome)>,
    /// Until when each provider's newest certificate holds.
    certified_until_ms: Vec<u64>,
    certified_ms: Vec<u64>,
    /// Until when the device that is shared works.
    busy_until_ms: u64,
    /// At every so many calls the desk is written down and read again.
    snapshots: bool,
}

impl Room {
    fn new(config: DeskConfig, seed: u64, players: Vec<Player>) -> Self {
        let provers = players
            .iter()
            .map(|player| Prover::new(player.has, player.play))
            .collect();
        let mut room = Self {
            desk: Desk::new(config, seed),
            coordinator: Keypair::from_secret(&[1; 32]),
            provers,
            arrivals: BTreeMap::new(),
            count: 0,
            now_ms: EPOCH_MS,
            ticks: BTreeSet::new(),
            outcomes: Vec::new(),
            certified_until_ms: vec![0; players.len()],
            certified_ms: vec![0; players.len()],
            busy_until_ms: 0,
            players,
            snapshots: false,
        };
        for node in 0..room.players.len() {
            room.at(node as u64 * 5_000, Arrival::Renewal(node as NodeId));
        }
        room
    }

    fn at(&mut self, after_ms: u64, arrival: Arrival) {
        self.count += 1;
        self.arrivals
            .insert((self.now_ms + after_ms, self.count), arrival);
    }

    /// Plays for so many hours.
    fn play(&mut self, hours: u64) {
        while let Some(((at_ms, count), arrival)) = self.arrivals.pop_first() {
            if at_ms > EPOCH_MS + hours * HOUR_MS {
                return;
            }
            self.now_ms = at_ms;
            if self.snapshots && count % 101 == 0 {
                let config = bincode::config::standard();
                let bytes = bincode::serde::encode_to_vec(&self.desk, config).unwrap();
                (self.desk, _) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
            }
            let told = match arrival {
                Arrival::AtDesk(node, call) => {
                    let caller = Call { node, number: 0 };
                    self.desk.hear(&self.coordinator, caller, call, self.now_ms)
                }
                Arrival::Tick => self.desk.tick(&self.coordinator, self.now_ms),
                Arrival::Renewal(node) => {
                    let call = match self.certified_until_ms[node as usize] > self.now_ms {
                        true => ProverCall::Renew,
                        false => self.open(node),
                    };
                    self.at(40, Arrival::AtDesk(node, call));
                    // As the shipped node does it, renewals come long before the end.
                    self.at(HOUR_MS / 2, Arrival::Renewal(node));
                    Vec::new()
                }
                Arrival::AtProver(node, answer) => {
                    self.hear(node, answer);
                    Vec::new()
                }
            };
            self.follow(told);
        }
    }

    fn open(&mut self, node: NodeId) -> ProverCall {
        let player = self.players[node as usize];
        let has = match self.now_ms < player.rents_until_ms {
            true => player.claims,
            false => player.has,
        };
        self.provers[node as usize] = Prover::new(has, player.play);
        ProverCall::Open {
            account: Keypair::from_secret(&[node as u8 + 2; 32]).account(),
            address: player.address,
            claimed: player.claims,
        }
    }

    fn follow(&mut self, told: Vec<Told>) {
        for told in told {
            match told {
                Told::Answer(call, answer) => self.at(40, Arrival::AtProver(call.node, answer)),
                Told::Over(node, outcome) => self.outcomes.push((node, self.now_ms, outcome)),
            }
        }
        if let Some(wake_ms) = self.desk.wake_ms(&self.coordinator, self.now_ms)
            && self.ticks.insert(wake_ms)
        {
            self.at(wake_ms.saturating_sub(self.now_ms), Arrival::Tick);
        }
    }

    fn hear(&mut self, node: NodeId, answer: DeskAnswer) {
        let at = node as usize;
        if let DeskAnswer::Certified(_) = &answer {
            let held_until_ms = self.certified_until_ms[at].max(self.now_ms);
            let until_ms = self.now_ms + 6 * HOUR_MS;
            self.certified_ms[at] += until_ms - held_until_ms;
            self.certified_until_ms[at] = until_ms;
        }
        if answer == DeskAnswer::ChallengeRequired {
            let open = self.open(node);
            self.at(40, Arrival::AtDesk(node, open));
        }
        let mut random = Random::of_purpose(5, "prover", self.count);
        if let Some(work) = self.provers[at].hear(&answer, &mut random) {
            let mut takes_ms = work.takes_us / 1_000;
            if self.players[at].shares_device && takes_ms > 0 {
                self.busy_until_ms = self.busy_until_ms.max(self.now_ms) + takes_ms;
                takes_ms = self.busy_until_ms - self.now_ms;
            }
            self.at(takes_ms + 40, Arrival::AtDesk(node, work.call));
        }
    }

    fn outcomes_of(&self, node: NodeId) -> Vec<&Outcome> {
        let mine = self.outcomes.iter().filter(|(other, ..)| *other == node);
        mine.map(|(_, _, outcome)| outcome).collect()
    }
}

#[test]
fn every_honest_device_is_certified_for_nearly_all_it_has() {
    let players: Vec<_> = DeviceClass::ALL
        .into_iter()
        .zip(1..)
        .map(|(class, address)| Player::honest(class, 0x0a00_0000 + address))
        .collect();
    let mut room = Room::new(DeskConfig::default(), 7, players);
    room.play(1);
    for (class, node) in DeviceClass::ALL.into_iter().zip(0..) {
        let outcomes = room.outcomes_of(node);
        let [Outcome::Shown { memory_bytes, .. }] = outcomes.as_slice() else {
            panic!("{class:?}: {outcomes:?}");
        };
        let claimed = class.figures().memory_bytes;
        // What can't be filled in ten seconds is not shown of a processor's memory.
        let least = if class == DeviceClass::Processor {
            claimed / 20
        } else {
            claimed / 10 * 6
        };
        assert!(
            *memory_bytes > least && *memory_bytes <= claimed,
            "{class:?} {memory_bytes}"
        );
    }
}

#[test]
fn a_gpu_that_is_none_gets_no_certificate() {
    let claims = DeviceClass::H100;
    let players: Vec<_> = [0, 50, 90, 99, 100]
        .into_iter()
        .zip(1..)
        .map(|(skips_percent, address)| {
            let liar = FakeGpu {
                claims,
                skips_percent,
                rents_for_s: 0,
                rents_times: 1,
                turn_s: 0,
                one_address: false,
            };
            Player::liar(DeviceClass::Processor, &liar, 0x0a00_0000 + address)
        })
        .collect();
    let mut room = Room::new(DeskConfig::default(), 7, players);
    room.play(1);
    for node in 0..5 {
        let outcomes = room.outcomes_of(node);
        assert!(!outcomes.is_empty());
        assert!(
            outcomes
                .iter()
                .all(|outcome| matches!(outcome, Outcome::Refused(_))),
            "{outcomes:?}"
        );
    }
    assert_eq!(room.outcomes_of(4)[0], &Outcome::Refused("proof"));
    assert_eq!(room.outcomes_of(0)[0], &Outcome::Refused("slower_than_claimed"));
}

/// Who leaves out one percent of the units, and has memory to spare, is missed as often as the formula of PROOF.md says
/// for the openings that the machine draws.
#[test]
fn what_is_left_out_is_found_as_often_as_the_formula_says() {
    let config = DeskConfig {
        openings: 30,
        ..DeskConfig::default()
    };
    let liar = FakeGpu {
        claims: DeviceClass::M3Max,
        skips_percent: 1,
        rents_for_s: 0,
        rents_times: 1,
        turn_s: 0,
        one_address: false,
    };
    let players = (1..=40)
        .map(|address| Player::liar(DeviceClass::M2Ultra, &liar, 0x0a00_0000 + address))
        .collect();
    let mut room = Room::new(config, 7, players);
    room.play(3);
    let ended_as = |wanted: fn(&Outcome) -> bool| {
        let outcomes = room.outcomes.iter().map(|(.., outcome)| outcome);
        outcomes.filter(|outcome| wanted(outcome)).count()
    };
    let missed = ended_as(|outcome| matches!(outcome, Outcome::Shown { .. }));
    let all = missed + ended_as(|outcome| *outcome == Outcome::Refused("proof"));
    let expected = miss(Share::percent(1).unwrap(), 60).approximate() * all as f64;
    assert!(
        all >= 40 && (missed as f64 - expected).abs() < 3.5 * expected.sqrt(),
        "{missed} of {all}, {expected}; {} in all: {:?}",
        room.outcomes.len(),
        room.outcomes.first()
    );
}

/// Who rents what it claims for an hour is certified for as long as the coordinator lets it be.
#[test]
fn a_rented_gpu_stays_certified_until_it_is_asked_for_again() {
    let certified_hours = |challenge_every_s: u64| {
        let config = DeskConfig {
            challenge_every_s,
            ..DeskConfig::default()
        };
        let players = (1..=6)
            .map(|address| Player {
                claims: DeviceClass::H100,
                rents_until_ms: EPOCH_MS + HOUR_MS,
                ..Player::honest(DeviceClass::Processor, 0x0a00_0000 + address)
            })
            .collect::<Vec<_>>();
        let mut room = Room::new(config, 7, players);
        room.play(30);
        let sum: u64 = room.certified_ms.iter().sum();
        sum as f64 / 6.0 / HOUR_MS as f64
    };
    let hours = [18 * 3_600, 4 * 3_600, 1_200].map(certified_hours);
    assert!(hours[0] > hours[1] && hours[1] > hours[2], "{hours:?}");
    assert!(hours[0] < 24.0 && hours[2] >= 6.0, "{hours:?}");
}

/// Listings at one address are challenged at one time, so a device that stands behind all of them does for one.
#[test]
fn one_device_behind_many_listings_is_certified_once_at_most() {
    let shares = |_| Player {
        shares_device: true,
        ..Player::honest(DeviceClass::Rtx4090, 0x0a00_0001)
    };
    let mut room = Room::new(DeskConfig::default(), 7, (0..20).map(shares).collect());
    room.play(1);
    let shown: BTreeSet<_> = room
        .outcomes
        .iter()
        .filter(|(.., outcome)| matches!(outcome, Outcome::Shown { .. }))
        .map(|(node, ..)| *node)
        .collect();
    assert!(room.outcomes.len() >= 20 && shown.len() <= 1, "{shown:?}");
}

#[test]
fn a_desk_that_is_written_down_and_read_again_goes_on_as_it_was() {
    let play = |snapshots| {
        let players = vec![
            Player::honest(DeviceClass::Rtx4090, 1),
            Player::honest(DeviceClass::M2Ultra, 1),
            Player::liar(
                DeviceClass::Rtx3070,
                &FakeGpu {
                    claims: DeviceClass::H100,
                    skips_percent: 80,
                    rents_for_s: 0,
                    rents_times: 1,
                    turn_s: 0,
                    one_address: false,
                },
                2,
            ),
        ];
        let mut room = Room::new(DeskConfig::default(), 7, players);
        room.snapshots = snapshots;
        room.play(4);
        (room.outcomes, room.certified_ms)
    };
    let straight = play(false);
    assert!(straight.0.len() >= 3, "{:?}", straight.0);
    assert_eq!(play(true), straight);
}
