//! The simulator beside others: one same flood of messages on its engine, in SimPy and in SimGrid; its queue beside the
//! standard library's heap in the hold model; and a whole scenario of gossip by its number of nodes.

mod programs;
mod scenario;
mod simgrid;

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
    /// Nodes of the flood in SimGrid's own C++, which is installed where it is missing
    #[arg(long, default_value_t = 100_000)]
    simgrid_nodes: u32,
    /// Most processor seconds of a peer; what it did until then counts
    #[arg(long, default_value_t = 120)]
    peer_seconds: u32,
    /// A Python that has SimGrid (such as the system's with Debian's `python3-simgrid`), for the same flood in Python
    #[arg(long)]
    simgrid_python: Option<PathBuf>,
    /// Nodes of that flood; its actors are threads of the system
    #[arg(long, default_value_t = 4_000)]
    simgrid_python_nodes: u32,
    /// Events that wait in the hold model
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 62_500, 1_000_000])]
    pending: Vec<u32>,
    /// Virtual seconds of the scenario where its growth with nodes is measured
    #[arg(long, default_value_t = 30)]
    scenario_seconds: u32,
    /// Leave out SimGrid in C++
    #[arg(long)]
    without_simgrid: bool,
    /// Leave out the scenarios
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
/// The scenario that is run at growing numbers of nodes.
const GOSSIP: &str = "simulations/scenarios/gossip-reach.toml";
/// One in which nothing happens.
const IDLE: &str = "simulations/examples/measure/idle.toml";
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
    let mut simgrid = Vec::new();
    if !arguments.without_simgrid {
        eprintln!("a flood of {} nodes in SimGrid …", arguments.simgrid_nodes);
        let flood = programs.simgrid(arguments.simgrid_nodes, arguments.peer_seconds)?;
        simgrid.push(compared(&programs, flood)?);
    }
    if let Some(python) = &arguments.simgrid_python {
        let nodes = arguments.simgrid_python_nodes;
        eprintln!("a flood of {nodes} nodes in SimGrid's Python …");
        let flood = programs.simgrid_python(python, nodes, arguments.peer_seconds)?;
        simgrid.push(compared(&programs, flood)?);
    }
    let mut holds = Vec::new();
    for pending in &arguments.pending {
        for increments in INCREMENTS {
            eprintln!("the hold model with {pending} events, {increments} …");
            holds.push(programs.hold(*pending, increments)?);
        }
    }
    let scenarios = if arguments.without_scenario {
        None
    } else {
        Some(Scenarios::measure(&programs, arguments)?)
    };
    tell(&floods, &simpy, &simgrid, &holds, scenarios.as_ref());
    Ok(())
}

/// Whole scenarios.
#[derive(Debug, Serialize)]
struct Scenarios {
    /// That of gossip for a while, by its nodes, on one thread.
    growth: Vec<Growth>,
    /// As long as it says, with the most nodes.
    whole: Growth,
    /// As many nodes where nobody publishes.
    idle: Growth,
}

impl Scenarios {
    fn measure(programs: &Programs, arguments: &Arguments) -> anyhow::Result<Self> {
        let mut growth = Vec::new();
        for nodes in &arguments.nodes {
            eprintln!("the scenario with {nodes} nodes on one thread …");
            growth.push(programs.scenario(GOSSIP, *nodes, 1, Some(arguments.scenario_seconds))?);
        }
        let most = arguments.nodes.iter().max().copied().unwrap_or_default();
        eprintln!("the whole scenario with {most} nodes on two threads …");
        let whole = programs.scenario(GOSSIP, most, 2, None)?;
        eprintln!("{most} nodes that hear nothing …");
        let idle = programs.scenario(IDLE, most, 2, None)?;
        Ok(Self { growth, whole, idle })
    }
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

fn tell(
    floods: &[Flood],
    simpy: &Compared,
    simgrid: &[Compared],
    holds: &[Hold],
    scenarios: Option<&Scenarios>,
) {
    let mut rows: Vec<(String, String)> = floods.iter().map(flood_row).collect();
    rows.push(peer_row(simpy, SIMPY_TARGET));
    rows.extend(simgrid.iter().map(|simgrid| peer_row(simgrid, SIMGRID_TARGET)));
    rows.extend(holds.iter().map(hold_row));
    let exponent = scenarios.and_then(|scenarios| exponent(&scenarios.growth));
    if let Some(scenarios) = scenarios {
        rows.extend(scenarios.growth.iter().map(|run| growth_row("scenario", run)));
        rows.extend(exponent.map(|exponent| {
            let value = format!("processor time grows as nodes^{exponent:.2}");
            ("the scenario by its nodes".to_owned(), value)
        }));
        rows.push(growth_row("whole scenario", &scenarios.whole));
        rows.push(growth_row("nobody publishes", &scenarios.idle));
    }
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
            "scenarios": scenarios,
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

fn growth_row(name: &str, growth: &Growth) -> (String, String) {
    let idle = growth.bytes_per_idle_node.map_or_else(String::new, |bytes| {
        format!(
            "; {bytes:.0} bytes an idle node (target {IDLE_NODE_TARGET:.0}) and {:.0} of the protocol's",
            growth.protocol_bytes_per_node
        )
    });
    (
        format!("{name}, {} nodes, {} threads", growth.nodes, growth.threads),
        format!(
            "{} events per second and core ({} events, {:.1} s by the clock, {:.2} GiB of {MEMORY_TARGET_GIB:.0}){idle}",
            millions(growth.events_per_core_second()),
            growth.events,
            growth.wall_s,
            gibibytes(growth.peak_rss_bytes),
        ),
    )
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}
