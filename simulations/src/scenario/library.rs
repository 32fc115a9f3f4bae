//! The scenarios that come with the program.

/// The one that is run unless another one is named.
pub const DEFAULT: &str = "gossip-reach";

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        /// Their names and texts, in the order in which they are told about.
        pub const ALL: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),*
        ];
    };
}

scenarios![
    "gossip-reach",
    "listing-freshness",
    "price-war",
    "spot-prices",
    "flash-crowd",
    "coordinator-outage",
    "partition",
    "home-churn",
    "sybils",
    "fake-gpus",
    "token-inflation",
    "starter-farming",
    "non-paying",
    "listing-flood",
];

/// A scenario by its name.
#[must_use]
pub fn find(name: &str) -> Option<(&'static str, &'static str)> {
    ALL.iter().copied().find(|(known, _)| *known == name)
}
