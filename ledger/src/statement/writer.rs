//! Statements as files: CSV for spreadsheets (RFC 4180), JSON for programs, a table for people.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::str::FromStr;

use gristmill_protocol::credits::{Credits, MICROCREDITS_PER_CREDIT};
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::operator_api::StatementEntry;
use serde::Serialize;

use super::{Owned, Period, time_text};

/// Most lines of a table; the newest ones.
pub const LINES_SHOWN_MAX: usize = 1_000;

const COLUMNS: [&str; 15] = [
    "time",
    "record",
    "kind",
    "counterparty",
    "channel",
    "entry",
    "request",
    "reason",
    "in",
    "out",
    "fee",
    "held_change",
    "available",
    "held",
    "balance",
];

/// How a statement is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatementFormat {
    /// Lines of comma-separated values, amounts in credits.
    Csv,
    /// One object, amounts in microcredits.
    Json,
    /// For people.
    Table,
}

impl FromStr for StatementFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            "table" => Ok(Self::Table),
            _ => Err("write csv, json or table".into()),
        }
    }
}

/// Writes a statement line by line; only a table is kept in memory, and of that only the newest lines.
pub struct StatementWriter<W> {
    output: W,
    format: StatementFormat,
    lines: u64,
    shown: VecDeque<[String; 8]>,
    shown_max: usize,
}

#[derive(Serialize)]
struct JsonLine<'entry> {
    #[serde(flatten)]
    entry: &'entry StatementEntry,
    time: String,
    available: Credits,
    held: Credits,
    balance: Credits,
}

impl<W: Write> StatementWriter<W> {
    /// Begins a statement.
    ///
    /// # Errors
    /// What the output says.
    pub fn begin(
        mut output: W,
        format: StatementFormat,
        account: &AccountId,
        period: &Period,
        opening: Owned,
    ) -> io::Result<Self> {
        match format {
            StatementFormat::Csv => {
                csv_line(&mut output, COLUMNS)?;
                if let Some(from_ms) = period.from_ms {
                    csv_line(&mut output, opening_line(from_ms, opening))?;
                }
            }
            StatementFormat::Json => {
                let time = |time_ms: Option<u64>| serde_text(&time_ms.map(time_text));
                write!(
                    output,
                    "{{\"account\":\"{account}\",\"from\":{},\"until\":{},\"opening\":{},\"lines\":[",
                    time(period.from_ms),
                    time(period.until_ms),
                    serde_text(&opening)
                )?;
            }
            StatementFormat::Table => {
                writeln!(output, "account  {account}")?;
                if let Some(from_ms) = period.from_ms {
                    writeln!(output, "opening  {} credits", opening.total())?;
                    writeln!(output, "from     {}", time_text(from_ms))?;
                }
            }
        }
        Ok(Self {
            output,
            format,
            lines: 0,
            shown: VecDeque::new(),
            shown_max: LINES_SHOWN_MAX,
        })
    }

    /// Writes what a record did, and what the account owns after it.
    ///
    /// # Errors
    /// What the output says.
    pub fn line(&mut self, entry: &StatementEntry, after: Owned) -> io::Result<()> {
        self.lines += 1;
        match self.format {
            StatementFormat::Csv => csv_line(&mut self.output, csv_fields(entry, after)),
            StatementFormat::Json => {
                let line = JsonLine {
                    entry,
                    time: time_text(entry.time_ms),
                    available: after.available,
                    held: after.held,
                    balance: after.total(),
                };
                let comma = if self.lines > 1 { "," } else { "" };
                write!(self.output, "{comma}\n{}", serde_text(&line))
            }
            StatementFormat::Table => {
                if self.shown.len() == self.shown_max {
                    self.shown.pop_front();
                }
                self.shown.push_back(table_row(entry, after));
                Ok(())
            }
        }
    }

    /// Ends the statement.
    ///
    /// # Errors
    /// What the output says.
    pub fn end(mut self, closing: Owned) -> io::Result<()> {
        match self.format {
            StatementFormat::Csv => {}
            StatementFormat::Json => writeln!(self.output, "\n],\"closing\":{}}}", serde_text(&closing))?,
            StatementFormat::Table => {
                let left_out = self.lines - u64::try_from(self.shown.len()).unwrap_or(self.lines);
                if left_out > 0 {
                    writeln!(
                        self.output,
                        "{left_out} earlier lines are left out; --format csv has all"
                    )?;
                }
                write_table(&mut self.output, self.shown)?;
                writeln!(
                    self.output,
                    "\nbalance  {} credits: {} available, {} held",
                    closing.total(),
                    closing.available,
                    closing.held
                )?;
            }
        }
        self.output.flush()
    }
}

fn serde_text(value: &impl Serialize) -> String {
    // What is written here has no map with other keys than texts, so this does not fail.
    serde_json::to_string(value).unwrap_or_default()
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn csv_fields(entry: &StatementEntry, after: Owned) -> [String; 15] {
    [
        time_text(entry.time_ms),
        entry.sequence.to_string(),
        entry.kind.name().to_owned(),
        text(entry.counterparty.as_ref()),
        text(entry.channel.as_ref()),
        text(entry.entry.as_ref()),
        harmless(&text(entry.request_id.as_ref())),
        harmless(entry.reason.as_deref().unwrap_or_default()),
        entry.incoming.to_string(),
        entry.outgoing.to_string(),
        entry.fee.to_string(),
        signed(entry.held_change),
        after.available.to_string(),
        after.held.to_string(),
        after.total().to_string(),
    ]
}

fn opening_line(from_ms: u64, opening: Owned) -> [String; 15] {
    let mut fields: [String; 15] = Default::default();
    let [time, _, kind, .., available, held, balance] = &mut fields;
    *time = time_text(from_ms);
    *kind = "opening".into();
    *available = opening.available.to_string();
    *held = opening.held.to_string();
    *balance = opening.total().to_string();
    fields
}

fn signed(microcredits: i64) -> String {
    let sign = if microcredits < 0 { "-" } else { "" };
    let amount = microcredits.unsigned_abs();
    let (whole, rest) = (amount / MICROCREDITS_PER_CREDIT, amount % MICROCREDITS_PER_CREDIT);
    format!("{sign}{whole}.{rest:06}")
}

/// A text that no spreadsheet takes for a formula: where it begins like one, it begins with an apostrophe instead.
///
/// Source: OWASP, "CSV Injection".
fn harmless(text: &str) -> String {
    let begins_like_formula = |character| {
        matches!(
            character,
            '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '\u{ff1d}' | '\u{ff0b}' | '\u{ff0d}' | '\u{ff20}'
        )
    };
    let first = text.trim_start_matches(' ').chars().next();
    match first {
        Some(first) if begins_like_formula(first) => format!("'{text}"),
        _ => text.to_owned(),
    }
}

/// Fields as RFC 4180 writes them: quoted where they need it, quotes doubled, lines ended by CR and LF.
fn csv_line<T: AsRef<str>>(output: &mut impl Write, fields: [T; 15]) -> io::Result<()> {
    for (position, field) in fields.iter().enumerate() {
        let field = field.as_ref();
        if position > 0 {
            output.write_all(b",")?;
        }
        if field.contains(['"', ',', '\r', '\n']) {
            write!(output, "\"{}\"", field.replace('"', "\"\""))?;
        } else {
            output.write_all(field.as_bytes())?;
        }
    }
    output.write_all(b"\r\n")
}

fn table_row(entry: &StatementEntry, after: Owned) -> [String; 8] {
    let other = match (&entry.counterparty, &entry.reason) {
        (Some(account), _) => account.to_string(),
        (None, Some(reason)) => reason
            .chars()
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect(),
        (None, None) => String::new(),
    };
    let name = text(entry.channel.as_ref());
    let name = if name.is_empty() {
        text(entry.entry.as_ref())
    } else {
        name
    };
    let amount = |amount: Credits| {
        if amount.is_zero() {
            String::new()
        } else {
            amount.to_string()
        }
    };
    [
        time_text(entry.time_ms),
        entry.kind.name().to_owned(),
        other,
        name,
        amount(entry.incoming),
        amount(entry.outgoing),
        after.held.to_string(),
        after.total().to_string(),
    ]
}

fn write_table(output: &mut impl Write, rows: VecDeque<[String; 8]>) -> io::Result<()> {
    use comfy_table::{CellAlignment, Table, presets};
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "TIME",
        "KIND",
        "WITH OR WHY",
        "CHANNEL OR ENTRY",
        "IN",
        "OUT",
        "HELD",
        "BALANCE",
    ]);
    for row in rows {
        table.add_row(row);
    }
    for column in 4..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(output, "{}", table.trim_fmt())
}
