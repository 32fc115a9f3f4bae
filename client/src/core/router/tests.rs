//! What the router prefers, and what it says where nobody fits.

use super::*;
use crate::core::records::RecordEvent;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::listing::{Listing, PrivacyTier};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

const NOW: u64 = 1_800_000_000_000;

fn account(byte: u8) -> AccountId {
    Keypair::from_secret(&[byte; 32]).account()
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

fn post(board: &mut Board, byte: u8, offers: Vec<Offer>) {
    let listing = Listing {
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
    };
    let sealed = listing.seal(&Keypair::from_secret(&[byte; 32])).unwrap();
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
    tried: BTreeSet<AccountId>,
    funded: BTreeSet<AccountId>,
    model: &'static str,
    kind: JobKind,
    max_price: Option<Credits>,
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
            tried: BTreeSet::new(),
            funded: BTreeSet::new(),
            model: "guide",
            kind: JobKind::ChatCompletions,
            max_price: None,
            own: 100,
            coordinator: 200,
            context_length_above: 0,
            seed: 1,
        }
    }

    fn choose(&self) -> Result<Route, NoRoute> {
        let needs = Needs {
            kind: self.kind,
            model: self.model,
            capabilities: &self.capabilities,
            body_bytes: 400,
            output_tokens_max: None,
            choices: 1,
            max_price_per_million: self.max_price,
            context_length_above: self.context_length_above,
        };
        let asker = Asker {
            account: account(self.own),
            coordinator: account(self.coordinator),
            tried: &self.tried,
            funded: &self.funded,
        };
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        choose(&self.board, &needs, &asker, &self.records, NOW, &mut random)
    }

    fn chosen(&self) -> AccountId {
        self.choose().unwrap().provider
    }
}

#[test]
fn the_cheapest_is_asked_first_and_the_others_after_it() {
    let mut case = Case::new(board(&[(1, 300_000), (2, 100_000), (3, 200_000)]));
    let mut order = Vec::new();
    while let Ok(route) = case.choose() {
        order.push(route.provider);
        case.tried.insert(route.provider);
    }
    assert_eq!(order, [account(2), account(3), account(1)]);
    assert_eq!(case.choose(), Err(NoRoute::AllTried));
}

#[test]
fn a_slow_provider_loses_to_a_slightly_dearer_one() {
    let mut case = Case::new(board(&[(1, 100_000), (2, 120_000)]));
    case.records
        .note(account(1), RecordEvent::FirstOutput { latency_ms: 4_000.0 }, NOW);
    case.records
        .note(account(2), RecordEvent::FirstOutput { latency_ms: 50.0 }, NOW);
    assert_eq!(case.chosen(), account(2));
}

#[test]
fn failing_and_busy_providers_come_last_whatever_they_cost() {
    let mut case = Case::new(board(&[(1, 1), (2, 100), (3, 900_000)]));
    case.records.note(account(1), RecordEvent::Failed, NOW);
    case.records.note(
        account(2),
        RecordEvent::Busy {
            retry_after_ms: 1_000,
        },
        NOW,
    );
    assert_eq!(case.chosen(), account(3));
    case.tried.insert(account(3));
    assert_eq!(case.chosen(), account(2));
    case.tried.insert(account(2));
    assert_eq!(case.chosen(), account(1), "better than nobody");
}

#[test]
fn a_provider_with_a_channel_is_preferred_among_near_equals() {
    let mut case = Case::new(board(&[(1, 100_000), (2, 105_000), (3, 200_000)]));
    case.funded = BTreeSet::from([account(2), account(3)]);
    assert_eq!(case.chosen(), account(2));
}

#[test]
fn jobs_spread_over_equals() {
    let mut case = Case::new(board(&[(1, 100_000), (2, 100_000)]));
    let chosen: BTreeSet<_> = (0..20)
        .map(|seed| {
            case.seed = seed;
            case.chosen()
        })
        .collect();
    assert_eq!(chosen.len(), 2);
    for _ in 0..4 {
        case.records.note(account(1), RecordEvent::JobBegan, NOW);
    }
    for seed in 0..20 {
        case.seed = seed;
        assert_eq!(case.chosen(), account(2), "the other one's slots are taken");
    }
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
    case.max_price = Some(Credits::micro(99_999));
    assert_eq!(case.choose(), Err(NoRoute::AbovePriceCap));
    case.max_price = Some(Credits::micro(100_000));
    assert!(case.choose().is_ok());
    case.context_length_above = 4_096;
    assert_eq!(case.choose(), Err(NoRoute::AllTried));
}

#[test]
fn what_an_offer_can_t_honour_excludes_it_and_passthrough_honours_all() {
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
}

#[test]
fn prices_in_units_that_the_cap_does_not_know_do_not_slip_through() {
    let mut dear = offer("guide", 1);
    dear.price
        .per_million
        .insert(Unit::GpuMillisecond, Credits::micro(2_000));
    let mut case = Case::new(Board::default());
    post(&mut case.board, 1, vec![dear]);
    case.max_price = Some(Credits::micro(1_000));
    assert_eq!(case.choose(), Err(NoRoute::AbovePriceCap));
}

proptest! {
    /// Whatever is on offer and whatever happened: who is chosen fits, no healthy and cheaper provider with an equal
    /// record is passed over, and the same seed gives the same choice.
    #[test]
    fn choices_fit_and_repeat(
        prices in proptest::collection::vec(1u32..1_000_000, 1..12),
        failing in proptest::collection::vec(any::<bool>(), 12),
        tools in proptest::collection::vec(any::<bool>(), 12),
        needs_tools: bool,
        cap in proptest::option::of(1u32..1_000_000),
        seed: u64,
    ) {
        let mut case = Case::new(Board::default());
        case.seed = seed;
        case.max_price = cap.map(Credits::micro);
        if needs_tools {
            case.capabilities.insert(Capability::Tools, "tools");
        }
        let fits = |index: usize| {
            (!needs_tools || tools[index]) && cap.is_none_or(|cap| prices[index] <= cap)
        };
        for (index, price) in prices.iter().enumerate() {
            let mut offered = offer("guide", *price);
            if tools[index] {
                offered.capabilities.push(Capability::Tools);
            }
            let byte = u8::try_from(index).unwrap() + 1;
            post(&mut case.board, byte, vec![offered]);
            if failing[index] {
                case.records.note(account(byte), RecordEvent::Failed, NOW);
            }
        }
        // Prices so near that this request costs the same are equals.
        let cost = |index: usize| {
            let price = Price::per_million_tokens(Credits::micro(prices[index]), Credits::micro(prices[index]));
            price.cost(&Usage::tokens(100, 512).with(Unit::ByteIn, 400)).unwrap()
        };
        let best = (0..prices.len()).filter(|index| fits(*index)).map(|index| (failing[index], cost(index))).min();
        match (case.choose(), best) {
            (Ok(route), Some(best)) => {
                let index = (0..prices.len())
                    .find(|index| account(u8::try_from(*index).unwrap() + 1) == route.provider)
                    .unwrap();
                prop_assert!(fits(index));
                prop_assert_eq!((failing[index], cost(index)), best);
                prop_assert_eq!(case.choose().unwrap(), route);
            }
            (Err(reason), None) => {
                prop_assert!(matches!(reason, NoRoute::Unsupported("tools") | NoRoute::AbovePriceCap));
            }
            (choice, best) => prop_assert!(false, "{choice:?} where the best is {best:?}"),
        }
    }
}
