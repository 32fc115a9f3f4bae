//! The simulator beside others: one same flood of messages on its engine, in SimPy and in SimGrid; its queue beside the
//! standard library's heap in the hold model; and a whole scenario of gossip by its number of nodes.

mod programs;
mod scenario;

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use self::programs::{Flood, Hold, Programs};
use self::scenario::{Growth, exponent};
use super::report::print;

/// How much is measured.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Nodes of the flood and of the scenario
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    nodes: Vec<u32>,
    /// Nodes of the flood in SimPy
    #[arg(long, default_value_t = 100_000)]
    simpy_nodes: u32,
    /// Nodes of the flood in SimGrid, whose Python actors are threads of the system
    #[arg(long, default_value_t = 4_000)]
    simgrid_nodes: u32,
    /// Most processor seconds of a peer; what it did until then counts
    #[arg(long, default_value_t = 120)]
    peer_seconds: u32,
    /// A Python that has SimGrid, such as the system's with Debian's `python3-simgrid`. Without it SimGrid is built
    /// from PyPI, which takes a compiler, `CMake`, Boost and half an hour
    #[arg(long)]
    simgrid_python: Option<PathBuf>,
    /// Events that wait in the hold model
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 62_500, 1_000_000])]
    pending: Vec<u32>,
    /// Virtual seconds of the scenario
    #[arg(long, default_value_t = 90)]
    scenario_seconds: u32,
    /// Leave out what SimGrid does
    #[arg(long)]
    without_simgrid: bool,
    /// Leave out the whole scenario
    #[arg(long)]
    without_scenario: bool,
}

/// How many times SimPy's events per second and core are asked for.
const SIMPY_TARGET: f64 = 20.0;
/// How many times SimGrid's.
const SIMGRID_TARGET: f64 = 10.0;
/// How many times the heap's in the hold model with a million events.
const HEAP_TARGET: f64 = 3.0;
/// Bytes of an idle node, the protocol's state apart.
const IDLE_NODE_TARGET: f64 = 256.0;
/// Memory of a run of a million nodes.
const MEMORY_TARGET_GIB: f64 = 24.0;
/// In what order of increments the hold model runs.
const INCREMENTS: [&str; 4] = ["exponential", "bimodal", "gossip", "burst"];

/// A peer's flood and the engine's of the same network.
#[derive(Debug, Serialize)]
struct Compared {
    peer: Flood,
    engine: Flood,
    /// Events per second and core, by the peer's.
    ratio: f64,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let programs = Programs::build()?;
    let mut floods = Vec::new();
    for nodes in &arguments.nodes {
        for threads in [1, 2] {
            eprintln!("a flood of {nodes} nodes on {threads} threads …");
            floods.push(programs.flood(*nodes, threads)?);
        }
    }
    for pair in floods.chunks(2) {
        ensure!(
            pair.iter().all(|flood| flood.digest == pair[0].digest),
            "a flood has another digest on two threads: {floods:?}"
        );
    }
    eprintln!("a flood of {} nodes in SimPy …", arguments.simpy_nodes);
    let simpy = compared(
        &programs,
        programs.simpy(arguments.simpy_nodes, arguments.peer_seconds)?,
    )?;
    let simgrid = if arguments.without_simgrid {
        None
    } else {
        eprintln!("a flood of {} nodes in SimGrid …", arguments.simgrid_nodes);
        let python = arguments.simgrid_python.as_deref();
        let flood = programs.simgrid(python, arguments.simgrid_nodes, arguments.peer_seconds)?;
        Some(compared(&programs, flood)?)
    };
    let mut holds = Vec::new();
    for pending in &arguments.pending {
        for increments in INCREMENTS {
            eprintln!("the hold model with {pending} events, {increments} …");
            holds.push(programs.hold(*pending, increments)?);
        }
    }
    let mut growth = Vec::new();
    if !arguments.without_scenario {
        for nodes in &arguments.nodes {
            for threads in [1, 2] {
                eprintln!("the scenario with {nodes} nodes on {threads} threads …");
                growth.push(programs.scenario(*nodes, threads, arguments.scenario_seconds)?);
            }
        }
    }
    tell(&floods, &simpy, simgrid.as_ref(), &holds, &growth);
    Ok(())
}

/// The engine's flood of the network that a peer was given; what comes out must be the same.
fn compared(programs: &Programs, peer: Flood) -> anyhow::Result<Compared> {
    let engine = programs.flood(peer.nodes, 1)?;
    ensure!(
        !peer.complete || peer.outcome() == engine.outcome(),
        "the same flood came out in two ways: {peer:?} and {engine:?}"
    );
    Ok(Compared {
        ratio: engine.events_per_core_second() / peer.events_per_core_second(),
        peer,
        engine,
    })
}

fn tell(floods: &[Flood], simpy: &Compared, simgrid: Option<&Compared>, holds: &[Hold], growth: &[Growth]) {
    let mut rows: Vec<(String, String)> = floods.iter().map(flood_row).collect();
    rows.push(peer_row(simpy, SIMPY_TARGET));
    rows.extend(simgrid.map(|simgrid| peer_row(simgrid, SIMGRID_TARGET)));
    rows.extend(holds.iter().map(hold_row));
    rows.extend(growth.iter().map(growth_row));
    let alone: Vec<&Growth> = growth.iter().filter(|one| one.threads == 1).collect();
    let exponent = exponent(&alone);
    rows.extend(exponent.map(|exponent| {
        let value = format!("processor time grows as nodes^{exponent:.2}");
        ("the scenario by its nodes".to_owned(), value)
    }));
    let rows: Vec<(&str, String)> = rows
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    print(
        "What the simulator does in a second",
        &rows,
        &json!({
            "bench": "simulate",
            "floods": floods.iter().map(|flood| json!({
                "measured": flood,
                "events_per_core_second": flood.events_per_core_second(),
            })).collect::<Vec<_>>(),
            "simpy": simpy,
            "simpy_target": SIMPY_TARGET,
            "simgrid": simgrid,
            "simgrid_target": SIMGRID_TARGET,
            "holds": holds,
            "heap_target": HEAP_TARGET,
            "scenario": growth,
            "scenario_exponent": exponent,
            "idle_node_bytes_target": IDLE_NODE_TARGET,
            "memory_gib_target": MEMORY_TARGET_GIB,
        }),
    );
}

fn millions(number: f64) -> String {
    format!("{:.2} million", number / 1e6)
}

fn flood_row(flood: &Flood) -> (String, String) {
    (
        format!("flood, {} nodes, {} threads", flood.nodes, flood.threads),
        format!(
            "{} events per second and core ({} events, {:.1} s by the clock, {:.0} MiB)",
            millions(flood.events_per_core_second()),
            flood.events,
            flood.wall_s,
            gibibytes(flood.peak_memory_bytes) * 1_024.0
        ),
    )
}

fn peer_row(compared: &Compared, target: f64) -> (String, String) {
    let peer = &compared.peer;
    (
        format!("flood against {}, {} nodes", peer.simulator, peer.nodes),
        format!(
            "{:.1} times (target {target:.0}): {} against {} events per second and core{}",
            compared.ratio,
            millions(compared.engine.events_per_core_second()),
            millions(peer.events_per_core_second()),
            if peer.complete {
                "; the same deliveries"
            } else {
                "; stopped on the way"
            }
        ),
    )
}

fn hold_row(hold: &Hold) -> (String, String) {
    (
        format!("hold, {} events, {}", hold.pending, hold.increments),
        format!(
            "{:.1} times BinaryHeap (target {HEAP_TARGET:.0} at a million): {:.0} against {:.0} ns",
            hold.ratio, hold.engine_nanoseconds, hold.heap_nanoseconds
        ),
    )
}

fn growth_row(growth: &Growth) -> (String, String) {
    (
        format!("scenario, {} nodes, {} threads", growth.nodes, growth.threads),
        format!(
            "{} events per second and core ({} events, {:.1} s by the clock, {:.2} GiB of {MEMORY_TARGET_GIB:.0}); \
             {:.0} bytes an idle node (target {IDLE_NODE_TARGET:.0}) and {:.0} of the protocol's",
            millions(growth.events_per_core_second()),
            growth.events,
            growth.wall_s,
            gibibytes(growth.peak_rss_bytes),
            growth.bytes_per_idle_node,
            growth.protocol_bytes_per_node
        ),
    )
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
