use super::*;
use proptest::prelude::*;

fn network(text: &str) -> Network {
    Network::new(toml::from_str(text).unwrap(), 7).unwrap()
}

proptest! {
    /// Windows of the engine are as long as the lookahead: no message may be faster.
    #[test]
    fn no_message_is_faster_than_the_lookahead(
        seed: u64, from: u32, to: u32, bytes in 0_u64..100_000, now_us in 0_u64..1_000_000_000
    ) {
        for text in ["", "equal_latency_ms = 5", "[regions]\neurope = 1\n[access]\nfibre = 1"] {
            let network = Network::new(toml::from_str(text).unwrap(), seed).unwrap();
            let (mut free, mut random) = (0, Random::of_purpose(seed, "delay", 0));
            let delay = network.delay((from, to), bytes, now_us, &mut free, &mut random).unwrap();
            prop_assert!(delay >= network.lookahead_us(), "{delay} {text}");
            prop_assert!(free >= now_us);
        }
    }
}

#[test]
fn nodes_are_where_the_parts_say() {
    let network = network("[access]\nfibre = 3\ndata_centre = 1\n[nat]\nsymmetric = 1");
    let places: Vec<_> = (0..10_000).map(|node| network.place(node)).collect();
    let count = |is: fn(&Place) -> bool| places.iter().filter(|place| is(place)).count();
    assert!((4_850..=5_150).contains(&count(|place| place.region == Region::Europe)));
    assert!((7_350..=7_650).contains(&count(|place| place.access == Access::Fibre)));
    assert!(
        places
            .iter()
            .all(|place| (place.access == Access::Fibre) == (place.nat == Nat::Symmetric))
    );
}

#[test]
fn a_message_from_europe_to_japan_takes_what_was_measured() {
    let network = network("loss = 0\n[access]\ndata_centre = 1");
    let find = |region| {
        (0..10_000)
            .find(|node| network.place(*node).region == region)
            .unwrap()
    };
    let pair = (find(Region::Europe), find(Region::Japan));
    let (mut free, mut random) = (0, Random::of_purpose(1, "delay", 0));
    let delay = network.delay(pair, 600, 0, &mut free, &mut random).unwrap();
    // Half of 242 ms, two last miles of 0.2 ms, at most as much jitter, and 5 us on the line.
    assert!((121_405..=121_605).contains(&delay), "{delay}");
}

#[test]
fn an_uplink_is_a_queue_that_overflows() {
    let network = network("loss = 0\nequal_latency_ms = 10\n[access]\ndsl = 1");
    let (mut free, mut random) = (0, Random::of_purpose(1, "delay", 0));
    let mut send = |now_us| network.delay((1, 2), 625_000, now_us, &mut free, &mut random);
    // 625 kB and 521 headers at 5 Mbit/s are 1.05 s.
    assert_eq!(send(0), Some(1_050_016 + 10_000));
    assert_eq!(send(0), Some(2 * 1_050_016 + 10_000));
    assert_eq!(send(1_050_016), Some(2 * 1_050_016 + 10_000));
    let sent = (0..20).filter(|_| send(1_050_016).is_some()).count();
    assert_eq!(sent, 3, "five seconds may wait");
}

#[test]
fn loss_costs_time_and_no_message() {
    let network = network("loss = 100000\nequal_latency_ms = 50\n[access]\ndata_centre = 1");
    let mut random = Random::of_purpose(1, "delay", 0);
    let delays: Vec<_> = (0..10_000)
        .map(|_| network.delay((1, 2), 100, 0, &mut 0, &mut random).unwrap() / 1_000)
        .collect();
    let count = |least, most| {
        delays
            .iter()
            .filter(|delay| (least..=most).contains(*delay))
            .count()
    };
    // One probe timeout is 1.25 round trips and 25 ms: 150 ms; the second is twice as long.
    assert!((8_850..=9_150).contains(&count(50, 51)));
    assert!((750..=1_050).contains(&count(200, 201)));
    assert!((50..=150).contains(&count(500, 501)));
}

#[test]
fn partitions_cut_and_heal() {
    let text = "[[partitions]]\nfrom_s = 10\nuntil_s = 20\nregions = [\"europe\"]\n\
                [[partitions]]\nfrom_s = 30\nuntil_s = 40\nshare = 0.3";
    let network = network(text);
    let apart = |at_s: u64| {
        let pairs = (0..2_000).map(|node| (node, node + 2_000));
        pairs
            .filter(|(one, other)| network.is_partitioned(*one, *other, at_s * 1_000_000))
            .count()
    };
    assert_eq!((apart(9), apart(20), apart(29), apart(40)), (0, 0, 0, 0));
    // Half are in Europe, so half of the pairs are apart; of 30 % it is 2 * 0.3 * 0.7.
    assert!((930..=1_070).contains(&apart(10)), "{}", apart(10));
    assert!((770..=910).contains(&apart(39)), "{}", apart(39));
}

#[test]
fn half_of_the_pairs_need_help_and_relays_give_it() {
    let share = |text: &str| {
        let network = network(&format!("{text}\n[access]\nfibre = 1"));
        (0..5_000)
            .filter(|node| network.can_connect(*node, node + 5_000))
            .count()
            / 50
    };
    // 60 % cannot be dialled, so 36 % of the pairs have no connection; hole punching helps 70 % of 45 % squared.
    assert!((62..=66).contains(&share("")));
    assert!((76..=80).contains(&share("traversal = { hole_punching = { success = 0.7 } }")));
    assert_eq!(share("traversal = \"relay\""), 100);
    let network = network("traversal = { hole_punching = { success = 0.5 } }");
    assert!((0..500).all(|node| network.can_connect(node, 9) == network.can_connect(9, node)));
}

#[test]
fn clocks_are_off_by_little_and_some_by_much() {
    let network = network("[clocks]\nskew_ms = 100\nwrong = 0.1\nwrong_by_s = 60");
    let skews: Vec<i64> = (0..4_000).map(|node| network.clock_skew_ms(node)).collect();
    let wrong = skews.iter().filter(|skew| skew.abs() > 100).count();
    assert!((330..=470).contains(&wrong), "{wrong}");
    assert!(skews.iter().all(|skew| skew.abs() <= 60_000));
    let early = skews.iter().filter(|skew| **skew > 0).count();
    assert!((1_850..=2_150).contains(&early), "{early}");
}

#[test]
fn mistakes_are_named() {
    let error = |text: &str| match toml::from_str::<NetworkConfig>(text) {
        Err(error) => error.to_string(),
        Ok(config) => Network::new(config, 1).unwrap_err().to_string(),
    };
    let partition = "[[partitions]]\nfrom_s = 5\nuntil_s = ";
    for (text, part) in [
        ("latency = 5".to_owned(), "unknown field `latency`"),
        ("equal_latency_ms = 0".to_owned(), "from 1 to 60000"),
        ("loss = 500001".to_owned(), "from 0 to 500000"),
        ("[regions]\natlantis = 1".to_owned(), "unknown variant `atlantis`"),
        ("[nat]\nopen = 0".to_owned(), "[network] nat: all parts are 0"),
        (
            format!("{partition}5\nshare = 0.5"),
            "number 1: until_s must be above from_s",
        ),
        (format!("{partition}6"), "either regions or share"),
        (
            format!("{partition}6\nshare = 0.5\nregions = [\"japan\"]"),
            "either regions or share",
        ),
        (format!("{partition}6\nshare = 1.5"), "from 0.0 to 1.0"),
    ] {
        let error = error(&text);
        assert!(error.contains(part), "{text}: {error}");
    }
}
