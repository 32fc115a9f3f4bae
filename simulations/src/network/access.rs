//! The line between a node and its region's backbone. Round numbers of our own.

use serde::Deserialize;

use super::weights::Kind;

/// A kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// A server.
    DataCentre,
    /// A home with fibre.
    Fibre,
    /// A home with cable television's network.
    Cable,
    /// A home with a telephone's copper pair.
    Dsl,
    /// A mobile network of the fourth or fifth generation.
    Mobile,
}

impl Kind for Access {
    const ALL: &'static [(Self, u16)] = &[
        (Self::DataCentre, 20),
        (Self::Fibre, 30),
        (Self::Cable, 30),
        (Self::Dsl, 18),
        (Self::Mobile, 2),
    ];
}

impl Access {
    /// Time to the backbone, in microseconds.
    #[must_use]
    pub const fn last_mile_us(self) -> u64 {
        match self {
            Self::DataCentre => 200,
            Self::Fibre => 2_000,
            Self::Cable => 6_000,
            Self::Dsl => 12_000,
            Self::Mobile => 20_000,
        }
    }

    /// How much longer it takes at most, in microseconds.
    #[must_use]
    pub const fn jitter_us(self) -> u64 {
        match self {
            Self::DataCentre => 100,
            Self::Fibre => 1_000,
            Self::Cable => 5_000,
            Self::Dsl => 4_000,
            Self::Mobile => 20_000,
        }
    }

    /// Bandwidth away from the node, in megabits per second, which are bits per microsecond.
    #[must_use]
    pub const fn up_mbit_s(self) -> u64 {
        match self {
            Self::DataCentre => 1_000,
            Self::Fibre => 100,
            Self::Cable => 20,
            Self::Dsl => 5,
            Self::Mobile => 10,
        }
    }

    /// Bandwidth to the node, in megabits per second.
    #[must_use]
    pub const fn down_mbit_s(self) -> u64 {
        match self {
            Self::DataCentre => 1_000,
            Self::Fibre => 300,
            Self::Cable => 200,
            Self::Dsl => 25,
            Self::Mobile => 40,
        }
    }
}
