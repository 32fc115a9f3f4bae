//! The configuration file's part for clients.

use std::net::SocketAddr;

use gristmill_service::amount::AmountSetting;
use serde::Deserialize;

use super::ApiKey;

/// The `[client]` section of the configuration file. Every field is optional; unknown ones are errors.
///
/// ```
/// let section: gristmill_client::settings::FileSection = toml::from_str(r#"
///     coordinator = "http://192.0.2.7:7400"
///     max_price_per_million = "0.5"
///     allowed_origins = ["http://localhost:5173"]
/// "#)?;
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSection {
    /// Where the OpenAI endpoint listens. Anything but loopback needs `api_keys`. Default: `127.0.0.1:7420`.
    pub listen: Option<SocketAddr>,
    /// The coordinator's address. Default: `http://127.0.0.1:7400`.
    pub coordinator: Option<String>,
    /// Multiaddresses on which the mesh peer listens. Default: `/ip4/127.0.0.1/udp/7410/quic-v1`, or a free port
    /// where that one is taken.
    pub mesh_listen: Option<Vec<String>>,
    /// Whether the mesh peer looks for others on the local network (mDNS). Default: false.
    pub mdns: Option<bool>,
    /// Whether to open no more channels with a coordinator whose log was caught lying. Default: true.
    pub refuse_lying_coordinator: Option<bool>,
    /// Keys of which programs must show one, as `Authorization: Bearer KEY`. Default: none, on loopback only.
    pub api_keys: Option<Vec<ApiKey>>,
    /// Host names, beside loopback's, under which programs may reach the endpoint. Default: none.
    pub allowed_hosts: Option<Vec<String>>,
    /// Origins, such as `http://localhost:5173`, whose pages may call from a browser. Default: none.
    pub allowed_origins: Option<Vec<String>>,
    /// The highest price that is paid, in credits per million of any unit, such as `"0.5"`. Default: any.
    pub max_price_per_million: Option<AmountSetting>,
    /// Warn when all programs together have spent so much on one day (UTC), in credits: in the log, in the metric
    /// `gristmill_budget_alarm`, and in the header `x-gristmill-budget-alarm` of answers. Default: never.
    pub budget_alarm: Option<AmountSetting>,
    /// The most that all programs together may spend on one day (UTC), in credits. Default: any.
    pub budget_stop: Option<AmountSetting>,
    /// OpenTelemetry collector that gets a trace of each request over OTLP/HTTP, such as `"http://127.0.0.1:4318"`.
    /// Default: none.
    pub otlp_endpoint: Option<String>,
    /// How much is set aside for a provider at a time, in credits. Default: `"1"`.
    pub channel_limit: Option<AmountSetting>,
    /// For how long it is set aside, in seconds, at most 2592000 (30 days). Default: 3600 (1 hour).
    pub channel_life_seconds: Option<u64>,
    /// Most bytes of a request. Default: 16777216 (16 MiB).
    pub body_max_bytes: Option<usize>,
    /// The `max_tokens` of a chat request that has none, bounded by the offer's context length. Default: 4096.
    pub output_tokens_assumed: Option<u32>,
    /// How long to wait for a connection to a provider, in seconds. Default: 5.
    pub connect_timeout_seconds: Option<u64>,
    /// How long to wait for a provider's yes or no, in seconds. Default: 3.
    pub answer_timeout_seconds: Option<u64>,
    /// How long to wait from the yes to the first output, in seconds. Default: 120.
    pub first_chunk_timeout_seconds: Option<u64>,
    /// How long to wait from one output to the next, in seconds. Default: 60.
    pub next_chunk_timeout_seconds: Option<u64>,
    /// How many providers are asked for one request before it waits, and asks again or fails, 1 to 16. Default: 3.
    pub attempts_max: Option<u32>,
    /// Whether to ask a second provider where the first token is late; the slower one is cancelled. Default: true.
    pub hedging: Option<bool>,
}
