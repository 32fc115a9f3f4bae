//! Why settings make no sense.

use std::net::SocketAddr;

use gristmill_protocol::credits::Credits;
use thiserror::Error;

use super::CREDIT_WINDOW_MIN;

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// Not a multiaddress.
    #[error("{setting}: '{text}' is no multiaddress; they look like /ip4/127.0.0.1/udp/7410/quic-v1")]
    Multiaddress {
        /// Which setting.
        setting: &'static str,
        /// What it says.
        text: String,
    },
    /// Not an upstream.
    #[error(
        "upstreams: '{text}' is neither 'auto' nor 'none' nor the address of a server; they look like \
         http://127.0.0.1:11434"
    )]
    Upstream {
        /// What it says.
        text: String,
    },
    /// `none` beside other upstreams.
    #[error("upstreams: 'none' stands beside others; leave one of them out")]
    NoneBesideOthers,
    /// Not an address of the local API.
    #[error("local_api: '{text}' is neither 'none' nor an address; they look like 127.0.0.1:7430")]
    LocalApi {
        /// What it says.
        text: String,
    },
    /// The local API would be open to other machines.
    #[error(
        "local_api: {0} can be reached from other machines; the local API has no keys, so choose a loopback \
         address such as 127.0.0.1:7430"
    )]
    LocalApiNotLoopback(SocketAddr),
    /// A number is out of bounds.
    #[error("{setting} is {actual}; it must be {least} to {most}")]
    OutOfBounds {
        /// Which setting.
        setting: &'static str,
        /// What it says.
        actual: u64,
        /// The least it may be.
        least: u64,
        /// The most it may be.
        most: u64,
    },
    /// The credit window is too small to serve anybody.
    #[error(
        "credit_window is {0} credits; it must be at least {CREDIT_WINDOW_MIN}, or no prompt can be read"
    )]
    CreditWindow(Credits),
    /// A text is too long or has control characters.
    #[error("{setting}: '{text}' must have at most {most_bytes} bytes and no control characters")]
    Text {
        /// Which setting.
        setting: &'static str,
        /// What it says.
        text: String,
        /// Most bytes.
        most_bytes: usize,
    },
    /// More items than a listing holds.
    #[error("{setting} has {actual} items; at most {most} fit in a listing")]
    TooMany {
        /// Which setting.
        setting: &'static str,
        /// How many.
        actual: usize,
        /// How many at most.
        most: usize,
    },
    /// No address to listen on.
    #[error("mesh_listen is empty; name at least one multiaddress such as /ip4/127.0.0.1/udp/7410/quic-v1")]
    MeshListen,
}
