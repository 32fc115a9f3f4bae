//! What a developer can set, where it comes from, and what it is otherwise.
//!
//! A flag wins over its `GRISTMILL_CLIENT_…` variable, which wins over the `[client]` section of the configuration
//! file, which wins over the default.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gristmill_protocol::codec::REQUEST_BODY_MAX_BYTES;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::routing::hedge::HedgeBounds;
use gristmill_protocol::session::consumer::ConsumerTimeouts;
use gristmill_service::amount::AmountSetting;
use thiserror::Error;

mod api_key;
mod arguments;
mod file;

pub use api_key::ApiKey;
pub use arguments::{ConnectionArguments, ServeArguments};
pub use file::FileSection;

/// Port of the OpenAI endpoint unless configured otherwise.
pub const HTTP_PORT: u16 = 7_420;
/// Where the coordinator is looked for unless configured otherwise.
pub const COORDINATOR_URL: &str = "http://127.0.0.1:7400";
/// Where the mesh peer listens unless configured otherwise. Taken by a node of the same machine, another port is.
pub const MESH_LISTEN: &str = "/ip4/127.0.0.1/udp/7410/quic-v1";
/// The output tokens assumed of a request that sets no limit, unless configured otherwise.
pub const OUTPUT_TOKENS_ASSUMED: u32 = 4_096;
/// How many providers are asked for one request unless configured otherwise.
pub const ATTEMPTS_MAX: u32 = 3;
const CHANNEL_LIFE_SECONDS: u64 = 3_600;
const CHANNEL_LIFE_LIMIT_SECONDS: u64 = 30 * 24 * 60 * 60;
const CONNECT_TIMEOUT_SECONDS: u64 = 5;
const TIMEOUT_LIMIT_SECONDS: u64 = 24 * 60 * 60;
const ATTEMPTS_LIMIT: u32 = 16;
const BODY_LIMIT_BYTES: usize = 1 << 30;
const NAMES_LIMIT: usize = 64;

/// Everything a client needs to know before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the OpenAI endpoint listens. Port zero: any free one.
    pub listen: SocketAddr,
    /// The coordinator's address.
    pub coordinator: String,
    /// Multiaddresses on which the mesh peer listens.
    pub mesh_listen: Vec<String>,
    /// Whether a free port is taken where one of `mesh_listen` is in use: unless somebody chose those.
    pub mesh_port_fallback: bool,
    /// Whether the mesh peer uses mDNS.
    pub mdns: bool,
    /// Whether no channel is opened any more with a coordinator whose log was caught lying.
    pub refuse_lying_coordinator: bool,
    /// Keys of which programs must show one; empty: none is asked for.
    pub api_keys: Vec<ApiKey>,
    /// Host names, beside loopback's, under which the endpoint may be reached.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may call from a browser.
    pub allowed_origins: Vec<String>,
    /// The highest price that is paid, per million of any unit.
    pub max_price_per_million: Option<Credits>,
    /// From how much on, spent by all programs on one day (UTC), there are warnings.
    pub budget_alarm: Option<Credits>,
    /// How much all programs together may spend on one day (UTC).
    pub budget_stop: Option<Credits>,
    /// The OpenTelemetry collector that gets spans; none: nobody does.
    pub otlp_endpoint: Option<String>,
    /// How much is set aside for a provider at a time.
    pub channel_limit: Credits,
    /// For how long it is set aside, in milliseconds.
    pub channel_life_ms: u64,
    /// Most bytes of a request.
    pub body_max_bytes: usize,
    /// The output tokens assumed of a chat request that sets no limit.
    pub output_tokens_assumed: u32,
    /// How long to wait for a connection to a provider.
    pub connect_timeout: Duration,
    /// How long to wait on a job stream.
    pub job_timeouts: ConsumerTimeouts,
    /// How many providers are asked for one request before it waits, and asks again or fails.
    pub attempts_max: u32,
    /// When a first output is late, so that a second provider is asked beside the first; `None`: never.
    pub hedging: Option<HedgeBounds>,
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// The endpoint would be open to others without a key.
    #[error(
        "listen is {0}, which other machines can reach, and there is no API key; set api_keys (or \
         GRISTMILL_CLIENT_API_KEYS), make one with 'gristmill client keys create', or listen on 127.0.0.1"
    )]
    OpenToOthers(SocketAddr),
    /// A number out of its bounds.
    #[error("{setting} is {value}; it must be {least} to {most}")]
    OutOfBounds {
        /// Which setting.
        setting: &'static str,
        /// What it is.
        value: u64,
        /// The least it may be.
        least: u64,
        /// The most it may be.
        most: u64,
    },
    /// A host name that can't be in a `Host` header.
    #[error(
        "allowed_hosts has '{0}', which is no host name; write it without scheme and port, like mill.local"
    )]
    Host(String),
    /// An origin that no browser sends.
    #[error("allowed_origins has '{0}', which is no origin; they look like http://localhost:5173")]
    Origin(String),
    /// Channels that can't hold anything.
    #[error("channel_limit is 0; no provider could be paid")]
    ChannelLimit,
    /// No address for the mesh peer.
    #[error("mesh_listen is empty; name at least one multiaddress such as {MESH_LISTEN}")]
    MeshListen,
    /// More names than are ever compared with.
    #[error("{0} has more than {NAMES_LIMIT} entries")]
    TooMany(&'static str),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP_PORT)),
            coordinator: COORDINATOR_URL.into(),
            mesh_listen: vec![MESH_LISTEN.into()],
            mesh_port_fallback: true,
            mdns: false,
            refuse_lying_coordinator: true,
            api_keys: Vec::new(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            max_price_per_million: None,
            budget_alarm: None,
            budget_stop: None,
            otlp_endpoint: None,
            channel_limit: Credits::micro(1_000_000),
            channel_life_ms: CHANNEL_LIFE_SECONDS * 1_000,
            body_max_bytes: REQUEST_BODY_MAX_BYTES,
            output_tokens_assumed: OUTPUT_TOKENS_ASSUMED,
            connect_timeout: Duration::from_secs(CONNECT_TIMEOUT_SECONDS),
            job_timeouts: ConsumerTimeouts::default(),
            attempts_max: ATTEMPTS_MAX,
            hedging: Some(HedgeBounds::default()),
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
        let amount = |setting: Option<AmountSetting>| setting.map(|setting| setting.0);
        let seconds = |setting, flag: Option<u64>, file: Option<u64>, default_ms: u64| {
            milliseconds(setting, flag.or(file), default_ms, TIMEOUT_LIMIT_SECONDS)
        };
        let connection = arguments.connection;
        let mesh_listen = arguments.mesh_listen.or(file.mesh_listen);
        let connect_ms = seconds(
            "connect_timeout_seconds",
            arguments.connect_timeout_seconds,
            file.connect_timeout_seconds,
            CONNECT_TIMEOUT_SECONDS * 1_000,
        )?;
        let job_timeouts = ConsumerTimeouts {
            answer_ms: seconds(
                "answer_timeout_seconds",
                arguments.answer_timeout_seconds,
                file.answer_timeout_seconds,
                default.job_timeouts.answer_ms,
            )?,
            first_chunk_ms: seconds(
                "first_chunk_timeout_seconds",
                arguments.first_chunk_timeout_seconds,
                file.first_chunk_timeout_seconds,
                default.job_timeouts.first_chunk_ms,
            )?,
            next_chunk_ms: seconds(
                "next_chunk_timeout_seconds",
                arguments.next_chunk_timeout_seconds,
                file.next_chunk_timeout_seconds,
                default.job_timeouts.next_chunk_ms,
            )?,
            last_word_ms: default.job_timeouts.last_word_ms,
        };
        let settings = Self {
            listen: connection.listen.or(file.listen).unwrap_or(default.listen),
            coordinator: connection
                .coordinator
                .or(file.coordinator)
                .unwrap_or(default.coordinator),
            mesh_port_fallback: mesh_listen.is_none(),
            mesh_listen: mesh_listen.unwrap_or(default.mesh_listen),
            mdns: arguments.mdns.or(file.mdns).unwrap_or(default.mdns),
            refuse_lying_coordinator: arguments
                .refuse_lying_coordinator
                .or(file.refuse_lying_coordinator)
                .unwrap_or(default.refuse_lying_coordinator),
            api_keys: connection.api_keys.or(file.api_keys).unwrap_or_default(),
            allowed_hosts: arguments.allowed_hosts.or(file.allowed_hosts).unwrap_or_default(),
            allowed_origins: arguments
                .allowed_origins
                .or(file.allowed_origins)
                .unwrap_or_default(),
            max_price_per_million: arguments
                .max_price_per_million
                .or(amount(file.max_price_per_million)),
            budget_alarm: arguments.budget_alarm.or(amount(file.budget_alarm)),
            budget_stop: arguments.budget_stop.or(amount(file.budget_stop)),
            otlp_endpoint: arguments.otlp_endpoint.or(file.otlp_endpoint),
            channel_limit: arguments
                .channel_limit
                .or(amount(file.channel_limit))
                .unwrap_or(default.channel_limit),
            channel_life_ms: milliseconds(
                "channel_life_seconds",
                arguments.channel_life_seconds.or(file.channel_life_seconds),
                default.channel_life_ms,
                CHANNEL_LIFE_LIMIT_SECONDS,
            )?,
            body_max_bytes: arguments
                .body_max_bytes
                .or(file.body_max_bytes)
                .unwrap_or(default.body_max_bytes),
            output_tokens_assumed: arguments
                .output_tokens_assumed
                .or(file.output_tokens_assumed)
                .unwrap_or(default.output_tokens_assumed),
            connect_timeout: Duration::from_millis(connect_ms),
            job_timeouts,
            attempts_max: arguments
                .attempts_max
                .or(file.attempts_max)
                .unwrap_or(default.attempts_max),
            hedging: default
                .hedging
                .filter(|_| arguments.hedging.or(file.hedging).unwrap_or(true)),
        };
        settings.check()?;
        Ok(settings)
    }

    /// Checks that nobody but this machine's users gets in without a key. `has_program_keys` tells whether there is
    /// one of `gristmill client keys`.
    ///
    /// # Errors
    /// [`SettingsError::OpenToOthers`].
    pub fn check_access(&self, has_program_keys: bool) -> Result<(), SettingsError> {
        if self.listen.ip().is_loopback() || has_program_keys || !self.api_keys.is_empty() {
            return Ok(());
        }
        Err(SettingsError::OpenToOthers(self.listen))
    }

    /// Checks what [`Settings::resolve`] checks, for settings that a program made itself.
    ///
    /// # Errors
    /// [`SettingsError`] naming the setting that makes no sense.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.channel_limit.is_zero() {
            return Err(SettingsError::ChannelLimit);
        }
        if self.mesh_listen.is_empty() {
            return Err(SettingsError::MeshListen);
        }
        for (setting, entries) in [
            ("allowed_hosts", self.allowed_hosts.len()),
            ("allowed_origins", self.allowed_origins.len()),
            ("api_keys", self.api_keys.len()),
        ] {
            if entries > NAMES_LIMIT {
                return Err(SettingsError::TooMany(setting));
            }
        }
        if let Some(host) = self.allowed_hosts.iter().find(|host| !is_host_name(host)) {
            return Err(SettingsError::Host(host.clone()));
        }
        if let Some(origin) = self.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            return Err(SettingsError::Origin(origin.clone()));
        }
        within("attempts_max", self.attempts_max.into(), 1, ATTEMPTS_LIMIT.into())?;
        within(
            "body_max_bytes",
            self.body_max_bytes as u64,
            1,
            BODY_LIMIT_BYTES as u64,
        )?;
        within(
            "output_tokens_assumed",
            self.output_tokens_assumed.into(),
            1,
            u32::MAX.into(),
        )
    }
}

fn milliseconds(
    setting: &'static str,
    seconds: Option<u64>,
    default_ms: u64,
    most: u64,
) -> Result<u64, SettingsError> {
    match seconds {
        None => Ok(default_ms),
        Some(seconds) => {
            within(setting, seconds, 1, most)?;
            Ok(seconds * 1_000)
        }
    }
}

const fn within(setting: &'static str, value: u64, least: u64, most: u64) -> Result<(), SettingsError> {
    if value < least || value > most {
        return Err(SettingsError::OutOfBounds {
            setting,
            value,
            least,
            most,
        });
    }
    Ok(())
}

/// Whether a text is the host part of a `Host` header (RFC 9110 section 7.2): a name, an IPv4 address, or an IPv6
/// address in brackets.
fn is_host_name(text: &str) -> bool {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !text.is_empty() && text.bytes().all(name),
    }
}

/// Whether a text is an origin as browsers write it (RFC 6454 section 6.1): scheme, host, and no path.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else {
        return false;
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    !scheme.is_empty()
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && is_host_name(host)
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

impl fmt::Display for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "endpoint {}, coordinator {}",
            self.listen, self.coordinator
        )
    }
}

#[cfg(test)]
mod tests;
