//! `gristmill node doctor`: whether this machine and its settings are fit to serve, what is not, and how to mend it.
//!
//! [`facts`] is what was found out, [`examine`] judges it and asks nobody, `gather` finds out, within bounded times.

use std::fmt;

use serde::Serialize;

pub mod facts;
pub(crate) mod gather;
mod hardware;
mod machine;
mod network;

pub use facts::Facts;
pub use gather::gather;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing to do.
    Fit,
    /// It works; worth knowing.
    Note,
    /// It could not be found out, and may be in the way.
    Unknown,
    /// It is in the way.
    Unfit,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Fit => "ok",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Unfit => "UNFIT",
        })
    }
}

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Flags, variables and the `[node]` section.
    Settings,
    /// The folder with the node's state.
    DataFolder,
    /// The space left for it.
    DiskSpace,
    /// The file with the account's key.
    Key,
    /// Whether anything is there to compute on.
    Devices,
    /// The driver of the GPUs.
    Driver,
    /// Memory of a GPU.
    DeviceMemory,
    /// Heat, power, memory errors and the link of a GPU.
    DeviceHealth,
    /// What `[node.hardware]` allows a proof of a device to take.
    HardwareBudget,
    /// The coordinator.
    Coordinator,
    /// This machine's clock against the coordinator's.
    Clock,
    /// A server whose models are sold.
    Upstream,
    /// A port for jobs.
    MeshPort,
    /// Whether others reach that port.
    Reachability,
    /// The port of the owner's own API.
    LocalApi,
}

impl Check {
    /// Its name in outputs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::DataFolder => "data folder",
            Self::DiskSpace => "disk space",
            Self::Key => "key",
            Self::Devices => "devices",
            Self::Driver => "driver",
            Self::DeviceMemory => "device memory",
            Self::DeviceHealth => "device health",
            Self::HardwareBudget => "hardware budget",
            Self::Coordinator => "coordinator",
            Self::Clock => "clock",
            Self::Upstream => "upstream",
            Self::MeshPort => "mesh port",
            Self::Reachability => "reachability",
            Self::LocalApi => "local API",
        }
    }
}

/// One line of the doctor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// What it came to.
    pub verdict: Verdict,
    /// What is so, in a sentence.
    pub what: String,
    /// How to mend it; empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Finding {
    fn new(check: Check, verdict: Verdict, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    fn fit(check: Check, what: impl Into<String>) -> Self {
        Self::new(check, Verdict::Fit, what, "")
    }
}

/// Everything that was found, and what it comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the node can serve, as far as can be told.
    pub fit: bool,
    /// The worst of the verdicts.
    pub verdict: Verdict,
    /// Line by line, in the order of [`Check`].
    pub findings: Vec<Finding>,
}

impl Report {
    /// The exit code: 0 fit, 1 something is unfit, 2 nothing is, but something could not be told.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Fit | Verdict::Note => 0,
            Verdict::Unfit => 1,
            Verdict::Unknown => 2,
        }
    }
}

/// Judges what was found out.
#[must_use]
pub fn examine(facts: &Facts) -> Report {
    let mut findings = Vec::new();
    findings.push(match &facts.settings {
        Ok(_) => Finding::fit(Check::Settings, "the settings make sense"),
        Err(error) => Finding::new(
            Check::Settings,
            Verdict::Unfit,
            error.clone(),
            "correct the flag, the variable or the line in the [node] section that it names; what depends on the \
             settings was not looked at",
        ),
    });
    findings.extend(machine::data_folder(&facts.data_folder));
    findings.push(machine::key(&facts.key));
    findings.extend(machine::devices(facts));
    findings.extend(hardware::budgets(facts));
    if let Ok(settings) = &facts.settings {
        findings.extend(network::coordinator(settings));
        findings.extend(network::upstreams(settings));
        findings.extend(network::mesh(settings, facts.data_folder.in_use));
        findings.extend(network::local_api(settings, facts.data_folder.in_use));
    }
    let verdict = findings
        .iter()
        .map(|finding| finding.verdict)
        .max()
        .unwrap_or(Verdict::Unknown);
    Report {
        fit: verdict <= Verdict::Note,
        verdict,
        findings,
    }
}

#[cfg(test)]
mod tests;
