//! What the owner allows proofs of hardware to take.

use clap::Args;
use gristmill_benchmark::prover::ClaimPercent;
use serde::Deserialize;

use super::SettingsError;

/// The least memory that proofs can be allowed, in bytes: 64 MiB, or there is no matrix to multiply.
pub const HARDWARE_MEMORY_MIN_BYTES: u64 = 64 << 20;
/// The most memory that can be named, in bytes: 16 TiB.
pub const HARDWARE_MEMORY_LARGEST_BYTES: u64 = 16 << 40;
/// The most power of a device that can be named, in watts.
pub const HARDWARE_POWER_LARGEST_WATTS: u32 = 10_000;

/// The least that can be claimed of the measured throughput, in percent.
pub const HARDWARE_CLAIM_PERCENT_MIN: u32 = 5;
/// What is claimed of the measured throughput where the owner does not say, in percent.
pub const HARDWARE_CLAIM_PERCENT_DEFAULT: u32 = ClaimPercent::DEFAULT.get();

/// Whether the coordinator may challenge the devices of this machine, and what that may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HardwareSettings {
    /// Whether the node proves its hardware at all. It does so only while no job runs.
    pub enabled: bool,
    /// Most memory of each device, in bytes; where there is none, what is free on it.
    pub memory_max_bytes: Option<u64>,
    /// Most power of each device, in watts; where there is none, the device's own limit.
    pub power_max_watts: Option<u32>,
    /// How many percent of the measured throughput are claimed.
    pub claim_percent: u32,
}

impl Default for HardwareSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            memory_max_bytes: None,
            power_max_watts: None,
            claim_percent: HARDWARE_CLAIM_PERCENT_DEFAULT,
        }
    }
}

/// The flags of `gristmill node serve` about proofs of hardware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct HardwareArguments {
    /// Prove this machine's hardware to the coordinator while no job runs, so that consumers find it verified
    /// [default: true]
    #[arg(
        long = "hardware-enabled",
        id = "hardware_enabled",
        env = "GRISTMILL_NODE_HARDWARE_ENABLED",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub enabled: Option<bool>,
    /// Most memory of each device that such a proof takes, which is also the most that it can show
    /// [default: what is free]
    #[arg(
        long = "hardware-memory-max-bytes",
        id = "hardware_memory_max_bytes",
        env = "GRISTMILL_NODE_HARDWARE_MEMORY_MAX_BYTES",
        value_name = "BYTES"
    )]
    pub memory_max_bytes: Option<u64>,
    /// Most power of each device that such a proof takes [default: the device's own limit]
    #[arg(
        long = "hardware-power-max-watts",
        id = "hardware_power_max_watts",
        env = "GRISTMILL_NODE_HARDWARE_POWER_MAX_WATTS",
        value_name = "WATTS"
    )]
    pub power_max_watts: Option<u32>,
    /// How many percent of the measured throughput are claimed; less leaves head room on a machine that does other things too
    /// [default: 80]
    #[arg(
        long = "hardware-claim-percent",
        id = "hardware_claim_percent",
        env = "GRISTMILL_NODE_HARDWARE_CLAIM_PERCENT",
        value_name = "PERCENT"
    )]
    pub claim_percent: Option<u32>,
}

/// `[node.hardware]` of the configuration file. Every field is optional; unknown ones are errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardwareTable {
    /// Whether to prove this machine's hardware to the coordinator while no job runs. Default: true.
    pub enabled: Option<bool>,
    /// Most bytes of each device's memory that a proof takes, 64 MiB at least; it can't show more than that. Default:
    /// what is free.
    pub memory_max_bytes: Option<u64>,
    /// Most watts of each device while a proof runs. Default: the device's own limit.
    pub power_max_watts: Option<u32>,
    /// How many percent of the measured throughput are claimed, 5 to 100. Default: 80.
    pub claim_percent: Option<u32>,
}

impl HardwareSettings {
    /// Flags and variables win over the file, and that over the defaults.
    pub(super) fn resolve(arguments: &HardwareArguments, file: &HardwareTable) -> Self {
        let default = Self::default();
        Self {
            enabled: arguments.enabled.or(file.enabled).unwrap_or(default.enabled),
            memory_max_bytes: arguments.memory_max_bytes.or(file.memory_max_bytes),
            power_max_watts: arguments.power_max_watts.or(file.power_max_watts),
            claim_percent: arguments
                .claim_percent
                .or(file.claim_percent)
                .unwrap_or(default.claim_percent),
        }
    }

    /// Checks the bounds.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let bound = |setting, actual: Option<u64>, least: u64, most: u64| match actual {
            Some(actual) if !(least..=most).contains(&actual) => Err(SettingsError::OutOfBounds {
                setting,
                actual,
                least,
                most,
            }),
            _ => Ok(()),
        };
        bound(
            "hardware.memory_max_bytes",
            self.memory_max_bytes,
            HARDWARE_MEMORY_MIN_BYTES,
            HARDWARE_MEMORY_LARGEST_BYTES,
        )?;
        bound(
            "hardware.power_max_watts",
            self.power_max_watts.map(u64::from),
            1,
            HARDWARE_POWER_LARGEST_WATTS.into(),
        )?;
        bound(
            "hardware.claim_percent",
            Some(self.claim_percent.into()),
            HARDWARE_CLAIM_PERCENT_MIN.into(),
            100,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{FileSection, ServeArguments, Settings};
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: ServeArguments,
    }

    fn resolve(flags: &[&str], text: &str) -> Result<HardwareSettings, SettingsError> {
        let arguments = Program::parse_from(std::iter::once(&"serve").chain(flags)).arguments;
        let file: FileSection = toml::from_str(text).unwrap();
        Settings::resolve(arguments, file).map(|settings| settings.hardware)
    }

    #[test]
    fn flags_win_over_the_file_and_that_over_the_defaults() {
        assert_eq!(resolve(&[], ""), Ok(HardwareSettings::default()));
        let text = "[hardware]\nenabled = false\nmemory_max_bytes = 1073741824\npower_max_watts = 250\nclaim_percent = 40";
        let of_file = HardwareSettings {
            enabled: false,
            memory_max_bytes: Some(1 << 30),
            power_max_watts: Some(250),
            claim_percent: 40,
        };
        assert_eq!(resolve(&[], text), Ok(of_file));
        let flags = ["--hardware-enabled", "true", "--hardware-power-max-watts", "300"];
        let both = HardwareSettings {
            enabled: true,
            power_max_watts: Some(300),
            ..of_file
        };
        assert_eq!(resolve(&flags, text), Ok(both));
    }

    #[test]
    fn budgets_are_bounded_and_unknown_keys_are_errors() {
        for (text, fits) in [
            ("memory_max_bytes = 67108864", true),
            ("memory_max_bytes = 67108863", false),
            ("memory_max_bytes = 17592186044416", true),
            ("memory_max_bytes = 17592186044417", false),
            ("power_max_watts = 1", true),
            ("power_max_watts = 0", false),
            ("power_max_watts = 10001", false),
            ("claim_percent = 5", true),
            ("claim_percent = 4", false),
            ("claim_percent = 100", true),
            ("claim_percent = 101", false),
        ] {
            assert_eq!(
                resolve(&[], &format!("[hardware]\n{text}")).is_ok(),
                fits,
                "{text}"
            );
        }
        for text in ["enable = true", "memory_max = 1", "power_max_watts = -1"] {
            let read = toml::from_str::<FileSection>(&format!("[hardware]\n{text}"));
            assert!(read.is_err(), "{text}");
        }
    }
}
