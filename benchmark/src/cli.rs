//! `gristmill benchmark`: what this machine could compute on.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use crate::inventory::{Inventory, TABLE_HEADER};
use crate::probe;

/// The subcommands of `gristmill benchmark`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List the devices of this machine: GPUs that NVML shows, and the CPU
    ///
    /// CUDA_VISIBLE_DEVICES is respected. "Usable" says whether this build of gristmill can compute on a device.
    #[command(after_help = "Example:\n  gristmill benchmark devices --json")]
    Devices,
}

/// Runs a subcommand: data on stdout as a table or as JSON, notes on stderr.
///
/// # Errors
/// Where stdout cannot be written.
pub fn run(command: Command, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Devices => {
            let inventory = probe::inventory();
            print(
                &inventory,
                json,
                &mut std::io::stdout().lock(),
                &mut std::io::stderr().lock(),
            )?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print(
    inventory: &Inventory,
    json: bool,
    data: &mut impl Write,
    notes: &mut impl Write,
) -> anyhow::Result<()> {
    let text = if json {
        serde_json::to_string_pretty(inventory)?
    } else {
        table(inventory).to_string()
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
        print(&inventory, false, &mut table, &mut notes).unwrap();
        let table = String::from_utf8(table).unwrap();
        assert!(
            inventory
                .devices
                .iter()
                .all(|device| table.contains(&device.name)),
            "{table}"
        );
        print(&inventory, true, &mut json, &mut std::io::sink()).unwrap();
        assert_eq!(serde_json::from_slice::<Inventory>(&json).unwrap(), inventory);
    }

    #[test]
    fn notes_go_to_stderr_one_a_line() {
        let inventory = Inventory {
            notes: vec!["first".into(), "second".into()],
            ..probe::inventory()
        };
        let (mut data, mut notes) = (Vec::new(), Vec::new());
        print(&inventory, false, &mut data, &mut notes).unwrap();
        assert_eq!(String::from_utf8(notes).unwrap(), "note: first\nnote: second\n");
        assert!(!String::from_utf8(data).unwrap().contains("first"));
    }
}
