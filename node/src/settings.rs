//! What an owner can set, where it comes from, and what it is otherwise.
//!
//! A flag wins over its `GRISTMILL_NODE_…` variable, which wins over the `[node]` section of the configuration
//! file, which wins over the default.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::listing::{
    ADDRESSES_MAX, MODEL_NAME_MAX_BYTES, OFFERS_MAX, PrivacyTier, SHORT_TEXT_MAX_BYTES,
};
use gristmill_protocol::usage::{Price, Unit};
use gristmill_service::amount::AmountSetting;
use gristmill_transport::mesh::{DEFAULT_MESH_PORT, Multiaddr, listen_addresses};

use crate::engine::model_files::ModelSource;

mod arguments;
mod error;
mod file;
mod hardware;
mod upstreams;

pub use arguments::{ModelArgument, PriceArgument, ServeArguments};
pub use error::SettingsError;
pub use file::{FileSection, ModelEntry, PriceSetting, UpstreamModelTable};
pub use hardware::{
    HARDWARE_CLAIM_PERCENT_DEFAULT, HARDWARE_CLAIM_PERCENT_MIN, HARDWARE_MEMORY_LARGEST_BYTES,
    HARDWARE_MEMORY_MIN_BYTES, HARDWARE_POWER_LARGEST_WATTS, HardwareArguments, HardwareSettings,
    HardwareTable,
};
pub use upstreams::{UpstreamModelSetting, Upstreams};

use upstreams::parse_upstreams;

/// Where the coordinator is unless configured otherwise.
pub const COORDINATOR_URL: &str = "http://127.0.0.1:7400";
/// Port of the node's local API unless configured otherwise.
pub const LOCAL_API_PORT: u16 = 7430;
/// How many jobs run at once unless configured otherwise.
pub const SLOTS: u16 = 4;
/// How many jobs wait for a slot unless configured otherwise.
pub const QUEUE_LENGTH: u16 = 16;
/// The most jobs that can be made to run at once, or to wait.
pub const SLOTS_MAX: u16 = 1_024;
/// The price per million input tokens unless configured otherwise: 0.1 credits.
pub const PRICE_INPUT: Credits = Credits::micro(100_000);
/// The price per million output tokens unless configured otherwise: 0.4 credits.
pub const PRICE_OUTPUT: Credits = Credits::micro(400_000);
/// The price per thousand seconds of a device unless configured otherwise, for what is charged by time: 0.02 credits,
/// about what a device earns that writes 50 tokens a second.
pub const PRICE_THOUSAND_SECONDS: Credits = Credits::micro(20_000);
/// Unpaid work extended to each channel unless configured otherwise: 0.2 credits.
pub const CREDIT_WINDOW: Credits = Credits::micro(200_000);
/// The smallest credit window: below it, hardly a prompt could be read without a voucher.
pub const CREDIT_WINDOW_MIN: Credits = Credits::micro(1_000);
/// Seconds between redemptions unless configured otherwise.
pub const REDEEM_INTERVAL_SECONDS: u64 = 30;
/// The longest time between redemptions that can be set, in seconds: one hour.
pub const REDEEM_INTERVAL_MAX_SECONDS: u64 = 60 * 60;
/// How long a job waits for a voucher unless configured otherwise, in seconds.
pub const VOUCHER_TIMEOUT_SECONDS: u64 = 30;
/// The longest wait for a voucher that can be set, in seconds.
pub const VOUCHER_TIMEOUT_MAX_SECONDS: u64 = 10 * 60;
/// How long a stopping node lets running jobs finish unless configured otherwise, in seconds.
pub const DRAIN_SECONDS: u64 = 20;
/// The longest drain that can be set, in seconds.
pub const DRAIN_MAX_SECONDS: u64 = 60 * 60;

/// Where job streams are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshListen {
    /// The default port on loopback, or any free one where another program has it.
    Default,
    /// Exactly here; a port in use is an error.
    At(Vec<Multiaddr>),
}

impl MeshListen {
    /// The addresses to try first.
    #[must_use]
    pub fn preferred(&self) -> Vec<Multiaddr> {
        match self {
            Self::Default => listen_addresses(Ipv4Addr::LOCALHOST.into(), DEFAULT_MESH_PORT),
            Self::At(addresses) => addresses.clone(),
        }
    }
}

/// Where the owner's own API listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalApi {
    /// The default port on loopback, or any free one where another program has it.
    Default,
    /// Exactly here; a port in use is an error.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

/// A model for the built-in engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSetting {
    /// Where it comes from.
    pub source: ModelChoice,
    /// The name on offer; where there is none, the model's own.
    pub name: Option<String>,
    /// Its price; where there is none, as [`Prices`] says.
    pub price: Option<Price>,
}

/// Where a built-in model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelChoice {
    /// The guide model that is part of the program.
    Guide,
    /// Files on disk or on the Hugging Face hub.
    Files(ModelSource),
}

/// What models cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prices {
    /// Of a model without a price of its own.
    pub default: Price,
    /// Of models by the names on offer.
    pub by_model: BTreeMap<String, Price>,
}

impl Prices {
    /// The price of a model.
    #[must_use]
    pub fn of(&self, model: &str) -> &Price {
        self.by_model.get(model).unwrap_or(&self.default)
    }
}

/// Everything a node needs to know before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the coordinator's HTTP API is.
    pub coordinator: String,
    /// The coordinator's account, where the owner insists on one.
    pub coordinator_account: Option<AccountId>,
    /// Where job streams are accepted.
    pub mesh_listen: MeshListen,
    /// Addresses at which others reach the node; where there are none, those it listens on.
    pub public_addresses: Vec<Multiaddr>,
    /// Upstream servers.
    pub upstreams: Upstreams,
    /// Models for the built-in engines. `None`: the guide model as long as nothing else is on offer.
    pub models: Option<Vec<ModelSetting>>,
    /// What models cost.
    pub prices: Prices,
    /// How many jobs run at once.
    pub slots: u16,
    /// How many jobs wait for a slot at most.
    pub queue_length: u16,
    /// Most unpaid work on each channel.
    pub credit_window: Credits,
    /// How long vouchers may wait before they are handed in.
    pub redeem_interval: Duration,
    /// Where the node says it is; empty: it does not say.
    pub region: String,
    /// What the node promises about prompts and answers.
    pub privacy: PrivacyTier,
    /// Where the owner's own API listens.
    pub local_api: LocalApi,
    /// What proofs of hardware may take.
    pub hardware: HardwareSettings,
    /// Whether to announce the node on the local network and look for peers there.
    pub mdns: bool,
    /// Whether the node cosigns the checkpoints of the coordinator's log that it found to be consistent.
    pub cosign: bool,
    /// Whether no job is taken on the tickets of a coordinator whose log was caught lying.
    pub refuse_lying_coordinator: bool,
    /// How long a job waits for a voucher before it is given up.
    pub voucher_timeout: Duration,
    /// How long a stopping node lets running jobs finish.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            coordinator: COORDINATOR_URL.to_owned(),
            coordinator_account: None,
            mesh_listen: MeshListen::Default,
            public_addresses: Vec::new(),
            upstreams: Upstreams {
                discover: true,
                urls: Vec::new(),
                allowed_hosts: Vec::new(),
                models: BTreeMap::new(),
            },
            models: None,
            prices: Prices {
                default: default_price(),
                by_model: BTreeMap::new(),
            },
            slots: SLOTS,
            queue_length: QUEUE_LENGTH,
            credit_window: CREDIT_WINDOW,
            redeem_interval: Duration::from_secs(REDEEM_INTERVAL_SECONDS),
            region: String::new(),
            privacy: PrivacyTier::Standard,
            local_api: LocalApi::Default,
            hardware: HardwareSettings::default(),
            mdns: false,
            cosign: true,
            refuse_lying_coordinator: true,
            voucher_timeout: Duration::from_secs(VOUCHER_TIMEOUT_SECONDS),
            drain: Duration::from_secs(DRAIN_SECONDS),
        }
    }
}

impl Settings {
    /// Puts flags, variables, file and defaults together. (clap has merged flags and variables already.)
    ///
    /// # Errors
    /// [`SettingsError`] naming the setting that makes no sense.
    pub fn resolve(arguments: ServeArguments, file: FileSection) -> Result<Self, SettingsError> {
        let default = Self::default();
        let upstreams = arguments.upstreams.or(file.upstreams);
        let allowed_hosts = arguments
            .allowed_upstream_hosts
            .or(file.allowed_upstream_hosts)
            .unwrap_or_default();
        let listen = arguments.mesh_listen.or(file.mesh_listen);
        let public = arguments
            .public_addresses
            .or(file.public_addresses)
            .unwrap_or_default();
        let local_api = arguments.local_api.or(file.local_api);
        let price = file.price.unwrap_or_default();
        let price = PriceSetting {
            input: arguments.price_input.map(AmountSetting).or(price.input),
            output: arguments.price_output.map(AmountSetting).or(price.output),
            ..price
        };
        let default_price = price.or_default(&default_price());
        let models = match (arguments.models, file.models) {
            (Some(models), _) => Some(models.into_iter().map(ModelSetting::from).collect()),
            (None, Some(entries)) => Some(
                entries
                    .into_iter()
                    .map(|entry| entry.into_setting(&default_price))
                    .collect(),
            ),
            (None, None) => None,
        };
        let mut by_model: BTreeMap<String, Price> = file
            .prices
            .into_iter()
            .map(|(model, price)| (model, price.or_default(&default_price)))
            .collect();
        by_model.extend(
            arguments
                .prices
                .into_iter()
                .flatten()
                .map(|price| (price.model.clone(), price.over(&default_price))),
        );
        let seconds = |seconds: Option<u64>, default| seconds.map_or(default, Duration::from_secs);
        let settings = Self {
            coordinator: arguments
                .coordinator
                .or(file.coordinator)
                .unwrap_or(default.coordinator),
            coordinator_account: arguments.coordinator_account.or(file.coordinator_account),
            mesh_listen: match listen {
                Some(texts) => MeshListen::At(multiaddresses("mesh_listen", texts)?),
                None => MeshListen::Default,
            },
            public_addresses: multiaddresses("public_addresses", public)?,
            upstreams: Upstreams {
                models: file
                    .upstream_models
                    .into_iter()
                    .map(|(name, table)| (name, table.into()))
                    .collect(),
                ..parse_upstreams(upstreams, allowed_hosts)?
            },
            models,
            prices: Prices {
                default: default_price,
                by_model,
            },
            slots: arguments.slots.or(file.slots).unwrap_or(default.slots),
            queue_length: arguments
                .queue_length
                .or(file.queue_length)
                .unwrap_or(default.queue_length),
            credit_window: arguments
                .credit_window
                .or(file.credit_window.map(|amount| amount.0))
                .unwrap_or(default.credit_window),
            redeem_interval: seconds(
                arguments.redeem_interval_seconds.or(file.redeem_interval_seconds),
                default.redeem_interval,
            ),
            region: arguments.region.or(file.region).unwrap_or(default.region),
            privacy: arguments.privacy.or(file.privacy).unwrap_or(default.privacy),
            local_api: local_api.map_or(Ok(LocalApi::Default), |text| parse_local_api(&text))?,
            hardware: HardwareSettings::resolve(&arguments.hardware, &file.hardware),
            mdns: arguments.mdns.or(file.mdns).unwrap_or(default.mdns),
            cosign: arguments.cosign.or(file.cosign).unwrap_or(default.cosign),
            refuse_lying_coordinator: arguments
                .refuse_lying_coordinator
                .or(file.refuse_lying_coordinator)
                .unwrap_or(default.refuse_lying_coordinator),
            voucher_timeout: seconds(
                arguments.voucher_timeout_seconds.or(file.voucher_timeout_seconds),
                default.voucher_timeout,
            ),
            drain: seconds(arguments.drain_seconds.or(file.drain_seconds), default.drain),
        };
        settings.check()?;
        Ok(settings)
    }

    /// Checks what [`Settings::resolve`] checks, for settings that a program made itself.
    ///
    /// # Errors
    /// [`SettingsError`] naming the setting that makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        let bound = |setting, actual: u64, least: u64, most: u64| {
            if (least..=most).contains(&actual) {
                Ok(())
            } else {
                Err(SettingsError::OutOfBounds {
                    setting,
                    actual,
                    least,
                    most,
                })
            }
        };
        bound("slots", self.slots.into(), 1, SLOTS_MAX.into())?;
        bound("queue_length", self.queue_length.into(), 0, SLOTS_MAX.into())?;
        // Parts of a second count as a whole one, so that only nothing is too little.
        let whole = |time: Duration| time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
        let redeem_seconds = whole(self.redeem_interval);
        bound(
            "redeem_interval_seconds",
            redeem_seconds,
            1,
            REDEEM_INTERVAL_MAX_SECONDS,
        )?;
        let voucher_seconds = whole(self.voucher_timeout);
        bound(
            "voucher_timeout_seconds",
            voucher_seconds,
            1,
            VOUCHER_TIMEOUT_MAX_SECONDS,
        )?;
        bound("drain_seconds", self.drain.as_secs(), 0, DRAIN_MAX_SECONDS)?;
        if self.credit_window < CREDIT_WINDOW_MIN {
            return Err(SettingsError::CreditWindow(self.credit_window));
        }
        if matches!(&self.mesh_listen, MeshListen::At(addresses) if addresses.is_empty()) {
            return Err(SettingsError::MeshListen);
        }
        if let LocalApi::At(address) = self.local_api
            && !address.ip().is_loopback()
        {
            return Err(SettingsError::LocalApiNotLoopback(address));
        }
        self.hardware.check()?;
        self.check_what_is_listed()
    }

    /// Everything that ends up in a listing must fit there.
    fn check_what_is_listed(&self) -> Result<(), SettingsError> {
        let many = |setting, actual, most| {
            if actual > most {
                Err(SettingsError::TooMany {
                    setting,
                    actual,
                    most,
                })
            } else {
                Ok(())
            }
        };
        many("public_addresses", self.public_addresses.len(), ADDRESSES_MAX)?;
        many("models", self.models.as_ref().map_or(0, Vec::len), OFFERS_MAX)?;
        let text = |setting, text: &str, most_bytes| {
            if text.len() > most_bytes || text.chars().any(char::is_control) {
                let text = text.chars().take(64).collect();
                return Err(SettingsError::Text {
                    setting,
                    text,
                    most_bytes,
                });
            }
            Ok(())
        };
        text("region", &self.region, SHORT_TEXT_MAX_BYTES)?;
        for model in self.models.iter().flatten() {
            text(
                "name of a model",
                model.name.as_deref().unwrap_or_default(),
                MODEL_NAME_MAX_BYTES,
            )?;
        }
        Ok(())
    }
}

/// What models cost unless configured otherwise.
fn default_price() -> Price {
    let mut price = Price::per_million_tokens(PRICE_INPUT, PRICE_OUTPUT);
    price
        .per_million
        .insert(Unit::GpuMillisecond, PRICE_THOUSAND_SECONDS);
    price
}

fn multiaddresses(setting: &'static str, texts: Vec<String>) -> Result<Vec<Multiaddr>, SettingsError> {
    let parse = |text: String| {
        text.parse()
            .map_err(|_| SettingsError::Multiaddress { setting, text })
    };
    texts.into_iter().map(parse).collect()
}

fn parse_local_api(text: &str) -> Result<LocalApi, SettingsError> {
    match text {
        "none" => Ok(LocalApi::Off),
        _ => {
            let parsed = text.parse().map_err(|_| SettingsError::LocalApi {
                text: text.to_owned(),
            })?;
            Ok(LocalApi::At(parsed))
        }
    }
}

#[cfg(test)]
mod tests;
