//! One peer alone with what its neighbours send.

use super::*;
use crate::engine::random::Random;
use crate::scenario::Bounded;

const SECOND: u64 = 1_000_000;

/// A peer whose neighbours are numbers.
struct Alone {
    peer: Peer,
    settings: Settings,
    now_us: u64,
    random: Random,
    wake: Option<(u64, u32)>,
}

impl Alone {
    /// A peer with so many neighbours, the first `mesh` of whom have grafted it.
    fn new(neighbours: Link, mesh: Link) -> Self {
        let config = GossipConfig {
            mesh_low: Bounded::nearest(0),
            mesh_outbound_min: Bounded::nearest(0),
            ..GossipConfig::default()
        };
        let mut alone = Self {
            peer: Peer::new(0),
            settings: Settings::new(config),
            now_us: 0,
            random: Random::of_purpose(1, "alone", 0),
            wake: None,
        };
        for link in 0..neighbours {
            alone.act(|peer, step| peer.connect(link, false, step));
            alone.receive(link, Payload::Subscribe);
        }
        for link in 0..mesh {
            alone.receive(link, Payload::Graft);
        }
        alone
    }

    fn act(&mut self, action: impl FnOnce(&mut Peer, &mut Step<'_, Random>)) -> Vec<(Link, Payload)> {
        let mut effects = Vec::new();
        let mut step = Step {
            settings: &self.settings,
            now_us: self.now_us,
            random: &mut self.random,
            effects: &mut effects,
        };
        action(&mut self.peer, &mut step);
        let mut sent = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { link, payload } => sent.push((link, payload)),
                Effect::Wake { at_us, beat } => self.wake = Some((at_us, beat)),
            }
        }
        sent
    }

    fn receive(&mut self, link: Link, payload: Payload) -> Vec<(Link, Payload)> {
        self.act(|peer, step| peer.receive(link, payload, |_| Verdict::Accept, step))
    }

    /// Lets time pass, with the heartbeats that the peer asks for.
    fn pass(&mut self, us: u64) -> Vec<(Link, Payload)> {
        let until_us = self.now_us + us;
        let mut sent = Vec::new();
        while let Some((at_us, beat)) = self.wake.filter(|(at_us, _)| *at_us <= until_us) {
            self.wake = None;
            self.now_us = at_us;
            sent.extend(self.act(|peer, step| peer.heartbeat(beat, step)));
        }
        self.now_us = until_us;
        sent
    }

    fn score(&self, link: Link) -> f64 {
        let beat = self.peer.beat(self.now_us, &self.settings);
        self.peer.score(link, beat, &self.settings)
    }
}

fn message(sequence: u32) -> Message {
    Message {
        id: MessageId::new(9, sequence),
        bytes: 600,
    }
}

fn publish(sequence: u32) -> Payload {
    Payload::Publish {
        message: message(sequence),
        hops: 1,
        asked: false,
    }
}

fn ids(sequences: impl IntoIterator<Item = u32>) -> Box<Ids> {
    Box::new(Ids(sequences
        .into_iter()
        .map(|sequence| message(sequence).id)
        .collect()))
}

fn links_of(sent: &[(Link, Payload)], is: fn(&Payload) -> bool) -> Vec<Link> {
    sent.iter()
        .filter(|(_, payload)| is(payload))
        .map(|(link, _)| *link)
        .collect()
}

const fn is_publish(payload: &Payload) -> bool {
    matches!(payload, Payload::Publish { .. })
}

#[test]
fn news_goes_to_the_mesh_and_never_back() {
    let mut alone = Alone::new(8, 4);
    let sent = alone.receive(2, publish(1));
    assert_eq!(links_of(&sent, is_publish), [0, 1, 3]);
    assert!(
        sent.iter()
            .all(|(_, payload)| matches!(payload, Payload::Publish { hops: 2, .. }))
    );
    assert_eq!(alone.receive(3, publish(1)), []);
    alone.pass(121 * SECOND);
    assert_eq!(links_of(&alone.receive(3, publish(1)), is_publish), [0, 1, 2]);
}

#[test]
fn what_a_neighbour_does_not_want_it_does_not_get() {
    let mut alone = Alone::new(4, 4);
    alone.receive(1, Payload::IDontWant(message(1).id));
    assert_eq!(links_of(&alone.receive(0, publish(1)), is_publish), [2, 3]);
    alone.receive(1, Payload::IDontWant(message(2).id));
    alone.pass(4 * SECOND);
    assert_eq!(links_of(&alone.receive(0, publish(2)), is_publish), [1, 2, 3]);
}

#[test]
fn others_hear_of_a_message_for_three_heartbeats_and_may_ask_for_five() {
    let mut alone = Alone::new(6, 2);
    alone.pass(6_500_000);
    alone.receive(0, publish(1));
    let told = |sent: &[(Link, Payload)]| links_of(sent, |payload| matches!(payload, Payload::IHave(_)));
    for _ in 0..3 {
        assert_eq!(told(&alone.pass(SECOND)), [2, 3, 4, 5]);
    }
    assert!(told(&alone.pass(SECOND)).is_empty());
    let asks = |alone: &mut Alone, link| alone.receive(link, Payload::IWant(ids([1]))).len();
    // Three times each.
    let answers: Vec<_> = (0..4).map(|_| asks(&mut alone, 3)).collect();
    assert_eq!(answers, [1, 1, 1, 0]);
    assert_eq!(asks(&mut alone, 4), 1);
    alone.pass(SECOND);
    assert_eq!(asks(&mut alone, 5), 0);
}

#[test]
fn a_message_is_asked_for_once_and_a_broken_promise_costs() {
    let mut alone = Alone::new(4, 2);
    alone.receive(0, publish(1));
    let asked = alone.receive(2, Payload::IHave(ids(1..=10)));
    let [(2, Payload::IWant(wanted))] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!(wanted.0.len(), 9, "the first is known");
    assert_eq!(
        alone.receive(3, Payload::IHave(ids(2..=10))),
        [],
        "they are on their way"
    );
    alone.receive(2, publish(2));
    alone.pass(10 * SECOND);
    // Eight promises are broken, six are free, and one message was delivered; both have faded a little.
    let score = alone.score(2);
    assert!((-40.0..-30.0).contains(&score), "{score}");
    assert!(alone.score(3) >= 0.0);
}

#[test]
fn too_many_announcements_are_not_read() {
    let mut alone = Alone::new(4, 2);
    let asked: Vec<_> = (0..12)
        .map(|sequence| alone.receive(2, Payload::IHave(ids([sequence]))).len())
        .collect();
    assert_eq!(asked, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]);
    alone.pass(7 * SECOND);
    assert_eq!(alone.receive(3, Payload::IHave(ids([20]))).len(), 1);
}

#[test]
fn a_full_mesh_takes_nobody_but_whom_it_dialled() {
    let mut alone = Alone::new(14, 12);
    let sent = alone.receive(12, Payload::Graft);
    assert_eq!(sent, [(12, Payload::Prune { backoff_s: 60 })]);
    alone.act(|peer, step| peer.connect(13, true, step));
    assert_eq!(alone.receive(13, Payload::Graft), []);
    assert_eq!(alone.peer.mesh().len(), 13);
    let pruned = alone.pass(7 * SECOND);
    assert_eq!(
        links_of(&pruned, |payload| matches!(payload, Payload::Prune { .. })).len(),
        7
    );
    assert_eq!(alone.peer.mesh().len(), 6);
}

#[test]
fn a_bad_name_outlives_a_connection_and_a_good_one_does_not() {
    let mut alone = Alone::new(3, 0);
    for sequence in 0..4 {
        alone.receive(0, publish(sequence));
        let lie = publish(100 + sequence);
        alone.act(|peer, step| peer.receive(1, lie, |_| Verdict::Reject, step));
    }
    assert!(alone.score(0) > 1.9 && alone.score(1) < -80.0);
    for link in [0, 1] {
        alone.act(|peer, step| peer.disconnect(link, step));
    }
    assert!(alone.score(0) == 0.0 && alone.score(1) < -80.0);
    alone.pass(1_800 * SECOND);
    assert!(alone.score(1) == 0.0, "it is forgotten after all");
    assert!(alone.peer.idle_bytes().is_some());
}

#[test]
fn a_heartbeat_that_nobody_waits_for_does_nothing() {
    let mut alone = Alone::new(6, 2);
    alone.receive(0, publish(1));
    let (_, beat) = alone.wake.unwrap();
    alone.now_us = 6 * SECOND;
    assert_eq!(alone.act(|peer, step| peer.heartbeat(beat + 1, step)), []);
    assert_ne!(alone.act(|peer, step| peer.heartbeat(beat, step)), []);
    assert_eq!(alone.act(|peer, step| peer.heartbeat(beat, step)), []);
}

#[test]
fn a_peer_is_written_down_and_read_back() {
    let mut alone = Alone::new(8, 4);
    alone.receive(2, publish(1));
    alone.receive(5, Payload::IHave(ids(3..6)));
    alone.receive(1, Payload::Prune { backoff_s: 60 });
    let written = serde_json::to_string(&alone.peer).unwrap();
    let read: Peer = serde_json::from_str(&written).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", alone.peer));
}
