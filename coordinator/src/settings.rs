//! What an operator can set, where it comes from, and what it is otherwise.
//!
//! A flag wins over its `GRISTMILL_COORDINATOR_…` variable, which wins over the `[coordinator]` section of the
//! configuration file, which wins over the default.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use clap::Args;
use gristmill_protocol::credits::{Credits, MICROCREDITS_PER_CREDIT};
use gristmill_service::amount::AmountSetting;
use serde::Deserialize;
use thiserror::Error;

use crate::core::auditor_key::AuditorKeyHash;

mod store;

pub use store::{StoreArguments, StoreSetting, StoreSettingError, StoreUrl};

/// Port of the coordinator's HTTP interface unless configured otherwise.
pub const HTTP_PORT: u16 = 7_400;
/// Port of the coordinator's mesh peer unless configured otherwise.
pub const MESH_PORT: u16 = 7_410;
/// The coordinator's share of settlements unless configured otherwise, in 1/10,000.
pub const FEE_BASIS_POINTS: u16 = 200;
/// The longest life that an operator can allow channels, in seconds: 30 days.
pub const CHANNEL_LIFE_LIMIT_SECONDS: u64 = 30 * 24 * 60 * 60;
/// The shortest life of a channel, in milliseconds.
pub const CHANNEL_LIFE_MIN_MS: u64 = 1_000;
const CHANNEL_LIFE_MAX_SECONDS: u64 = 24 * 60 * 60;
const CHANNEL_LIMIT_MAX_CREDITS: u32 = 100;
const STARTER_DAILY_BUDGET_CREDITS: u32 = 100;
const NAME_MAX_BYTES: usize = 128;

/// The `[coordinator]` section of the configuration file. Every field is optional; unknown ones are errors.
///
/// ```
/// let section: gristmill_coordinator::settings::FileSection = toml::from_str(r#"
///     name = "village"
///     starter_grant = "2.5"
///     starter_daily_budget = 500
/// "#)?;
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSection {
    /// What the network is called, for people. Default: `gristmill`.
    pub name: Option<String>,
    /// Where the HTTP interface listens. Default: `127.0.0.1:7400`.
    pub http_listen: Option<SocketAddr>,
    /// Multiaddresses on which the mesh peer listens. Default: `/ip4/127.0.0.1/udp/7410/quic-v1` and
    /// `/ip4/127.0.0.1/tcp/7410`.
    pub mesh_listen: Option<Vec<String>>,
    /// Multiaddresses under which others reach the mesh peer, where they differ from those it listens on
    /// (behind a router, or listening on every interface). Default: the addresses it listens on.
    pub public_addresses: Option<Vec<String>>,
    /// The coordinator's share of what is settled, in 1/10,000, at most 10000. Default: 200 (2 %).
    pub fee_basis_points: Option<u16>,
    /// What a new account is given, in credits, such as `"2.5"`. Default: `"0"`, nothing.
    pub starter_grant: Option<AmountSetting>,
    /// Most that is given to new accounts in one UTC day, in credits. Default: `"100"`.
    pub starter_daily_budget: Option<AmountSetting>,
    /// The largest limit of a channel, in credits. Default: `"100"`.
    pub channel_limit_max: Option<AmountSetting>,
    /// The longest life of a channel, in seconds, at most 2592000 (30 days). Default: 86400 (24 hours).
    pub channel_life_max_seconds: Option<u64>,
    /// Whether the mesh peer announces itself and looks for others on the local network (mDNS). Default: false.
    pub mdns: Option<bool>,
    /// The BLAKE3 hashes, in hexadecimal digits, of the keys of auditors, who may read the log's entries. Default:
    /// none.
    pub auditor_key_hashes: Option<Vec<AuditorKeyHash>>,
    /// Whether this process challenges hardware and gives certificates. Of several processes on one database only one
    /// may, and calls to `/v1/hardware` have to go to it. Default: true.
    pub hardware_challenges: Option<bool>,
    /// Where the ledger is kept: a URL such as `postgres://user@host/database`, without a password. Default: a
    /// folder in the data directory.
    pub store: Option<String>,
}

/// The flags of `gristmill coordinator serve`.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct ServeArguments {
    /// What the network is called, for people [default: gristmill]
    #[arg(long, env = "GRISTMILL_COORDINATOR_NAME")]
    pub name: Option<String>,
    /// Where the HTTP interface listens [default: 127.0.0.1:7400]
    #[arg(long, env = "GRISTMILL_COORDINATOR_HTTP_LISTEN", value_name = "ADDRESS:PORT")]
    pub http_listen: Option<SocketAddr>,
    /// Multiaddress on which the mesh peer listens; repeat or separate by commas
    /// [default: /ip4/127.0.0.1/udp/7410/quic-v1,/ip4/127.0.0.1/tcp/7410]
    #[arg(
        long,
        env = "GRISTMILL_COORDINATOR_MESH_LISTEN",
        value_name = "MULTIADDRESS",
        value_delimiter = ','
    )]
    pub mesh_listen: Option<Vec<String>>,
    /// Multiaddress under which others reach the mesh peer; repeat or separate by commas [default: those it
    /// listens on]
    #[arg(
        long = "public-address",
        env = "GRISTMILL_COORDINATOR_PUBLIC_ADDRESSES",
        value_name = "MULTIADDRESS",
        value_delimiter = ','
    )]
    pub public_addresses: Option<Vec<String>>,
    /// The coordinator's share of what is settled, in 1/10,000 [default: 200]
    #[arg(long, env = "GRISTMILL_COORDINATOR_FEE_BASIS_POINTS", value_name = "POINTS")]
    pub fee_basis_points: Option<u16>,
    /// What a new account is given, in credits such as 2.5 [default: 0, nothing]
    #[arg(long, env = "GRISTMILL_COORDINATOR_STARTER_GRANT", value_name = "CREDITS")]
    pub starter_grant: Option<Credits>,
    /// Most that is given to new accounts in one UTC day, in credits [default: 100]
    #[arg(
        long,
        env = "GRISTMILL_COORDINATOR_STARTER_DAILY_BUDGET",
        value_name = "CREDITS"
    )]
    pub starter_daily_budget: Option<Credits>,
    /// The largest limit of a channel, in credits [default: 100]
    #[arg(long, env = "GRISTMILL_COORDINATOR_CHANNEL_LIMIT_MAX", value_name = "CREDITS")]
    pub channel_limit_max: Option<Credits>,
    /// The longest life of a channel, in seconds [default: 86400]
    #[arg(
        long,
        env = "GRISTMILL_COORDINATOR_CHANNEL_LIFE_MAX_SECONDS",
        value_name = "SECONDS"
    )]
    pub channel_life_max_seconds: Option<u64>,
    /// Announce the mesh peer on the local network, and look for others there [default: false]
    #[arg(
        long,
        env = "GRISTMILL_COORDINATOR_MDNS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub mdns: Option<bool>,
    /// BLAKE3 hash of the key of an auditor, who may read the log's entries (printf %s KEY | b3sum); repeat or
    /// separate by commas [default: none]
    #[arg(
        long = "auditor-key-hash",
        env = "GRISTMILL_COORDINATOR_AUDITOR_KEY_HASHES",
        value_name = "HASH",
        value_delimiter = ','
    )]
    pub auditor_key_hashes: Option<Vec<AuditorKeyHash>>,
    /// Challenge hardware and give certificates; of several processes on one database only one may
    /// [default: true]
    #[arg(
        long,
        env = "GRISTMILL_COORDINATOR_HARDWARE_CHALLENGES",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub hardware_challenges: Option<bool>,
    /// Where the ledger is kept.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// Everything a coordinator needs to know before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What the network is called, for people.
    pub name: String,
    /// Where the HTTP interface listens. Port zero: any free one.
    pub http_listen: SocketAddr,
    /// Multiaddresses on which the mesh peer listens.
    pub mesh_listen: Vec<String>,
    /// Multiaddresses under which others reach the mesh peer; empty: those it listens on.
    pub public_addresses: Vec<String>,
    /// The coordinator's share of what is settled, in 1/10,000, at most 10,000.
    pub fee_basis_points: u16,
    /// What a new account is given; zero: nothing.
    pub starter_grant: Credits,
    /// Most that is given to new accounts in one UTC day.
    pub starter_daily_budget: Credits,
    /// The largest limit of a channel.
    pub channel_limit_max: Credits,
    /// The longest life of a channel, in milliseconds.
    pub channel_life_max_ms: u64,
    /// Whether the mesh peer uses mDNS.
    pub mdns: bool,
    /// The hashes of the keys of auditors, who may read the log's entries.
    pub auditor_key_hashes: Vec<AuditorKeyHash>,
    /// Whether this process challenges hardware and gives certificates.
    pub hardware_challenges: bool,
    /// Where the ledger is kept.
    pub store: StoreSetting,
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// A fee above the whole.
    #[error("fee_basis_points is {0}; it is a share in 1/10,000 and at most 10000")]
    Fee(u16),
    /// A single starter grant is more than the day's budget.
    #[error(
        "starter_grant is {grant} credits but starter_daily_budget is {budget}; raise the budget or lower the grant"
    )]
    StarterBudget {
        /// What one account would be given.
        grant: Credits,
        /// What all may be given in one day.
        budget: Credits,
    },
    /// A channel could not hold anything.
    #[error("channel_limit_max is 0; consumers could pay nobody")]
    ChannelLimit,
    /// A channel's life is out of bounds.
    #[error("channel_life_max_seconds is {0}; it must be 1 to {CHANNEL_LIFE_LIMIT_SECONDS} (30 days)")]
    ChannelLife(u64),
    /// A name that can't be shown.
    #[error("name must have 1 to {NAME_MAX_BYTES} bytes and no control characters")]
    Name,
    /// No address to listen on.
    #[error("mesh_listen is empty; name at least one multiaddress such as /ip4/127.0.0.1/udp/7410/quic-v1")]
    MeshListen,
    /// No such store.
    #[error(transparent)]
    Store(Arc<StoreSettingError>),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "gristmill".into(),
            http_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT)),
            mesh_listen: vec![
                format!("/ip4/127.0.0.1/udp/{MESH_PORT}/quic-v1"),
                format!("/ip4/127.0.0.1/tcp/{MESH_PORT}"),
            ],
            public_addresses: Vec::new(),
            fee_basis_points: FEE_BASIS_POINTS,
            starter_grant: Credits::ZERO,
            starter_daily_budget: whole_credits(STARTER_DAILY_BUDGET_CREDITS),
            channel_limit_max: whole_credits(CHANNEL_LIMIT_MAX_CREDITS),
            channel_life_max_ms: CHANNEL_LIFE_MAX_SECONDS * 1_000,
            mdns: false,
            auditor_key_hashes: Vec::new(),
            hardware_challenges: true,
            store: StoreSetting::Embedded,
        }
    }
}

fn whole_credits(credits: u32) -> Credits {
    // 2^32 credits are below the largest amount, so this never falls back.
    Credits::from_microcredits(u64::from(credits) * MICROCREDITS_PER_CREDIT).unwrap_or(Credits::MAX)
}

impl Settings {
    /// Puts flags, variables, file and defaults together. (clap has merged flags and variables already.)
    ///
    /// # Errors
    /// [`SettingsError`] naming the setting that makes no sense.
    pub fn resolve(arguments: ServeArguments, file: FileSection) -> Result<Self, SettingsError> {
        let default = Self::default();
        let amount = |flag: Option<Credits>, file: Option<AmountSetting>, default: Credits| {
            flag.or(file.map(|setting| setting.0)).unwrap_or(default)
        };
        let life_seconds = arguments
            .channel_life_max_seconds
            .or(file.channel_life_max_seconds)
            .unwrap_or(CHANNEL_LIFE_MAX_SECONDS);
        if !(1..=CHANNEL_LIFE_LIMIT_SECONDS).contains(&life_seconds) {
            return Err(SettingsError::ChannelLife(life_seconds));
        }
        let settings = Self {
            name: arguments.name.or(file.name).unwrap_or(default.name),
            http_listen: arguments
                .http_listen
                .or(file.http_listen)
                .unwrap_or(default.http_listen),
            mesh_listen: arguments
                .mesh_listen
                .or(file.mesh_listen)
                .unwrap_or(default.mesh_listen),
            public_addresses: arguments
                .public_addresses
                .or(file.public_addresses)
                .unwrap_or(default.public_addresses),
            fee_basis_points: arguments
                .fee_basis_points
                .or(file.fee_basis_points)
                .unwrap_or(default.fee_basis_points),
            starter_grant: amount(arguments.starter_grant, file.starter_grant, default.starter_grant),
            starter_daily_budget: amount(
                arguments.starter_daily_budget,
                file.starter_daily_budget,
                default.starter_daily_budget,
            ),
            channel_limit_max: amount(
                arguments.channel_limit_max,
                file.channel_limit_max,
                default.channel_limit_max,
            ),
            channel_life_max_ms: life_seconds * 1_000,
            mdns: arguments.mdns.or(file.mdns).unwrap_or(default.mdns),
            auditor_key_hashes: arguments
                .auditor_key_hashes
                .or(file.auditor_key_hashes)
                .unwrap_or(default.auditor_key_hashes),
            hardware_challenges: arguments
                .hardware_challenges
                .or(file.hardware_challenges)
                .unwrap_or(default.hardware_challenges),
            store: arguments
                .store
                .resolve(file.store)
                .map_err(|error| SettingsError::Store(Arc::new(error)))?,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Checks what [`Settings::resolve`] checks, for settings that a program made itself.
    ///
    /// # Errors
    /// [`SettingsError`] naming the setting that makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.name.is_empty() || self.name.len() > NAME_MAX_BYTES || self.name.chars().any(char::is_control)
        {
            return Err(SettingsError::Name);
        }
        if self.mesh_listen.is_empty() {
            return Err(SettingsError::MeshListen);
        }
        if self.fee_basis_points > 10_000 {
            return Err(SettingsError::Fee(self.fee_basis_points));
        }
        if self.starter_grant > self.starter_daily_budget {
            let (grant, budget) = (self.starter_grant, self.starter_daily_budget);
            return Err(SettingsError::StarterBudget { grant, budget });
        }
        if self.channel_limit_max.is_zero() {
            return Err(SettingsError::ChannelLimit);
        }
        if !(CHANNEL_LIFE_MIN_MS..=CHANNEL_LIFE_LIMIT_SECONDS * 1_000).contains(&self.channel_life_max_ms) {
            return Err(SettingsError::ChannelLife(self.channel_life_max_ms / 1_000));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        arguments: ServeArguments,
    }

    fn arguments(flags: &[&str]) -> ServeArguments {
        Program::parse_from(std::iter::once(&"serve").chain(flags)).arguments
    }

    fn file(text: &str) -> FileSection {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn nothing_set_gives_the_defaults() {
        let settings = Settings::resolve(ServeArguments::default(), FileSection::default()).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.http_listen.to_string(), "127.0.0.1:7400");
        assert_eq!(settings.channel_life_max_ms, 86_400_000);
        assert!(settings.starter_grant.is_zero());
    }

    #[test]
    fn flags_win_over_the_file() {
        let section = file("fee_basis_points = 10\nname = \"file\"\nchannel_limit_max = 7");
        let settings = Settings::resolve(arguments(&["--fee-basis-points", "20"]), section).unwrap();
        assert_eq!((settings.fee_basis_points, settings.name.as_str()), (20, "file"));
        assert_eq!(settings.channel_limit_max, whole_credits(7));
    }

    #[test]
    fn lists_and_switches_are_read() {
        let parsed = arguments(&["--mesh-listen", "/a,/b", "--mdns", "--starter-grant", "0.5"]);
        assert_eq!(parsed.mesh_listen, Some(vec!["/a".to_owned(), "/b".to_owned()]));
        assert_eq!(
            (parsed.mdns, parsed.starter_grant),
            (Some(true), Some(Credits::micro(500_000)))
        );
        assert_eq!(arguments(&["--mdns", "false"]).mdns, Some(false));
        assert_eq!(arguments(&[]).mesh_listen, None);
    }

    #[test]
    fn amounts_are_read_exactly_from_texts_and_numbers() {
        for text in ["\"2.5\"", "2.5", "2.500000"] {
            let section = file(&format!("starter_grant = {text}"));
            assert_eq!(
                section.starter_grant,
                Some(AmountSetting(Credits::micro(2_500_000))),
                "{text}"
            );
        }
        for text in ["\"x\"", "-1", "-0.5", "1e-9", "true", "nan", "9007199255"] {
            let read = toml::from_str::<FileSection>(&format!("starter_grant = {text}"));
            assert!(read.is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_keys_name_their_line() {
        let error = toml::from_str::<FileSection>("name = \"a\"\nfee = 1")
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 2") && error.contains("fee"), "{error}");
    }

    #[test]
    fn settings_that_make_no_sense_are_named() {
        let resolve = |text: &str| Settings::resolve(ServeArguments::default(), file(text));
        assert_eq!(
            resolve("fee_basis_points = 10001"),
            Err(SettingsError::Fee(10_001))
        );
        assert!(resolve("fee_basis_points = 10000").is_ok());
        assert_eq!(resolve("channel_limit_max = 0"), Err(SettingsError::ChannelLimit));
        assert_eq!(
            resolve("channel_life_max_seconds = 0"),
            Err(SettingsError::ChannelLife(0))
        );
        assert!(resolve("channel_life_max_seconds = 2592000").is_ok());
        assert_eq!(
            resolve("channel_life_max_seconds = 2592001"),
            Err(SettingsError::ChannelLife(2_592_001))
        );
        assert_eq!(resolve("name = \"\""), Err(SettingsError::Name));
        assert_eq!(resolve("mesh_listen = []"), Err(SettingsError::MeshListen));
        assert!(matches!(
            resolve("starter_grant = 101"),
            Err(SettingsError::StarterBudget { .. })
        ));
        assert!(resolve("starter_grant = 100").is_ok());
    }
}
