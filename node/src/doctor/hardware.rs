//! Whether this machine's devices can be proved to the coordinator within what the owner allows.

use super::facts::Facts;
use super::{Check, Finding, Verdict};
use crate::hardware::{budget, shown};

/// A line for each device that would be shown; none where the owner wants no proofs.
pub(super) fn budgets(facts: &Facts) -> Vec<Finding> {
    let (Ok(settings), Some(inventory)) = (&facts.settings, &facts.inventory) else {
        return Vec::new();
    };
    if !settings.hardware.enabled {
        return Vec::new();
    }
    let budget = budget(&settings.hardware);
    let judge = |device: &gristmill_benchmark::inventory::Device| match budget.check(device) {
        Ok(bytes) => Finding::fit(
            Check::HardwareBudget,
            format!(
                "a proof of {} may take {} MiB of its memory",
                device.summary(),
                bytes >> 20
            ),
        ),
        // Jobs are served all the same.
        Err(error) => Finding::new(
            Check::HardwareBudget,
            Verdict::Note,
            error.to_string(),
            "change memory_max_bytes or power_max_watts in [node.hardware], or free memory of the device; until then \
             consumers see this node as unverified",
        ),
    };
    shown(&inventory.devices)
        .iter()
        .map(|(_, device)| judge(device))
        .collect()
}
