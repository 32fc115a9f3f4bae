//! `cargo xtask bench …`: each figure beside a peer or a physical limit, measured in the same run.

mod ledger;
mod load;
mod path;
mod processes;
mod proof;
mod proxy;
mod report;
mod roles;
mod simulate;
mod stream;
mod upstream;

use clap::Subcommand;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Payload throughput of a job stream against raw quinn on loopback
    Stream(stream::Arguments),
    /// Durable settlements against PostgreSQL and against the bound of this disk and these cores
    Ledger(ledger::Arguments),
    /// What the market adds to a request: proxy, QUIC, admission and vouchers against calling the upstream directly
    Path(path::Arguments),
    /// The proxy against LiteLLM's and Portkey's, all behind the same instant upstream
    Proxy(proxy::Arguments),
    /// What a proof of hardware costs the verifier and the prover, and candle's product against OpenBLAS's
    Proof(proof::Arguments),
    /// The simulator's engine against SimPy, SimGrid and a plain heap, and a whole scenario by its number of nodes
    Simulate(simulate::Arguments),
}

/// Measures, and prints a table on stderr and JSON on stdout.
///
/// # Errors
/// Where something can't be set up or a measurement broke.
pub(crate) fn run(bench: Bench) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match bench {
        Bench::Stream(arguments) => runtime.block_on(stream::run(arguments)),
        Bench::Ledger(arguments) => runtime.block_on(ledger::run(arguments)),
        Bench::Path(arguments) => runtime.block_on(path::run(arguments)),
        Bench::Proxy(arguments) => runtime.block_on(proxy::run(arguments)),
        Bench::Proof(arguments) => runtime.block_on(proof::run(arguments)),
        Bench::Simulate(arguments) => simulate::run(&arguments),
    }
}
