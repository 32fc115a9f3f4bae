use super::*;
use gristmill_protocol::handover::{KeyHandover, SignedHandover};
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::log::cosignature;
use gristmill_protocol::log::hash::leaf_hash;
use proptest::prelude::*;

const NOW: u64 = 1_000_000;

fn keypair(byte: u8) -> Keypair {
    Keypair::from_secret(&[byte; 32])
}

fn account(byte: u8) -> AccountId {
    keypair(byte).account()
}

fn keys() -> LogKeys {
    LogKeys::new(account(1))
}

/// A checkpoint of the log of key 1, signed by some key.
fn signed(size: u64, root: &[u8], signer: u8) -> SignedCheckpoint {
    let checkpoint = Checkpoint::new(&origin_of(&account(1)), size, leaf_hash(root));
    SignedCheckpoint::sign(&checkpoint, &keypair(signer)).unwrap()
}

fn message(content: CheckpointContent) -> Vec<u8> {
    CheckpointMessage { round: 0, content }.encode()
}

fn of(checkpoint: &SignedCheckpoint) -> Vec<u8> {
    message(CheckpointContent::Checkpoint(checkpoint.note().clone()))
}

fn two_roots(size: u64, other: &[u8]) -> Evidence {
    Evidence::two_roots(&keys(), &signed(size, b"one", 1), &signed(size, other, 1))
}

fn watching() -> (CheckpointFilter, LogFeed) {
    let mut filter = CheckpointFilter::default();
    let feed = filter.watch(&keys());
    (filter, feed)
}

fn heard(feed: &mut LogFeed) -> Vec<Heard> {
    std::iter::from_fn(|| feed.heard.try_recv().ok()).collect()
}

#[test]
fn new_checkpoints_are_forwarded_and_everything_true_is_told() {
    use Judgement::*;
    let (mut filter, mut feed) = watching();
    let from = account(9);
    for (checkpoint, expected) in [
        (signed(5, b"a", 1), Forward),
        (signed(5, b"a", 1), Drop),
        (signed(4, b"a", 1), Drop),
        (signed(7, b"a", 1), Forward),
        // What contradicts is news, however old.
        (signed(5, b"b", 1), Forward),
        (signed(4, b"b", 1), Forward),
    ] {
        assert_eq!(
            filter.judge(&of(&checkpoint), from, NOW),
            expected,
            "{checkpoint:?}"
        );
    }
    let sizes: Vec<_> = heard(&mut feed)
        .into_iter()
        .map(|heard| match heard {
            Heard::Checkpoint { checkpoint, .. } => checkpoint.size(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes, [5, 4, 7, 5, 4]);
}

#[test]
fn what_no_honest_peer_sends_is_blamed() {
    let (mut filter, mut feed) = watching();
    let mut cosigned = signed(5, b"a", 1).into_note();
    let line = cosignature::cosign(&signed(5, b"a", 1), &keypair(3), 7).unwrap();
    cosignature::add(&mut cosigned, &account(3), line).unwrap();
    let changed: SignedNote = signed(5, b"a", 1)
        .note()
        .to_string()
        .replacen("\n5\n", "\n6\n", 1)
        .parse()
        .unwrap();
    let malformed = SignedNote::sign(
        &format!("{}\nmore\n", keys().origin()),
        keys().origin(),
        &keypair(1),
    );
    let harmless = Evidence::TwoRoots {
        first: signed(5, b"a", 1).into_note(),
        second: signed(5, b"a", 1).into_note(),
    };
    let mut trailing = of(&signed(5, b"a", 1));
    trailing.push(0);
    let table = [
        ("nothing", Vec::new()),
        ("noise", vec![7; 100]),
        ("trailing bytes", trailing),
        ("cosigned", message(CheckpointContent::Checkpoint(cosigned))),
        ("changed", message(CheckpointContent::Checkpoint(changed))),
        (
            "malformed",
            message(CheckpointContent::Checkpoint(malformed.unwrap())),
        ),
        ("no lie", message(CheckpointContent::Evidence(harmless))),
    ];
    for (name, bytes) in table {
        assert_eq!(filter.judge(&bytes, account(9), NOW), Judgement::Blame, "{name}");
    }
    assert!(heard(&mut feed).is_empty());
    assert_eq!(
        filter.judge(&of(&signed(5, b"a", 1)), account(9), NOW),
        Judgement::Forward,
        "nothing of it was remembered"
    );
}

#[test]
fn other_logs_and_unknown_keys_are_dropped_without_blame() {
    let (mut filter, mut feed) = watching();
    let other = SignedCheckpoint::sign(
        &Checkpoint::new(&origin_of(&account(2)), 5, leaf_hash(b"a")),
        &keypair(2),
    )
    .unwrap();
    assert_eq!(filter.judge(&of(&other), account(9), NOW), Judgement::Drop);
    assert!(heard(&mut feed).is_empty());

    let by_new_key = signed(5, b"a", 4);
    assert_eq!(filter.judge(&of(&by_new_key), account(9), NOW), Judgement::Drop);
    assert_eq!(heard(&mut feed), [Heard::UnknownKey]);
    let agreed = KeyHandover {
        log: account(1),
        old: account(1),
        new: account(4),
        agreed_at_ms: 5,
    };
    let mut keys = keys();
    keys.follow(&SignedHandover {
        by_old: keypair(1).sign(agreed),
        by_new: keypair(4).sign(agreed),
    })
    .unwrap();
    filter.follow(&keys);
    assert_eq!(
        filter.judge(&of(&by_new_key), account(9), NOW),
        Judgement::Forward
    );

    drop(feed);
    assert_eq!(
        filter.judge(&of(&signed(9, b"a", 1)), account(9), NOW),
        Judgement::Drop,
        "nobody watches any more"
    );
}

#[test]
fn evidence_is_forwarded_once_and_only_so_much_of_it() {
    let (mut filter, mut feed) = watching();
    for number in 0..=EVIDENCE_PER_LOG_MAX {
        let evidence = two_roots(5, &[number as u8]);
        let bytes = message(CheckpointContent::Evidence(evidence));
        let expected = match number < EVIDENCE_PER_LOG_MAX {
            true => Judgement::Forward,
            false => Judgement::Drop,
        };
        assert_eq!(filter.judge(&bytes, account(9), NOW), expected, "{number}");
        assert_eq!(filter.judge(&bytes, account(8), NOW), Judgement::Drop, "{number}");
    }
    assert_eq!(heard(&mut feed).len(), EVIDENCE_PER_LOG_MAX);
}

#[test]
fn one_peer_that_floods_does_not_drown_others() {
    let (mut filter, mut feed) = watching();
    for size in 1..=200 {
        filter.judge(&of(&signed(size, b"a", 1)), account(9), NOW);
        let _ = heard(&mut feed);
    }
    let _ = filter.judge(&of(&signed(77, b"other", 1)), account(8), NOW);
    assert_eq!(heard(&mut feed).len(), 1, "another peer is still heard");
    let _ = filter.judge(&of(&signed(78, b"other", 1)), account(9), NOW);
    assert!(heard(&mut feed).is_empty(), "the one that floods is not");
    let _ = filter.judge(&of(&signed(78, b"other", 1)), account(9), NOW + 1_000);
    assert_eq!(heard(&mut feed).len(), 1, "until it has rested");
}

#[test]
fn a_reader_that_is_behind_loses_nothing_for_good() {
    let (mut filter, mut feed) = watching();
    let sent = LOG_FEED_QUEUE as u64 + 10;
    for size in 1..=sent {
        // A peer for each, so that no rate counts.
        let from = keypair((size % 250) as u8).account();
        let _ = filter.judge(&of(&signed(size, b"a", 1)), from, NOW + size * 1_000);
    }
    assert_eq!(heard(&mut feed).len(), LOG_FEED_QUEUE);
    let lost = signed(sent, b"a", 1);
    assert_eq!(
        filter.judge(&of(&lost), account(9), NOW + 900_000),
        Judgement::Forward
    );
    assert_eq!(heard(&mut feed).len(), 1);
    // What was told is told again after a while, but not forwarded again.
    assert_eq!(
        filter.judge(&of(&lost), account(9), NOW + 900_000 + TOLD_FOR_MS),
        Judgement::Drop
    );
    assert_eq!(heard(&mut feed).len(), 1);
}

#[test]
fn own_announcements_are_checked_as_others_are() {
    let (mut filter, _feed) = watching();
    let mut cosigned = signed(5, b"a", 1).into_note();
    let line = cosignature::cosign(&signed(5, b"a", 1), &keypair(3), 7).unwrap();
    cosignature::add(&mut cosigned, &account(3), line).unwrap();
    let announced = filter.announce_checkpoint(cosigned).unwrap();
    assert!(announced.is_news);
    assert_eq!(
        announced.content,
        CheckpointContent::Checkpoint(signed(5, b"a", 1).into_note()),
        "it travels without cosignatures"
    );
    assert_eq!(
        filter.judge(&of(&signed(5, b"a", 1)), account(9), NOW),
        Judgement::Drop
    );
    assert!(
        !filter
            .announce_checkpoint(signed(5, b"a", 1).into_note())
            .unwrap()
            .is_news
    );
    assert!(matches!(
        filter.announce_checkpoint(signed(5, b"a", 2).into_note()),
        Err(AnnounceError::Checkpoint(_))
    ));
    assert!(filter.announce_evidence(two_roots(5, b"two")).unwrap().is_news);
    assert!(matches!(
        filter.announce_evidence(Evidence::TwoRoots {
            first: signed(5, b"a", 1).into_note(),
            second: signed(5, b"a", 1).into_note(),
        }),
        Err(AnnounceError::Evidence(_))
    ));
    let mut nobody = CheckpointFilter::default();
    assert!(matches!(
        nobody.announce_checkpoint(signed(5, b"a", 1).into_note()),
        Err(AnnounceError::NotWatched)
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_never_pass(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let (mut filter, mut feed) = watching();
        prop_assert_ne!(filter.judge(&bytes, account(9), NOW), Judgement::Forward);
        prop_assert!(heard(&mut feed).is_empty());
    }

    #[test]
    fn a_changed_byte_is_never_told_as_something_else(position in 0usize..600, change in 1u8..=255) {
        let (mut filter, mut feed) = watching();
        let checkpoint = signed(5, b"a", 1);
        let mut bytes = of(&checkpoint);
        let position = position % bytes.len();
        bytes[position] ^= change;
        let _ = filter.judge(&bytes, account(9), NOW);
        // The number of the round, which is nobody's word, may change.
        for told in heard(&mut feed) {
            match told {
                Heard::Checkpoint { checkpoint: told, .. } => prop_assert_eq!(told, checkpoint.clone()),
                Heard::UnknownKey => {}
                other @ Heard::Evidence(_) => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
