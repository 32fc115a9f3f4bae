//! The rules of the book as tables, and random entries against its invariants.

use gristmill_protocol::identity::Keypair;
use gristmill_protocol::job::RequestId;
use gristmill_protocol::voucher::Voucher;
use proptest::prelude::*;

use super::*;
use crate::entry::{CloseChannel, CloseReason, Entry, Grant, GrantKind, OpenChannel, Settle, Started};
use crate::outcome::{BookAccount, Effect};

const ALICE: u8 = 1;
const BOB: u8 = 2;
/// Ten percent, so that rounding shows.
const FEE_BASIS_POINTS: u16 = 1_000;
const REDEEM_BY_MS: u64 = 1_000;

fn keypair(name: u8) -> Keypair {
    Keypair::from_secret(&[name; 32])
}

fn account(name: u8) -> AccountId {
    keypair(name).account()
}

fn channel(name: u8) -> ChannelId {
    ChannelId::from_bytes([name; 16])
}

fn grant(id: u8, to: u8, amount: u32, kind: GrantKind) -> Entry {
    Entry::Grant(Grant {
        id: GrantId::from_bytes([id; 16]),
        account: account(to),
        amount: Credits::micro(amount),
        kind,
        reason: String::new(),
    })
}

fn open(id: u8, consumer: u8, provider: u8, limit: u32) -> Entry {
    Entry::OpenChannel(OpenChannel {
        channel: channel(id),
        consumer: account(consumer),
        provider: account(provider),
        limit: Credits::micro(limit),
        fee_basis_points: FEE_BASIS_POINTS,
        redeem_by_ms: REDEEM_BY_MS,
        request_digest: *Digest::of(&[id, consumer, provider]).bytes(),
    })
}

fn settle(id: u8, signer: u8, cumulative: u32) -> Entry {
    let voucher = Voucher {
        channel: channel(id),
        cumulative: Credits::micro(cumulative),
        request_id: RequestId::from_random([id; 16]),
        transcript: [9; 32],
    };
    Entry::Settle(Settle {
        channel: channel(id),
        voucher: keypair(signer).sign(voucher),
    })
}

fn close(id: u8, reason: CloseReason) -> Entry {
    Entry::CloseChannel(CloseChannel {
        channel: channel(id),
        reason,
    })
}

fn apply(book: &mut Book, entry: Entry, time_ms: u64) -> Result<Applied, ApplyError> {
    book.apply(&entry.check()?, time_ms)
}

/// What a row of a table expects.
enum Expect {
    New,
    Before(u64),
    No(Refusal),
}
use Expect::{Before, New, No};

/// Runs the rows; after each, Alice's available and held, Bob's available, and the fees must be these.
fn run(rows: Vec<(&str, u64, Entry, Expect, [u64; 4])>) -> Book {
    let mut book = Book::new();
    for (name, time_ms, entry, expected, balances) in rows {
        let before = book.digest();
        let result = apply(&mut book, entry, time_ms);
        match expected {
            New => assert!(matches!(result, Ok(Applied::New { .. })), "{name}: {result:?}"),
            Before(sequence) => assert_eq!(result, Ok(Applied::Before { sequence }), "{name}"),
            No(refusal) => assert_eq!(result, Err(ApplyError::Refused(refusal)), "{name}"),
        }
        if !matches!(result, Ok(Applied::New { .. })) {
            assert_eq!(book.digest(), before, "{name} changed the book");
        }
        let (alice, bob) = (book.balance(&account(ALICE)), book.balance(&account(BOB)));
        let actual = [alice.available, alice.held, bob.available, book.totals().fees];
        assert_eq!(actual.map(Credits::microcredits), balances, "{name}");
        book.verify().unwrap();
    }
    book
}

#[test]
fn the_life_of_a_channel() {
    let settled = Credits::micro(25);
    let late = Refusal::ChannelClosed {
        channel: channel(7),
        settled,
    };
    let above = Refusal::AboveLimit {
        channel: channel(7),
        limit: Credits::micro(40),
        cumulative: Credits::micro(41),
    };
    let wrong_signer = Refusal::WrongSigner {
        channel: channel(7),
        consumer: account(ALICE),
    };
    #[rustfmt::skip]
    run(vec![
        // what                            at   entry                                      expected             alice, held, bob, fees
        ("a grant",                        1, grant(1, ALICE, 100, GrantKind::Operator),   New,                 [100, 0, 0, 0]),
        ("a channel holds its limit",      2, open(7, ALICE, BOB, 40),                     New,                 [60, 40, 0, 0]),
        ("the same request again",         3, open(7, ALICE, BOB, 40),                     Before(2),           [60, 40, 0, 0]),
        ("the first voucher",              4, settle(7, ALICE, 9),                         New,                 [60, 31, 9, 0]),
        ("the same voucher again",         5, settle(7, ALICE, 9),                         Before(3),           [60, 31, 9, 0]),
        ("the fee is on the sum",          6, settle(7, ALICE, 19),                        New,                 [60, 21, 18, 1]),
        ("a lower voucher, late",          7, settle(7, ALICE, 12),                        Before(4),           [60, 21, 18, 1]),
        ("a voucher above the limit",      8, settle(7, ALICE, 41),                        No(above),           [60, 21, 18, 1]),
        ("a voucher by the provider",      8, settle(7, BOB, 20),                          No(wrong_signer),    [60, 21, 18, 1]),
        ("a third voucher",                9, settle(7, ALICE, 25),                        New,                 [60, 15, 23, 2]),
        ("the provider closes",           10, close(7, CloseReason::Provider),             New,                 [75, 0, 23, 2]),
        ("closing again",                 11, close(7, CloseReason::Expired),              Before(6),           [75, 0, 23, 2]),
        ("a higher voucher, too late",    12, settle(7, ALICE, 26),                        No(late),            [75, 0, 23, 2]),
        ("a paid voucher, late",          13, settle(7, ALICE, 25),                        Before(5),           [75, 0, 23, 2]),
        ("opening a closed one again",    14, open(7, ALICE, BOB, 40),                     Before(2),           [75, 0, 23, 2]),
    ]);
}

#[test]
fn refusals_say_what_was_there() {
    let unknown = || Refusal::UnknownChannel { channel: channel(9) };
    let poor = Refusal::InsufficientCredits {
        available: Credits::micro(60),
        wanted: Credits::micro(61),
    };
    let nothing = Refusal::InsufficientCredits {
        available: Credits::ZERO,
        wanted: Credits::micro(1),
    };
    let conflict = || Refusal::ChannelConflict { channel: channel(7) };
    let starter = Refusal::StarterAlreadyGranted {
        account: account(ALICE),
    };
    let grant_conflict = Refusal::GrantConflict {
        grant: GrantId::from_bytes([1; 16]),
    };
    #[rustfmt::skip]
    run(vec![
        ("a starter grant",               1, grant(1, ALICE, 100, GrantKind::Starter),    New,                 [100, 0, 0, 0]),
        ("the same grant again",          2, grant(1, ALICE, 100, GrantKind::Starter),    Before(1),           [100, 0, 0, 0]),
        ("the id with other content",     3, grant(1, ALICE, 101, GrantKind::Starter),    No(grant_conflict),  [100, 0, 0, 0]),
        ("a second starter grant",        4, grant(2, ALICE, 100, GrantKind::Starter),    No(starter),         [100, 0, 0, 0]),
        ("a channel",                     5, open(7, ALICE, BOB, 40),                     New,                 [60, 40, 0, 0]),
        ("its name for another provider", 6, open(7, ALICE, 3, 40),                       No(conflict()),      [60, 40, 0, 0]),
        ("its name for another consumer", 6, open(7, BOB, ALICE, 40),                     No(conflict()),      [60, 40, 0, 0]),
        ("one microcredit too much",      7, open(8, ALICE, BOB, 61),                     No(poor),            [60, 40, 0, 0]),
        ("exactly what is there",         8, open(8, ALICE, BOB, 60),                     New,                 [0, 100, 0, 0]),
        ("nothing is left",               9, open(6, ALICE, BOB, 1),                      No(nothing),         [0, 100, 0, 0]),
        ("a voucher for no channel",     10, settle(9, ALICE, 1),                         No(unknown()),       [0, 100, 0, 0]),
        ("closing no channel",           10, close(9, CloseReason::Provider),             No(unknown()),       [0, 100, 0, 0]),
        ("the whole limit",              11, settle(8, ALICE, 60),                        New,                 [0, 40, 54, 6]),
    ]);
}

#[test]
fn downtime_extends_every_open_channel() {
    let not_expired = |name, redeem_by_ms| Refusal::NotExpired {
        channel: channel(name),
        redeem_by_ms,
    };
    let started = |downtime_ms| Entry::Started(Started { downtime_ms });
    #[rustfmt::skip]
    let book = run(vec![
        ("a grant",                        1, grant(1, ALICE, 100, GrantKind::Operator),  New,                      [100, 0, 0, 0]),
        ("opened before",                  2, open(7, ALICE, BOB, 10),                    New,                      [90, 10, 0, 0]),
        ("half a second of downtime",    600, started(500),                               New,                      [90, 10, 0, 0]),
        ("opened after",                 601, open(8, ALICE, BOB, 10),                    New,                      [80, 20, 0, 0]),
        ("at the old time",             1001, close(7, CloseReason::Expired),             No(not_expired(7, 1500)), [80, 20, 0, 0]),
        ("opened after, at its time",   1000, close(8, CloseReason::Expired),             No(not_expired(8, 1000)), [80, 20, 0, 0]),
        ("opened after, past its time", 1001, close(8, CloseReason::Expired),             New,                      [90, 10, 0, 0]),
        ("at the extended time",        1500, close(7, CloseReason::Expired),             No(not_expired(7, 1500)), [90, 10, 0, 0]),
        ("paid although it is late",    1501, settle(7, ALICE, 5),                        New,                      [90, 5, 5, 0]),
    ]);
    assert_eq!(book.channel(&channel(7)).unwrap().redeem_by_ms, 1000);
    assert_eq!(book.channel(&channel(7)).unwrap().extended_redeem_by_ms, 1500);
    assert_eq!(book.expired_channels(1500, 10), []);
    assert_eq!(book.expired_channels(1501, 10), [channel(7)]);
    assert_eq!(book.expired_channels(1501, 0), []);
}

#[test]
fn an_outcome_says_what_a_receipt_needs() {
    let mut book = Book::new();
    apply(&mut book, grant(1, ALICE, 100, GrantKind::Operator), 1).unwrap();
    apply(&mut book, open(7, ALICE, BOB, 40), 2).unwrap();
    apply(&mut book, settle(7, ALICE, 10), 3).unwrap();
    let Ok(Applied::New { sequence: 4, outcome }) = apply(&mut book, settle(7, ALICE, 30), 4) else {
        panic!()
    };
    let Effect::Settled(settlement) = outcome.effect else {
        panic!()
    };
    assert_eq!(
        (settlement.settled_before, settlement.settled_after),
        (Credits::micro(10), Credits::micro(30))
    );
    assert_eq!(
        (settlement.amount, settlement.fee),
        (Credits::micro(20), Credits::micro(2))
    );
    assert_eq!(settlement.request_id, RequestId::from_random([7; 16]));
    let moved: Vec<_> = outcome
        .transfers
        .iter()
        .map(|moved| (moved.from, moved.to, moved.amount))
        .collect();
    let held = BookAccount::Held(channel(7));
    assert_eq!(
        moved,
        [
            (held, BookAccount::Available(account(BOB)), Credits::micro(18)),
            (held, BookAccount::Fees, Credits::micro(2))
        ]
    );
}

#[test]
fn issuance_ends_at_the_largest_amount() {
    let mut book = Book::new();
    let all = Entry::Grant(Grant {
        id: GrantId::from_bytes([1; 16]),
        account: account(ALICE),
        amount: Credits::MAX,
        kind: GrantKind::Operator,
        reason: String::new(),
    });
    apply(&mut book, all, 1).unwrap();
    let exhausted = Refusal::IssuanceExhausted {
        issued: Credits::MAX,
        wanted: Credits::micro(1),
    };
    assert_eq!(
        apply(&mut book, grant(2, BOB, 1, GrantKind::Operator), 2),
        Err(ApplyError::Refused(exhausted))
    );
    book.verify().unwrap();
}

#[test]
fn a_provider_may_be_its_own_consumer() {
    let mut book = Book::new();
    apply(&mut book, grant(1, ALICE, 100, GrantKind::Operator), 1).unwrap();
    apply(&mut book, open(7, ALICE, ALICE, 40), 2).unwrap();
    apply(&mut book, settle(7, ALICE, 20), 3).unwrap();
    apply(&mut book, close(7, CloseReason::Provider), 4).unwrap();
    let alice = book.balance(&account(ALICE));
    assert_eq!((alice.available, alice.held), (Credits::micro(98), Credits::ZERO));
    assert_eq!(
        (alice.spent, alice.earned),
        (Credits::micro(20), Credits::micro(18))
    );
    book.verify().unwrap();
}

#[test]
fn a_draft_is_not_seen_until_it_is_committed_and_only_once() {
    let mut book = Book::new();
    let entry = grant(1, ALICE, 100, GrantKind::Operator).check().unwrap();
    let mut draft = book.draft();
    draft.apply(&entry, 1).unwrap();
    let changes = draft.finish();
    assert_eq!(book.balance(&account(ALICE)).available, Credits::ZERO);
    book.commit(changes.clone()).unwrap();
    assert_eq!(book.balance(&account(ALICE)).available, Credits::micro(100));
    assert_eq!(
        book.commit(changes),
        Err(BrokenInvariant::OtherState { draft: 0, book: 1 })
    );
}

#[test]
fn a_book_that_does_not_balance_takes_no_entry() {
    let mut book = Book::new();
    apply(&mut book, grant(1, ALICE, 100, GrantKind::Operator), 1).unwrap();
    book.head.totals.fees = Credits::micro(1);
    let result = apply(&mut book, grant(2, ALICE, 100, GrantKind::Operator), 2);
    assert!(
        matches!(result, Err(ApplyError::Broken(BrokenInvariant::Unbalanced(_)))),
        "{result:?}"
    );
    assert!(book.verify().is_err());
}

#[test]
fn a_changed_balance_is_found() {
    let mut book = Book::new();
    apply(&mut book, grant(1, ALICE, 100, GrantKind::Operator), 1).unwrap();
    book.accounts.get_mut(&account(ALICE)).unwrap().available = Credits::micro(101);
    assert_eq!(book.verify(), Err(BrokenInvariant::Account(account(ALICE))));
    let result = apply(&mut book, open(7, ALICE, BOB, 10), 2);
    assert_eq!(
        result,
        Err(ApplyError::Broken(BrokenInvariant::Account(account(ALICE))))
    );
}

#[test]
fn the_state_digest_is_pinned() {
    let mut book = Book::new();
    apply(&mut book, grant(1, ALICE, 100, GrantKind::Operator), 1).unwrap();
    apply(&mut book, open(7, ALICE, BOB, 40), 2).unwrap();
    apply(&mut book, settle(7, ALICE, 10), 3).unwrap();
    assert_eq!(
        book.digest().to_string(),
        "c84d7742435e1ddb10aefb65fc86f0bb3b614114594af5d3a58de07a6241d183",
        "the state has another encoding now: snapshots and audits of other versions will differ"
    );
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let name = 1u8..5;
    let kind = prop_oneof![Just(GrantKind::Starter), Just(GrantKind::Operator)];
    let reason = prop_oneof![Just(CloseReason::Provider), Just(CloseReason::Expired)];
    prop_oneof![
        2 => (0u8..20, name.clone(), 0u32..500, kind).prop_map(|(id, to, amount, kind)| grant(id, to, amount, kind)),
        3 => (0u8..12, name.clone(), name.clone(), 0u32..300)
            .prop_map(|(id, consumer, provider, limit)| open(id, consumer, provider, limit)),
        5 => (0u8..12, name, 0u32..320).prop_map(|(id, signer, cumulative)| settle(id, signer, cumulative)),
        1 => (0u8..12, reason).prop_map(|(id, reason)| close(id, reason)),
        1 => (0u64..200).prop_map(|downtime_ms| Entry::Started(Started { downtime_ms })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is posted in whatever order: nothing is made or lost, and the journal alone gives the same state.
    #[test]
    fn random_entries_never_break_the_book(entries in proptest::collection::vec((any_entry(), 0u64..2_000), 1..120)) {
        let mut book = Book::new();
        let mut journal = Vec::new();
        for (entry, time_ms) in entries {
            let before = book.digest();
            match apply(&mut book, entry.clone(), time_ms) {
                Ok(Applied::New { sequence, outcome }) => {
                    journal.push((entry.encode(), time_ms));
                    prop_assert_eq!(sequence, journal.len() as u64);
                    prop_assert!(outcome.transfers.iter().all(|moved| !moved.amount.is_zero()));
                }
                Ok(Applied::Before { sequence }) => {
                    prop_assert!((1..=journal.len() as u64).contains(&sequence));
                    prop_assert_eq!(book.digest(), before);
                }
                Err(ApplyError::Refused(_)) => prop_assert_eq!(book.digest(), before),
                Err(ApplyError::Broken(broken)) => return Err(TestCaseError::fail(broken.to_string())),
            }
            book.verify().unwrap();
        }
        let mut replayed = Book::new();
        for (bytes, time_ms) in journal {
            let entry = CheckedEntry::journaled(Entry::decode(&bytes).unwrap());
            let applied = replayed.apply(&entry, time_ms);
            prop_assert!(matches!(applied, Ok(Applied::New { .. })), "{:?}", applied);
        }
        prop_assert_eq!(replayed.digest(), book.digest());
        prop_assert_eq!(replayed.deadlines, book.deadlines);
    }

    /// Many small vouchers or one large one: the same fee.
    #[test]
    fn fees_do_not_depend_on_batching(mut steps in proptest::collection::vec(1u32..10_000, 1..20), fee in 0u16..=10_000) {
        steps.sort_unstable();
        steps.dedup();
        let channel_of = |book: &mut Book| {
            apply(book, grant(1, ALICE, 20_000, GrantKind::Operator), 1).unwrap();
            let Entry::OpenChannel(terms) = open(7, ALICE, BOB, 10_000) else { unreachable!() };
            apply(book, Entry::OpenChannel(OpenChannel { fee_basis_points: fee, ..terms }), 2).unwrap();
        };
        let (mut small, mut large) = (Book::new(), Book::new());
        channel_of(&mut small);
        channel_of(&mut large);
        for step in &steps {
            apply(&mut small, settle(7, ALICE, *step), 3).unwrap();
        }
        apply(&mut large, settle(7, ALICE, *steps.last().unwrap()), 3).unwrap();
        prop_assert_eq!(small.totals(), large.totals());
        prop_assert_eq!(small.balance(&account(BOB)), large.balance(&account(BOB)));
    }
}
