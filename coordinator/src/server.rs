//! A coordinator as a whole: ledger, mesh peer, HTTP interface and what runs beside them, started together and ended
//! in phases.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gristmill_ledger::Ledger;
use gristmill_ledger::store::postgres::ConnectError;
use gristmill_ledger::store::{OpenError, ReadError, ShutdownError};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_service::listener::BoundedListener;
use gristmill_transport::key_file::KeyFileError;
use gristmill_transport::mesh::{Mesh, MeshConfig, MeshError, Multiaddr};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::announcer;
use crate::clock::Clock;
use crate::downtime::{self, DowntimeError, Heartbeat};
use crate::hardware::Hardware;
use crate::http;
use crate::http::hardware_routes::Peer;
use crate::log_keeper::{self, LogKeeperError};
use crate::rotation::RotationError;
use crate::service::Service;
use crate::settings::{Settings, SettingsError, StoreSetting};
use crate::signers::{Signers, SignersError};
use crate::sweeper;

mod opening;

pub use opening::open_ledger;

/// The folder of the coordinator within the data directory.
pub const DIRECTORY_NAME: &str = "coordinator";
/// The longest that calls in progress are waited for at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that anything else is waited for at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Most connections to the HTTP interface at once.
const CONNECTIONS_MAX: usize = 2_048;
/// The longest silence on one; longer than any call may take.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Where a coordinator keeps its key.
#[must_use]
pub fn signing_key_path(data_directory: &Path) -> PathBuf {
    data_directory.join(DIRECTORY_NAME).join("signing.key")
}

/// Where a coordinator keeps its ledger.
#[must_use]
pub fn ledger_directory(data_directory: &Path) -> PathBuf {
    data_directory.join(DIRECTORY_NAME).join("ledger")
}

/// Where a coordinator keeps the certificates of hardware.
#[must_use]
pub fn hardware_directory(data_directory: &Path) -> PathBuf {
    data_directory.join(DIRECTORY_NAME).join("hardware")
}

/// Why a coordinator did not start. Nothing is left running.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting makes no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An address that is none.
    #[error(
        "{setting} contains '{text}', which is no multiaddress ({reason}); write for example /ip4/127.0.0.1/udp/7410/quic-v1"
    )]
    Address {
        /// Which setting.
        setting: &'static str,
        /// What it says.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The signing key can't be read or made.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The ledger can't be opened.
    #[error("the ledger in {} did not open: {source}", directory.display())]
    Ledger {
        /// Where it is.
        directory: PathBuf,
        /// Why.
        source: Box<OpenError>,
    },
    /// The ledger's database can't be used.
    #[error(transparent)]
    Database(#[from] Box<ConnectError>),
    /// The ledger is signed for, and the key is not here.
    #[error(
        "this ledger is signed by {signer}, but there is no key at {path}: copy the signing.key of the coordinator \
         that keeps this ledger, with mode 0600, or restore it from a backup made with --include-key",
        path = path.display()
    )]
    NoKey {
        /// Where the key should be.
        path: PathBuf,
        /// Who signs for the ledger.
        signer: String,
    },
    /// The key here does not sign for this ledger.
    #[error(transparent)]
    Signers(#[from] SignersError),
    /// A hand-over of the signing key can't be finished.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// The ledger's Merkle log can't be kept.
    #[error(transparent)]
    Log(#[from] LogKeeperError),
    /// The ledger can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The record of the start could not be written.
    #[error("the ledger does not take the record of this start: {0}")]
    Record(String),
    /// Somebody listens there already.
    #[error(
        "{address} is in use, maybe by another coordinator; stop that program, or choose another address with \
         --http-listen or http_listen in the [coordinator] section"
    )]
    HttpAddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The HTTP interface can't listen.
    #[error("the HTTP interface can't listen on {address}: {source}")]
    Http {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificates of hardware can't be read.
    #[error("the certificates of hardware in {} can't be read: {source}", directory.display())]
    Hardware {
        /// Where they are.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The mesh peer did not start.
    #[error("the mesh peer did not start: {0}; its addresses are mesh_listen in the [coordinator] section")]
    Mesh(#[from] MeshError),
}

/// Why a running coordinator ended other than by being told to.
#[derive(Debug, Error)]
pub enum StopError {
    /// A part of it failed; the rest was ended in order.
    #[error("{part} ended unexpectedly: {reason}")]
    Failed {
        /// Which part.
        part: &'static str,
        /// Why.
        reason: String,
    },
    /// The ledger did not end as it should. What was acknowledged is safe all the same.
    #[error(transparent)]
    Ledger(#[from] ShutdownError),
}

/// The coordinator's program.
#[derive(Clone, Copy, Debug)]
pub struct Coordinator;

impl Coordinator {
    /// Starts a coordinator whose state is in `data_directory`. It runs until `shutdown` is cancelled or the returned
    /// value is told to end or dropped.
    ///
    /// # Errors
    /// [`StartError`] saying what is in the way and what to do.
    pub async fn start(
        settings: Settings,
        data_directory: &Path,
        shutdown: CancellationToken,
    ) -> Result<RunningCoordinator, StartError> {
        Self::start_with_clock(settings, data_directory, shutdown, Clock::system()).await
    }

    /// As [`Coordinator::start`], with a clock of one's own.
    ///
    /// # Errors
    /// [`StartError`] saying what is in the way and what to do.
    pub async fn start_with_clock(
        settings: Settings,
        data_directory: &Path,
        shutdown: CancellationToken,
        clock: Clock,
    ) -> Result<RunningCoordinator, StartError> {
        settings.check()?;
        let mesh_config = mesh_config(&settings)?;
        // The ledger first: its lock keeps a second coordinator from touching anything.
        let ledger = open_ledger(&settings.store, data_directory).await?;
        let opened = opening::open_key(&ledger, data_directory).await;
        let started = match opened {
            Ok((keypair, signers)) => {
                let parts = Parts {
                    keypair,
                    signers,
                    settings,
                    mesh_config,
                    ledger: ledger.clone(),
                    clock,
                };
                parts.start(data_directory, shutdown.child_token()).await
            }
            Err(error) => Err(error),
        };
        if started.is_err()
            && let Err(error) = ledger.shutdown().await
        {
            tracing::warn!(%error, "the ledger did not close in order");
        }
        started
    }
}

/// What is there once the ledger is open.
struct Parts {
    keypair: Keypair,
    signers: Signers,
    settings: Settings,
    mesh_config: MeshConfig,
    ledger: Ledger,
    clock: Clock,
}

impl Parts {
    async fn start(
        self,
        data_directory: &Path,
        stopping: CancellationToken,
    ) -> Result<RunningCoordinator, StartError> {
        let Self {
            keypair,
            signers,
            settings,
            mesh_config,
            ledger,
            clock,
        } = self;
        let ledger_place = match &settings.store {
            StoreSetting::Embedded => ledger_directory(data_directory).display().to_string(),
            StoreSetting::Postgres(url) => url.to_string(),
        };
        let is_shared = settings.store != StoreSetting::Embedded;
        let address = settings.http_listen;
        let listener = listen(address).await?;
        let http_address = listener
            .local_addr()
            .map_err(|source| StartError::Http { address, source })?;
        // A coordinator takes no jobs: dropping the incoming ones refuses them.
        let (mesh, _) = Mesh::start(&keypair, mesh_config, clock.for_mesh()).await?;
        let heartbeat = Heartbeat::new(&data_directory.join(DIRECTORY_NAME), clock.clone());
        let log = log_keeper::open(&ledger, &keypair, &signers).await?;
        let announcer =
            announcer::start(&mesh, &log, &signers, stopping.clone()).map_err(LogKeeperError::from)?;
        let (hardware, challenger) = match settings.hardware_challenges {
            true => {
                let directory = hardware_directory(data_directory);
                let started = Hardware::start(&directory, keypair, clock.clone(), stopping.clone()).await;
                let (hardware, task) =
                    started.map_err(|source| StartError::Hardware { directory, source })?;
                (Some(hardware), task)
            }
            false => (None, tokio::spawn(stopping.clone().cancelled_owned())),
        };
        let service = Service::new(
            signers,
            settings,
            ledger,
            log,
            mesh.clone(),
            clock.clone(),
            stopping.clone(),
        );
        let service = Arc::new(service.with_hardware(hardware));
        downtime::record_start(&service, &heartbeat, &clock)
            .await
            .map_err(|error: DowntimeError| StartError::Record(error.to_string()))?;
        let running = RunningCoordinator {
            account: service.operator(),
            http_address,
            ledger_directory: ledger_directory(data_directory),
            ledger_place,
            http: spawn_http(listener, &service, stopping.clone()),
            sweeper: tokio::spawn(sweeper::run(service.clone(), stopping.clone())),
            announcer,
            challenger,
            log_keeper: tokio::spawn(log_keeper::run(service.clone(), stopping.clone())),
            heartbeat: match is_shared {
                true => tokio::spawn(downtime::run_shared(service.clone(), stopping.clone())),
                false => tokio::spawn(heartbeat.run(stopping.clone())),
            },
            mesh,
            service,
            stopping: stopping.clone(),
            _stop_when_dropped: stopping.drop_guard(),
        };
        tracing::info!(account = %running.account, %http_address, "coordinator started");
        Ok(running)
    }
}

/// A coordinator that runs. Dropping it ends it without waiting; see [`RunningCoordinator::shutdown`].
#[derive(Debug)]
pub struct RunningCoordinator {
    account: AccountId,
    http_address: SocketAddr,
    ledger_directory: PathBuf,
    ledger_place: String,
    http: JoinHandle<io::Result<()>>,
    sweeper: JoinHandle<()>,
    log_keeper: JoinHandle<()>,
    announcer: JoinHandle<()>,
    challenger: JoinHandle<()>,
    heartbeat: JoinHandle<io::Result<()>>,
    mesh: Mesh,
    service: Arc<Service>,
    stopping: CancellationToken,
    _stop_when_dropped: DropGuard,
}

impl RunningCoordinator {
    /// The account that signs tickets and receipts, and whose key is the operator's.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// Where the HTTP interface listens, with the port that was chosen where none was given.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// The URL of the HTTP interface.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", self.http_address)
    }

    /// The multiaddresses by which others join the mesh, each with its `/p2p` part.
    #[must_use]
    pub fn bootstrap_addresses(&self) -> Vec<String> {
        self.service.bootstrap_addresses()
    }

    /// The folder of a ledger that is kept in one.
    #[must_use]
    pub fn ledger_directory(&self) -> &Path {
        &self.ledger_directory
    }

    /// Where the ledger is, for people: a folder, or a database without its password.
    #[must_use]
    pub fn ledger_place(&self) -> &str {
        &self.ledger_place
    }

    /// Waits until the coordinator is told to end, or a part of it fails; then ends it in order.
    ///
    /// # Errors
    /// [`StopError`] where a part failed, or did not end in order.
    pub async fn wait(mut self) -> Result<(), StopError> {
        let failed = tokio::select! {
            // Told to end, the parts end too.
            biased;
            () = self.stopping.cancelled() => None,
            ended = &mut self.http => Some(failure("the HTTP interface", flatten(ended))),
            ended = &mut self.sweeper => Some(failure("the sweeper of expired channels", ended.map_err(io::Error::other))),
            ended = &mut self.challenger => Some(failure("the challenger of hardware", ended.map_err(io::Error::other))),
            ended = &mut self.log_keeper => Some(failure("the keeper of the Merkle log", ended.map_err(io::Error::other))),
            ended = &mut self.heartbeat => Some(failure("the heartbeat", flatten(ended))),
        };
        let stopped = self.stop().await;
        failed.map_or(stopped, Err)
    }

    /// Ends the coordinator: takes no more calls, finishes those in progress, syncs the ledger.
    ///
    /// # Errors
    /// [`StopError`] where a part failed, or did not end in order.
    pub async fn shutdown(self) -> Result<(), StopError> {
        self.stopping.cancel();
        self.wait().await
    }

    /// Intake, drain, flush, each with a bound.
    async fn stop(mut self) -> Result<(), StopError> {
        self.stopping.cancel();
        tracing::info!("coordinator stopping: no more calls are taken");
        end("the HTTP interface", &mut self.http, DRAIN_TIMEOUT).await;
        end("the challenger of hardware", &mut self.challenger, STOP_TIMEOUT).await;
        end("the sweeper", &mut self.sweeper, STOP_TIMEOUT).await;
        end("the heartbeat", &mut self.heartbeat, STOP_TIMEOUT).await;
        end("the announcer of checkpoints", &mut self.announcer, STOP_TIMEOUT).await;
        end("the keeper of the Merkle log", &mut self.log_keeper, STOP_TIMEOUT).await;
        if tokio::time::timeout(STOP_TIMEOUT, log_keeper::finish(&self.service))
            .await
            .is_err()
        {
            tracing::warn!("not all records are in the Merkle log yet; the next start goes on with it");
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.mesh.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("the mesh peer did not end in time");
        }
        self.service.ledger.shutdown().await?;
        tracing::info!("coordinator stopped");
        Ok(())
    }
}

fn failure(part: &'static str, ended: io::Result<()>) -> StopError {
    let reason = ended
        .err()
        .map_or_else(|| "it returned".to_owned(), |error| error.to_string());
    StopError::Failed { part, reason }
}

fn flatten(ended: Result<io::Result<()>, tokio::task::JoinError>) -> io::Result<()> {
    ended.map_err(io::Error::other)?
}

/// Waits for a task for a bounded time, then ends it.
async fn end<T>(part: &'static str, task: &mut JoinHandle<T>, timeout: Duration) {
    if task.is_finished() {
        return;
    }
    if tokio::time::timeout(timeout, &mut *task).await.is_err() {
        tracing::warn!(part, "did not end in time and was stopped");
        task.abort();
    }
}

fn mesh_config(settings: &Settings) -> Result<MeshConfig, StartError> {
    Ok(MeshConfig {
        listen: multiaddresses("mesh_listen", &settings.mesh_listen)?,
        external: multiaddresses("public_addresses", &settings.public_addresses)?,
        mdns: settings.mdns,
        ..MeshConfig::default()
    })
}

fn multiaddresses(setting: &'static str, texts: &[String]) -> Result<Vec<Multiaddr>, StartError> {
    let parse = |text: &String| {
        let wrong = |reason: String| StartError::Address {
            setting,
            text: text.clone(),
            reason,
        };
        text.parse::<Multiaddr>()
            .map_err(|error| wrong(error.to_string()))
    };
    texts.iter().map(parse).collect()
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::HttpAddressInUse { address },
            _ => StartError::Http { address, source },
        })
}

fn spawn_http(
    listener: TcpListener,
    service: &Arc<Service>,
    stopping: CancellationToken,
) -> JoinHandle<io::Result<()>> {
    let router = http::router(Arc::clone(service));
    let serve = axum::serve(
        BoundedListener::new(listener, CONNECTIONS_MAX, SILENCE_MAX),
        router.into_make_service_with_connect_info::<Peer>(),
    )
    .with_graceful_shutdown(stopping.cancelled_owned());
    tokio::spawn(async move { serve.await })
}
