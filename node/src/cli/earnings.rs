//! `gristmill node earnings`: reads the node's own files, so it works whether or not the node runs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use gristmill_protocol::identity::AccountId;
use gristmill_service::cli::{align_right, plain, table};
use serde::Serialize;
use serde_json::json;

use crate::core::earnings::{Earnings, EarningsSummary, Income, KeptReceipt, utc_date};
use crate::daemon::{proof_directory, receipt_directory, voucher_directory};
use crate::proof_file::read_proofs;
use crate::receipt_file::read_receipts;
use crate::voucher_file::read_book;

/// The arguments of `gristmill node earnings`.
#[derive(Debug, Args)]
pub struct EarningsArguments {
    /// How to group what was settled
    #[arg(long, value_enum, default_value_t = Grouping::Day)]
    by: Grouping,
    /// List every receipt instead; with --json, each with the coordinator's signature and the proof that its log has it
    #[arg(long)]
    receipts: bool,
}

/// How earnings are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Grouping {
    /// By UTC day.
    Day,
    /// By channel, with what is still to come.
    Channel,
}

pub(super) fn show(
    arguments: EarningsArguments,
    data_dir: &Path,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<ExitCode> {
    let receipts = read_receipts(&receipt_directory(data_dir)).context("the receipts can't be read")?;
    if arguments.receipts {
        let proofs =
            read_proofs(&proof_directory(data_dir)).context("the proofs of receipts can't be read")?;
        list(&receipts, &proofs, json, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let book = read_book(&voucher_directory(data_dir)).context("the vouchers can't be read")?;
    let mut earnings = Earnings::default();
    for receipt in &receipts {
        earnings.add(receipt);
    }
    let summary = earnings.summary(&book);
    if json {
        writeln!(out, "{}", serde_json::to_string(&summary)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    match arguments.by {
        Grouping::Day => by_day(&summary, out)?,
        Grouping::Channel => by_channel(&summary, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn cells(income: &Income) -> [String; 3] {
    [
        plain(income.earned),
        plain(income.fee),
        income.receipts.to_string(),
    ]
}

fn by_day(summary: &EarningsSummary, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&["DAY", "EARNED", "FEE", "RECEIPTS"]);
    for day in &summary.days {
        let [earned, fee, receipts] = cells(&day.income);
        table.add_row([day.date.clone(), earned, fee, receipts]);
    }
    let [earned, fee, receipts] = cells(&summary.total);
    table.add_row(["total".to_owned(), earned, fee, receipts]);
    align_right(&mut table, &[1, 2, 3]);
    writeln!(out, "{}", table.trim_fmt())?;
    to_come(summary)
}

fn by_channel(summary: &EarningsSummary, out: &mut impl Write) -> io::Result<()> {
    let mut table = table(&[
        "CHANNEL", "CONSUMER", "EARNED", "FEE", "RECEIPTS", "PENDING", "LOST",
    ]);
    for channel in &summary.channels {
        let [earned, fee, receipts] = cells(&channel.income);
        let (id, consumer) = (channel.channel.to_string(), channel.consumer.to_string());
        table.add_row([
            id,
            consumer,
            earned,
            fee,
            receipts,
            plain(channel.pending),
            plain(channel.lost),
        ]);
    }
    let [earned, fee, receipts] = cells(&summary.total);
    let (pending, lost) = (plain(summary.pending), plain(summary.lost));
    table.add_row([
        "total".to_owned(),
        String::new(),
        earned,
        fee,
        receipts,
        pending,
        lost,
    ]);
    align_right(&mut table, &[2, 3, 4, 5, 6]);
    writeln!(out, "{}", table.trim_fmt())?;
    to_come(summary)
}

fn to_come(summary: &EarningsSummary) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    if !summary.pending.is_zero() {
        writeln!(
            stderr,
            "{} credits more are vouchered and not handed in yet.",
            plain(summary.pending)
        )?;
    }
    if !summary.lost.is_zero() {
        writeln!(
            stderr,
            "{} credits were refused by the coordinator.",
            plain(summary.lost)
        )?;
    }
    Ok(())
}

/// A receipt with the proof that the coordinator's log has its record, where there is one.
#[derive(Serialize)]
struct ProvedReceipt<'a> {
    #[serde(flatten)]
    receipt: &'a KeptReceipt,
    proof: Option<&'a str>,
}

fn list(
    receipts: &[KeptReceipt],
    proofs: &BTreeMap<(AccountId, u64), String>,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let proof = |receipt: &KeptReceipt| proofs.get(&(receipt.coordinator, receipt.sequence));
    if json {
        let receipts: Vec<_> = receipts
            .iter()
            .map(|receipt| ProvedReceipt {
                receipt,
                proof: proof(receipt).map(String::as_str),
            })
            .collect();
        writeln!(out, "{}", json!({"receipts": receipts}))?;
        return Ok(());
    }
    let mut table = table(&["RECEIPT", "DAY", "CHANNEL", "PAID", "FEE", "IN THE LOG"]);
    for receipt in receipts {
        table.add_row([
            format!("rcpt_{}", receipt.sequence),
            utc_date(receipt.settled_at),
            receipt.channel.to_string(),
            plain(receipt.paid),
            plain(receipt.fee),
            proof(receipt).map_or("not proved yet", |_| "proved").to_owned(),
        ]);
    }
    align_right(&mut table, &[3, 4]);
    writeln!(out, "{}", table.trim_fmt())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::voucher_book::VoucherRecord;
    use crate::core::voucher_book::tests::kept;
    use crate::proof_file::{KeptProof, ProofFile};
    use crate::receipt_file::ReceiptFile;
    use crate::voucher_file::VoucherFile;
    use gristmill_protocol::credits::Credits;
    use gristmill_protocol::identity::Keypair;
    use gristmill_protocol::ids::ChannelId;
    use gristmill_service::clock::system_clock;
    use serde_json::Value;

    fn shown(folder: &Path, by: Grouping, receipts: bool, json: bool) -> String {
        let mut out = Vec::new();
        show(EarningsArguments { by, receipts }, folder, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn receipt() -> KeptReceipt {
        KeptReceipt {
            sequence: 12,
            settled_at: 1_800_000_000,
            coordinator: Keypair::from_secret(&[1; 32]).account(),
            channel: ChannelId::from_bytes([1; 16]),
            consumer: Keypair::from_secret(&[2; 32]).account(),
            paid: Credits::micro(1_000_000),
            fee: Credits::micro(20_000),
            settled: Credits::micro(1_000_000),
            token: "a.b.c".into(),
        }
    }

    #[test]
    fn a_folder_without_a_node_has_earned_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(shown(folder.path(), Grouping::Day, false, false).contains("total"));
        let json: Value = serde_json::from_str(&shown(folder.path(), Grouping::Day, false, true)).unwrap();
        assert_eq!(
            (&json["earned"], &json["pending"]),
            (&Value::from(0), &Value::from(0))
        );
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            0,
            "looking leaves nothing behind"
        );
    }

    #[tokio::test]
    async fn a_running_node_is_not_disturbed_and_seen_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let receipts = ReceiptFile::open(&receipt_directory(folder.path()), |_| {}).unwrap();
        let vouchers = VoucherFile::open(voucher_directory(folder.path()), system_clock()).unwrap();
        receipts.keep(vec![receipt(), receipt()], 0).unwrap();
        let proofs = ProofFile::open(&proof_directory(folder.path()), |_| {}).unwrap();
        let VoucherRecord::Kept { voucher, terms } = kept(2, 500_000, u64::MAX) else {
            panic!("kept() makes a kept voucher");
        };
        vouchers.keep(voucher, terms);
        vouchers.sync().await.unwrap();

        let days = shown(folder.path(), Grouping::Day, false, false);
        let words: Vec<_> = days.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["2027-01-15", "0.98", "0.02", "1"]);
        let channels = shown(folder.path(), Grouping::Channel, false, false);
        assert!(channels.contains("0.5"), "{channels}");
        let list = shown(folder.path(), Grouping::Day, true, false);
        assert!(
            list.contains("rcpt_12") && list.contains("not proved yet"),
            "{list}"
        );
        let proof = KeptProof {
            log: receipt().coordinator,
            sequence: 12,
            proof: "proof".into(),
        };
        proofs.keep(&[proof], 0).unwrap();
        let list = shown(folder.path(), Grouping::Day, true, false);
        assert!(
            list.ends_with("proved\n") && !list.contains("not proved"),
            "{list}"
        );
        let json: Value = serde_json::from_str(&shown(folder.path(), Grouping::Day, true, true)).unwrap();
        assert_eq!(json["receipts"][0]["token"], "a.b.c");
        assert_eq!(json["receipts"][0]["proof"], "proof");
        vouchers.close();
        drop(receipts);
        // And the same once it has ended.
        assert_eq!(shown(folder.path(), Grouping::Day, false, false), days);
    }
}
