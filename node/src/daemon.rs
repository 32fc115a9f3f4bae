//! A node as a whole: engines, mesh peer, local API and what runs beside them, started together and ended in phases.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::listing::Offer;
use gristmill_protocol::session::provider::ProviderTimeouts;
use gristmill_service::clock::system_clock;
use gristmill_service::installation::{IdentityLock, IdentityLockError};
use gristmill_transport::witness::{Witness, WitnessConfig, WitnessParts};
use gristmill_transport::{Clock, CoordinatorClient, Mesh};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::core::earnings::{EarningsSummary, KeptReceipt};
use crate::engine::Engines;
use crate::hardware::{HardwareRunner, HardwareState, Machine};
use crate::job_driver::JobHost;
use crate::known_coordinator::KnownCoordinator;
use crate::offering::Offering;
use crate::proof_file::ProofFile;
use crate::prover::{Prover, Unproved};
use crate::receipt_file::ReceiptFile;
use crate::redeemer::RedeemNow;
use crate::settings::Settings;
use crate::upstreams::UpstreamWatch;

mod engines;
mod error;
mod joining;
mod listening;
mod supervisor;

pub(crate) use engines::build as build_engines;
pub use error::StartError;

pub use crate::redeemer::{RedeemError, Redemption};
pub use gristmill_service::installation::identity_path;

/// Redemptions that may be asked for at once.
const REDEEM_REQUESTS: usize = 16;

/// Where a node keeps its vouchers.
#[must_use]
pub fn voucher_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("node").join("vouchers")
}

/// Where a node keeps its receipts.
#[must_use]
pub fn receipt_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("node").join("receipts")
}

/// Where a node keeps the proofs of its receipts.
#[must_use]
pub fn proof_directory(data_dir: &Path) -> PathBuf {
    data_dir.join("node").join("receipt-proofs")
}

/// Why a running node ended other than by being told to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StopError {
    /// A part of it ended by itself; the rest was ended in order.
    #[error("{0} ended unexpectedly; the log says why")]
    PartEnded(&'static str),
    /// The last vouchers did not reach the disk.
    #[error("{0}")]
    Vouchers(String),
}

/// Starts nodes.
#[derive(Debug)]
pub struct Node;

impl Node {
    /// Starts a node whose state is in `data_dir`, with `engines` beside those of the settings. It runs until
    /// `shutdown` is cancelled or the returned value is told to end or dropped.
    ///
    /// A coordinator that is away does not stop the start: the node joins the market when it is back.
    ///
    /// # Errors
    /// [`StartError`] saying what is in the way and what to do.
    pub async fn start(
        settings: Settings,
        data_dir: &Path,
        engines: Engines,
        shutdown: CancellationToken,
    ) -> Result<RunningNode, StartError> {
        Box::pin(Self::start_with_clock(
            settings,
            data_dir,
            engines,
            shutdown,
            system_clock(),
        ))
        .await
    }

    /// As [`Node::start`], with a clock of one's own.
    ///
    /// # Errors
    /// [`StartError`] saying what is in the way and what to do.
    pub async fn start_with_clock(
        settings: Settings,
        data_dir: &Path,
        engines: Engines,
        shutdown: CancellationToken,
        clock: Clock,
    ) -> Result<RunningNode, StartError> {
        settings.check()?;
        let state = {
            let (data_dir, clock) = (data_dir.to_owned(), Arc::clone(&clock));
            on_blocking_thread(move || State::open(&data_dir, clock)).await?
        };
        let vouchers = Arc::clone(&state.vouchers);
        let started = Box::pin(start_parts(
            settings,
            state,
            engines,
            shutdown.child_token(),
            clock,
        ))
        .await;
        if started.is_err() {
            // Nothing was taken yet; the writer's thread ends.
            vouchers.close();
        }
        started
    }
}

/// What is on disk, under the lock of this process.
struct State {
    keypair: Keypair,
    vouchers: Arc<crate::voucher_file::VoucherFile>,
    receipts: ReceiptFile,
    proofs: ProofFile,
    /// Receipts without a proof.
    unproved: Vec<KeptReceipt>,
    data_dir: PathBuf,
    lock: IdentityLock,
}

impl State {
    fn open(data_dir: &Path, clock: Clock) -> Result<Self, StartError> {
        let keypair = gristmill_transport::key_file::load_or_create(&identity_path(data_dir))?;
        let lock = lock(data_dir)?;
        let mut unproved = Unproved::default();
        let proofs = ProofFile::open(&proof_directory(data_dir), |kept| {
            unproved.proved.insert((kept.log, kept.sequence));
        })?;
        let receipts = ReceiptFile::open(&receipt_directory(data_dir), |receipt| unproved.take(receipt))?;
        let vouchers = crate::voucher_file::VoucherFile::open(voucher_directory(data_dir), clock)?;
        Ok(Self {
            keypair,
            vouchers: Arc::new(vouchers),
            receipts,
            proofs,
            unproved: unproved.receipts(),
            data_dir: data_dir.to_owned(),
            lock,
        })
    }
}

fn lock(data_dir: &Path) -> Result<IdentityLock, StartError> {
    IdentityLock::take(data_dir).map_err(|error| match error {
        IdentityLockError::InUse => StartError::DataDirectoryInUse(data_dir.to_owned()),
        IdentityLockError::Failed { path, source } => StartError::DataDirectory { path, source },
    })
}

async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StartError> + Send + 'static,
) -> Result<T, StartError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StartError::Panic(error.to_string())))
}

async fn start_parts(
    settings: Settings,
    state: State,
    engines: Engines,
    stopping: CancellationToken,
    clock: Clock,
) -> Result<RunningNode, StartError> {
    let State {
        keypair,
        vouchers,
        receipts,
        proofs,
        unproved,
        data_dir,
        lock,
    } = state;
    let account = keypair.account();
    let client = CoordinatorClient::new(
        &settings.coordinator,
        settings.coordinator_account,
        keypair.clone(),
        Arc::clone(&clock),
    )?;
    let client = Arc::new(client.with_known_keys_in(&data_dir)?);
    let upstreams = UpstreamWatch::new(&settings.upstreams)?;
    let offering = Arc::new(engines::build(&settings, engines, &upstreams).await?);
    let listener = listening::local_api(settings.local_api).await?;
    let (mesh, incoming) = listening::mesh(&settings, &keypair, Arc::clone(&clock)).await?;
    let watching = WitnessConfig {
        cosign: settings.cosign,
        ..WitnessConfig::new(data_dir)
    };
    let WitnessParts {
        witness,
        driver,
        proofs: proved,
    } = WitnessParts::new(
        Arc::clone(&client),
        mesh.clone(),
        keypair.clone(),
        Arc::clone(&clock),
        watching,
    );
    let (known_coordinator, coordinator) = watch::channel(None);
    let prover = Prover {
        witness: witness.clone(),
        coordinator: coordinator.clone(),
        unproved,
        proofs: proved,
        file: proofs,
        clock: Arc::clone(&clock),
    };
    let (redeem, redeem_requests) = mpsc::channel(REDEEM_REQUESTS);
    let voucher_ms = u64::try_from(settings.voucher_timeout.as_millis()).unwrap_or(u64::MAX);
    let timeouts = ProviderTimeouts {
        voucher_ms,
        ..ProviderTimeouts::default()
    };
    let slots = crate::slots::Slots::new(settings.slots, settings.queue_length);
    let host = Arc::new(JobHost {
        keypair,
        clock: Arc::clone(&clock),
        catalogue: offering.catalogue(),
        channels: crate::channels::Channels::new(settings.credit_window),
        vouchers,
        slots,
        coordinator: coordinator.clone(),
        client: Arc::clone(&client),
        refuses_liars: settings.refuse_lying_coordinator,
        witness: witness.clone(),
        closing: CancellationToken::new(),
        abort: CancellationToken::new(),
        tally: crate::tally::Tally::default(),
        metrics: crate::metrics::NodeMetrics::new(),
        timeouts,
        body_max_bytes: gristmill_protocol::codec::REQUEST_BODY_MAX_BYTES as u64,
        tickets: Mutex::default(),
    });
    let local_api_address = listener.as_ref().map(|(_, address)| *address);
    let (state, hardware) = watch::channel(HardwareState::of(&settings.hardware));
    let hardware_runner = settings.hardware.enabled.then(|| HardwareRunner {
        account,
        clock: Arc::clone(&host.clock),
        slots: Arc::clone(&host.slots),
        coordinator: coordinator.clone(),
        showing: Arc::new(Machine::new(Arc::clone(&client), &settings.hardware)),
        state,
        random: ChaCha8Rng::from_rng(&mut rand::rng()),
    });
    let parts = supervisor::Parts {
        settings,
        host: Arc::clone(&host),
        mesh: mesh.clone(),
        incoming,
        offering: Arc::clone(&offering),
        upstreams,
        client,
        witness: driver,
        prover,
        known_coordinator,
        redeem: redeem.clone(),
        redeem_requests,
        receipts: receipts.clone(),
        hardware: hardware.clone(),
        hardware_runner,
        listener,
        lock,
    };
    let task = tokio::spawn(supervisor::run(parts, stopping.clone()));
    tracing::info!(%account, "node started");
    Ok(RunningNode {
        account,
        mesh,
        local_api_address,
        host,
        receipts,
        offering,
        coordinator,
        hardware,
        witness,
        redeem,
        task,
        stopping: stopping.clone(),
        _stop_when_dropped: stopping.drop_guard(),
    })
}

/// A node that runs. Dropping it ends it without waiting; see [`RunningNode::shutdown`].
pub struct RunningNode {
    account: AccountId,
    mesh: Mesh,
    local_api_address: Option<SocketAddr>,
    host: Arc<JobHost>,
    receipts: ReceiptFile,
    offering: Arc<Offering>,
    coordinator: KnownCoordinator,
    hardware: watch::Receiver<HardwareState>,
    witness: Witness,
    redeem: mpsc::Sender<RedeemNow>,
    task: JoinHandle<Result<(), StopError>>,
    stopping: CancellationToken,
    _stop_when_dropped: DropGuard,
}

impl std::fmt::Debug for RunningNode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RunningNode({})", self.account)
    }
}

impl RunningNode {
    /// The account that earns.
    #[must_use]
    pub const fn account(&self) -> AccountId {
        self.account
    }

    /// The node's mesh peer.
    #[must_use]
    pub const fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Where the owner's own API listens, unless it is off.
    #[must_use]
    pub const fn local_api_address(&self) -> Option<SocketAddr> {
        self.local_api_address
    }

    /// What is on offer now.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        self.offering.catalogue().borrow().offers.clone()
    }

    /// What was earned, and what is still to come.
    #[must_use]
    pub fn earnings(&self) -> EarningsSummary {
        summary(&self.host, &self.receipts)
    }

    /// Waits until the coordinator has been reached, and gives its account. `None` where the node ended before.
    pub async fn joined(&self) -> Option<AccountId> {
        let mut coordinator = self.coordinator.clone();
        let known = coordinator.wait_for(Option::is_some).await.ok()?;
        known.as_ref().map(|keys| *keys.newest())
    }

    /// Waits until the coordinator has certified hardware of this machine. `false` where the node ended before.
    pub async fn verified(&self) -> bool {
        let mut hardware = self.hardware.clone();
        let certified = hardware.wait_for(|state| !state.certificates.is_empty()).await;
        certified.is_ok()
    }

    /// What the node's witness knows of the coordinator's log.
    #[must_use]
    pub const fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Hands in every voucher now.
    ///
    /// # Errors
    /// [`RedeemError`] saying why not; the vouchers are kept then.
    pub async fn redeem_now(&self) -> Result<Redemption, RedeemError> {
        redeem_now(&self.redeem).await
    }

    /// Waits until the node has ended: because it was told to, or because a part of it failed.
    ///
    /// # Errors
    /// [`StopError`] where it ended other than by being told to, or not in order.
    pub async fn wait(&mut self) -> Result<(), StopError> {
        match (&mut self.task).await {
            Ok(ended) => ended,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Ok(()),
        }
    }

    /// Ends the node in phases: off the market, running jobs finished, vouchers synced and handed in, all closed.
    ///
    /// # Errors
    /// [`StopError`] where it had ended by itself before, or did not end in order.
    pub async fn shutdown(mut self) -> Result<(), StopError> {
        self.stopping.cancel();
        self.wait().await
    }
}

/// What was earned, and what is still to come.
pub(crate) fn summary(host: &JobHost, receipts: &ReceiptFile) -> EarningsSummary {
    host.vouchers
        .with_book(|book| receipts.with_earnings(|earnings| earnings.summary(book)))
}

async fn redeem_now(requests: &mpsc::Sender<RedeemNow>) -> Result<Redemption, RedeemError> {
    let (sender, answer) = oneshot::channel();
    requests.send(sender).await.map_err(|_| RedeemError::Stopped)?;
    answer.await.map_err(|_| RedeemError::Stopped)?
}
