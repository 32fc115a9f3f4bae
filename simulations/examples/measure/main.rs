//! What `cargo xtask bench simulate` measures of the simulator, each figure in a process of its own, as JSON on stdout.
//!
//! `measure flood`, `measure network` and `measure hold` need the engine alone; `measure simulate …` is
//! `gristmill simulate …`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::Parser;

mod flood;
mod hold;
mod process;

/// Nobody stops a measurement.
static NEVER: AtomicBool = AtomicBool::new(false);

#[derive(Debug, Parser)]
enum Measure {
    /// Messages that flood a network, on the engine
    Flood {
        /// How many nodes
        #[arg(long)]
        nodes: u32,
        /// How many messages
        #[arg(long, default_value_t = 10)]
        messages: u16,
        /// On how many threads
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// Write the network of such a flood for another simulator: little-endian 32-bit numbers
    Network {
        /// How many nodes
        #[arg(long)]
        nodes: u32,
        /// How many messages
        #[arg(long, default_value_t = 10)]
        messages: u16,
        /// Where to
        #[arg(long)]
        output: PathBuf,
    },
    /// Take the first event and add a later one, over and over
    Hold {
        /// In what events wait
        #[arg(long, value_enum)]
        queue: hold::Kind,
        /// How much later
        #[arg(long, value_enum)]
        increments: hold::Increments,
        /// How many wait
        #[arg(long)]
        pending: u32,
        /// How often
        #[arg(long, default_value_t = 4_000_000)]
        operations: u32,
    },
    /// What `gristmill simulate` does, always with JSON
    Simulate {
        #[command(subcommand)]
        command: gristmill_simulations::cli::Command,
    },
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures are what the program is for"
)]
fn main() -> anyhow::Result<ExitCode> {
    match Measure::parse() {
        Measure::Flood {
            nodes,
            messages,
            threads,
        } => println!("{}", flood::measure(nodes, messages, threads)?),
        Measure::Network {
            nodes,
            messages,
            output,
        } => {
            let bytes = flood::Network::new(nodes, messages)?.bytes();
            std::fs::write(&output, bytes).with_context(|| format!("writing {}", output.display()))?;
        }
        Measure::Hold {
            queue,
            increments,
            pending,
            operations,
        } => println!("{}", hold::measure(queue, increments, pending, operations)?),
        Measure::Simulate { command } => {
            let code = gristmill_simulations::cli::run(command, true, &NEVER)?;
            // The program tells what the clock says; other programs on the machine count in that.
            eprintln!("processor_s {}", process::processor_seconds()?);
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}
