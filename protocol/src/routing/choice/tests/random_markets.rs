//! Random markets: what is chosen fits, and the same seed chooses the same.

use super::*;

/// A provider as the property test draws it.
#[derive(Clone, Debug)]
struct Drawn {
    price: u32,
    has_tools: bool,
    region: &'static str,
    privacy: PrivacyTier,
    slots: (u16, u16),
    failures: usize,
    has_lied: bool,
    is_tried: bool,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let tier = prop_oneof![
        Just(PrivacyTier::Standard),
        Just(PrivacyTier::NothingKept),
        Just(PrivacyTier::Dedicated)
    ];
    let region = prop_oneof![Just(""), Just("CH"), Just("CH-ZH"), Just("DE")];
    let slots = (0u16..70).prop_flat_map(|slots| (Just(slots), 0..=slots));
    (
        1u32..1_000_000,
        any::<bool>(),
        region,
        tier,
        slots,
        0usize..7,
        proptest::bool::weighted(0.1),
        proptest::bool::weighted(0.2),
    )
        .prop_map(
            |(price, has_tools, region, privacy, slots, failures, has_lied, is_tried)| Drawn {
                price,
                has_tools,
                region,
                privacy,
                slots,
                failures,
                has_lied,
                is_tried,
            },
        )
}

fn restrictions() -> impl Strategy<Value = Constraints> {
    let tier = prop_oneof![
        3 => Just(PrivacyTier::Standard),
        1 => Just(PrivacyTier::NothingKept),
        1 => Just(PrivacyTier::Dedicated)
    ];
    let regions = prop_oneof![
        3 => Just(vec![]),
        1 => Just(vec!["CH"]),
        1 => Just(vec!["CH-ZH", "DE"]),
    ];
    (
        proptest::option::of(1u32..1_000_000),
        regions,
        tier,
        proptest::option::weighted(0.2, 1u8..13),
    )
        .prop_map(|(max_price, regions, privacy, provider)| Constraints {
            max_price_per_million: max_price.map(Credits::micro),
            regions: regions.into_iter().map(|code| code.parse().unwrap()).collect(),
            privacy,
            provider: provider.map(account),
            only_verified: false,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever is on offer and whatever happened: who is chosen meets every restriction and is let through by its
    /// breaker, is nearly as good as the best of the best class, somebody is chosen where anybody fits, and the same
    /// seed gives the same choice.
    #[test]
    fn choices_fit_and_repeat(
        providers in proptest::collection::vec(drawn(), 0..12),
        constraints in restrictions(),
        needs_tools: bool,
        only_verified in proptest::bool::weighted(0.1),
        has_prefix: bool,
        seed: u64,
    ) {
        let mut case = Case::new(Board::default());
        case.seed = seed;
        case.constraints = Constraints { only_verified, ..constraints };
        if needs_tools {
            case.capabilities.insert(Capability::Tools, "tools");
        }
        for (index, drawn) in providers.iter().enumerate() {
            let byte = u8::try_from(index).unwrap() + 1;
            let mut offered = offer("guide", drawn.price);
            offered.capabilities.extend(drawn.has_tools.then_some(Capability::Tools));
            let mut listing = listing(byte, vec![offered]);
            (listing.slots, listing.free_slots) = drawn.slots;
            (listing.region, listing.privacy) = (drawn.region.into(), drawn.privacy);
            post_listing(&mut case.board, byte, listing);
            case.note(byte, &vec![RecordEvent::Failed; drawn.failures]);
            case.note(byte, &vec![RecordEvent::Misbehaved; usize::from(drawn.has_lied)]);
            if drawn.is_tried {
                case.tried.insert(account(byte));
            }
        }
        if has_prefix {
            case.prefix = PrefixDigests::of("guide", [&[1; 2_000][..]]);
            case.records.remember_prefix(&case.prefix, account(1), NOW);
        }
        let fits = |index: usize| {
            let (drawn, wanted) = (&providers[index], &case.constraints);
            let is_named = wanted.provider.is_none_or(|named| named == account(u8::try_from(index).unwrap() + 1));
            let in_region = match wanted.regions.len() {
                0 => true,
                1 => drawn.region.starts_with("CH"),
                _ => drawn.region == "CH-ZH" || drawn.region == "DE",
            };
            is_named
                && in_region
                && !wanted.only_verified
                && drawn.privacy >= wanted.privacy
                && wanted.max_price_per_million.is_none_or(|cap| Credits::micro(drawn.price) <= cap)
                && (!needs_tools || drawn.has_tools)
                && !drawn.is_tried
                && drawn.failures < 5
                && !drawn.has_lied
        };
        let anybody = (0..providers.len()).any(fits);
        match case.choose() {
            Ok(route) => {
                let index = (0..providers.len())
                    .find(|index| account(u8::try_from(*index).unwrap() + 1) == route.provider)
                    .unwrap();
                prop_assert!(fits(index), "{:?}", providers[index]);
                let healthy = |index: usize| providers[index].failures == 0;
                prop_assert!(healthy(index) || !(0..providers.len()).any(|other| fits(other) && healthy(other)));
                // Everybody's times are alike but for slots: nobody is chosen over one that costs much less.
                let cost = |price: u32| {
                    let price = Price::per_million_tokens(Credits::micro(price), Credits::micro(price));
                    likely_cost(&price, &case.needs()).microcredits() as f64 + 1.0
                };
                let rivals = (0..providers.len()).filter(|other| fits(*other) && healthy(*other));
                let cheapest = rivals.map(|other| cost(providers[other].price)).fold(f64::INFINITY, f64::min);
                if healthy(index) {
                    prop_assert!(cost(providers[index].price) <= cheapest * WORTH_OF_PREFIX * 1.5);
                }
                prop_assert_eq!(case.choose().unwrap(), route);
            }
            Err(reason) => prop_assert!(!anybody, "{reason:?}"),
        }
    }
}
