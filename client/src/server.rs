//! Starts a client and ends it in order.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gristmill_protocol::coordinator_api::AccountView;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_service::clock::unix_ms;
use gristmill_service::installation::{IdentityLock, IdentityLockError, identity_path};
use gristmill_service::listener::BoundedListener;
use gristmill_telemetry::otlp::OtlpEndpointError;
use gristmill_transport::key_file::{self, KeyFileError};
use gristmill_transport::mesh::Multiaddr;
use gristmill_transport::witness::{Witness, WitnessConfig, WitnessParts};
use gristmill_transport::{
    Clock, CoordinatorCallError, CoordinatorClient, CoordinatorUrlError, KnownKeysError, Mesh, MeshConfig,
    MeshError,
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::coordinator_link::{CoordinatorLink, LinkState};
use crate::core::records::ProviderRecords;
pub use crate::keys::KeysFileError;
use crate::market::Market;
use crate::proxy::Proxy;
use crate::settings::{Settings, SettingsError};
pub use crate::usage::UsageFileError;
use crate::wallet::Wallet;
pub use crate::wallet::file::WalletFileError;

mod books;

use books::{BookTasks, Books};

/// The wallet.
const WALLET_FILE: &str = "client/wallet.json";
/// How long a start waits for the coordinator's first answer.
const JOIN_TIMEOUT: Duration = Duration::from_secs(3);
/// How long requests may go on when the client is told to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long anything else may take to end: longer than a provider's last word after a cancel is waited for.
const STOP_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a connection to a provider is kept for the next request.
const CONNECTION_KEPT: Duration = Duration::from_secs(10 * 60);
/// Most connections of programs at once.
const CONNECTIONS_MAX: usize = 1_024;
/// The longest that nothing moves on one: longer than a provider may be silent and the pings of a stream are apart.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

/// Why a client could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting makes no sense.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The data directory can't be used.
    #[error("the data directory {directory} can't be used: {source}; choose another one with --data-dir", directory = directory.display())]
    DataDirectory {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another client or node uses the data directory.
    #[error(
        "another client or node is running with the data directory {directory}, and its key can't be two peers at \
         once; stop it, use the endpoint that it serves, or choose another one with --data-dir",
        directory = directory.display()
    )]
    AlreadyRunning {
        /// The directory.
        directory: PathBuf,
    },
    /// There is no key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// Another program listens there.
    #[error(
        "{address} is in use by another program; stop it, or choose another address with --listen (port 0 takes a \
         free one)"
    )]
    AddressInUse {
        /// The address.
        address: SocketAddr,
    },
    /// The system refuses to listen there.
    #[error("the endpoint can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The coordinator's address is none.
    #[error(transparent)]
    Coordinator(#[from] CoordinatorUrlError),
    /// The keys of the coordinator that are kept can't be used.
    #[error(transparent)]
    KnownKeys(#[from] KnownKeysError),
    /// The wallet can't be used.
    #[error(transparent)]
    Wallet(#[from] WalletFileError),
    /// The keys of programs can't be used.
    #[error(transparent)]
    Keys(#[from] KeysFileError),
    /// What was spent can't be read.
    #[error(transparent)]
    Usage(#[from] UsageFileError),
    /// The address of the collector of traces is none.
    #[error(transparent)]
    Otlp(#[from] OtlpEndpointError),
    /// An address of the mesh is none.
    #[error("mesh_listen has '{text}', which is no multiaddress: {reason}")]
    MeshAddress {
        /// What is there.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The mesh can't be joined.
    #[error(transparent)]
    Mesh(#[from] MeshError),
}

/// Why a client ended otherwise than it was told to.
#[derive(Debug, Error)]
pub enum StopError {
    /// The endpoint failed.
    #[error("the endpoint failed: {0}")]
    Endpoint(String),
    /// What was promised could not be written down.
    #[error(transparent)]
    Wallet(#[from] WalletFileError),
}

/// Starts clients.
#[derive(Debug)]
pub struct Client;

impl Client {
    /// Starts a client: takes the data directory, listens, joins the mesh, and makes its account known to the
    /// coordinator. It starts also where the coordinator is away. Cancelling `shutdown` ends it.
    ///
    /// # Errors
    /// [`StartError`] saying what is in the way.
    pub async fn start(
        settings: Settings,
        data_dir: &Path,
        shutdown: CancellationToken,
    ) -> Result<RunningClient, StartError> {
        settings.check()?;
        let mesh_listen = multiaddresses(&settings.mesh_listen)?;
        let (lock, keypair) = take_data_directory(data_dir.to_owned()).await?;
        let clock: Clock = Arc::new(unix_ms);
        let coordinator =
            CoordinatorClient::new(&settings.coordinator, None, keypair.clone(), clock.clone())?
                .with_known_keys_in(data_dir)?;
        let coordinator = Arc::new(coordinator);
        let wallet = Wallet::open(
            data_dir.join(WALLET_FILE),
            keypair.clone(),
            coordinator.clone(),
            clock.clone(),
            settings.channel_limit,
            settings.channel_life_ms,
        )?;
        let wallet = Arc::new(wallet);
        let Books {
            keys,
            usage,
            tasks: books,
        } = books::open(&settings, data_dir, clock.clone()).await?;
        let listener = listen(settings.listen).await?;
        let http_address = listener.local_addr().map_err(|source| StartError::Listen {
            address: settings.listen,
            source,
        })?;
        let mesh = join_mesh(&keypair, &settings, mesh_listen, clock.clone()).await?;
        let watching = WitnessConfig {
            // Cosigning is for those who are there all the time.
            cosign: false,
            ..WitnessConfig::new(data_dir.to_owned())
        };
        // A client keeps no receipts, so there is none to prove.
        let WitnessParts { witness, driver, .. } = WitnessParts::new(
            coordinator.clone(),
            mesh.clone(),
            keypair.clone(),
            clock.clone(),
            watching,
        );
        let link = Arc::new(CoordinatorLink::new(
            coordinator.clone(),
            mesh.clone(),
            wallet.clone(),
            witness,
            settings.refuse_lying_coordinator,
        ));
        let (stopping, tasks) = (shutdown.child_token(), TaskTracker::new());
        let market = Arc::new(Market {
            account: keypair.account(),
            settings,
            mesh: mesh.clone(),
            wallet: wallet.clone(),
            link: link.clone(),
            keys,
            usage,
            clock,
            records: Mutex::new(ProviderRecords::default()),
            random: Mutex::new(ChaCha8Rng::from_seed(rand::random())),
            tasks,
            stopping: CancellationToken::new(),
            places: Market::places(),
        });
        let client = RunningClient {
            account: market.account,
            http_address,
            http: serve(
                listener,
                Proxy::new(market.clone(), http_address),
                stopping.clone(),
            ),
            link_task: tokio::spawn(link.clone().run(stopping.clone())),
            witness_task: tokio::spawn(driver.run(stopping.clone().cancelled_owned())),
            wallet_task: tokio::spawn(wallet.keep_saved(stopping.clone())),
            books,
            market,
            coordinator,
            stopping: stopping.clone(),
            _stop_when_dropped: stopping.drop_guard(),
            _lock: lock,
        };
        if timeout(JOIN_TIMEOUT, link.first_attempt()).await.is_err() {
            tracing::warn!("the coordinator has not answered yet");
        }
        tracing::info!(account = %client.account, %http_address, "client started");
        Ok(client)
    }
}

/// A client that runs. Dropping it ends it without waiting; see [`RunningClient::shutdown`].
pub struct RunningClient {
    account: AccountId,
    http_address: SocketAddr,
    http: JoinHandle<io::Result<()>>,
    link_task: JoinHandle<()>,
    witness_task: JoinHandle<()>,
    wallet_task: JoinHandle<()>,
    books: BookTasks,
    market: Arc<Market>,
    coordinator: Arc<CoordinatorClient>,
    stopping: CancellationToken,
    _stop_when_dropped: DropGuard,
    _lock: IdentityLock,
}

impl std::fmt::Debug for RunningClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "RunningClient({} at {})",
            self.account, self.http_address
        )
    }
}

impl RunningClient {
    /// The account that pays.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// Where the endpoint listens, with the port that was chosen where none was given.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// What to give an OpenAI SDK as its base URL.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.http_address)
    }

    /// The mesh peer.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.market.mesh
    }

    /// Whether the coordinator answered when it was last asked.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.market.link.state() == LinkState::Joined
    }

    /// What the client's witness knows of the coordinator's log.
    #[must_use]
    pub fn witness(&self) -> &Witness {
        self.market.link.witness()
    }

    /// The account's balances, as the coordinator has them.
    ///
    /// # Errors
    /// [`CoordinatorCallError`] where it can't be asked.
    pub async fn balance(&self) -> Result<AccountView, CoordinatorCallError> {
        self.coordinator.account_view().await
    }

    /// Waits until the client is told to end, or a part of it fails; then ends it in order.
    ///
    /// # Errors
    /// [`StopError`] where a part failed, or did not end in order.
    pub async fn wait(mut self) -> Result<(), StopError> {
        let failed = tokio::select! {
            // Told to end, the endpoint ends too.
            biased;
            () = self.stopping.cancelled() => None,
            ended = &mut self.http => Some(match ended {
                Ok(Ok(())) => "it ended by itself".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            }),
        };
        let stopped = self.stop().await;
        match failed {
            Some(reason) => Err(StopError::Endpoint(reason)),
            None => stopped,
        }
    }

    /// Ends the client: takes no more requests, finishes those that run, pays for what was received, leaves the mesh.
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
        tracing::info!("client stopping: no more requests are taken");
        let tasks = &self.market.tasks;
        tasks.close();
        let drained = timeout(DRAIN_TIMEOUT, tasks.wait()).await;
        // What still runs is cut off with an error that says so, and pays for what it has received.
        self.market.stopping.cancel();
        if drained.is_err() && timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        end("the endpoint", &mut self.http).await;
        end("the link to the coordinator", &mut self.link_task).await;
        end("the witness of the coordinator's log", &mut self.witness_task).await;
        end("the wallet's writer", &mut self.wallet_task).await;
        self.books.end().await;
        let saved = self.market.wallet.save().await;
        if timeout(STOP_TIMEOUT, self.market.mesh.shutdown()).await.is_err() {
            tracing::warn!("the mesh peer did not end in time");
        }
        tracing::info!("client stopped");
        Ok(saved?)
    }
}

/// Waits for a task for a bounded time, then ends it.
async fn end<T>(part: &'static str, task: &mut JoinHandle<T>) {
    if task.is_finished() {
        return;
    }
    if timeout(STOP_TIMEOUT, &mut *task).await.is_err() {
        tracing::warn!(part, "did not end in time and was stopped");
        task.abort();
    }
}

fn serve(listener: TcpListener, proxy: Proxy, stopping: CancellationToken) -> JoinHandle<io::Result<()>> {
    let routes = proxy.routes();
    tokio::spawn(async move {
        axum::serve(
            BoundedListener::new(listener, CONNECTIONS_MAX, SILENCE_MAX),
            routes,
        )
        .with_graceful_shutdown(stopping.cancelled_owned())
        .await
    })
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::AddressInUse { address },
            _ => StartError::Listen { address, source },
        })
}

fn multiaddresses(texts: &[String]) -> Result<Vec<Multiaddr>, StartError> {
    let parse = |text: &String| {
        text.parse::<Multiaddr>()
            .map_err(|error| StartError::MeshAddress {
                text: text.clone(),
                reason: error.to_string(),
            })
    };
    texts.iter().map(parse).collect()
}

/// Joins the mesh; on a free port where the usual one is taken, as by a node of the same machine.
async fn join_mesh(
    keypair: &Keypair,
    settings: &Settings,
    listen: Vec<Multiaddr>,
    clock: Clock,
) -> Result<Mesh, StartError> {
    let config = MeshConfig {
        listen,
        mdns: settings.mdns,
        dial_timeout: settings.connect_timeout,
        open_timeout: settings.connect_timeout,
        idle_timeout: CONNECTION_KEPT,
        ..MeshConfig::default()
    };
    let usual = Mesh::start(keypair, config.clone(), clock.clone()).await;
    let started = match usual {
        Err(MeshError::AddressInUse { address }) if settings.mesh_port_fallback => {
            tracing::debug!(%address, "the mesh port is taken; a free one is used");
            let free = MeshConfig {
                listen: MeshConfig::default().listen,
                ..config
            };
            Mesh::start(keypair, free, clock).await
        }
        usual => usual,
    };
    // A client takes no jobs: dropping the incoming ones refuses them.
    let (mesh, _) = started?;
    Ok(mesh)
}

/// The lock of the data directory and the key in it.
async fn take_data_directory(directory: PathBuf) -> Result<(IdentityLock, Keypair), StartError> {
    let take = move || {
        // The key file's folder is made with it, for the owner's eyes only.
        let keypair = key_file::load_or_create(&identity_path(&directory))?;
        Ok((lock(&directory)?, keypair))
    };
    match tokio::task::spawn_blocking(take).await {
        Ok(taken) => taken,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn lock(directory: &Path) -> Result<IdentityLock, StartError> {
    let directory = directory.to_owned();
    IdentityLock::take(&directory).map_err(|error| match error {
        IdentityLockError::InUse => StartError::AlreadyRunning { directory },
        IdentityLockError::Failed { source, .. } => StartError::DataDirectory { directory, source },
    })
}
