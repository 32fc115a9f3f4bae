//! Why a node did not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use gristmill_ledger::journal::JournalError;
use gristmill_transport::key_file::KeyFileError;
use gristmill_transport::{CoordinatorUrlError, KnownKeysError, MeshError};
use thiserror::Error;

use crate::engine::model_files::LoadError;
use crate::engine::upstream::UpstreamError;
use crate::settings::SettingsError;

/// Why a node did not start. Nothing is left running.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting makes no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The coordinator's address is none.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorUrlError),
    /// The keys of the coordinator that are kept can't be used.
    #[error(transparent)]
    KnownKeys(#[from] KnownKeysError),
    /// An upstream can't be used.
    #[error("an upstream can't be used: {0}")]
    Upstream(#[from] UpstreamError),
    /// Another node or client uses the data directory.
    #[error(
        "{} is in use by another node or client, and its key can't be two peers at once; stop that one, or give \
         this one a folder of its own with --data-dir",
        .0.display()
    )]
    DataDirectoryInUse(PathBuf),
    /// The data directory can't be used.
    #[error("cannot use {}: {source}", path.display())]
    DataDirectory {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key can't be read or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The vouchers or receipts can't be read.
    #[error("the node's vouchers and receipts can't be opened: {0}")]
    Journal(#[from] JournalError),
    /// A model can't be loaded.
    #[error("the model '{model}' can't be loaded: {source}")]
    Model {
        /// What the owner asked for.
        model: String,
        /// Why.
        source: Box<LoadError>,
    },
    /// The mesh peer did not start.
    #[error("the mesh peer did not start: {0}; its addresses are mesh_listen in the [node] section")]
    Mesh(#[from] MeshError),
    /// The local API can't listen.
    #[error(
        "the local API can't listen on {address}: {source}; choose another address with --local-api, or 'none' for \
         no local API"
    )]
    LocalApi {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A part of the start panicked.
    #[error("starting failed: {0}")]
    Panic(String),
}
