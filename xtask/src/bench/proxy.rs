//! The proxy that developers keep, against the ones that they know: LiteLLM's and Portkey's, all behind the same
//! instant upstream. Ours goes through proxy, QUIC job stream, admission and vouchers; theirs forward HTTP.

mod bound;
mod figures;
mod peers;

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use reqwest::Client;

use self::bound::{Signatures, TwoHops};
use self::figures::{ChunkCost, Figures, Subject, Throughput};
use self::peers::Peer;
use super::load::{self, Mode, Target, first_token_ms, long_streams, requests_per_second};
use super::processes::{processor_seconds, resident_mebibytes, tree};
use super::roles::{More, Roles};
use super::upstream::{self, LONG_STREAM_CHUNKS};

/// How many requests are at once.
const CONCURRENCIES: [usize; 3] = [1, 10, 100];
/// How many long streams are read at once.
const STREAMS_AT_ONCE: usize = 4;
/// Prices and window at which every chunk costs more than a quarter of the window, so that each is paid for by a
/// voucher of its own.
const A_VOUCHER_PER_CHUNK: More<'static> = More {
    coordinator: &[],
    node: &["--price-output", "1000", "--credit-window", "0.004"],
    client: &["--channel-limit", "200"],
};

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Requests for the time to first token, each way
    #[arg(long, default_value_t = 1_000)]
    requests: usize,
    /// How long throughput is measured at each concurrency, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds of four long streams, each way
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Workers of LiteLLM's proxy; more of them use more cores and more memory
    #[arg(long, default_value_t = 1)]
    litellm_workers: usize,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    eprintln!("installing the peers where they are not there yet");
    let installed = peers::install()?;
    eprintln!("starting ours and the peers");
    let upstream = upstream::start().await?;
    let client = load::client()?;
    let hops = TwoHops::start(&upstream)?;
    let roles = Roles::start(&upstream, More::default()).await?;
    let litellm = installed.litellm(&upstream, arguments.litellm_workers).await?;
    let portkey = installed.portkey(&upstream).await?;
    let targets = [
        Target::new("direct", &upstream),
        Target::new("two hops", &hops.base_url),
        Target::new("gristmill", roles.client_url()),
        litellm.target.clone(),
        portkey.target.clone(),
    ];

    eprintln!("time to the first token");
    let first_tokens = first_tokens(&client, &targets, arguments.requests).await?;
    let mut subjects = Vec::new();
    for (target, first_token_ms) in targets.iter().zip(first_tokens) {
        eprintln!("requests per second: {}", target.name);
        let limit = Duration::from_secs(arguments.seconds);
        let throughput = throughput(&client, target, limit)
            .await
            .with_context(|| format!("{} broke under load", target.name))?;
        subjects.push(Subject {
            name: target.name,
            first_token_ms,
            throughput,
        });
    }
    let memory = memory(&roles, &litellm, &portkey);
    let mut chunk_costs = Vec::new();
    let of = |process: Option<u32>| process.map(tree).unwrap_or_default();
    for (target, role, processes) in [
        (&targets[2], "gristmill proxy", of(roles.process("client"))),
        (&targets[3], "litellm", of(litellm.process())),
        (&targets[4], "portkey", of(portkey.process())),
    ] {
        eprintln!("long streams: {}", target.name);
        let used = || processor_seconds(&processes);
        let node = of(roles.process("node"));
        let at_node = || processor_seconds(&node);
        let [at_role, at_node] = chunk_cost(&client, target, arguments.rounds, [&used, &at_node]).await?;
        chunk_costs.push(ChunkCost {
            role,
            micros: at_role,
        });
        if target.name == "gristmill" {
            chunk_costs.push(ChunkCost {
                role: "gristmill node",
                micros: at_node,
            });
        }
    }
    let used = || hops.processor_seconds();
    let [micros] = chunk_cost(&client, &targets[1], arguments.rounds, [&used]).await?;
    chunk_costs.push(ChunkCost {
        role: "two hops",
        micros,
    });
    litellm.stop().await?;
    portkey.stop().await?;
    roles.stop().await?;

    let figures = Figures {
        requests: arguments.requests,
        litellm_workers: arguments.litellm_workers,
        subjects,
        memory,
        chunk_costs,
        voucher_us: voucher_cost(&client, &upstream, arguments.rounds).await?,
        signatures: Signatures::measure()?,
    };
    figures.tell();
    Ok(())
}

/// The times to the first token of each target, in milliseconds, asked in turn so that all see the same machine.
async fn first_tokens(client: &Client, targets: &[Target], requests: usize) -> anyhow::Result<Vec<Vec<f64>>> {
    let warm_up = requests.div_ceil(10).max(10);
    let mut taken = vec![Vec::with_capacity(requests); targets.len()];
    for round in 0..warm_up + requests {
        for (target, taken) in targets.iter().zip(&mut taken) {
            let milliseconds = first_token_ms(client, target).await?;
            // The first ones warm everything up: connections, channel, caches.
            if round >= warm_up {
                taken.push(milliseconds);
            }
        }
    }
    Ok(taken)
}

async fn throughput(client: &Client, target: &Target, limit: Duration) -> anyhow::Result<Vec<Throughput>> {
    let mut measured = Vec::new();
    for mode in [Mode::Streamed, Mode::Whole] {
        for concurrency in CONCURRENCIES {
            let per_second = requests_per_second(client, target, mode, concurrency, limit).await?;
            measured.push(Throughput {
                mode,
                concurrency,
                per_second,
            });
        }
    }
    Ok(measured)
}

/// Resident memory after the load, in mebibytes.
fn memory(roles: &Roles, litellm: &Peer, portkey: &Peer) -> Vec<(&'static str, f64)> {
    let peer = |peer: &Peer| peer.process().map(tree).unwrap_or_default();
    let mut memory: Vec<_> = roles.resident_mebibytes();
    memory.push(("litellm", resident_mebibytes(&peer(litellm))));
    memory.push(("portkey", resident_mebibytes(&peer(portkey))));
    memory
}

/// Microseconds of the processor per chunk of long streams, for each way of counting processor seconds.
async fn chunk_cost<const WAYS: usize>(
    client: &Client,
    target: &Target,
    rounds: usize,
    used: [&dyn Fn() -> f64; WAYS],
) -> anyhow::Result<[f64; WAYS]> {
    long_streams(client, target, 1).await?;
    let before = used.map(|used| used());
    for _ in 0..rounds {
        long_streams(client, target, STREAMS_AT_ONCE).await?;
    }
    #[expect(clippy::cast_precision_loss, reason = "some ten thousand chunks")]
    let chunks = (rounds * STREAMS_AT_ONCE * LONG_STREAM_CHUNKS) as f64;
    let mut micros = before;
    for (micros, used) in micros.iter_mut().zip(used) {
        *micros = (used() - *micros) * 1e6 / chunks;
    }
    Ok(micros)
}

/// What a voucher costs proxy and node together, in microseconds of the processor: the same streams with a voucher
/// for every chunk, less what they cost with one for each stream.
async fn voucher_cost(client: &Client, upstream: &str, rounds: usize) -> anyhow::Result<f64> {
    let mut costs = [0.0; 2];
    eprintln!("long streams with a voucher for each chunk, and without");
    for (cost, more) in costs.iter_mut().zip([More::default(), A_VOUCHER_PER_CHUNK]) {
        let roles = Roles::start(upstream, more).await?;
        let target = Target::new("gristmill", roles.client_url());
        let processes: Vec<u32> = ["client", "node"]
            .iter()
            .filter_map(|role| roles.process(role))
            .collect();
        let used = || processor_seconds(&processes);
        [*cost] = chunk_cost(client, &target, rounds, [&used]).await?;
        roles.stop().await?;
    }
    Ok(costs[1] - costs[0])
}
