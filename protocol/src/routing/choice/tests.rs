//! What routing prefers, and what it says where nobody fits.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::credits::Credits;
use crate::identity::Keypair;
use crate::job::JobKind;
use crate::listing::{Capability, PrivacyTier};
use crate::routing::affinity::PrefixDigests;
use crate::routing::breaker::BreakerState;
use crate::routing::constraints::{Constraint, Constraints};
use crate::routing::records::RecordEvent;
use crate::routing::score::likely_cost;
use crate::usage::{Price, Unit};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

mod random_markets;

const NOW: u64 = 1_800_000_000_000;

fn keypair(byte: u8) -> Keypair {
    Keypair::from_secret(&[byte; 32])
}

fn account(byte: u8) -> AccountId {
    keypair(byte).account()
}

fn offer(model: &str, price: u32) -> Offer {
    Offer {
        kind: JobKind::ChatCompletions,
        model: model.into(),
        weights_digest: None,
        quantization: String::new(),
        context_length: 4_096,
        capabilities: vec![],
        price: Price::per_million_tokens(Credits::micro(price), Credits::micro(price)),
    }
}

fn listing(byte: u8, offers: Vec<Offer>) -> Listing {
    Listing {
        provider: account(byte),
        sequence: 1,
        issued_at_ms: NOW,
        ttl_ms: 60_000,
        addresses: vec![format!("/ip4/127.0.0.1/udp/{byte}/quic-v1")],
        coordinators: vec![account(200)],
        region: String::new(),
        privacy: PrivacyTier::Standard,
        offers,
        slots: 4,
        free_slots: 4,
        certificates: vec![],
    }
}

fn post(board: &mut Board, byte: u8, offers: Vec<Offer>) {
    post_listing(board, byte, listing(byte, offers));
}

fn post_listing(board: &mut Board, byte: u8, listing: Listing) {
    let sealed = listing.seal(&keypair(byte)).unwrap();
    board.insert(&sealed, NOW).unwrap();
}

fn board(offers: &[(u8, u32)]) -> Board {
    let mut board = Board::default();
    for (byte, price) in offers {
        post(&mut board, *byte, vec![offer("guide", *price)]);
    }
    board
}

struct Case {
    board: Board,
    records: ProviderRecords,
    capabilities: BTreeMap<Capability, &'static str>,
    constraints: Constraints,
    prefix: PrefixDigests,
    tried: BTreeSet<AccountId>,
    funded: BTreeSet<AccountId>,
    model: &'static str,
    kind: JobKind,
    own: u8,
    coordinator: u8,
    context_length_above: u32,
    seed: u64,
}

impl Case {
    fn new(board: Board) -> Self {
        Self {
            board,
            records: ProviderRecords::default(),
            capabilities: BTreeMap::new(),
            constraints: Constraints::default(),
            prefix: PrefixDigests::default(),
            tried: BTreeSet::new(),
            funded: BTreeSet::new(),
            model: "guide",
            kind: JobKind::ChatCompletions,
            own: 100,
            coordinator: 200,
            context_length_above: 0,
            seed: 1,
        }
    }

    fn needs(&self) -> Needs<'_> {
        Needs {
            kind: self.kind,
            model: self.model,
            capabilities: &self.capabilities,
            body_bytes: 400,
            output_tokens_max: None,
            choices: 1,
            context_length_above: self.context_length_above,
            constraints: &self.constraints,
            prefix: &self.prefix,
        }
    }

    fn choose(&self) -> Result<Route, NoRoute> {
        let asker = Asker {
            account: account(self.own),
            coordinator: account(self.coordinator),
            tried: &self.tried,
            funded: &self.funded,
        };
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        choose(
            &self.board,
            &self.needs(),
            &asker,
            &self.records,
            NOW,
            &mut random,
        )
    }

    fn chosen(&self) -> AccountId {
        self.choose().unwrap().provider
    }

    /// How often each is chosen by 1,000 clients that see and know the same.
    fn herd(&mut self) -> BTreeMap<AccountId, u32> {
        let mut chosen = BTreeMap::new();
        for seed in 0..1_000 {
            self.seed = seed;
            *chosen.entry(self.chosen()).or_insert(0) += 1;
        }
        chosen
    }

    fn note(&mut self, byte: u8, events: &[RecordEvent]) {
        for event in events {
            self.records.note(account(byte), *event, NOW);
        }
    }
}

#[test]
fn the_cheapest_is_asked_first_and_the_others_after_it() {
    let mut case = Case::new(board(&[(1, 300_000), (2, 100_000), (3, 190_000)]));
    let mut order = Vec::new();
    while let Ok(route) = case.choose() {
        order.push(route.provider);
        case.tried.insert(route.provider);
    }
    assert_eq!(order, [account(2), account(3), account(1)]);
    assert_eq!(case.choose(), Err(NoRoute::AllTried));
}

#[test]
fn who_is_slow_to_begin_or_to_write_loses_to_who_is_somewhat_dearer() {
    let slow_to_begin = RecordEvent::FirstOutput { latency_ms: 4_000.0 };
    let slow_to_write = RecordEvent::Delivered {
        output_tokens: 100,
        output_ms: 25_000.0,
    };
    for slow in [slow_to_begin, slow_to_write] {
        let mut case = Case::new(board(&[(1, 100_000), (2, 120_000)]));
        case.note(1, &[slow]);
        assert_eq!(case.herd(), BTreeMap::from([(account(2), 1_000)]), "{slow:?}");
    }
}

#[test]
fn failing_and_busy_providers_come_last_whatever_they_cost() {
    let mut case = Case::new(board(&[(1, 1), (2, 100), (3, 900_000)]));
    case.note(1, &[RecordEvent::Failed]);
    case.note(
        2,
        &[RecordEvent::Busy {
            retry_after_ms: 1_000,
        }],
    );
    assert_eq!(case.chosen(), account(3));
    case.tried.insert(account(3));
    assert_eq!(case.chosen(), account(2));
    case.tried.insert(account(2));
    assert_eq!(case.chosen(), account(1), "better than nobody");
}

#[test]
fn who_failed_five_times_in_a_row_is_not_asked_at_all() {
    let mut case = Case::new(board(&[(1, 100), (2, 100)]));
    case.note(1, &[RecordEvent::Failed; 5]);
    case.tried.insert(account(2));
    assert_eq!(
        case.choose(),
        Err(NoRoute::AllFailing {
            retry_after_ms: 60_000
        })
    );
    case.note(2, &[RecordEvent::Misbehaved]);
    case.tried.clear();
    assert_eq!(
        case.choose(),
        Err(NoRoute::AllFailing {
            retry_after_ms: 60_000
        })
    );
    assert!(matches!(
        case.records.standing(&account(2), NOW).breaker,
        BreakerState::Open { .. }
    ));
}

#[test]
fn a_provider_with_a_channel_is_preferred_among_near_equals() {
    let mut case = Case::new(board(&[(1, 100_000), (2, 105_000), (3, 200_000)]));
    case.funded = BTreeSet::from([account(2), account(3)]);
    let herd = case.herd();
    assert!(
        herd[&account(2)] > 700 && !herd.contains_key(&account(3)),
        "{herd:?}"
    );
}

#[test]
fn jobs_spread_over_equals_by_their_free_slots() {
    let mut case = Case::new(board(&[(1, 100_000), (2, 100_000)]));
    let herd = case.herd();
    assert!(herd.values().all(|count| (400..600).contains(count)), "{herd:?}");
    let mut full = listing(3, vec![offer("guide", 100_000)]);
    full.free_slots = 1;
    post_listing(&mut case.board, 3, full);
    let herd = case.herd();
    assert!(herd[&account(3)] < 200, "{herd:?}");
    case.tried.insert(account(3));
    case.note(1, &[RecordEvent::JobBegan; 4]);
    let herd = case.herd();
    assert!(
        herd[&account(2)] > 900,
        "the other one's slots are taken: {herd:?}"
    );
}

#[test]
fn a_herd_does_not_trample_the_best_one() {
    // Twenty that differ by up to 45 %: always the best would send all thousand to the first one.
    let offers: Vec<(u8, u32)> = (1..=20)
        .map(|byte| (byte, 100_000 + 2_300 * u32::from(byte)))
        .collect();
    let mut case = Case::new(board(&offers));
    let herd = case.herd();
    let largest = *herd.values().max().unwrap();
    assert!(herd.len() >= 15 && largest <= 150, "{largest} {herd:?}");
    let cheap: u32 = (1..=10).filter_map(|byte| herd.get(&account(byte))).sum();
    assert!(cheap > 650, "and yet the cheaper half gets more: {cheap}");
}

#[test]
fn a_provider_that_claims_many_slots_does_not_draw_everybody() {
    let mut case = Case::new(board(&[(1, 100_000), (2, 100_000), (3, 100_000), (4, 100_000)]));
    let mut boaster = listing(5, vec![offer("guide", 140_000)]);
    (boaster.slots, boaster.free_slots) = (u16::MAX, u16::MAX);
    post_listing(&mut case.board, 5, boaster);
    let herd = case.herd();
    assert!(herd[&account(5)] < 400, "{herd:?}");
}

#[test]
fn a_conversation_stays_where_its_prefix_is_as_long_as_that_makes_sense() {
    let mut case = Case::new(board(&[(1, 100_000), (2, 140_000), (3, 100_000)]));
    let messages = [[b'a'; 2_000], [b'b'; 2_000]];
    let turn =
        |count: usize| PrefixDigests::of("guide", messages[..count].iter().map(<[u8; 2_000]>::as_slice));
    case.records.remember_prefix(&turn(1), account(2), NOW);
    case.prefix = turn(2);
    assert_eq!(case.herd(), BTreeMap::from([(account(2), 1_000)]));
    let mut full = Case::new(case.board.clone());
    (full.records, full.prefix) = (case.records.clone(), case.prefix.clone());
    full.note(2, &[RecordEvent::JobBegan; 4]);
    assert_ne!(full.chosen(), account(2), "it is full");
    case.note(2, &[RecordEvent::FirstOutput { latency_ms: 9_000.0 }]);
    assert_ne!(case.chosen(), account(2), "reading anew elsewhere is faster");
    case.records.remember_prefix(&turn(1), account(3), NOW);
    case.note(3, &[RecordEvent::Failed]);
    assert_eq!(case.chosen(), account(1), "it failed");
}

#[test]
fn each_reason_has_its_own_answer() {
    let mut case = Case::new(Board::default());
    assert_eq!(case.choose(), Err(NoRoute::NothingOnOffer));
    case.board = board(&[(1, 100_000)]);
    case.model = "giude";
    assert_eq!(case.choose(), Err(NoRoute::UnknownModel(vec!["guide".into()])));
    case.model = "guide";
    case.kind = JobKind::Embeddings;
    assert_eq!(
        case.choose(),
        Err(NoRoute::OtherKind(BTreeSet::from([JobKind::ChatCompletions])))
    );
    case.kind = JobKind::ChatCompletions;
    case.coordinator = 201;
    assert_eq!(case.choose(), Err(NoRoute::OtherCoordinators));
    case.coordinator = 200;
    case.own = 1;
    assert_eq!(case.choose(), Err(NoRoute::OnlyOwn));
    case.own = 100;
    case.context_length_above = 4_096;
    assert_eq!(case.choose(), Err(NoRoute::AllTried));
}

#[test]
fn the_restriction_that_excludes_is_named() {
    let mut case = Case::new(Board::default());
    let mut swiss = listing(1, vec![offer("guide", 100_000)]);
    (swiss.region, swiss.privacy) = ("CH-ZH".into(), PrivacyTier::NothingKept);
    post_listing(&mut case.board, 1, swiss);
    post(&mut case.board, 2, vec![offer("guide", 50_000)]);
    let mut restricted = |change: &dyn Fn(&mut Constraints)| {
        case.constraints = Constraints::default();
        change(&mut case.constraints);
        case.choose().map(|route| route.provider)
    };
    let excluded = |constraint| Err(NoRoute::Excluded(constraint));
    let (swiss, cheap) = (Ok(account(1)), Ok(account(2)));
    assert_eq!(
        restricted(&|all| all.max_price_per_million = Some(Credits::micro(50_000))),
        cheap
    );
    assert_eq!(
        restricted(&|all| all.max_price_per_million = Some(Credits::micro(49_999))),
        excluded(Constraint::MaxPrice)
    );
    assert_eq!(
        restricted(&|all| all.regions = vec!["CH".parse().unwrap()]),
        swiss
    );
    assert_eq!(
        restricted(&|all| all.regions = vec!["CH-BE".parse().unwrap(), "DE".parse().unwrap()]),
        excluded(Constraint::Region)
    );
    assert_eq!(restricted(&|all| all.privacy = PrivacyTier::NothingKept), swiss);
    assert_eq!(
        restricted(&|all| all.privacy = PrivacyTier::Dedicated),
        excluded(Constraint::Privacy)
    );
    assert_eq!(restricted(&|all| all.provider = Some(account(1))), swiss);
    assert_eq!(
        restricted(&|all| all.provider = Some(account(9))),
        excluded(Constraint::Provider)
    );
    assert_eq!(
        restricted(&|all| all.only_verified = true),
        excluded(Constraint::OnlyVerified)
    );
}

#[test]
fn what_an_offer_can_t_honour_excludes_it_and_passthrough_honours_nearly_all() {
    let with = |capabilities: &[Capability]| {
        vec![Offer {
            capabilities: capabilities.to_vec(),
            ..offer("guide", 100_000)
        }]
    };
    let mut case = Case::new(Board::default());
    post(&mut case.board, 1, with(&[Capability::Logprobs]));
    case.capabilities = BTreeMap::from([(Capability::Tools, "tools"), (Capability::Logprobs, "logprobs")]);
    assert_eq!(case.choose(), Err(NoRoute::Unsupported("tools")));
    post(&mut case.board, 2, with(&[Capability::Tools]));
    assert_eq!(case.choose(), Err(NoRoute::Unsupported("logprobs")));
    post(&mut case.board, 3, with(&[Capability::Passthrough]));
    assert_eq!(case.chosen(), account(3));
    // Begun answers are gone on with only by those of whom it is known.
    let goes_on = "continue_final_message";
    case.capabilities = BTreeMap::from([(Capability::Continuation, goes_on)]);
    assert_eq!(case.choose(), Err(NoRoute::Unsupported(goes_on)));
}

#[test]
fn prices_in_units_that_the_cap_does_not_know_do_not_slip_through() {
    let mut dear = offer("guide", 1);
    dear.price
        .per_million
        .insert(Unit::GpuMillisecond, Credits::micro(2_000));
    let mut case = Case::new(Board::default());
    post(&mut case.board, 1, vec![dear]);
    case.constraints.max_price_per_million = Some(Credits::micro(1_000));
    assert_eq!(case.choose(), Err(NoRoute::Excluded(Constraint::MaxPrice)));
}
