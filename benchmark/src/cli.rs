//! `gristmill benchmark`: what this machine could compute on.

use std::process::ExitCode;

use clap::Subcommand;

mod devices;

pub use devices::DevicesArguments;

/// The subcommands of `gristmill benchmark`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List the devices of this machine: GPUs of NVIDIA, AMD and Apple, and the CPU
    ///
    /// CUDA_VISIBLE_DEVICES is respected. "Usable" says whether this build of gristmill can compute on a device. With
    /// --json there is more: PCIe, ECC, what slows it down, the serial number.
    #[command(
        after_help = "Examples:\n  gristmill benchmark devices --json\n  gristmill benchmark devices --watch\n  \
                            gristmill benchmark devices --raw > machine.json"
    )]
    Devices(DevicesArguments),
}

/// Runs a subcommand: data on stdout as a table or as JSON, notes on stderr.
///
/// # Errors
/// Where stdout cannot be written.
pub fn run(command: Command, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Devices(arguments) => devices::run(&arguments, json),
    }
}
