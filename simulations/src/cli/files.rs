//! Scenarios from files, or those that come with the program.

use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;

use crate::scenario::document::Change;
use crate::scenario::library;
use crate::scenario::plan::Plan;
use crate::world::config::MarketConfig;
use crate::world::roster::Roster;

/// A scenario and what is changed in it.
#[derive(Clone, Debug, Args)]
pub(super) struct ScenarioArguments {
    /// A scenario: a file, or the name of one that comes with the program (see `simulate list`)
    #[arg(default_value = library::DEFAULT)]
    scenario: String,
    /// Change a key of the scenario, such as links.loss=0.1; a key's end is enough where only one key ends so
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = Change::parse)]
    changes: Vec<Change>,
    /// Let bystanders, who relay gossip and do nothing else, fill up the network to so many nodes
    #[arg(long, value_name = "NUMBER")]
    nodes: Option<u32>,
    /// Take the scenario's small values, for a quick look
    #[arg(long)]
    small: bool,
}

impl ScenarioArguments {
    /// Reads the scenario and changes it.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        let (name, text) = named(&self.scenario)?;
        let what = || format!("{} is no scenario", self.scenario);
        let mut plan = Plan::parse(&name, &text).with_context(what)?;
        plan.source.clone_from(&self.scenario);
        if self.small {
            plan.make_small().with_context(what)?;
        }
        for change in &self.changes {
            plan.change(change).context("--set")?;
        }
        if let Some(nodes) = self.nodes {
            fill_up(&mut plan, nodes)?;
        }
        // Every variant is read before the first one runs, and what the file says where they differ from it.
        let unvaried = plan.unvaried().with_context(what)?;
        for variant in [unvaried].into_iter().chain(plan.variants().with_context(what)?) {
            variant.read::<MarketConfig>().with_context(what)?;
        }
        Ok(plan)
    }
}

/// Sets the number of bystanders so that there are so many nodes in all.
fn fill_up(plan: &mut Plan, nodes: u32) -> anyhow::Result<()> {
    plan.change(&Change::new("bystanders", 0)).context("--nodes")?;
    let mut parts = 0;
    for variant in plan.variants()? {
        parts = parts.max(Roster::new(&variant.read::<MarketConfig>()?).nodes());
    }
    let Some(bystanders) = nodes.checked_sub(parts) else {
        bail!("--nodes={nodes}: {parts} nodes of the scenario have a part in it; write at least {parts}");
    };
    plan.change(&Change::new("bystanders", bystanders))
        .context("--nodes")
}

/// A scenario's short name and its text.
fn named(scenario: &str) -> anyhow::Result<(String, String)> {
    let path = Path::new(scenario);
    if !path.exists()
        && let Some((name, text)) = library::find(scenario)
    {
        return Ok((name.to_owned(), text.to_owned()));
    }
    let name = path
        .file_stem()
        .map_or_else(|| scenario.to_owned(), |name| name.to_string_lossy().into_owned());
    Ok((name, read_text(path)?))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the command line reads the scenario, before the run begins"
)]
fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| {
        format!(
            "the scenario {} could not be read; name a file, or one of those that `gristmill simulate list` shows",
            path.display()
        )
    })
}

/// Reads a JSON file that this program wrote.
#[expect(
    clippy::disallowed_methods,
    reason = "what earlier runs left is read before others begin"
)]
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read(path).with_context(|| format!("{} could not be read", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// Writes a file: beside its place first, so that a half one is never found.
pub(super) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let what = || format!("{} could not be written", path.display());
    std::fs::write(&beside, bytes).with_context(what)?;
    std::fs::rename(&beside, path).with_context(what)
}
