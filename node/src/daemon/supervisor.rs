//! Runs the parts of a node, and ends them in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_service::installation::IdentityLock;
use gristmill_transport::witness::WitnessDriver;
use gristmill_transport::{CoordinatorClient, IncomingJobs, Mesh};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{StopError, joining, redeem_now};
use crate::hardware::{HardwareRunner, HardwareState};
use crate::job_driver::{JobHost, serve_jobs};
use crate::local_api;
use crate::offering::Offering;
use crate::prover::Prover;
use crate::publisher::Publisher;
use crate::receipt_file::ReceiptFile;
use crate::redeemer::{RedeemError, RedeemNow, Redeemer};
use crate::settings::Settings;
use crate::upstreams::UpstreamWatch;

/// The longest that vouchers are handed in at the end. They are kept where the coordinator is away.
const REDEEM_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that anything else is waited for at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that a node is made of.
pub(super) struct Parts {
    pub(super) settings: Settings,
    pub(super) host: Arc<JobHost>,
    pub(super) mesh: Mesh,
    pub(super) incoming: IncomingJobs,
    pub(super) offering: Arc<Offering>,
    pub(super) upstreams: UpstreamWatch,
    pub(super) client: Arc<CoordinatorClient>,
    pub(super) witness: WitnessDriver,
    pub(super) prover: Prover,
    pub(super) known_coordinator: watch::Sender<Option<Arc<LogKeys>>>,
    pub(super) redeem: mpsc::Sender<RedeemNow>,
    pub(super) redeem_requests: mpsc::Receiver<RedeemNow>,
    pub(super) receipts: ReceiptFile,
    pub(super) hardware: watch::Receiver<HardwareState>,
    /// Where the owner lets the hardware be shown.
    pub(super) hardware_runner: Option<HardwareRunner>,
    pub(super) listener: Option<(TcpListener, SocketAddr)>,
    pub(super) lock: IdentityLock,
}

/// A part that runs.
struct Part {
    name: &'static str,
    task: AbortOnDropHandle<()>,
}

impl Part {
    /// Starts a part; `ended` fires when it ends, also by a panic.
    fn start(
        name: &'static str,
        ended: &CancellationToken,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let says_so = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let _says_so = says_so;
            work.await;
        });
        Self {
            name,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Waits for its end, but not for ever. Its panic is told, not passed on: the other parts end in order.
    async fn end_within(&mut self, limit: Duration) {
        match tokio::time::timeout(limit, &mut self.task).await {
            Ok(Err(error)) if error.is_panic() => tracing::error!(part = self.name, %error, "panicked"),
            Ok(_) => {}
            Err(_) => {
                tracing::warn!(part = self.name, "did not end in time and is cut off");
                self.task.abort();
            }
        }
    }
}

/// Runs a node until `stopping` fires or a part ends by itself.
pub(super) async fn run(parts: Parts, stopping: CancellationToken) -> Result<(), StopError> {
    let Parts {
        settings,
        host,
        mesh,
        offering,
        client,
        receipts,
        redeem,
        ..
    } = parts;
    let (ended, stop, leave) = (
        CancellationToken::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let coordinator = host.coordinator.clone();
    let publisher = Publisher {
        keypair: host.keypair.clone(),
        clock: Arc::clone(&host.clock),
        mesh: mesh.clone(),
        public_addresses: settings.public_addresses.clone(),
        region: settings.region.clone(),
        privacy: settings.privacy,
        catalogue: offering.catalogue(),
        slots: Arc::clone(&host.slots),
        hardware: parts.hardware.clone(),
        coordinator: coordinator.clone(),
        host: Arc::clone(&host),
    };
    let redeemer = Redeemer {
        client: Arc::clone(&client),
        clock: Arc::clone(&host.clock),
        vouchers: Arc::clone(&host.vouchers),
        receipts: receipts.clone(),
        coordinator,
        witness: host.witness.clone(),
        interval: settings.redeem_interval,
    };
    let mut jobs = Part::start(
        "serving jobs",
        &ended,
        serve_jobs(Arc::clone(&host), parts.incoming),
    );
    let mut publisher = Part::start("publishing the listing", &ended, publisher.run(leave.clone()));
    let mut others = vec![
        Part::start(
            "handing in vouchers",
            &ended,
            redeemer.run(parts.redeem_requests, stop.clone()),
        ),
        Part::start(
            "looking for upstreams",
            &ended,
            parts.upstreams.run(offering.clone(), stop.clone()),
        ),
        Part::start(
            "finding the coordinator",
            &ended,
            joining::run(client, mesh.clone(), parts.known_coordinator, stop.clone()),
        ),
        Part::start(
            "watching the coordinator's log",
            &ended,
            watch_log(parts.witness, stop.clone()),
        ),
        Part::start("proving receipts", &ended, parts.prover.run(stop.clone())),
    ];
    if let Some(runner) = parts.hardware_runner {
        others.push(Part::start(
            "showing the hardware",
            &ended,
            runner.run(stop.clone()),
        ));
    }
    if let Some((listener, address)) = parts.listener {
        let view = local_api::View {
            settings: settings.clone(),
            host: Arc::clone(&host),
            mesh: mesh.clone(),
            offering,
            receipts,
            hardware: parts.hardware,
            gpus: crate::hardware_metrics::HardwareWatch::default(),
        };
        others.push(Part::start(
            "the local API",
            &ended,
            local_api::serve(listener, address, view, stop.clone()),
        ));
    }
    tokio::select! {
        () = stopping.cancelled() => {}
        () = ended.cancelled() => {}
    }
    let unexpected = if stopping.is_cancelled() {
        None
    } else {
        first_ended(&jobs, &publisher, &others)
    };

    // Off the market first, so that nobody comes while the last jobs are finished.
    host.closing.cancel();
    leave.cancel();
    publisher.end_within(STOP_TIMEOUT).await;
    drain(&host, &mut jobs, settings.drain).await;
    let synced = host.vouchers.sync().await;
    hand_in_what_is_left(&redeem).await;
    stop.cancel();
    for part in &mut others {
        part.end_within(STOP_TIMEOUT).await;
    }
    mesh.shutdown().await;
    close_files(&host).await;
    drop(parts.lock);
    match unexpected {
        Some(part) => Err(StopError::PartEnded(part)),
        None => synced.map_err(|error| StopError::Vouchers(error.to_string())),
    }
}

/// A witness ends when the mesh does, which is ended last.
async fn watch_log(witness: WitnessDriver, stop: CancellationToken) {
    witness.run(stop.clone().cancelled_owned()).await;
    stop.cancelled().await;
}

fn first_ended(jobs: &Part, publisher: &Part, others: &[Part]) -> Option<&'static str> {
    let mut all = [jobs, publisher].into_iter().chain(others);
    all.find(|part| part.task.is_finished()).map(|part| part.name)
}

/// Lets running jobs finish, and ends those that don't in time.
async fn drain(host: &JobHost, jobs: &mut Part, limit: Duration) {
    let running = host.slots.jobs();
    if running > 0 {
        tracing::info!(running, "waiting for running jobs");
    }
    tokio::select! {
        _ = &mut jobs.task => return,
        () = tokio::time::sleep(limit) => host.abort.cancel(),
    }
    jobs.end_within(STOP_TIMEOUT).await;
}

async fn hand_in_what_is_left(redeem: &mpsc::Sender<RedeemNow>) {
    match tokio::time::timeout(REDEEM_TIMEOUT, redeem_now(redeem)).await {
        Ok(Ok(_) | Err(RedeemError::NoCoordinator | RedeemError::Stopped)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "vouchers are kept and handed in after the next start"),
        Err(_) => {
            tracing::warn!("the coordinator did not answer; vouchers are handed in after the next start");
        }
    }
}

async fn close_files(host: &Arc<JobHost>) {
    let host = Arc::clone(host);
    if let Err(error) = tokio::task::spawn_blocking(move || host.vouchers.close()).await {
        tracing::error!(%error, "the writer of vouchers panicked");
    }
}
