//! What the mesh as a whole must do: reach everybody, ask for what it missed, shut liars out, wait after a prune, heal, sleep.

use std::collections::BTreeSet;

use gristmill_simulations::engine::queue::Entry;
use gristmill_simulations::gossip::graph::Graph;
use gristmill_simulations::gossip::{
    GossipConfig, Link, Message, MessageId, Payload, Peer, Settings, Verdict,
};

use crate::model::{Event, Network};

const SECOND: u64 = 1_000_000;
const NODES: u32 = 100;

/// A network of which every node has joined and meshes are at rest.
fn settled(config: GossipConfig, seed: u64) -> Network {
    let mut network = Network::new(config, Graph::new(seed, NODES, 14), NODES, seed, 20_000);
    (0..NODES).for_each(|node| network.join(node));
    network.run_for(90 * SECOND);
    network
}

fn publish(network: &mut Network, publisher: u32, sequence: u32, bytes: u32) -> MessageId {
    let id = MessageId::new(publisher, sequence);
    let message = Message { id, bytes };
    network.after(1, publisher, Event::Publish(message));
    id
}

#[test]
fn meshes_are_within_their_bounds_and_of_both_ends() {
    let network = settled(GossipConfig::default(), 1);
    for node in 0..NODES {
        let mesh = network.peers[node as usize].mesh();
        assert!((4..=12).contains(&mesh.len()), "{node}: {}", mesh.len());
        for link in mesh.iter() {
            let peer = network.graph.peer(node, link);
            assert!(
                network.peers[peer as usize].mesh().contains(link),
                "{node} and {peer}"
            );
        }
    }
}

#[test]
fn a_message_reaches_everybody_within_a_second_by_the_mesh_alone() {
    let mut network = settled(GossipConfig::default(), 2);
    let id = publish(&mut network, 3, 1, 600);
    network.run_for(SECOND);
    assert_eq!(network.reached(id).len() as u32, NODES - 1);
    let first = |asked| network.receptions.iter().filter(|one| one.asked == asked).count();
    assert!(first(true) <= 2, "{}", first(true));
}

/// Half of the links of every mesh lose everything, silently: what does not come by the mesh is asked for.
#[test]
fn who_is_left_out_by_the_mesh_asks() {
    let reached = |ask: bool| {
        let config = GossipConfig {
            ask,
            ..GossipConfig::default()
        };
        let mut network = settled(config, 3);
        // One node whose mesh is dead: its other neighbours are all that it has.
        let mesh: Vec<_> = network.peers[5].mesh().iter().collect();
        for link in mesh {
            network.cut.insert((network.graph.peer(5, link), link));
        }
        let neighbours: BTreeSet<u32> = network.graph.links(5).map(|(_, peer, _)| peer).collect();
        let stranger = (0..NODES)
            .find(|node| *node != 5 && !neighbours.contains(node))
            .unwrap();
        let id = publish(&mut network, stranger, 1, 600);
        network.run_for(10 * SECOND);
        network.reached(id).contains(&5)
    };
    assert!(reached(true));
    assert!(!reached(false), "without IWANT nobody asks");
}

/// A neighbour whose messages are invalid is pruned, then not heard at all, and nobody forwards its lies.
#[test]
fn liars_are_shut_out() {
    let of = |judge: bool| {
        let config = GossipConfig {
            judge,
            ..GossipConfig::default()
        };
        let mut network = settled(config, 4);
        for sequence in 0..20 {
            let lie = publish(&mut network, 9, sequence, 600);
            network.verdicts.insert(lie, Verdict::Reject);
            network.run_for(2 * SECOND);
        }
        let honest = publish(&mut network, 9, 100, 600);
        network.run_for(5 * SECOND);
        let friends = (0..NODES).filter(|node| {
            let mesh = network.peers[*node as usize].mesh();
            mesh.iter().any(|link| network.graph.peer(*node, link) == 9)
        });
        let friends = friends.count();
        let neighbours = network.graph.links(9).count();
        let lies = network.receptions.iter().filter(|one| one.id != honest).count();
        (neighbours, lies, friends, network.reached(honest).len())
    };
    let (neighbours, lies, friends, reached) = of(true);
    // The third lie costs 90 points: from then on nothing of its sender is read.
    assert!(
        (2 * neighbours..=4 * neighbours).contains(&lies),
        "{lies} of {neighbours}"
    );
    assert_eq!((friends, reached), (0, 0));
    let (neighbours, lies, friends, reached) = of(false);
    assert_eq!(lies, 20 * neighbours, "without scores every lie is looked at");
    assert!(friends > 0 && reached as u32 == NODES - 1);
}

/// Who was pruned does not ask again at once, and pays where it does.
#[test]
fn who_is_pruned_waits() {
    let grafts_after = |prune_backoff_s: u64| {
        let config = GossipConfig {
            prune_backoff_s: prune_backoff_s.try_into().unwrap(),
            ..GossipConfig::default()
        };
        let mut network = settled(config, 5);
        network.run_for(120 * SECOND);
        // A whole mesh prunes one node, which is left with too few.
        let mesh: Vec<_> = network.peers[7].mesh().iter().collect();
        let before = network.count("graft");
        for link in &mesh {
            let backoff_s = prune_backoff_s as u16;
            network.after(1, 7, Event::Receive(*link, Payload::Prune { backoff_s }));
        }
        network.run_for(10 * SECOND);
        let again = network.peers[7].mesh();
        assert!(network.count("graft") > before);
        mesh.iter().filter(|link| again.contains(**link)).count()
    };
    assert_eq!(grafts_after(60), 0);
    assert!(grafts_after(0) > 0, "without back-off the same come again");
}

#[test]
fn grafts_in_spite_of_back_off_cost_score() {
    let mut network = settled(GossipConfig::default(), 6);
    let link = network.peers[8]
        .neighbours()
        .without(network.peers[8].mesh())
        .iter()
        .next()
        .unwrap();
    for _ in 0..6 {
        network.after(1, 8, Event::Receive(link, Payload::Prune { backoff_s: 60 }));
        network.after(2, 8, Event::Receive(link, Payload::Graft));
        network.run_for(SECOND);
    }
    let peer = &network.peers[8];
    let score = peer.score(
        link,
        peer.beat(network.now_us, &network.settings),
        &network.settings,
    );
    // Each was a flood and counts twice, the sixth is not even read; six are free, and a little has faded.
    assert!((-160.0..-140.0).contains(&score), "{score}");
    assert!(!peer.mesh().contains(link));
}

#[test]
fn large_messages_are_announced_and_cost_fewer_copies() {
    let copies = |bytes| {
        let mut network = settled(GossipConfig::default(), 7);
        publish(&mut network, 2, 1, bytes);
        network.run_for(2 * SECOND);
        (network.count("idontwant"), network.observed(1).duplicates)
    };
    let (small_announced, small) = copies(900);
    let (large_announced, large) = copies(5_000);
    assert!(small_announced == 0 && large_announced > u64::from(NODES));
    // On links of one latency an announcement comes too late for all but those who forward a link later.
    assert!(large <= small, "{large} and {small}");
}

#[test]
fn a_partition_heals() {
    let mut network = settled(GossipConfig::default(), 8);
    network.part(true, |node| node < 50);
    network.run_for(30 * SECOND);
    let apart = publish(&mut network, 1, 1, 600);
    network.run_for(30 * SECOND);
    assert_eq!(
        network.reached(apart),
        (0..50).filter(|node| *node != 1).collect()
    );
    network.part(false, |node| node < 50);
    network.run_for(90 * SECOND);
    let together = publish(&mut network, 1, 2, 600);
    network.run_for(10 * SECOND);
    assert_eq!(network.reached(together).len() as u32, NODES - 1);
}

/// A quiet network sleeps, and its peers are as small as a million of them must be.
#[test]
fn a_quiet_peer_is_small_and_sleeps() {
    let mut network = settled(GossipConfig::default(), 9);
    publish(&mut network, 1, 1, 600);
    network.run_for(1_200 * SECOND);
    let before = network.count("heartbeat");
    network.run_for(600 * SECOND);
    let beats = network.count("heartbeat") - before;
    assert!(
        beats <= u64::from(NODES),
        "{beats} heartbeats of {NODES} peers in ten minutes"
    );
    let idle = network.peers.iter().filter_map(Peer::idle_bytes).max().unwrap();
    // Its pending heartbeat, when its uplink is free, and the engine's count of its events.
    let waiting = size_of::<Entry<(Link, Payload)>>() + 2 * size_of::<u64>();
    println!("an idle peer takes at most {idle} bytes, and {waiting} around it");
    assert!(idle + waiting <= 256, "{idle} and {waiting}");
    assert!(network.peers.iter().all(|peer| peer.idle_bytes().is_some()));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut network = settled(GossipConfig::default(), seed);
        for sequence in 0..5 {
            publish(&mut network, sequence, sequence, 2_000);
            network.run_for(SECOND);
        }
        let traffic: Vec<_> = network
            .peers
            .iter()
            .map(|peer| peer.traffic().sent_bytes)
            .collect();
        (network.counts, traffic)
    };
    assert_eq!(run(10), run(10));
    assert_ne!(run(10), run(11));
}

/// The score's decay is libp2p's, and so is everything else that the shipped mesh has numbers for.
#[test]
fn the_defaults_are_those_that_are_shipped() {
    let shipped = gristmill_transport::mesh::gossip_parameters().build().unwrap();
    let config = Settings::default().config;
    let ours = [
        (config.mesh.get(), shipped.mesh_n() as u64),
        (config.mesh_low.get(), shipped.mesh_n_low() as u64),
        (config.mesh_high.get(), shipped.mesh_n_high() as u64),
        (config.mesh_outbound_min.get(), shipped.mesh_outbound_min() as u64),
        (config.lazy.get(), shipped.gossip_lazy() as u64),
        (config.history_gossip.get(), shipped.history_gossip() as u64),
        (config.history_length.get(), shipped.history_length() as u64),
        (
            config.heartbeat_ms.get(),
            shipped.heartbeat_interval().as_millis() as u64,
        ),
        (
            config.heartbeat_initial_delay_ms.get(),
            shipped.heartbeat_initial_delay().as_millis() as u64,
        ),
        (config.prune_backoff_s.get(), shipped.prune_backoff().as_secs()),
        (
            config.graft_flood_s.get(),
            shipped.graft_flood_threshold().as_secs(),
        ),
        (
            config.duplicate_cache_s.get(),
            shipped.duplicate_cache_time().as_secs(),
        ),
        (
            config.retransmissions_max.get(),
            u64::from(shipped.gossip_retransimission()),
        ),
        (
            config.ihaves_max.get(),
            shipped.max_ihave_messages_heartbeat() as u64,
        ),
        (config.promise_s.get(), shipped.iwant_followup_time().as_secs()),
        (
            config.idontwant_bytes.get(),
            shipped.idontwant_message_size_threshold() as u64,
        ),
        (
            config.opportunistic_beats.get(),
            shipped.opportunistic_graft_ticks(),
        ),
        (
            config.opportunistic_peers.get(),
            shipped.opportunistic_graft_peers() as u64,
        ),
        (config.retain_best.get(), shipped.retain_scores() as u64),
    ];
    for (place, (of_model, of_transport)) in ours.into_iter().enumerate() {
        assert_eq!(of_model, of_transport, "number {place}");
    }
    assert_eq!(config.flood_publish, shipped.flood_publish());
    assert_eq!(config.lazy_share.get(), shipped.gossip_factor());
    let (scores, thresholds) = gristmill_transport::mesh::gossip_scores();
    let topic = scores.topics.values().next().unwrap();
    let ours = config.scores;
    assert_eq!(ours.second_in_mesh.get(), topic.time_in_mesh_weight);
    assert_eq!(ours.seconds_in_mesh_max.get() as f64, topic.time_in_mesh_cap);
    assert_eq!(ours.first_delivery.get(), topic.first_message_deliveries_weight);
    assert_eq!(
        ours.first_deliveries_max.get() as f64,
        topic.first_message_deliveries_cap
    );
    assert_eq!(
        ours.invalid_cost.get() as f64,
        -topic.invalid_message_deliveries_weight
    );
    assert_eq!(ours.topic_max.get() as f64, scores.topic_score_cap);
    assert_eq!(ours.manners_cost.get() as f64, -scores.behaviour_penalty_weight);
    assert_eq!(ours.manners_free.get() as f64, scores.behaviour_penalty_threshold);
    assert_eq!(ours.gossip_below.get() as f64, -thresholds.gossip_threshold);
    assert_eq!(ours.publish_below.get() as f64, -thresholds.publish_threshold);
    assert_eq!(ours.graylist_below.get() as f64, -thresholds.graylist_threshold);
    assert_eq!(
        ours.opportunistic_below.get() as f64,
        thresholds.opportunistic_graft_threshold
    );
}
