//! The mesh: one libp2p swarm for every role, on one task, behind a handle.
//!
//! It hears listings by gossip and keeps them on a [`Board`], hears checkpoints of logs that are watched, finds peers
//! (bootstrap peers, Kademlia, mDNS on a LAN), and opens and accepts job streams. Whatever comes by gossip is verified
//! before it is forwarded.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use gristmill_protocol::board::{Board, Insertion};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::listing::ListingError;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_protocol::log::evidence::Evidence;
use gristmill_protocol::log::note::SignedNote;
use libp2p::multiaddr::Protocol;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::job_stream::behaviour::{Acceptor, OpenFailure, OpenRequest};
use crate::job_stream::budget::StreamBudget;
use crate::job_stream::{ConsumerJobStream, ProviderJobStream};
use crate::peer_identity::peer_of;

pub use checkpoints::{
    AnnounceError, CHECKPOINT_MESSAGE_MAX_BYTES, CHECKPOINTS_TOPIC, EVIDENCE_PER_LOG_MAX, Heard,
    LOG_FEED_QUEUE, LogFeed,
};
pub use configuration::{DEFAULT_MESH_PORT, MeshConfig, listen_addresses};
pub use gossip::{gossip_parameters, gossip_scores};
pub use libp2p::Multiaddr;

pub(crate) mod addresses;
mod announcements;
mod behaviour;
mod bootstrap;
mod checkpoints;
mod configuration;
mod driver;
mod gossip;
mod setup;
mod shared;
mod token_bucket;
mod transport;

use checkpoints::Announcement;
use driver::{Command, Driver};
use shared::Shared;

/// Tells the time: Unix time in milliseconds.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Commands that may wait for the swarm's task.
const COMMAND_QUEUE: usize = 256;

/// Why the mesh could not start.
#[derive(Debug, Error)]
pub enum MeshError {
    /// Another program has the port.
    #[error(
        "{address} is in use by another program; stop it, or choose another mesh port (port 0 takes a free one)"
    )]
    AddressInUse {
        /// The address asked for.
        address: Multiaddr,
    },
    /// The system refused to listen.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address asked for.
        address: Multiaddr,
        /// What the system says.
        reason: String,
    },
    /// An address that the mesh cannot use.
    #[error("'{address}' is no {expected}")]
    Address {
        /// The address given.
        address: Multiaddr,
        /// What it should look like.
        expected: &'static str,
    },
    /// The swarm could not be put together.
    #[error("the mesh could not be set up: {0}")]
    Setup(String),
    /// The mesh has been shut down.
    #[error("the mesh has been shut down")]
    Stopped,
}

/// Why a listing was not published.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// Peers would refuse it.
    #[error("the listing is invalid: {0}")]
    Invalid(#[from] ListingError),
    /// It is not newer than the last one, or comes too soon after it; peers would ignore it.
    #[error("peers would ignore the listing: {0:?}")]
    NotNews(Insertion),
    /// The mesh has been shut down.
    #[error("the mesh has been shut down")]
    Stopped,
}

/// What became of a published listing. It is on the own board in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Sent to the peers that listen.
    Sent,
    /// No peer listens yet, or all of them are overloaded. The mesh sends it as soon as it can, unless a newer one
    /// replaces it.
    Waiting,
}

/// Why no job stream could be opened. Another provider may do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpenJobError {
    /// The provider is this very installation.
    #[error("{0} is this installation itself")]
    OwnAccount(AccountId),
    /// No address of the provider answered.
    #[error("provider {provider} is unreachable: {reason}")]
    Unreachable {
        /// Whom we tried.
        provider: AccountId,
        /// What went wrong.
        reason: String,
    },
    /// The provider is connected and takes no job streams.
    #[error("{0} takes no jobs")]
    Unsupported(AccountId),
    /// The provider did not answer in time.
    #[error("provider {provider} did not answer within {} ms", waited.as_millis())]
    Timeout {
        /// Whom we tried.
        provider: AccountId,
        /// How long.
        waited: Duration,
    },
    /// The mesh has been shut down.
    #[error("the mesh has been shut down")]
    Stopped,
}

/// A handle on the mesh. Clones share it; the mesh ends when all are dropped, or with [`Mesh::shutdown`].
#[derive(Clone)]
pub struct Mesh {
    account: AccountId,
    clock: Clock,
    open_timeout: Duration,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Mesh({})", self.account)
    }
}

/// Job streams that consumers open here. Drop it to refuse all of them.
#[derive(Debug)]
pub struct IncomingJobs {
    accepted: mpsc::Receiver<(AccountId, ProviderJobStream)>,
}

impl IncomingJobs {
    /// The next stream and who opened it (proven by the connection's handshake). `None` once the mesh has ended.
    pub async fn next(&mut self) -> Option<(AccountId, ProviderJobStream)> {
        self.accepted.recv().await
    }
}

impl Mesh {
    /// Joins the mesh: listens, dials the bootstrap peers, subscribes to listings. Returns once every listener is
    /// bound. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`MeshError`] where an address is unusable or in use, or the system refuses.
    pub async fn start(
        keypair: &Keypair,
        config: MeshConfig,
        clock: Clock,
    ) -> Result<(Self, IncomingJobs), MeshError> {
        let streams_max = config.incoming_streams_max.max(1);
        let (accepting, accepted) = mpsc::channel(streams_max);
        let budget = StreamBudget::new(config.incoming_streams_per_peer_max, streams_max);
        let acceptor = Acceptor {
            budget,
            accepted: accepting,
        };
        let (commands, received) = mpsc::channel(COMMAND_QUEUE);
        let shared = Arc::new(Shared {
            board: RwLock::new(Board::new(config.board_providers_max)),
            checkpoints: Mutex::default(),
            watching: watch::Sender::new(false),
            board_version: watch::Sender::new(0),
            unchecked: watch::Sender::new(()),
            peers: watch::Sender::new(BTreeSet::new()),
            listeners: watch::Sender::new(BTreeSet::new()),
            listening: watch::Sender::new(Vec::new()),
        });
        let open_timeout = config.open_timeout;
        let started = Driver::start(
            keypair,
            &config,
            acceptor,
            received,
            Arc::clone(&shared),
            Arc::clone(&clock),
        );
        let driver = Box::pin(started).await?;
        let task = Arc::new(Mutex::new(Some(tokio::spawn(driver.run()))));
        let mesh = Self {
            account: keypair.account(),
            clock,
            open_timeout,
            commands,
            shared,
            task,
        };
        Ok((mesh, IncomingJobs { accepted }))
    }

    /// The own account.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// The addresses at which the mesh listens now: bound, port 0 resolved, without the `/p2p` part.
    #[must_use]
    pub fn listen_addresses(&self) -> Vec<Multiaddr> {
        self.shared.listening.borrow().clone()
    }

    /// The same with the own `/p2p` part, as a bootstrap address for others.
    #[must_use]
    pub fn bootstrap_addresses(&self) -> Vec<Multiaddr> {
        let Ok(peer) = peer_of(self.account) else {
            return Vec::new();
        };
        self.listen_addresses()
            .into_iter()
            .map(|address| address.with(Protocol::P2p(peer)))
            .collect()
    }

    /// Puts the own sealed listing on the board and sends it to the peers.
    ///
    /// # Errors
    /// [`PublishError`] where peers would refuse or ignore it.
    pub async fn publish_listing(&self, sealed: Vec<u8>) -> Result<Published, PublishError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Publish { sealed, reply })
            .await
            .ok_or(PublishError::Stopped)?;
        answer.await.map_err(|_| PublishError::Stopped)?
    }

    /// Verifies a sealed listing that came another way than by gossip, such as from a coordinator's directory, and
    /// puts it on the board. It is not sent to peers.
    ///
    /// # Errors
    /// [`ListingError`] where it is invalid.
    pub fn learn_listing(&self, sealed: &[u8]) -> Result<Insertion, ListingError> {
        self.shared.insert(sealed, (self.clock)())
    }

    /// Believes the certificates of hardware in listings that these keys sign, instead of those of the keys before. Until
    /// this is called nobody's hardware is verified on the board. Listings that are on it already are looked at one after
    /// the other in the background.
    pub fn trust_certificates(&self, keys: &LogKeys) {
        self.shared.trust(keys.clone());
    }

    /// Watches a log: what its keys signed, and evidence against it, is heard by this peer and forwarded to others, for
    /// as long as the feed lives. A log has one feed; the newest one takes the place of those before.
    #[must_use]
    pub fn watch_log(&self, keys: &LogKeys) -> LogFeed {
        let feed = self.shared.checkpoints().watch(keys);
        self.shared.watching.send_replace(true);
        feed
    }

    /// Takes the keys that a watched log has now, after a hand-over.
    pub fn follow_log_keys(&self, keys: &LogKeys) {
        self.shared.checkpoints().follow(keys);
    }

    /// Says to the peers, and to those who come later, which checkpoint of a watched log this peer knows, in place of
    /// the one it said before. It travels without cosignatures.
    ///
    /// # Errors
    /// [`AnnounceError`] where peers would refuse it.
    pub async fn publish_checkpoint(&self, note: SignedNote) -> Result<Published, AnnounceError> {
        let announcement = self.shared.checkpoints().announce_checkpoint(note)?;
        self.announce(announcement).await
    }

    /// Says to the peers, and to those who come later, that a watched log lied.
    ///
    /// # Errors
    /// [`AnnounceError`] where peers would refuse it.
    pub async fn publish_evidence(&self, evidence: Evidence) -> Result<Published, AnnounceError> {
        let announcement = self.shared.checkpoints().announce_evidence(evidence)?;
        self.announce(announcement).await
    }

    async fn announce(&self, announcement: Announcement) -> Result<Published, AnnounceError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Announce { announcement, reply })
            .await
            .ok_or(AnnounceError::Stopped)?;
        answer.await.map_err(|_| AnnounceError::Stopped)
    }

    /// Reads the board. Keep it short: the mesh waits meanwhile.
    pub fn with_board<T>(&self, read: impl FnOnce(&Board) -> T) -> T {
        read(&self.shared.board.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes whenever the board does. Its value is the number of changes so far.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.board_version.subscribe()
    }

    /// The peers connected now.
    #[must_use]
    pub fn connected_peers(&self) -> BTreeSet<AccountId> {
        self.shared.peers.borrow().clone()
    }

    /// Follows the peers connected.
    #[must_use]
    pub fn peer_changes(&self) -> watch::Receiver<BTreeSet<AccountId>> {
        self.shared.peers.subscribe()
    }

    /// Follows the connected peers that listen to listings: those to whom [`Mesh::publish_listing`] sends.
    #[must_use]
    pub fn listeners(&self) -> watch::Receiver<BTreeSet<AccountId>> {
        self.shared.listeners.subscribe()
    }

    /// The gossip score of a peer; negative ones have misbehaved. `None` where the peer is unknown.
    pub async fn gossip_score(&self, account: AccountId) -> Option<f64> {
        let peer = peer_of(account).ok()?;
        let (reply, answer) = oneshot::channel();
        self.command(Command::Score { peer, reply }).await?;
        answer.await.ok().flatten()
    }

    /// Adds a bootstrap peer, which is dialled now and whenever it is not connected.
    ///
    /// # Errors
    /// [`MeshError::Address`] where the address has no `/p2p` part, [`MeshError::Stopped`] after a shutdown.
    pub async fn add_bootstrap(&self, address: Multiaddr) -> Result<(), MeshError> {
        let (peer, address) = addresses::split_peer(address)?;
        self.command(Command::AddBootstrap { peer, address })
            .await
            .ok_or(MeshError::Stopped)
    }

    /// Opens a job stream to a provider, on a connection that there is or a new one to its listed addresses.
    ///
    /// The stream is handed out before the provider confirmed it, so that the first frame travels at once; a
    /// provider over its limits ends the stream, which the first receive tells.
    ///
    /// # Errors
    /// [`OpenJobError`] where the provider can't be reached in time.
    pub async fn open_job(
        &self,
        provider: AccountId,
        addresses: &[String],
    ) -> Result<ConsumerJobStream, OpenJobError> {
        let deadline = Instant::now() + self.open_timeout;
        let unreachable = |reason: String| OpenJobError::Unreachable { provider, reason };
        if provider == self.account {
            return Err(OpenJobError::OwnAccount(provider));
        }
        let peer = peer_of(provider).map_err(unreachable)?;
        let addresses = addresses::dialable(peer, addresses);
        // A connection may close between choosing it and asking it for a stream: that is worth one more attempt.
        for _ in 0..2 {
            let (reply, answer) = oneshot::channel();
            let command = Command::OpenJob {
                peer,
                addresses: addresses.clone(),
                request: OpenRequest { reply },
            };
            self.command(command).await.ok_or(OpenJobError::Stopped)?;
            match timeout_at(deadline, answer).await {
                Ok(Ok(Ok(stream))) => return Ok(ConsumerJobStream::over(stream)),
                Ok(Ok(Err(OpenFailure::Unsupported))) => return Err(OpenJobError::Unsupported(provider)),
                Ok(Ok(Err(OpenFailure::Unreachable(reason)))) => return Err(unreachable(reason)),
                Ok(Ok(Err(OpenFailure::Timeout))) | Err(_) => {
                    return Err(OpenJobError::Timeout {
                        provider,
                        waited: self.open_timeout,
                    });
                }
                Ok(Err(_)) => {}
            }
        }
        Err(unreachable("the connection closed".into()))
    }

    /// Leaves the mesh: sends what was just published, closes every connection, ends the task and waits, for a
    /// second at most, until the ports are free. A panic of the task reaches the caller here.
    pub async fn shutdown(&self) {
        let _ = self.command(Command::Shutdown).await;
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = match task {
            Some(task) => Some(task.await),
            None => None,
        } && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }

    /// Hands a command to the task; `None` where it has ended.
    async fn command(&self, command: Command) -> Option<()> {
        self.commands.send(command).await.ok()
    }
}
