//! `gristmill node earnings`: reads the node's own files, so it works whether or not the node runs.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::{align_right, plain, table};
use crate::core::earnings::{Earnings, EarningsSummary, Income, KeptReceipt, utc_date};
use crate::daemon::{receipt_directory, voucher_directory};
use crate::receipt_file::read_receipts;
use crate::voucher_file::read_book;

/// The arguments of `gristmill node earnings`.
#[derive(Debug, Args)]
pub struct EarningsArguments {
    /// How to group what was settled
    #[arg(long, value_enum, default_value_t = Grouping::Day)]
    by: Grouping,
    /// List every receipt instead; with --json, each with the coordinator's signed proof
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

pub(super) fn show(arguments: EarningsArguments, data_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let receipts = read_receipts(&receipt_directory(data_dir)).context("the receipts can't be read")?;
    if arguments.receipts {
        list(&receipts, json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let book = read_book(&voucher_directory(data_dir)).context("the vouchers can't be read")?;
    let mut earnings = Earnings::default();
    for receipt in &receipts {
        earnings.add(receipt);
    }
    let summary = earnings.summary(&book);
    if json {
        writeln!(io::stdout(), "{}", serde_json::to_string(&summary)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    match arguments.by {
        Grouping::Day => by_day(&summary)?,
        Grouping::Channel => by_channel(&summary)?,
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

fn by_day(summary: &EarningsSummary) -> io::Result<()> {
    let mut table = table(&["DAY", "EARNED", "FEE", "RECEIPTS"]);
    for day in &summary.days {
        let [earned, fee, receipts] = cells(&day.income);
        table.add_row([day.date.clone(), earned, fee, receipts]);
    }
    let [earned, fee, receipts] = cells(&summary.total);
    table.add_row(["total".to_owned(), earned, fee, receipts]);
    align_right(&mut table, &[1, 2, 3]);
    writeln!(io::stdout(), "{}", table.trim_fmt())?;
    to_come(summary)
}

fn by_channel(summary: &EarningsSummary) -> io::Result<()> {
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
    writeln!(io::stdout(), "{}", table.trim_fmt())?;
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

fn list(receipts: &[KeptReceipt], json: bool) -> anyhow::Result<()> {
    if json {
        writeln!(io::stdout(), "{}", json!({"receipts": receipts}))?;
        return Ok(());
    }
    let mut table = table(&["RECEIPT", "DAY", "CHANNEL", "PAID", "FEE"]);
    for receipt in receipts {
        table.add_row([
            format!("rcpt_{}", receipt.sequence),
            utc_date(receipt.settled_at),
            receipt.channel.to_string(),
            plain(receipt.paid),
            plain(receipt.fee),
        ]);
    }
    align_right(&mut table, &[3, 4]);
    writeln!(io::stdout(), "{}", table.trim_fmt())?;
    Ok(())
}
