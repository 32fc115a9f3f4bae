use super::*;
use crate::credits::Credits;
use crate::identity::Keypair;
use crate::listing::PrivacyTier;
use crate::usage::Price;
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000_000;

fn keypair(byte: u8) -> Keypair {
    Keypair::from_secret(&[byte; 32])
}

fn listing(byte: u8, sequence: u64, issued_at_ms: u64, ttl_ms: u64) -> Listing {
    Listing {
        provider: keypair(byte).account(),
        sequence,
        issued_at_ms,
        ttl_ms,
        addresses: vec!["/ip4/127.0.0.1/udp/7410/quic-v1".into()],
        coordinators: vec![keypair(200).account()],
        region: "CH".into(),
        privacy: PrivacyTier::Standard,
        offers: vec![Offer {
            kind: JobKind::ChatCompletions,
            model: "guide".into(),
            weights_digest: None,
            quantization: "f16".into(),
            context_length: 512,
            capabilities: vec![],
            price: Price::per_million_tokens(Credits::micro(100_000), Credits::micro(400_000)),
        }],
        slots: 2,
        free_slots: 1,
        certificates: vec![],
    }
}

fn sealed(byte: u8, sequence: u64, issued_at_ms: u64, ttl_ms: u64) -> Vec<u8> {
    listing(byte, sequence, issued_at_ms, ttl_ms)
        .seal(&keypair(byte))
        .unwrap()
}

#[test]
fn newer_listings_replace_and_older_ones_are_ignored() {
    let mut board = Board::default();
    assert_eq!(board.insert(&sealed(1, 5, NOW, 60_000), NOW), Ok(Insertion::New));
    assert_eq!(
        board.insert(&sealed(1, 5, NOW, 60_000), NOW + 9_000),
        Ok(Insertion::Stale)
    );
    assert_eq!(
        board.insert(&sealed(1, 4, NOW, 60_000), NOW + 9_000),
        Ok(Insertion::Stale)
    );
    assert_eq!(
        board.insert(&sealed(1, 6, NOW, 60_000), NOW + 1_000),
        Ok(Insertion::TooSoon)
    );
    assert_eq!(
        board.insert(&sealed(1, 6, NOW, 60_000), NOW + 9_000),
        Ok(Insertion::Renewed)
    );
    assert_eq!(board.listings(NOW + 59_999).count(), 1);
    assert_eq!(board.listings(NOW + 60_000).count(), 0);
}

#[test]
fn a_provider_that_left_does_not_come_back_by_replay() {
    let mut board = Board::default();
    let old = sealed(1, 5, NOW, 600_000);
    board.insert(&old, NOW).unwrap();
    assert_eq!(
        board.insert(&sealed(1, 7, NOW + 100, 0), NOW + 100),
        Ok(Insertion::Left)
    );
    assert_eq!(board.listings(NOW + 100).count(), 0);
    board.expire(NOW + 200);
    assert_eq!(board.insert(&old, NOW + 10_000), Ok(Insertion::Stale));
    assert_eq!(board.insert(&old, NOW + 700_000), Ok(Insertion::Stale));
    assert_eq!(
        board.insert(&sealed(1, 8, NOW + 10_000, 60_000), NOW + 10_000),
        Ok(Insertion::New)
    );
}

#[test]
fn candidates_match_kind_model_and_coordinator() {
    let mut board = Board::default();
    board.insert(&sealed(1, 1, NOW, 60_000), NOW).unwrap();
    let count = |kind, model, coordinator: u8| {
        board
            .candidates(kind, model, keypair(coordinator).account(), NOW)
            .count()
    };
    assert_eq!(count(JobKind::ChatCompletions, "guide", 200), 1);
    assert_eq!(count(JobKind::Embeddings, "guide", 200), 0);
    assert_eq!(count(JobKind::ChatCompletions, "Guide", 200), 0);
    assert_eq!(count(JobKind::ChatCompletions, "guide", 201), 0);
}

#[test]
fn forged_and_malformed_listings_are_errors() {
    let mut board = Board::default();
    let forged = crate::codec::encode(&keypair(2).sign(listing(1, 1, NOW, 60_000)));
    assert!(matches!(
        board.insert(&forged, NOW),
        Err(ListingError::Signature { .. })
    ));
    let mut flipped = sealed(1, 1, NOW, 60_000);
    flipped[40] ^= 1;
    assert!(board.insert(&flipped, NOW).is_err());
    assert!(matches!(
        board.insert(&sealed(1, 1, NOW + 61_000, 60_000), NOW),
        Err(ListingError::FromTheFuture { ahead_ms: 61_000, .. })
    ));
    assert!(board.insert(&[], NOW).is_err());
    assert_eq!(board.listings(NOW).count(), 0);
}

type Change = fn(&mut Listing);

#[test]
fn bounds_hold_at_the_edge() {
    let cases: [(&str, Change); 6] = [
        ("ttl_ms", |listing| listing.ttl_ms = LISTING_TTL_MAX_MS + 1),
        ("offers", |listing| {
            listing.offers = vec![listing.offers[0].clone(); 33];
        }),
        ("model (offered twice)", |listing| {
            listing.offers.push(listing.offers[0].clone());
        }),
        ("model", |listing| listing.offers[0].model = "x".repeat(129)),
        ("free_slots", |listing| listing.free_slots = 3),
        ("addresses", |listing| listing.addresses = vec!["a".into(); 17]),
    ];
    for (expected, change) in cases {
        let mut wrong = listing(1, 1, NOW, LISTING_TTL_MAX_MS);
        change(&mut wrong);
        let error = wrong.seal(&keypair(1)).unwrap_err();
        assert!(
            matches!(error, ListingError::OutOfBounds { field, .. } if field == expected),
            "{error}"
        );
    }
    let mut at_limit = listing(1, 1, NOW, LISTING_TTL_MAX_MS);
    at_limit.offers[0].model = "x".repeat(128);
    at_limit.seal(&keypair(1)).unwrap();
}

#[test]
fn a_full_board_keeps_the_living_and_makes_room_for_others_later() {
    let mut board = Board::new(2);
    board.insert(&sealed(1, 1, NOW, 60_000), NOW).unwrap();
    board.insert(&sealed(2, 1, NOW, 60_000), NOW).unwrap();
    assert_eq!(board.insert(&sealed(3, 1, NOW, 60_000), NOW), Ok(Insertion::Full));
    let later = NOW + LISTING_TTL_MAX_MS + 1;
    assert_eq!(
        board.insert(&sealed(3, 2, later, 60_000), later),
        Ok(Insertion::New)
    );
}

proptest! {
    /// Whatever order listings arrive in, the board never goes back to a lower sequence.
    #[test]
    fn sequences_never_go_back(arrivals in proptest::collection::vec((1u64..20, 0u64..20_000), 1..30)) {
        let mut board = Board::default();
        let provider = keypair(1).account();
        let (mut now, mut highest) = (NOW, 0);
        for (sequence, wait) in arrivals {
            now += wait;
            let news = board.insert(&sealed(1, sequence, now, 600_000), now).unwrap().is_news();
            if news {
                prop_assert!(sequence > highest);
                highest = sequence;
            }
            let shown = board.listing(&provider, now).map(|listing| listing.sequence);
            prop_assert_eq!(shown, (highest > 0).then_some(highest));
        }
    }

    /// A board that was written down and read back takes and shows what it would have.
    #[test]
    fn a_board_that_is_read_back_goes_on_the_same(
        arrivals in proptest::collection::vec((1u8..5, 1u64..20, 0u64..40_000, 0u64..3), 1..30),
        written_after in 0usize..30,
    ) {
        let (mut kept, mut restored) = (Board::new(3), Board::new(3));
        let mut opened = BTreeMap::new();
        let mut now = NOW;
        for (index, (provider, sequence, wait, ttl)) in arrivals.into_iter().enumerate() {
            now += wait;
            if index == written_after {
                let configuration = bincode::config::standard();
                let bytes = bincode::serde::encode_to_vec(kept.snapshot(), configuration).unwrap();
                let (snapshot, _) = bincode::serde::decode_from_slice(&bytes, configuration).unwrap();
                restored = Board::restore(snapshot, |digest| opened.get(digest).cloned()).unwrap();
            }
            let sealed = sealed(provider, sequence, now, ttl * 60_000);
            let listing = Arc::new(OpenedListing::open(&sealed).unwrap());
            opened.insert(listing.digest(), listing.clone());
            prop_assert_eq!(kept.post(&listing, now), restored.post(&listing, now));
            prop_assert_eq!(kept.snapshot(), restored.snapshot());
            prop_assert!(kept.listings(now).eq(restored.listings(now)));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Board::default().insert(&bytes, NOW).is_err());
    }
}

/// Many boards share what was opened once, and each of them keeps its own time.
#[test]
fn boards_share_an_opened_listing_and_judge_it_by_their_own_clocks() {
    let opened = Arc::new(OpenedListing::open(&sealed(1, 5, NOW, 60_000)).unwrap());
    let mut boards = vec![Board::default(); 4];
    assert_eq!(boards[0].post(&opened, NOW), Ok(Insertion::New));
    assert_eq!(boards[1].post(&opened, NOW + 60_000), Ok(Insertion::Stale));
    assert_eq!(boards[2].post(&opened, NOW - 60_000), Ok(Insertion::New));
    assert!(matches!(
        boards[3].post(&opened, NOW - 60_001),
        Err(ListingError::FromTheFuture { ahead_ms: 60_001, .. })
    ));
    assert_eq!(
        Arc::strong_count(&opened),
        3,
        "two boards have it, and have no other copy"
    );
    let shown = boards[2].listing(&keypair(1).account(), NOW).unwrap();
    assert!(std::ptr::eq(shown, opened.listing()));
}

/// A simulated market has a million boards, most of them empty, and of each listing an entry on many of them.
#[test]
fn an_empty_board_and_an_entry_are_small() {
    assert!(size_of::<Board>() <= 40, "{}", size_of::<Board>());
    let entry = size_of::<AccountId>() + size_of::<Posted>();
    assert!(entry <= 64, "{entry}");
}

#[test]
fn a_board_is_not_restored_without_its_listings() {
    let mut board = Board::default();
    board.insert(&sealed(1, 5, NOW, 60_000), NOW).unwrap();
    let snapshot = board.snapshot();
    let digest = *snapshot.listings().next().unwrap();
    let restored = Board::restore(snapshot, |_| None);
    assert_eq!(restored.unwrap_err(), BoardRestoreError::UnknownListing(digest));
}
