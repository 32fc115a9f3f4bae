//! The programs that are measured, each run in a process of its own: the simulator's release build, and the peers.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::scenario::Growth;
use super::simgrid;
use crate::test::environment::{Workplace, output, succeed};
use crate::test::packages::Environments;

/// Messages of a flood.
const MESSAGES: &str = "10";

/// What a simulator made of a flood.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Flood {
    #[serde(default = "engine")]
    pub(super) simulator: String,
    pub(super) nodes: u32,
    #[serde(default = "one")]
    pub(super) threads: u32,
    /// Receipts: deliveries and duplicates.
    pub(super) events: u64,
    deliveries: u64,
    duplicates: u64,
    delivered_us_sum: u64,
    pub(super) complete: bool,
    pub(super) wall_s: f64,
    processor_s: f64,
    pub(super) peak_memory_bytes: u64,
    #[serde(default)]
    pub(super) digest: String,
}

fn engine() -> String {
    "the engine".to_owned()
}

const fn one() -> u32 {
    1
}

impl Flood {
    /// What every simulator must agree on.
    pub(super) const fn outcome(&self) -> (u64, u64, u64) {
        (self.deliveries, self.duplicates, self.delivered_us_sum)
    }

    #[expect(clippy::cast_precision_loss, reason = "fewer than 2^53")]
    pub(super) fn events_per_core_second(&self) -> f64 {
        self.events as f64 / self.processor_s
    }
}

/// The hold model with the engine's queue and with the standard library's heap.
#[derive(Debug, Serialize)]
pub(super) struct Hold {
    pub(super) pending: u32,
    pub(super) increments: &'static str,
    pub(super) engine_nanoseconds: f64,
    pub(super) heap_nanoseconds: f64,
    engine_peak_memory_bytes: u64,
    heap_peak_memory_bytes: u64,
    pub(super) ratio: f64,
}

/// What the program tells of the hold model.
#[derive(Deserialize)]
struct Held {
    nanoseconds: f64,
    order: String,
    peak_memory_bytes: u64,
}

/// The programs, built and installed.
pub(super) struct Programs {
    workplace: Workplace,
    /// The peers' scripts and requirements.
    definitions: PathBuf,
    /// The example `measure` of the simulator.
    measure: PathBuf,
    /// For networks.
    folder: TempDir,
}

impl Programs {
    pub(super) fn build() -> anyhow::Result<Self> {
        let workplace = Workplace::find()?;
        succeed(&mut workplace.cargo(&[
            "build",
            "--release",
            "--package",
            "gristmill-simulations",
            "--example",
            "measure",
        ]))?;
        Ok(Self {
            definitions: workplace.root.join("xtask/bench_peers"),
            measure: workplace.release_example("measure"),
            folder: tempfile::tempdir()?,
            workplace,
        })
    }

    fn measured<T: DeserializeOwned>(&self, arguments: &[&str]) -> anyhow::Result<T> {
        json(&output(Command::new(&self.measure).args(arguments))?)
    }

    pub(super) fn flood(&self, nodes: u32, threads: u32) -> anyhow::Result<Flood> {
        let (nodes, threads) = (nodes.to_string(), threads.to_string());
        self.measured(&[
            "flood",
            "--nodes",
            &nodes,
            "--messages",
            MESSAGES,
            "--threads",
            &threads,
        ])
    }

    pub(super) fn simpy(&self, nodes: u32, seconds: u32) -> anyhow::Result<Flood> {
        let python = Environments::at(&self.workplace, &self.definitions, "bench-peers")?
            .python("simpy")
            .context("SimPy can't be installed")?;
        self.peer(&python, "flood_simpy.py", nodes, seconds)
    }

    /// In C++, as SimGrid itself is written: its Python actors are threads of the system, which bounds their number.
    pub(super) fn simgrid(&self, nodes: u32, seconds: u32) -> anyhow::Result<Flood> {
        let program = simgrid::build(&self.workplace, &self.definitions, self.folder.path())?;
        let network = self.network(nodes)?;
        json(&output(
            Command::new(program).arg(network).arg(seconds.to_string()),
        )?)
    }

    /// With a Python that has SimGrid.
    pub(super) fn simgrid_python(&self, python: &Path, nodes: u32, seconds: u32) -> anyhow::Result<Flood> {
        self.peer(python, "flood_simgrid.py", nodes, seconds)
    }

    fn peer(&self, python: &Path, script: &str, nodes: u32, seconds: u32) -> anyhow::Result<Flood> {
        let network = self.network(nodes)?;
        let mut command = Command::new(python);
        command.arg(self.definitions.join(script)).arg(network);
        json(&output(command.arg(seconds.to_string()))?)
    }

    /// Writes the network of a flood for another simulator.
    fn network(&self, nodes: u32) -> anyhow::Result<PathBuf> {
        let network = self.folder.path().join("network");
        succeed(
            Command::new(&self.measure)
                .args(["network", "--nodes", &nodes.to_string(), "--messages", MESSAGES])
                .arg("--output")
                .arg(&network),
        )?;
        Ok(network)
    }

    pub(super) fn hold(&self, pending: u32, increments: &'static str) -> anyhow::Result<Hold> {
        let waiting = pending.to_string();
        let held = |queue| -> anyhow::Result<Held> {
            self.measured(&[
                "hold",
                "--queue",
                queue,
                "--increments",
                increments,
                "--pending",
                &waiting,
            ])
        };
        let (engine, heap) = (held("engine")?, held("heap")?);
        ensure!(
            engine.order == heap.order,
            "the queue gave {pending} events of {increments} in another order than the heap"
        );
        Ok(Hold {
            pending,
            increments,
            ratio: heap.nanoseconds / engine.nanoseconds,
            engine_nanoseconds: engine.nanoseconds,
            heap_nanoseconds: heap.nanoseconds,
            engine_peak_memory_bytes: engine.peak_memory_bytes,
            heap_peak_memory_bytes: heap.peak_memory_bytes,
        })
    }

    /// Runs a scenario, for as long as it says or for so many seconds of virtual time.
    pub(super) fn scenario(
        &self,
        scenario: &str,
        nodes: u32,
        threads: u32,
        seconds: Option<u32>,
    ) -> anyhow::Result<Growth> {
        let mut command = Command::new(&self.measure);
        command
            .args(["simulate", "run", scenario, "--seed", "7"])
            .args(["--nodes", &nodes.to_string(), "--threads", &threads.to_string()])
            .current_dir(&self.workplace.root);
        if let Some(seconds) = seconds {
            command.args(["--set", &format!("duration_s={seconds}")]);
        }
        let ran = command
            .output()
            .with_context(|| format!("{} can't be started", self.measure.display()))?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ensure!(
            ran.status.success(),
            "the scenario with {nodes} nodes failed:\n{said}"
        );
        let mut growth: Growth = json(&String::from_utf8_lossy(&ran.stdout))?;
        growth.processor_s = said
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("processor_s "))
            .with_context(|| format!("the scenario told no processor time:\n{said}"))?
            .parse()?;
        Ok(growth)
    }
}

fn json<T: DeserializeOwned>(text: &str) -> anyhow::Result<T> {
    serde_json::from_str(text).with_context(|| format!("this is not what was asked for: {text}"))
}
