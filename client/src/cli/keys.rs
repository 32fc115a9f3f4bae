//! `gristmill client keys`: keys for programs, each with its own bounds.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use gristmill_protocol::credits::Credits;
use gristmill_service::cli::{align_right, plain, table};
use gristmill_service::clock::unix_ms;
use serde_json::json;

use crate::core::calendar::Day;
use crate::core::keys::{Allowance, KeyId, KeyName, Period, ProgramKey, SpendCap};
use crate::core::spending::Spending;
use crate::keys;
use crate::usage::store::{self, Remembered};

/// What can be done with the keys of programs.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key; it is shown this once
    #[command(
        after_help = "Examples:\n  gristmill client keys create ci --cap 2.5 --per day\n  \
                            gristmill client keys create notebook --requests-per-minute 60\n\n\
                            From the first key on, programs have to show one. A client that runs takes it at once."
    )]
    Create(CreateArguments),
    /// List the keys, what each may spend and what it has spent
    #[command(after_help = "Example:\n  gristmill client keys list")]
    List,
    /// Let a key open nothing any more, at once
    #[command(after_help = "Example:\n  gristmill client keys revoke ci")]
    Revoke {
        /// The key's name
        name: KeyName,
    },
}

/// The arguments of `gristmill client keys create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// What to call it: letters, digits, '-', '_' and '.'
    name: KeyName,
    /// The most that it may spend, in credits [default: any]
    #[arg(long, value_name = "CREDITS")]
    cap: Option<Credits>,
    /// For how long the cap lasts; days and months are those of UTC
    #[arg(long, value_enum, default_value_t = Period::Ever, requires = "cap")]
    per: Period,
    /// The most requests in a minute [default: any]
    #[arg(long, value_name = "COUNT")]
    requests_per_minute: Option<u32>,
}

pub(super) fn run(
    command: KeysCommand,
    data_dir: &Path,
    json: bool,
    stdout: &mut impl io::Write,
) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::Create(arguments) => create(arguments, data_dir, json, stdout)?,
        KeysCommand::List => list(data_dir, json, stdout)?,
        KeysCommand::Revoke { name } => {
            keys::revoke(data_dir, &name, unix_ms())?;
            if json {
                writeln!(stdout, "{}", json!({"name": name, "revoked": true}))?;
            } else {
                writeln!(io::stderr(), "The key '{name}' opens nothing any more.")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(
    arguments: CreateArguments,
    data_dir: &Path,
    json: bool,
    stdout: &mut impl io::Write,
) -> anyhow::Result<()> {
    if arguments.cap.is_some_and(Credits::is_zero) {
        bail!("a cap of 0 credits allows nothing; leave --cap out for a key without one");
    }
    let name = arguments.name;
    let allowance = Allowance {
        cap: arguments.cap.map(|amount| SpendCap {
            amount,
            per: arguments.per,
        }),
        requests_per_minute: arguments.requests_per_minute,
    };
    let text = keys::create(data_dir, name.clone(), allowance, unix_ms())?;
    if json {
        let line = json!({
            "name": name,
            "key": text,
            "cap": allowance.cap,
            "requests_per_minute": allowance.requests_per_minute,
        });
        return Ok(writeln!(stdout, "{line}")?);
    }
    writeln!(stdout, "{text}")?;
    writeln!(
        io::stderr(),
        "This is the key '{name}'. It is not kept and can't be shown again. Programs have to show a key from now on."
    )?;
    Ok(())
}

fn list(data_dir: &Path, json: bool, stdout: &mut impl io::Write) -> anyhow::Result<()> {
    let book = keys::load(data_dir)?;
    let now_ms = unix_ms();
    let spent = spent(data_dir)?;
    let of_key = |key: &ProgramKey, per| {
        let mut spending = spent.clone();
        spending.of_key(key.digest.id(), now_ms).within(per)
    };
    if json {
        let keys = book.keys().iter().map(|key| {
            let spent: BTreeMap<_, _> = [Period::Day, Period::Month, Period::Ever]
                .map(|per| (per.to_string(), of_key(key, per)))
                .into();
            json!({
                "name": key.name,
                "cap": key.cap,
                "requests_per_minute": key.requests_per_minute,
                "created_at_ms": key.created_at_ms,
                "revoked_at_ms": key.revoked_at_ms,
                "spent": spent,
            })
        });
        let list: serde_json::Value = keys.collect();
        return Ok(writeln!(stdout, "{list}")?);
    }
    if book.is_unused() {
        let hint = "There are no keys yet; 'gristmill client keys create NAME' makes one.";
        return Ok(writeln!(io::stderr(), "{hint}")?);
    }
    let mut table = table(&["NAME", "SPENT", "CAP", "PER", "PER MINUTE", "CREATED", "REVOKED"]);
    for key in book.keys() {
        let per = key.cap.map_or(Period::Ever, |cap| cap.per);
        let none = || "-".to_owned();
        table.add_row([
            key.name.to_string(),
            plain(of_key(key, per)),
            key.cap.map_or_else(none, |cap| plain(cap.amount)),
            per.to_string(),
            key.requests_per_minute.map_or_else(none, |rate| rate.to_string()),
            Day::of(key.created_at_ms).to_string(),
            key.revoked_at_ms
                .map_or_else(none, |at_ms| Day::of(at_ms).to_string()),
        ]);
    }
    align_right(&mut table, &[1, 2, 4]);
    writeln!(stdout, "{}", table.trim_fmt())?;
    Ok(())
}

/// What keys have spent, as it is written down.
fn spent(data_dir: &Path) -> anyhow::Result<Spending> {
    let mut spending = Spending::default();
    let mut recall = |key: Option<KeyId>, cost, at_ms| spending.recall(key, cost, at_ms);
    store::read(&data_dir.join(store::FOLDER), |remembered| match remembered {
        Remembered::Spent { key, cost, at_ms } => recall(Some(key), cost, at_ms),
        // What keys spent in it is told beside it.
        Remembered::Month(_) => {}
        Remembered::Request(request) => recall(request.key_id, request.cost, request.started_at_ms),
    })?;
    Ok(spending)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        command: KeysCommand,
    }

    fn said(folder: &Path, line: &str, json: bool) -> anyhow::Result<String> {
        let words = std::iter::once("keys").chain(line.split(' '));
        let Program { command } = Program::try_parse_from(words)?;
        let mut stdout = Vec::new();
        run(command, folder, json, &mut stdout)?;
        Ok(String::from_utf8(stdout)?)
    }

    #[test]
    fn keys_are_made_listed_and_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(said(folder, "list", false).unwrap(), "");
        let text = said(
            folder,
            "create ci --cap 2.5 --per day --requests-per-minute 60",
            false,
        )
        .unwrap();
        assert!(
            text.starts_with("gm-") && text.len() == 44 && text.ends_with('\n'),
            "{text}"
        );
        let list: serde_json::Value = serde_json::from_str(&said(folder, "list", true).unwrap()).unwrap();
        assert_eq!(list[0]["cap"], json!({"amount": 2_500_000, "per": "day"}));
        assert_eq!(
            (&list[0]["spent"]["day"], &list[0]["revoked_at_ms"]),
            (&json!(0), &json!(null))
        );
        assert!(
            !list
                .to_string()
                .contains(text.trim().strip_prefix("gm-").unwrap())
        );
        let table = said(folder, "list", false).unwrap();
        assert!(
            table.contains("ci") && table.contains("2.5") && !table.contains("gm-"),
            "{table}"
        );
        let again = said(folder, "create ci", false).unwrap_err().to_string();
        assert!(again.contains("there is a key 'ci' already"), "{again}");
        said(folder, "revoke ci", false).unwrap();
        assert!(
            said(folder, "revoke ci", false)
                .unwrap_err()
                .to_string()
                .contains("keys list")
        );
        let json: serde_json::Value =
            serde_json::from_str(&said(folder, "create ci", true).unwrap()).unwrap();
        assert!(json["key"].as_str().unwrap().starts_with("gm-"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for line in [
            "create",
            "create a/b",
            "create owner",
            "create a --cap -1",
            "create a --per day",
            "create a --cap 0",
            "create a --requests-per-minute 0",
            "revoke nobody",
        ] {
            assert!(said(folder.path(), line, false).is_err(), "{line}");
        }
    }
}
