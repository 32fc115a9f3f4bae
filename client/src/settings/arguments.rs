//! The flags and variables of clients.

use std::net::SocketAddr;

use clap::Args;
use gristmill_protocol::credits::Credits;

use super::ApiKey;

/// The flags by which every command finds the proxy and the coordinator.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct ConnectionArguments {
    /// Where the OpenAI endpoint listens [default: 127.0.0.1:7420]
    #[arg(long, env = "GRISTMILL_CLIENT_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// The coordinator's address [default: http://127.0.0.1:7400]
    #[arg(long, env = "GRISTMILL_CLIENT_COORDINATOR", value_name = "URL")]
    pub coordinator: Option<String>,
    /// Key that programs must show; prefer the variable or the file, since others can see flags. Repeat or
    /// separate by commas [default: none, on loopback only]
    #[arg(
        long = "api-key",
        env = "GRISTMILL_CLIENT_API_KEYS",
        hide_env_values = true,
        value_name = "KEY",
        value_delimiter = ','
    )]
    pub api_keys: Option<Vec<ApiKey>>,
}

/// The flags of `gristmill client serve`.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct ServeArguments {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArguments,
    /// Multiaddress on which the mesh peer listens; repeat or separate by commas
    /// [default: /ip4/127.0.0.1/udp/7410/quic-v1, or a free port]
    #[arg(
        long,
        env = "GRISTMILL_CLIENT_MESH_LISTEN",
        value_name = "MULTIADDRESS",
        value_delimiter = ','
    )]
    pub mesh_listen: Option<Vec<String>>,
    /// Look for others on the local network [default: false]
    #[arg(
        long,
        env = "GRISTMILL_CLIENT_MDNS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub mdns: Option<bool>,
    /// Open no more channels with a coordinator whose log was caught lying [default: true]
    #[arg(
        long,
        env = "GRISTMILL_CLIENT_REFUSE_LYING_COORDINATOR",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub refuse_lying_coordinator: Option<bool>,
    /// Host name, beside loopback's, under which programs may reach the endpoint; repeat or separate by commas
    #[arg(
        long = "allowed-host",
        env = "GRISTMILL_CLIENT_ALLOWED_HOSTS",
        value_name = "HOST",
        value_delimiter = ','
    )]
    pub allowed_hosts: Option<Vec<String>>,
    /// Origin, such as http://localhost:5173, whose pages may call from a browser; repeat or separate by commas
    #[arg(
        long = "allowed-origin",
        env = "GRISTMILL_CLIENT_ALLOWED_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub allowed_origins: Option<Vec<String>>,
    /// The highest price that is paid, in credits per million of any unit, such as 0.5 [default: any]
    #[arg(long, env = "GRISTMILL_CLIENT_MAX_PRICE_PER_MILLION", value_name = "CREDITS")]
    pub max_price_per_million: Option<Credits>,
    /// Warn when all programs together have spent so much on one day (UTC), in credits [default: never]
    #[arg(long, env = "GRISTMILL_CLIENT_BUDGET_ALARM", value_name = "CREDITS")]
    pub budget_alarm: Option<Credits>,
    /// The most that all programs together may spend on one day (UTC), in credits [default: any]
    #[arg(long, env = "GRISTMILL_CLIENT_BUDGET_STOP", value_name = "CREDITS")]
    pub budget_stop: Option<Credits>,
    /// OpenTelemetry collector that gets a trace of each request over OTLP/HTTP, such as http://127.0.0.1:4318
    /// [default: none]
    #[arg(
        long,
        env = "GRISTMILL_CLIENT_OTLP_ENDPOINT",
        hide_env_values = true,
        value_name = "URL"
    )]
    pub otlp_endpoint: Option<String>,
    /// How much is set aside for a provider at a time, in credits [default: 1]
    #[arg(long, env = "GRISTMILL_CLIENT_CHANNEL_LIMIT", value_name = "CREDITS")]
    pub channel_limit: Option<Credits>,
    /// For how long it is set aside, in seconds [default: 3600]
    #[arg(long, env = "GRISTMILL_CLIENT_CHANNEL_LIFE_SECONDS", value_name = "SECONDS")]
    pub channel_life_seconds: Option<u64>,
    /// Most bytes of a request [default: 16777216]
    #[arg(long, env = "GRISTMILL_CLIENT_BODY_MAX_BYTES", value_name = "BYTES")]
    pub body_max_bytes: Option<usize>,
    /// The max_tokens of a chat request that has none [default: 4096]
    #[arg(long, env = "GRISTMILL_CLIENT_OUTPUT_TOKENS_ASSUMED", value_name = "TOKENS")]
    pub output_tokens_assumed: Option<u32>,
    /// How long to wait for a connection to a provider [default: 5]
    #[arg(
        long,
        env = "GRISTMILL_CLIENT_CONNECT_TIMEOUT_SECONDS",
        value_name = "SECONDS"
    )]
    pub connect_timeout_seconds: Option<u64>,
    /// How long to wait for a provider's yes or no [default: 3]
    #[arg(long, env = "GRISTMILL_CLIENT_ANSWER_TIMEOUT_SECONDS", value_name = "SECONDS")]
    pub answer_timeout_seconds: Option<u64>,
    /// How long to wait from the yes to the first output [default: 120]
    #[arg(
        long,
        env = "GRISTMILL_CLIENT_FIRST_CHUNK_TIMEOUT_SECONDS",
        value_name = "SECONDS"
    )]
    pub first_chunk_timeout_seconds: Option<u64>,
    /// How long to wait from one output to the next [default: 60]
    #[arg(
        long,
        env = "GRISTMILL_CLIENT_NEXT_CHUNK_TIMEOUT_SECONDS",
        value_name = "SECONDS"
    )]
    pub next_chunk_timeout_seconds: Option<u64>,
    /// How many providers are asked for one request before it waits, and asks again or fails [default: 3]
    #[arg(long, env = "GRISTMILL_CLIENT_ATTEMPTS_MAX", value_name = "COUNT")]
    pub attempts_max: Option<u32>,
    /// Ask a second provider where the first token is late; the slower one is cancelled [default: true]
    #[arg(
        long,
        env = "GRISTMILL_CLIENT_HEDGING",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    pub hedging: Option<bool>,
}
