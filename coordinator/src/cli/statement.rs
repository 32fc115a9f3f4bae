//! `gristmill coordinator statement`: fetched page by page from the running coordinator, in bounded memory.

use std::io::{self, BufWriter};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use gristmill_ledger::statement::{
    Owned, Period, StatementFormat, StatementWriter, TimeError, time_from_text,
};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::operator_api::{STATEMENT_PAGE_MAX, StatementPage};

use super::CoordinatorPlace;
use super::operator::OperatorCalls;
use crate::settings::FileSection;

/// The arguments of `gristmill coordinator statement`.
#[derive(Debug, Args)]
pub struct StatementArguments {
    /// Whose
    account: AccountId,
    /// From this day or time on, in UTC, such as 2026-11-01 or 2026-11-01T08:00:00Z [default: from the beginning]
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// Before this day or time, in UTC [default: to the end]
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// csv, json or table [default: table, or json with --json]
    #[arg(long, value_name = "FORMAT")]
    format: Option<StatementFormat>,
    #[command(flatten)]
    place: CoordinatorPlace,
}

fn time(text: &str) -> Result<u64, TimeError> {
    time_from_text(text)
}

/// A page of the history: where it begins, and what it did as a whole.
struct Page {
    /// Its entries are those before this record. Fixed by it, a page never changes.
    before: u64,
    /// When its newest entry was posted.
    newest_ms: Option<u64>,
    /// By how much more or less the account owns.
    total_change: i128,
    /// By how much more or less its channels hold.
    held_change: i128,
}

impl Page {
    fn of(before: u64, fetched: &StatementPage) -> Self {
        let wide = |amount: Credits| i128::from(amount.microcredits());
        let entries = &fetched.entries;
        Self {
            before,
            newest_ms: entries.first().map(|entry| entry.time_ms),
            total_change: entries
                .iter()
                .map(|entry| wide(entry.incoming) - wide(entry.outgoing))
                .sum(),
            held_change: entries.iter().map(|entry| i128::from(entry.held_change)).sum(),
        }
    }
}

pub(super) async fn statement(
    arguments: StatementArguments,
    file: &FileSection,
    data_dir: &Path,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let StatementArguments {
        account,
        from,
        until,
        format,
        place,
    } = arguments;
    let period = Period {
        from_ms: from,
        until_ms: until,
    };
    let format = format.unwrap_or(match json {
        true => StatementFormat::Json,
        false => StatementFormat::Table,
    });
    let calls = OperatorCalls::new(&place, file, data_dir)?;
    // Balances are sums from the first entry on, and pages come newest first. So all pages are passed once for their
    // sums, and those of the period once more, from the oldest on.
    let mut pages = pages(&calls, account).await?;
    let opening = take_earlier(&mut pages, &period)?;
    write(&calls, account, &period, format, &pages, opening).await?;
    Ok(ExitCode::SUCCESS)
}

/// All pages, the newest first.
async fn pages(calls: &OperatorCalls, account: AccountId) -> anyhow::Result<Vec<Page>> {
    // What comes in meanwhile is not part of this statement.
    let newest = calls.statement(account, None, 1).await?;
    let first = newest.entries.first().map(|entry| entry.sequence);
    let mut next = first.or(newest.next).map(|sequence| sequence.saturating_add(1));
    let mut pages = Vec::new();
    while let Some(before) = next {
        let fetched = calls.statement(account, Some(before), STATEMENT_PAGE_MAX).await?;
        next = fetched.next;
        pages.push(Page::of(before, &fetched));
    }
    Ok(pages)
}

/// Takes off the pages before the period, and says what was owned after them.
fn take_earlier(pages: &mut Vec<Page>, period: &Period) -> anyhow::Result<Owned> {
    let (mut total, mut held) = (0_i128, 0_i128);
    while pages
        .last()
        .is_some_and(|page| page.newest_ms.is_none_or(|newest_ms| period.is_before(newest_ms)))
    {
        let page = pages.pop();
        total += page.as_ref().map_or(0, |page| page.total_change);
        held += page.as_ref().map_or(0, |page| page.held_change);
    }
    let amount = |sum: i128| {
        let microcredits = u64::try_from(sum).context("the coordinator's entries do not add up")?;
        anyhow::Ok(Credits::from_microcredits(microcredits)?)
    };
    Ok(Owned {
        available: amount(total - held)?,
        held: amount(held)?,
    })
}

async fn write(
    calls: &OperatorCalls,
    account: AccountId,
    period: &Period,
    format: StatementFormat,
    pages: &[Page],
    opening: Owned,
) -> anyhow::Result<()> {
    let mut owned = opening;
    let mut output = Some(BufWriter::new(io::stdout()));
    let mut writer = None;
    'pages: for page in pages.iter().rev() {
        let fetched = calls
            .statement(account, Some(page.before), STATEMENT_PAGE_MAX)
            .await?;
        for entry in fetched.entries.iter().rev() {
            if period.is_after(entry.time_ms) {
                break 'pages;
            }
            if !period.is_before(entry.time_ms)
                && let Some(output) = output.take()
            {
                writer = Some(StatementWriter::begin(output, format, &account, period, owned)?);
            }
            owned = owned.after(entry)?;
            if let Some(writer) = &mut writer {
                writer.line(entry, owned)?;
            }
        }
    }
    let writer = match (writer, output) {
        (Some(writer), _) => writer,
        (None, Some(output)) => StatementWriter::begin(output, format, &account, period, owned)?,
        (None, None) => return Ok(()),
    };
    Ok(writer.end(owned)?)
}
