//! `gristmill ledger`: checking a ledger from the command line.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use comfy_table::{ContentArrangement, Table, presets};
use gristmill_protocol::identity::AccountId;

use crate::audit::{self, AuditReport, IndexVerdict, LogReport};
use crate::statement::{Period, StatementFormat, TimeError, time_from_text, write_journal_statement};

/// What can be done with a ledger's directory.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Replay the journal from its first record and verify every checksum, signature and balance
    ///
    /// Trusts nothing but the journal, changes nothing, and can be run while the coordinator is at work.
    /// Exits with 0 when the ledger is clean and with 1 when there is a problem.
    #[command(
        after_help = "Example: gristmill ledger audit ~/.local/share/gristmill/coordinator/ledger --json"
    )]
    Audit {
        /// The coordinator's ledger directory, the one with the folder 'journal' in it
        directory: PathBuf,
    },
    /// Write what moved on an account, with the balance after each line, from the journal alone
    ///
    /// Replays the journal from its first record, needs no running coordinator and changes nothing.
    #[command(
        after_help = "Examples:\n  gristmill ledger statement ~/.local/share/gristmill/coordinator/ledger 12D3KooW…\n  \
                            gristmill ledger statement /mnt/backup/mill/ledger 12D3KooW… --from 2026-11-01 --format csv"
    )]
    Statement {
        /// The coordinator's ledger directory, the one with the folder 'journal' in it
        directory: PathBuf,
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
    },
}

fn time(text: &str) -> Result<u64, TimeError> {
    time_from_text(text)
}

/// Runs a command; `json` asks for one JSON object on standard output instead of a table.
///
/// # Errors
/// Where the ledger or standard output can't be used.
pub fn run(command: Command, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Audit { directory } => print_audit(&audit::audit(&directory)?, json),
        Command::Statement {
            directory,
            account,
            from,
            until,
            format,
        } => {
            let period = Period {
                from_ms: from,
                until_ms: until,
            };
            let format = format.unwrap_or(match json {
                true => StatementFormat::Json,
                false => StatementFormat::Table,
            });
            let output = BufWriter::new(io::stdout());
            write_journal_statement(&directory, &account, &period, format, output)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints what an audit found, and says how the program ends.
///
/// # Errors
/// Where standard output can't be used.
pub fn print_audit(report: &AuditReport, json: bool) -> anyhow::Result<ExitCode> {
    let mut output = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut output, report)?;
        writeln!(output)?;
    } else {
        write!(output, "{}", describe(report))?;
    }
    output.flush()?;
    Ok(if report.clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn describe(report: &AuditReport) -> String {
    let mut facts = Table::new();
    facts
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    for (name, value) in facts_of(report) {
        facts.add_row([name.to_owned(), value]);
    }
    let mut text = format!("{facts}\n\n");
    for problem in &report.problems {
        text.push_str(&format!("PROBLEM  {}", problem.file.display()));
        if let Some(offset) = problem.offset {
            text.push_str(&format!(", byte {offset}"));
        }
        if let Some(sequence) = problem.sequence {
            text.push_str(&format!(", entry {sequence}"));
        }
        text.push_str(&format!(": {}\n", problem.what));
    }
    if report.problems_left_out > 0 {
        text.push_str(&format!("and {} more problems\n", report.problems_left_out));
    }
    text.push_str(if report.clean {
        "clean: every record, signature and balance holds\n"
    } else {
        "NOT CLEAN: keep a copy of the directory before you repair anything\n"
    });
    text
}

fn checkpoint_of(log: &LogReport) -> String {
    match (log.published, log.reserved) {
        (Some(size), _) => format!("of {size} records, signed, with the root of the journal"),
        (None, Some(size)) => format!("none is shown; a root is reserved for {size} records"),
        (None, None) => "none yet".to_owned(),
    }
}

fn facts_of(report: &AuditReport) -> Vec<(&'static str, String)> {
    let totals = &report.totals;
    let index = match &report.index {
        IndexVerdict::Agrees { entries } if *entries == report.records => {
            "agrees with the journal".to_owned()
        }
        IndexVerdict::Agrees { entries } => format!("agrees as far as it goes, entry {entries}"),
        IndexVerdict::Absent => "none; the next start makes one".to_owned(),
        IndexVerdict::InUse => "in use by the running coordinator, not compared".to_owned(),
        IndexVerdict::Differs => "DIFFERS".to_owned(),
    };
    let mut facts = vec![
        (
            "records",
            format!("{} in {} segments", report.records, report.segments),
        ),
        ("vouchers verified", report.vouchers_verified.to_string()),
        ("accounts", totals.accounts.to_string()),
        (
            "channels",
            format!("{} open, {} closed", totals.channels_open, totals.channels_closed),
        ),
        ("issued", format!("{} credits", totals.issued)),
        ("available", format!("{} credits", totals.available)),
        ("held", format!("{} credits", totals.held)),
        ("fees", format!("{} credits", totals.fees)),
        ("settled in all", format!("{} credits", totals.settled)),
        ("state digest", report.state_digest.to_string()),
        ("index", index),
        (
            "snapshots",
            format!("{} agree with the journal", report.snapshots),
        ),
        (
            "log",
            format!("root {} over {} tiles", report.log.root, report.log.tiles),
        ),
        ("checkpoint", checkpoint_of(&report.log)),
    ];
    if report.unfinished_bytes > 0 {
        facts.push((
            "unfinished write",
            format!("{} bytes, not acknowledged", report.unfinished_bytes),
        ));
    }
    facts
}
