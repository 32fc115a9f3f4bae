//! What of a device can be out of order: its link to the machine, the errors of its memory, what holds it back.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a driver tells about the state of a device. What it does not tell is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Its link to the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcie: Option<PcieLink>,
    /// Whether its memory corrects errors (ECC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc_enabled: Option<bool>,
    /// Errors of its memory that could not be corrected, since the driver was loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecc_uncorrected_errors: Option<u64>,
    /// Whether it is in the mode in which it is split into instances (MIG).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mig_enabled: Option<bool>,
    /// Why it runs slower than it could, right now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slowdowns: Vec<Slowdown>,
}

impl Health {
    /// Whether nothing is told at all.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// A PCI Express link. Devices at rest lower its generation, so only the width says something is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PcieLink {
    /// The generation used now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// The highest generation that device and machine have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_max: Option<u32>,
    /// Lanes used now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// The most lanes that device and machine have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width_max: Option<u32>,
}

impl PcieLink {
    /// The link, where anything is known of it.
    #[must_use]
    pub fn known(self) -> Option<Self> {
        (self != Self::default()).then_some(self)
    }
}

/// Why a device runs slower than it could. NVML calls them clocks event reasons, and throttle reasons before 2023;
/// those that mean nothing bad (at rest, clocks set by hand, kept in step with others) are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slowdown {
    /// It draws as much power as it may. Normal under load.
    PowerCap,
    /// The driver slows it down because it is hot.
    Heat,
    /// The chip halves its clocks because it is too hot.
    Overheating,
    /// The power supply asked for less.
    PowerBrake,
    /// The chip halves its clocks: heat, power supply or power draw.
    Hardware,
}

impl Slowdown {
    /// Whether the owner has to do something about it.
    #[must_use]
    pub const fn is_fault(self) -> bool {
        !matches!(self, Self::PowerCap)
    }
}

impl fmt::Display for Slowdown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::PowerCap => "its power limit",
            Self::Heat => "heat",
            Self::Overheating => "overheating",
            Self::PowerBrake => "a power supply that asks for less",
            Self::Hardware => "protection of the chip (heat or power)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_not_written() {
        assert!(Health::default().is_unknown());
        assert_eq!(serde_json::to_string(&Health::default()).unwrap(), "{}");
        let health = Health {
            slowdowns: vec![Slowdown::PowerBrake],
            ..Health::default()
        };
        assert!(!health.is_unknown());
        assert_eq!(
            serde_json::to_string(&health).unwrap(),
            r#"{"slowdowns":["power_brake"]}"#
        );
        assert_eq!(PcieLink::default().known(), None);
        assert!(!Slowdown::PowerCap.is_fault() && Slowdown::Heat.is_fault());
    }
}
