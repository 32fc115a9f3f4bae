//! The rules of the book as tables.

use gristmill_protocol::identity::Keypair;
use gristmill_protocol::ids::GrantId;
use gristmill_protocol::job::RequestId;
use gristmill_protocol::voucher::Voucher;
use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::entry::{
    CloseChannel, CloseReason, Entry, Freeze, Grant, GrantKind, OpenChannel, Settle, Started,
};
use crate::outcome::{BookAccount, Effect};
use gristmill_protocol::handover::{HandoverError, KeyHandover, SignedHandover};

mod random_entries;

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
        starter_daily_budget: Credits::MAX,
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

fn frozen(id: u8, of: u8) -> Freeze {
    Freeze {
        id: EntryId::from_bytes([id; 16]),
        account: account(of),
        reason: "chargeback".into(),
    }
}

fn rotate(log: u8, old: u8, new: u8) -> Entry {
    let agreed = KeyHandover {
        log: account(log),
        old: account(old),
        new: account(new),
        agreed_at_ms: 7,
    };
    Entry::RotateKey(Box::new(SignedHandover {
        by_old: keypair(old).sign(agreed),
        by_new: keypair(new).sign(agreed),
    }))
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
fn a_frozen_account_opens_nothing_but_pays_what_it_promised() {
    let refused = || Refusal::AccountFrozen {
        account: account(ALICE),
    };
    let already = |frozen| Refusal::FrozenAlready {
        account: account(ALICE),
        frozen,
    };
    let conflict = Refusal::EntryConflict {
        entry: EntryId::from_bytes([50; 16]),
    };
    let unreasoned = Freeze {
        reason: String::new(),
        ..frozen(53, ALICE)
    };
    #[rustfmt::skip]
    run(vec![
        ("a grant",                        1, grant(1, ALICE, 100, GrantKind::Operator),  New,             [100, 0, 0, 0]),
        ("a channel",                      2, open(7, ALICE, BOB, 40),                    New,             [60, 40, 0, 0]),
        ("a freeze without a reason",      3, Entry::Freeze(unreasoned),                  No(Refusal::NoReason), [60, 40, 0, 0]),
        ("a freeze",                       3, Entry::Freeze(frozen(50, ALICE)),           New,             [60, 40, 0, 0]),
        ("the same freeze again",          4, Entry::Freeze(frozen(50, ALICE)),           Before(3),       [60, 40, 0, 0]),
        ("its name for something else",    4, Entry::Freeze(frozen(50, BOB)),             No(conflict),    [60, 40, 0, 0]),
        ("another freeze",                 4, Entry::Freeze(frozen(51, ALICE)),           No(already(true)), [60, 40, 0, 0]),
        ("the same channel again",         5, open(7, ALICE, BOB, 40),                    Before(2),       [60, 40, 0, 0]),
        ("a new channel by it",            5, open(8, ALICE, BOB, 40),                    No(refused()),   [60, 40, 0, 0]),
        ("a new channel for it",           5, open(8, BOB, ALICE, 40),                    No(refused()),   [60, 40, 0, 0]),
        ("what it promised is paid",       6, settle(7, ALICE, 10),                       New,             [60, 30, 9, 1]),
        ("a hold returns to it",           7, close(7, CloseReason::Provider),            New,             [90, 0, 9, 1]),
        ("it can be granted",              8, grant(2, ALICE, 10, GrantKind::Operator),   New,             [100, 0, 9, 1]),
        ("no longer frozen",               9, Entry::Unfreeze(frozen(52, ALICE)),         New,             [100, 0, 9, 1]),
        ("unfreezing again",              10, Entry::Unfreeze(frozen(54, ALICE)),         No(already(false)), [100, 0, 9, 1]),
        ("a new channel",                 11, open(8, ALICE, BOB, 40),                    New,             [60, 40, 9, 1]),
    ]);
}

#[test]
fn new_accounts_together_get_at_most_the_budget_of_the_day() {
    const DAY_MS: u64 = 86_400_000;
    let starter = |id, to| match grant(id, to, 40, GrantKind::Starter) {
        Entry::Grant(grant) => Entry::Grant(Grant {
            starter_daily_budget: Credits::micro(90),
            ..grant
        }),
        other => other,
    };
    let exhausted = || Refusal::StarterBudgetExhausted {
        given: Credits::micro(80),
        budget: Credits::micro(90),
    };
    #[rustfmt::skip]
    run(vec![
        ("the first",                  DAY_MS,         starter(1, ALICE),  New,              [40, 0, 0, 0]),
        ("the second",                 2 * DAY_MS - 1, starter(2, BOB),    New,              [40, 0, 40, 0]),
        ("above the budget",           2 * DAY_MS - 1, starter(3, 3),      No(exhausted()),  [40, 0, 40, 0]),
        ("a clock set back a day",     DAY_MS - 1,     starter(3, 3),      No(exhausted()),  [40, 0, 40, 0]),
        ("an operator's grant",        2 * DAY_MS - 1, grant(9, BOB, 60, GrantKind::Operator), New, [40, 0, 100, 0]),
        ("the next day",               2 * DAY_MS,     starter(3, 3),      New,              [40, 0, 100, 0]),
    ]);
}

#[test]
fn keys_are_handed_over_in_a_chain() {
    let not_from = |old, known| {
        Refusal::Handover(HandoverError::NotFromKnown {
            old: account(old),
            known: account(known),
        })
    };
    let other_log = Refusal::Handover(HandoverError::OtherLog {
        actual: account(11),
        expected: account(10),
    });
    #[rustfmt::skip]
    let book = run(vec![
        ("not from the first key",  1, rotate(10, 11, 12), No(not_from(11, 10)), [0; 4]),
        ("from the first key",      1, rotate(10, 10, 11), New,                  [0; 4]),
        ("the same again",          2, rotate(10, 10, 11), No(not_from(10, 11)), [0; 4]),
        ("of another log",          2, rotate(11, 11, 12), No(other_log),        [0; 4]),
        ("to a third key",          3, rotate(10, 11, 12), New,                  [0; 4]),
    ]);
    assert_eq!(
        book.head().signer,
        Some(Signer {
            log: account(10),
            now: account(12)
        })
    );
}

#[test]
fn a_state_comes_back_from_its_bytes_and_damage_is_found() {
    let mut book = Book::new();
    apply(&mut book, grant(1, ALICE, 100, GrantKind::Operator), 1).unwrap();
    apply(&mut book, open(7, ALICE, BOB, 40), 2).unwrap();
    apply(&mut book, settle(7, ALICE, 10), 3).unwrap();
    let mut bytes = Vec::new();
    book.write_state(&mut bytes).unwrap();
    let read = Book::read_state(&mut bytes.as_slice()).unwrap();
    assert_eq!((read.digest(), &read.deadlines), (book.digest(), &book.deadlines));
    for position in 0..bytes.len() {
        assert!(
            Book::read_state(&mut &bytes[..position]).is_err(),
            "cut at {position}"
        );
        let mut damaged = bytes.clone();
        damaged[position] ^= 1;
        // Not every bit is bound by an invariant, but none goes unseen by the digest.
        assert!(
            Book::read_state(&mut damaged.as_slice()).map_or(true, |read| read.digest() != book.digest()),
            "byte {position}"
        );
    }
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
        starter_daily_budget: Credits::MAX,
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
        "f4a9c7d08c1050f2979e4a350862fc314cdfefde15a2dfe67fd362752c1c5902",
        "the state has another encoding now: snapshots and audits of other versions will differ"
    );
}
