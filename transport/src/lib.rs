//! How Gristmill messages travel: the libp2p swarm that every role joins, job streams between a consumer and a
//! provider, the coordinator's HTTP client, watching the coordinator's log, and the file that holds an installation's key.
//!
//! The roles (`node`, `client`, `coordinator`) call this crate; what is said stands in `gristmill-protocol`.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation
    )
)]

pub mod coordinator_client;
pub mod job_stream;
pub mod key_file;
pub mod mesh;
pub mod witness;

mod peer_identity;
pub mod private_file;

pub use coordinator_client::{
    CoordinatorCallError, CoordinatorClient, CoordinatorUrlError, KnownKeys, KnownKeysError,
};
pub use job_stream::{ConsumerJobStream, ProviderJobStream, ReceiveError, SendError};
pub use mesh::{Clock, IncomingJobs, Mesh, MeshConfig, MeshError, OpenJobError, PublishError, Published};
