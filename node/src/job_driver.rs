//! Serves job streams: one task per stream, which translates between the stream, the engine and
//! [`ProviderSession`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::job::{ConsumerFrame, JobAccepted, JobRefused, OpenJob, ProviderFrame, RefusalCode};
use gristmill_protocol::session::provider::{ProviderEffect, ProviderSession, ProviderTimeouts};
use gristmill_protocol::trace::TraceParent;
use gristmill_telemetry::trace_position::TracePosition;
use gristmill_transport::witness::Witness;
use gristmill_transport::{Clock, CoordinatorClient, IncomingJobs, KnownKeys, ProviderJobStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::channels::{Channels, OpenChannel};
use crate::core::admission::{Admitted, Premises, admit};
use crate::core::known_tickets::KnownTickets;
use crate::known_coordinator::KnownCoordinator;
use crate::metrics::NodeMetrics;
use crate::offering::Catalogue;
use crate::slots::{JobPlace, Slots};
use crate::tally::Tally;
use crate::voucher_file::VoucherFile;

mod engine_task;
mod outbox;
mod run;

use run::JobRun;

/// How long a new stream may take to say what it wants.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to read one frame.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that a job waits for the coordinator's keys.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(3);
/// How long streams are given to end by themselves once they were told to.
const ABORT_GRACE: Duration = Duration::from_secs(3);

/// What every job needs.
pub(crate) struct JobHost {
    pub(crate) keypair: Keypair,
    pub(crate) clock: Clock,
    pub(crate) catalogue: watch::Receiver<Arc<Catalogue>>,
    pub(crate) channels: Channels,
    pub(crate) vouchers: Arc<VoucherFile>,
    pub(crate) slots: Arc<Slots>,
    /// The coordinator's keys, once it was reached.
    pub(crate) coordinator: KnownCoordinator,
    /// Asked for the coordinator's keys where a ticket is signed by an unknown one.
    pub(crate) client: Arc<CoordinatorClient>,
    /// Whether no job is taken on the tickets of a coordinator that was caught lying.
    pub(crate) refuses_liars: bool,
    pub(crate) witness: Witness,
    /// Fires when no further jobs are taken.
    pub(crate) closing: CancellationToken,
    /// Fires when running jobs have had their time.
    pub(crate) abort: CancellationToken,
    pub(crate) tally: Tally,
    pub(crate) metrics: NodeMetrics,
    pub(crate) timeouts: ProviderTimeouts,
    pub(crate) body_max_bytes: u64,
    /// The tickets that were checked.
    pub(crate) tickets: Mutex<KnownTickets>,
}

/// A job that was taken.
struct Taken {
    admitted: Admitted,
    content_type: String,
    /// The span of this job, where the caller told of a trace.
    trace_parent: Option<TraceParent>,
    session: ProviderSession,
    effects: Vec<ProviderEffect>,
    channel: Arc<OpenChannel>,
    catalogue: Arc<Catalogue>,
    place: JobPlace,
}

impl JobHost {
    /// Why no job is taken now, where none is.
    fn closed(&self) -> Option<String> {
        if self.closing.is_cancelled() {
            Some("this provider is stopping".to_owned())
        } else if self.vouchers.failure().borrow().is_some() {
            Some("this provider can't keep vouchers on its disk and takes no jobs".to_owned())
        } else {
            let distrust = self.distrust()?;
            Some(format!(
                "this provider takes no jobs on tickets of its coordinator: {distrust}"
            ))
        }
    }

    /// The coordinator's keys as they are known at this moment, once it was reached.
    fn coordinator(&self) -> Option<Arc<KnownKeys>> {
        self.coordinator.borrow().as_ref()?;
        self.client.known_keys().borrow().clone()
    }

    /// Why the coordinator's tickets count for nothing any more, where they don't.
    pub(crate) fn distrust(&self) -> Option<String> {
        self.witness.distrust().filter(|_| self.refuses_liars)
    }

    /// Decides about a job. Where its ticket is signed by an unknown key, the coordinator is asked for its keys first.
    async fn take_or_refresh(&self, peer: &AccountId, open: &OpenJob) -> Result<Taken, JobRefused> {
        match self.take(peer, open) {
            Err(refused) if refused.code == RefusalCode::InvalidTicket => {
                let refresh = tokio::time::timeout(REFRESH_TIMEOUT, self.client.refresh_keys());
                match refresh.await {
                    Ok(true) => self.take(peer, open),
                    Ok(false) | Err(_) => Err(refused),
                }
            }
            taken => taken,
        }
    }

    fn take(&self, peer: &AccountId, open: &OpenJob) -> Result<Taken, JobRefused> {
        let now_ms = (self.clock)();
        let catalogue = Arc::clone(&self.catalogue.borrow());
        let (provider, coordinator) = (self.keypair.account(), self.coordinator());
        let closed = self.closed();
        let known_ticket = coordinator.as_ref().and_then(|coordinator| {
            let tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
            tickets.get(&open.ticket, coordinator.keys()).cloned()
        });
        let premises = Premises {
            provider: &provider,
            coordinator: coordinator.as_ref().map(|known| known.keys()),
            offers: &catalogue.offers,
            slots: self.slots.slots(),
            queue_length: self.slots.queue_length(),
            jobs: self.slots.jobs(),
            body_max_bytes: self.body_max_bytes,
            closed: closed.as_deref(),
            known_ticket: known_ticket.as_ref(),
        };
        let admitted = admit(open, peer, &premises, now_ms)?;
        if let (Some(coordinator), None) = (&coordinator, &known_ticket) {
            let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
            tickets.remember(&open.ticket, coordinator.keys(), &admitted.ticket);
        }
        // Another job may have taken the last place since.
        let full = || JobRefused::new(RefusalCode::Busy, 1_000, "the last place was just taken");
        let place = self.slots.enter().ok_or_else(full)?;
        let channel = self.channels.enter(&admitted.ticket, &self.vouchers, now_ms)?;
        let (session, effects) = ProviderSession::accept(
            self.keypair.clone(),
            admitted.terms.clone(),
            self.timeouts,
            &mut channel.lock(),
            now_ms,
        )?;
        let below = |caller| TracePosition::begin(Some(caller), &mut rand::rng()).own;
        Ok(Taken {
            admitted,
            content_type: open.content_type.clone(),
            trace_parent: open.trace_parent.map(below),
            session,
            effects,
            channel,
            catalogue,
            place,
        })
    }
}

/// Serves streams. Once `closing` of the host has fired, new jobs are refused and running ones finished; once
/// `abort` has, those are ended too. Returns when no stream is left.
pub(crate) async fn serve_jobs(host: Arc<JobHost>, mut incoming: IncomingJobs) {
    let mut jobs = JoinSet::new();
    while !(host.closing.is_cancelled() && jobs.is_empty()) {
        tokio::select! {
            stream = incoming.next() => match stream {
                Some((peer, stream)) => {
                    jobs.spawn(Box::pin(serve_stream(Arc::clone(&host), peer, stream)));
                }
                None => break,
            },
            Some(ended) = jobs.join_next() => report(ended),
            () = host.closing.cancelled(), if jobs.is_empty() => {}
            () = host.abort.cancelled() => break,
        }
    }
    drop(incoming);
    host.abort.cancel();
    let ended = tokio::time::timeout(ABORT_GRACE, async {
        while let Some(ended) = jobs.join_next().await {
            report(ended);
        }
    });
    if ended.await.is_err() {
        tracing::warn!(
            jobs = jobs.len(),
            "some jobs did not end in time and were cut off"
        );
        jobs.shutdown().await;
    }
}

/// A job's panic must not pass unseen, and must not end the others.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "serving a job stream panicked");
    }
}

async fn serve_stream(host: Arc<JobHost>, peer: AccountId, mut stream: ProviderJobStream) {
    let open = match stream.receive(OPEN_TIMEOUT).await {
        Ok(ConsumerFrame::Open(open)) => open,
        Ok(_) => return tracing::debug!(%peer, "a stream did not begin with what it wants"),
        Err(error) => return tracing::debug!(%peer, %error, "a stream ended before it said what it wants"),
    };
    let span = tracing::info_span!("job", request_id = %open.request_id, consumer = %peer);
    Box::pin(serve_job(host, peer, stream, open))
        .instrument(span)
        .await;
}

async fn serve_job(host: Arc<JobHost>, peer: AccountId, stream: ProviderJobStream, open: OpenJob) {
    match host.take_or_refresh(&peer, &open).await {
        Ok(taken) => {
            let accepted = taken.effects.iter().find_map(accepted);
            tracing::info!(
                kind = %open.kind,
                model = open.model,
                body_bytes = open.body_bytes,
                position = accepted.map_or(0, |accepted| accepted.position),
                channel = %taken.admitted.ticket.jti,
                "job taken"
            );
            let (first, run) = JobRun::new(host, taken, stream);
            run.until_end(first).await;
        }
        Err(refused) => {
            tracing::info!(code = ?refused.code, reason = refused.reason, "job refused");
            host.metrics.refused(refused.code);
            refuse(stream, refused).await;
        }
    }
}

fn accepted(effect: &ProviderEffect) -> Option<&JobAccepted> {
    match effect {
        ProviderEffect::Send(ProviderFrame::Accepted(accepted)) => Some(accepted),
        _ => None,
    }
}

async fn refuse(stream: ProviderJobStream, refused: JobRefused) {
    let (sender, receiver) = stream.split();
    let mut outbox = outbox::Outbox::new(sender, SEND_TIMEOUT);
    outbox.push(ProviderFrame::Refused(refused));
    outbox.finish().await;
    outbox::hear_out(receiver, |_| {}).await;
}
