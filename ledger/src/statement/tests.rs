use super::*;
use crate::book::{Applied, Book};
use crate::entry::{CloseChannel, CloseReason, Freeze, Grant, OpenChannel, Settle};
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::ids::GrantId;
use gristmill_protocol::log::hash::LogHash;
use gristmill_protocol::voucher::Voucher;
use proptest::prelude::*;

fn keypair(name: u8) -> Keypair {
    Keypair::from_secret(&[name; 32])
}

fn account(name: u8) -> AccountId {
    keypair(name).account()
}

fn channel(name: u8) -> ChannelId {
    ChannelId::from_bytes([name; 16])
}

fn grant(id: u8, to: u8, micro: u32, reason: &str) -> Entry {
    Entry::Grant(Grant {
        id: GrantId::from_bytes([id; 16]),
        account: account(to),
        amount: Credits::micro(micro),
        kind: GrantKind::Operator,
        reason: reason.into(),
        starter_daily_budget: Credits::ZERO,
    })
}

fn open(name: u8, consumer: u8, provider: u8, limit: u32) -> Entry {
    Entry::OpenChannel(OpenChannel {
        channel: channel(name),
        consumer: account(consumer),
        provider: account(provider),
        limit: Credits::micro(limit),
        fee_basis_points: 1_000,
        redeem_by_ms: 1_000,
        request_digest: [0; 32],
    })
}

fn settle(name: u8, consumer: u8, cumulative: u32) -> Entry {
    Entry::Settle(Settle {
        channel: channel(name),
        voucher: keypair(consumer).sign(Voucher {
            channel: channel(name),
            cumulative: Credits::micro(cumulative),
            request_id: RequestId::from_random([name; 16]),
            transcript: [0; 32],
        }),
    })
}

fn close(name: u8) -> Entry {
    Entry::CloseChannel(CloseChannel {
        channel: channel(name),
        reason: CloseReason::Provider,
    })
}

/// The entries of one account, and what it owns by the book after all of them.
fn statement(of: u8, entries: &[Entry]) -> (Vec<StatementEntry>, Owned) {
    let mut book = Book::new();
    let mut lines = Vec::new();
    for (entry, time_ms) in entries.iter().zip(1..) {
        let Ok(Applied::New { sequence, outcome }) = entry.clone().check().map(|entry| {
            book.apply(&entry, time_ms)
                .unwrap_or(Applied::Before { sequence: 0 })
        }) else {
            continue;
        };
        let posted = Posted {
            sequence,
            time_ms,
            record_hash: LogHash::from_bytes([0; 32]),
            outcome,
            repeated: false,
        };
        lines.extend(statement_entry(&account(of), &posted, Some(entry)));
    }
    let balance = book.balance(&account(of));
    let owned = Owned {
        available: balance.available,
        held: balance.held,
    };
    (lines, owned)
}

fn sum(lines: &[StatementEntry]) -> Owned {
    lines
        .iter()
        .try_fold(Owned::default(), |owned, line| owned.after(line))
        .unwrap()
}

#[test]
fn every_kind_of_line_says_what_it_did() {
    let frozen = Freeze {
        id: EntryId::from_bytes([9; 16]),
        account: account(1),
        reason: "complaints".into(),
    };
    let entries = [
        grant(1, 1, 10_000, "prepaid"),
        open(1, 1, 2, 4_000),
        settle(1, 1, 1_000),
        close(1),
        Entry::Freeze(frozen.clone()),
        Entry::Unfreeze(Freeze {
            id: EntryId::from_bytes([8; 16]),
            ..frozen
        }),
    ];
    let row = |line: &StatementEntry| {
        (
            line.kind,
            line.incoming.microcredits(),
            line.outgoing.microcredits(),
            line.held_change,
        )
    };
    let (lines, owned) = statement(1, &entries);
    assert_eq!(
        lines.iter().map(row).collect::<Vec<_>>(),
        [
            (StatementKind::Grant, 10_000, 0, 0),
            (StatementKind::Hold, 0, 0, 4_000),
            (StatementKind::Payment, 0, 1_000, -1_000),
            (StatementKind::Release, 0, 0, -3_000),
            (StatementKind::Freeze, 0, 0, 0),
            (StatementKind::Unfreeze, 0, 0, 0),
        ]
    );
    assert_eq!(sum(&lines), owned);
    assert_eq!(
        (owned.available, owned.held),
        (Credits::micro(9_000), Credits::ZERO)
    );
    assert_eq!(lines[0].reason.as_deref(), Some("prepaid"));
    assert_eq!(lines[2].counterparty, Some(account(2)));
    assert_eq!(lines[2].fee, Credits::micro(100));

    let (lines, owned) = statement(2, &entries);
    assert_eq!(
        lines.iter().map(row).collect::<Vec<_>>(),
        [(StatementKind::Earning, 900, 0, 0)]
    );
    assert_eq!((sum(&lines), owned.available), (owned, Credits::micro(900)));
    assert!(statement(3, &entries).0.is_empty());
}

#[test]
fn who_pays_itself_loses_the_fee_alone() {
    let (lines, owned) = statement(
        1,
        &[grant(1, 1, 10_000, ""), open(1, 1, 1, 4_000), settle(1, 1, 1_000)],
    );
    let paid = lines.last().unwrap();
    assert_eq!(
        (paid.incoming, paid.outgoing),
        (Credits::ZERO, Credits::micro(100))
    );
    assert_eq!(paid.held_change, -1_000);
    assert_eq!(sum(&lines), owned);
    assert_eq!(owned.total(), Credits::micro(9_900));
}

#[test]
fn a_missing_entry_shows() {
    let (lines, _) = statement(
        1,
        &[grant(1, 1, 10_000, ""), open(1, 1, 2, 4_000), settle(1, 1, 1_000)],
    );
    let without_grant = Owned::default().after(&lines[1]);
    assert_eq!(without_grant, Err(StatementError { sequence: 2 }));
}

fn written(format: StatementFormat, period: &Period, entries: &[Entry]) -> String {
    let (lines, _) = statement(1, entries);
    let mut output = Vec::new();
    let mut owned = Owned::default();
    let mut writer = StatementWriter::begin(&mut output, format, &account(1), period, owned).unwrap();
    for line in &lines {
        owned = owned.after(line).unwrap();
        writer.line(line, owned).unwrap();
    }
    writer.end(owned).unwrap();
    String::from_utf8(output).unwrap()
}

#[test]
fn csv_is_rfc_4180_and_no_formula() {
    let hostile = "=HYPERLINK(\"http://evil\",\"x\"), two\nlines";
    let entries = [
        grant(1, 1, 1_500_000, hostile),
        grant(2, 1, 1, " @SUM(A1)"),
        open(1, 1, 2, 500_000),
        settle(1, 1, 250_000),
    ];
    let text = written(StatementFormat::Csv, &Period::default(), &entries);
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(
        lines[0],
        "time,record,kind,counterparty,channel,entry,request,reason,in,out,fee,held_change,available,held,balance"
    );
    assert!(
        lines[1].contains(",\"'=HYPERLINK(\"\"http://evil\"\",\"\"x\"\"), two\nlines\",1.500000,0.000000,"),
        "{}",
        lines[1]
    );
    assert!(lines[2].contains(",' @SUM(A1),0.000001,"), "{}", lines[2]);
    assert!(
        lines[3].ends_with(",0.500000,1.000001,0.500000,1.500001"),
        "{}",
        lines[3]
    );
    assert!(
        lines[4].ends_with(",-0.250000,1.000001,0.250000,1.250001"),
        "{}",
        lines[4]
    );
    assert_eq!((lines.len(), lines[5]), (6, ""));
}

#[test]
fn a_statement_from_some_day_begins_with_what_there_was() {
    let period = Period {
        from_ms: Some(0),
        until_ms: None,
    };
    let text = written(StatementFormat::Csv, &period, &[]);
    let opening = text.lines().nth(1).unwrap();
    assert_eq!(
        opening,
        "1970-01-01T00:00:00.000Z,,opening,,,,,,,,,,0.000000,0.000000,0.000000"
    );
}

#[test]
fn json_is_one_object_with_whole_microcredits() {
    for entries in [&[][..], &[grant(1, 1, 7, "a \"quote\""), open(1, 1, 2, 3)]] {
        let text = written(StatementFormat::Json, &Period::default(), entries);
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["lines"].as_array().unwrap().len(), entries.len());
        if let Some(last) = read["lines"].as_array().unwrap().last() {
            assert_eq!((&last["available"], &last["held"]), (&4.into(), &3.into()));
            assert_eq!(last["time"], "1970-01-01T00:00:00.002Z");
            assert_eq!(read["closing"]["held"], 3);
        }
    }
}

proptest! {
    /// Whatever happened, every account's lines add up to what the book says it has, and are read back as written.
    #[test]
    fn lines_add_up_to_the_balances(
        steps in proptest::collection::vec((0_u8..4, 0_u8..4, 0_u8..3, 0_u8..3, 1_u32..3_000), 0..60)
    ) {
        let entries: Vec<Entry> = steps.iter().zip(0_u8..).map(|((kind, name, one, other, amount), id)| match kind {
            0 => grant(id, *one, *amount, ""),
            1 => open(*name, *one, *other, *amount),
            2 => settle(*name, *one, *amount),
            _ => close(*name),
        }).collect();
        for of in 0..3 {
            let (lines, owned) = statement(of, &entries);
            prop_assert_eq!(sum(&lines), owned);
            for line in lines {
                let text = serde_json::to_string(&line).unwrap();
                prop_assert_eq!(serde_json::from_str::<StatementEntry>(&text).unwrap(), line);
            }
        }
    }
}
