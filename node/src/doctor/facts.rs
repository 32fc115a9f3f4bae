//! What the doctor found out, before it judges. Plain data: a test writes any machine it wants.

use std::net::SocketAddr;
use std::path::PathBuf;

use gristmill_benchmark::inventory::Inventory;

use crate::settings::HardwareSettings;

/// Everything.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What depends on the settings, or what is wrong with them.
    pub settings: Result<SettingsFacts, String>,
    /// The folder with the node's state.
    pub data_folder: DataFolder,
    /// The account's key.
    pub key: Key,
    /// The devices; `None` where the drivers did not answer in time.
    pub inventory: Option<Inventory>,
}

/// The folder with the node's state.
#[derive(Clone, Debug)]
pub struct DataFolder {
    /// Where it is.
    pub path: PathBuf,
    /// What can be done with it.
    pub access: Access,
    /// Whether a node or client uses it right now.
    pub in_use: bool,
    /// Bytes that this user could still write there.
    pub free_bytes: Option<u64>,
}

/// What can be done with a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It is there and can be written.
    Writable,
    /// It is not there, and can be made.
    CanBeMade,
    /// It can be neither written nor made; what the system says.
    No(String),
    /// The system does not tell.
    Unknown,
}

/// The account's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// There is none yet.
    None,
    /// The account.
    Account(String),
    /// What is wrong, and what to do.
    Wrong(String),
}

/// What depends on the settings.
#[derive(Clone, Debug)]
pub struct SettingsFacts {
    /// Where the coordinator should be.
    pub coordinator_url: String,
    /// What it says, or why it can't be asked.
    pub coordinator: Result<CoordinatorFacts, String>,
    /// The servers that the owner named, and those that were found besides.
    pub upstreams: Vec<UpstreamFacts>,
    /// Whether models are configured that the node runs itself.
    pub has_built_in_models: bool,
    /// Where job streams are to be accepted.
    pub mesh_ports: Vec<Port>,
    /// Whether the owner chose them; otherwise free ones are taken where these are not.
    pub mesh_ports_chosen: bool,
    /// Whether the owner named addresses at which others reach the node.
    pub has_public_address: bool,
    /// The port of the local API, unless it is off, and whether the owner chose it.
    pub local_api: Option<(Port, bool)>,
    /// Whether this build computes on NVIDIA GPUs.
    pub computes_on_cuda: bool,
    /// Whether hardware is to be proved, and what that may take.
    pub hardware: HardwareSettings,
}

/// What a coordinator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorFacts {
    /// The name of the network.
    pub network: String,
    /// The version of its program.
    pub version: String,
    /// Its clock against this machine's; `None` where its answer has no date.
    pub clock: Option<ClockDifference>,
    /// Why its account or key is not the expected one.
    pub mistrust: Option<String>,
}

/// How far this machine's clock is behind another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockDifference {
    /// Milliseconds that this clock is behind; negative where it is ahead.
    pub behind_ms: i64,
    /// How far that may be wrong: half the round trip, and what dates are rounded to.
    pub uncertain_ms: u64,
}

/// A server whose models are sold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamFacts {
    /// Where.
    pub url: String,
    /// Whether the owner named it.
    pub named: bool,
    /// How many models it has, or why it can't be asked.
    pub models: Result<usize, String>,
}

/// A port that the node wants to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// As the settings write it.
    pub address: String,
    /// Where that is; `None` where it has no plain socket.
    pub socket: Option<SocketAddr>,
    /// Whether it could be had.
    pub outcome: PortOutcome,
}

/// Whether a port could be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortOutcome {
    /// It was free.
    Free,
    /// Somebody listens there.
    InUse,
    /// What the system says.
    Refused(String),
    /// It was not tried.
    NotTried,
}
