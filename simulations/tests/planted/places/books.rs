//! The places in the ledger's book.

use gristmill_ledger::book::{Applied, ApplyError, Book};
use gristmill_ledger::entry::{
    CloseChannel, CloseReason, Entry, Grant, GrantKind, OpenChannel, Settle, Started,
};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::ids::{ChannelId, GrantId};
use gristmill_protocol::job::RequestId;
use gristmill_protocol::planted::Bug;
use gristmill_protocol::voucher::Voucher;

use super::Place;

pub(super) const PLACES: &[Place] = &[
    (Bug::VouchersAddedUp, || {
        let mut book = book();
        apply(&mut book, settle(30), 2).unwrap();
        apply(&mut book, settle(30), 3).unwrap();
        book.channel(&channel()).unwrap().settled != Credits::micro(30)
    }),
    (Bug::SettledAboveLimit, || {
        // The book's own sums stop it, where its rule should have.
        let settled = apply(&mut book(), settle(LIMIT + 1), 2);
        !matches!(settled, Err(ApplyError::Refused(_)))
    }),
    (Bug::FeeRoundedEachTime, || {
        let mut book = book();
        apply(&mut book, settle(5), 2).unwrap();
        apply(&mut book, settle(10), 3).unwrap();
        book.totals().fees != Credits::micro(1)
    }),
    (Bug::FeeFromNothing, || {
        let mut book = book();
        let issued = book.totals().issued;
        apply(&mut book, settle(50), 2).unwrap();
        book.totals().issued != issued
    }),
    (Bug::StarterGrantedAgain, || {
        let mut book = Book::new();
        apply(&mut book, starter(1, 10), 1).unwrap();
        apply(&mut book, starter(2, 10), 2).is_ok()
    }),
    (Bug::StarterBudgetIgnored, || {
        apply(&mut Book::new(), starter(1, BUDGET + 1), 1).is_ok()
    }),
    (Bug::ExpiredTooEarly, || {
        let mut book = book();
        let is_due = !book.expired_channels(REDEEM_BY_MS - 1, 1).is_empty();
        let is_closed = apply(&mut book, close(CloseReason::Expired), REDEEM_BY_MS - 1).is_ok();
        assert_eq!(is_due, is_closed);
        is_closed
    }),
    (Bug::DowntimeForgotten, || {
        let mut book = book();
        apply(&mut book, Entry::Started(Started { downtime_ms: 500 }), 2).unwrap();
        book.channel(&channel()).unwrap().extended_redeem_by_ms != REDEEM_BY_MS + 500
    }),
    (Bug::HoldReturnedAgain, || {
        let mut book = book();
        apply(&mut book, close(CloseReason::Provider), 2).unwrap();
        let again = apply(&mut book, close(CloseReason::Provider), 3);
        !matches!(again, Ok(Applied::Before { .. }))
    }),
];

const LIMIT: u32 = 100;
const BUDGET: u32 = 1_000;
const REDEEM_BY_MS: u64 = 10_000_000;

fn consumer() -> Keypair {
    Keypair::from_secret(&[2; 32])
}

fn provider() -> Keypair {
    Keypair::from_secret(&[3; 32])
}

fn channel() -> ChannelId {
    ChannelId::from_bytes([4; 16])
}

/// A book with one open channel, at ten percent so that rounding shows.
fn book() -> Book {
    let mut book = Book::new();
    apply(&mut book, starter(1, LIMIT), 1).unwrap();
    let open = OpenChannel {
        channel: channel(),
        consumer: consumer().account(),
        provider: provider().account(),
        limit: Credits::micro(LIMIT),
        fee_basis_points: 1_000,
        redeem_by_ms: REDEEM_BY_MS,
        request_digest: [0; 32],
    };
    apply(&mut book, Entry::OpenChannel(open), 1).unwrap();
    book
}

fn apply(book: &mut Book, entry: Entry, time_ms: u64) -> Result<Applied, ApplyError> {
    book.apply(&entry.check()?, time_ms)
}

fn starter(id: u8, amount: u32) -> Entry {
    Entry::Grant(Grant {
        id: GrantId::from_bytes([id; 16]),
        account: consumer().account(),
        amount: Credits::micro(amount),
        kind: GrantKind::Starter,
        reason: String::new(),
        starter_daily_budget: Credits::micro(BUDGET),
    })
}

fn settle(cumulative: u32) -> Entry {
    let voucher = consumer().sign(Voucher {
        channel: channel(),
        cumulative: Credits::micro(cumulative),
        request_id: RequestId::from_random([5; 16]),
        transcript: [0; 32],
    });
    Entry::Settle(Settle {
        channel: channel(),
        voucher,
    })
}

fn close(reason: CloseReason) -> Entry {
    Entry::CloseChannel(CloseChannel {
        channel: channel(),
        reason,
    })
}
