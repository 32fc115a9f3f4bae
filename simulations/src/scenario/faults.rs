//! Random trials: a scenario at its small size, one of its variants, a seed, and faults that it does not have itself.

use super::document::Change;
use super::plan::{Plan, PlanError};
use crate::engine::Random;

/// What may be changed at random, with the values that it may take. A scenario that has no such key is left as it is.
const CHANGES: &[(&str, &[&str])] = &[
    ("network.loss", &["0", "20000", "100000"]),
    ("network.clocks.skew_ms", &["0", "2000", "20000"]),
    ("coordinator.disk_us", &["100", "20000", "500000"]),
];

/// Most faults that are added to one scenario.
const FAULTS_MAX: u64 = 3;

/// The so-manieth trial of a seed: a plan with one variant, and the seed of its run.
///
/// # Errors
/// [`PlanError`] where a scenario has a mistake.
pub fn trial(scenarios: &[(&str, &str)], seed: u64, trial: u64) -> Result<(Plan, u64), PlanError> {
    let mut random = Random::of_purpose(seed, "trials of a soak", trial);
    let (name, text) = scenarios
        .get(pick(scenarios.len(), &mut random))
        .copied()
        .unwrap_or_default();
    let mut plan = Plan::parse(name, text)?;
    plan.make_small()?;
    for dimension in plan.dimensions().to_vec() {
        if let Some(value) = dimension.values.get(pick(dimension.values.len(), &mut random)) {
            plan.change(&Change::new(dimension.key, value))?;
        }
    }
    for (key, values) in CHANGES {
        let chosen = values.get(pick(values.len(), &mut random));
        if let Some(value) = chosen.filter(|_| random.chance(0.3)) {
            plan.change(&Change::new(*key, value))?;
        }
    }
    let faults: Vec<String> = (0..random.below(FAULTS_MAX + 1))
        .map(|_| fault(&mut random))
        .collect();
    if !faults.is_empty() {
        plan.change(&Change::new("faults", format!("[{}]", faults.join(", "))))?;
    }
    if random.chance(0.3) {
        let (from_s, for_s, tenths) = (random.between(0, 90), random.between(1, 90), random.between(1, 9));
        let until_s = from_s + for_s;
        let partition = format!("[{{ from_s = {from_s}, until_s = {until_s}, share = 0.{tenths} }}]");
        plan.change(&Change::new("network.partitions", partition))?;
    }
    Ok((plan, random.below(1 << 32)))
}

fn pick(count: usize, random: &mut Random) -> usize {
    usize::try_from(random.below(u64::try_from(count).unwrap_or(0))).unwrap_or(0)
}

/// A fault as TOML.
fn fault(random: &mut Random) -> String {
    let kind = ["outage", "crash"]
        .get(pick(2, random))
        .copied()
        .unwrap_or("outage");
    format!(
        "{{ kind = \"{kind}\", at_s = {}, for_s = {}, share = 0.{} }}",
        random.between(0, 120),
        random.between(1, 120),
        random.between(1, 9)
    )
}
