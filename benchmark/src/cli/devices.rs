//! `gristmill benchmark devices`.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use crate::inventory::{Inventory, TABLE_HEADER};
use crate::probe;

/// Clears a terminal and goes to its upper left corner (ECMA-48: CUP, ED).
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// How the devices are shown.
#[derive(Clone, Debug, Default, Args)]
pub struct DevicesArguments {
    /// Show them again and again, every SECONDS, until Ctrl-C; with --json one line each time
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3_600)
    )]
    watch: Option<u64>,
    /// Print everything as it was read, as JSON, to be put into a report
    #[arg(long, conflicts_with = "watch")]
    raw: bool,
}

/// What an inventory looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Table,
    Json,
    JsonLine,
}

pub(super) fn run(arguments: &DevicesArguments, json: bool) -> anyhow::Result<ExitCode> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    if arguments.raw {
        let text = serde_json::to_string_pretty(&probe::readings())?;
        writeln!(stdout.lock(), "{text}").context("the readings could not be written to stdout")?;
        return Ok(ExitCode::SUCCESS);
    }
    let form = match (json, arguments.watch) {
        (false, _) => Form::Table,
        (true, None) => Form::Json,
        (true, Some(_)) => Form::JsonLine,
    };
    let clears = form == Form::Table && arguments.watch.is_some() && stdout.is_terminal();
    loop {
        let inventory = probe::inventory();
        if clears {
            write!(stdout.lock(), "{CLEAR}")?;
        }
        print(&inventory, form, &mut stdout.lock(), &mut stderr.lock())?;
        match arguments.watch {
            None => return Ok(ExitCode::SUCCESS),
            Some(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
        }
    }
}

fn print(
    inventory: &Inventory,
    form: Form,
    data: &mut impl Write,
    notes: &mut impl Write,
) -> anyhow::Result<()> {
    let text = match form {
        Form::Table => table(inventory).to_string(),
        Form::Json => serde_json::to_string_pretty(inventory)?,
        Form::JsonLine => serde_json::to_string(inventory)?,
    };
    writeln!(data, "{text}").context("the devices could not be written to stdout")?;
    for note in &inventory.notes {
        writeln!(notes, "note: {note}").context("a note could not be written to stderr")?;
    }
    Ok(())
}

fn table(inventory: &Inventory) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(TABLE_HEADER);
    table.add_rows(inventory.devices.iter().map(|device| device.table_row()));
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::DeviceKind;

    #[test]
    fn this_machine_has_a_cpu_and_both_forms_show_every_device() {
        let inventory = probe::inventory();
        let cpu = inventory.devices.last().unwrap();
        assert_eq!(cpu.kind, DeviceKind::Cpu);
        assert!(cpu.usable && cpu.threads.unwrap() >= 1 && cpu.memory_total_bytes.unwrap() > 1 << 20);
        assert!(inventory.selected().is_some());
        let (mut table, mut json, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        print(&inventory, Form::Table, &mut table, &mut notes).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert!(
            inventory
                .devices
                .iter()
                .all(|device| table.contains(&device.name)),
            "{table}"
        );
        print(&inventory, Form::Json, &mut json, &mut io::sink()).unwrap();
        assert_eq!(serde_json::from_slice::<Inventory>(&json).unwrap(), inventory);
    }

    #[test]
    fn notes_go_to_stderr_one_a_line() {
        let inventory = Inventory {
            notes: vec!["first".into(), "second".into()],
            ..probe::inventory()
        };
        let (mut data, mut notes) = (Vec::new(), Vec::new());
        print(&inventory, Form::Table, &mut data, &mut notes).unwrap();
        assert_eq!(String::from_utf8(notes).unwrap(), "note: first\nnote: second\n");
        assert!(!String::from_utf8(data).unwrap().contains("first"));
    }
}
