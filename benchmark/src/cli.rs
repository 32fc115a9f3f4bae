//! `gristmill benchmark`: what this machine could compute on, and proofs that it can.

mod amounts;
mod bars;
mod certified;
mod devices;
mod run;
mod selftest;
mod verify;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

pub use devices::DevicesArguments;

/// The subcommands of `gristmill benchmark`.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// List the devices of this machine: GPUs of NVIDIA, AMD and Apple, and the CPU
    ///
    /// CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES and HIP_VISIBLE_DEVICES are respected. "Usable" says whether this build of gristmill can compute on a device. With
    /// --json there is more: PCIe, ECC, what slows it down, the serial number.
    #[command(
        after_help = "Examples:\n  gristmill benchmark devices --json\n  gristmill benchmark devices --watch\n  \
                            gristmill benchmark devices --raw > machine.json"
    )]
    Devices(DevicesArguments),
    /// Show what this machine's devices can do: memory and throughput, by multiplying matrices that can be checked
    ///
    /// All chosen devices at once. A device that was slower than it claimed is measured and shown again, up to three times, and
    /// claims less each time. Ctrl-C stops it within a fraction of a second.
    #[command(after_help = RUN_EXAMPLES)]
    Run(run::Arguments),
    /// Check an offline proof: exit code 0 where it holds, 1 where it shows nothing
    #[command(after_help = "Example:\n  gristmill benchmark verify proof.bin --json")]
    Verify(verify::Arguments),
    /// Try how often liars are caught: each one plays challenges against the coordinator's own rules, on a virtual clock
    ///
    /// Exit code 0 where no honest prover was refused and every liar was caught at the rate that the formula foretells.
    #[command(
        after_help = "Examples:\n  gristmill benchmark selftest\n  gristmill benchmark selftest --runs 1000 --json"
    )]
    Selftest(selftest::Arguments),
}

const RUN_EXAMPLES: &str = "\
Examples:
  gristmill benchmark run --coordinator http://127.0.0.1:7400
  gristmill benchmark run --offline proof.bin
  gristmill benchmark run --coordinator http://127.0.0.1:7400 --claim-percent 40   # a machine that is busy
  gristmill benchmark run --device cuda:0 --memory-max 8GiB --power-max 250 --offline proof.bin";

/// Runs a subcommand: data on stdout as a table or as JSON, notes on stderr.
///
/// # Errors
/// Where something failed; the text says what and what to do about it.
pub async fn run(command: Command, data_dir: &Path, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        Command::Devices(arguments) => devices::run(&arguments, json),
        Command::Run(arguments) => run::run(arguments, data_dir, json).await,
        Command::Verify(arguments) => verify::run(&arguments, json),
        Command::Selftest(arguments) => selftest::run(arguments, json).await,
    }
}
