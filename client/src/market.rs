//! What all requests share: the mesh, the wallet, the link to the coordinator, and what is remembered of providers.

use std::sync::{Arc, Mutex};

use gristmill_protocol::identity::AccountId;
use gristmill_transport::{Clock, Mesh};
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::coordinator_link::CoordinatorLink;
use crate::core::context::RequestContext;
use crate::core::failure::ApiFailure;
use crate::core::records::{ProviderRecords, RecordEvent, Standing};
use crate::core::request::ProgramRequest;
use crate::jobs::{Job, JobEvent};
use crate::keys::Keyring;
use crate::settings::Settings;
use crate::usage::{Course, UsageBook};
use crate::wallet::{Wallet, lock};

/// Most requests that run at once.
const JOBS_MAX: usize = 256;

/// Everything that runs requests.
pub(crate) struct Market {
    pub(crate) account: AccountId,
    pub(crate) settings: Settings,
    pub(crate) mesh: Mesh,
    pub(crate) wallet: Arc<Wallet>,
    pub(crate) link: Arc<CoordinatorLink>,
    /// Who may ask.
    pub(crate) keys: Keyring,
    /// What requests came to.
    pub(crate) usage: Arc<UsageBook>,
    pub(crate) clock: Clock,
    pub(crate) records: Mutex<ProviderRecords>,
    pub(crate) random: Mutex<ChaCha8Rng>,
    /// Every task of every job.
    pub(crate) tasks: TaskTracker,
    /// Ends the jobs.
    pub(crate) stopping: CancellationToken,
    pub(crate) places: Arc<Semaphore>,
}

impl Market {
    /// As many places as jobs may run at once.
    pub(crate) fn places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(JOBS_MAX))
    }

    /// How many requests run now.
    pub(crate) fn running(&self) -> usize {
        JOBS_MAX.saturating_sub(self.places.available_permits())
    }

    /// Runs a request. Dropping the receiver cancels it. What it comes to is complete when it has ended.
    ///
    /// # Errors
    /// [`ApiFailure`] where the client takes no more requests.
    pub(crate) fn begin(
        self: &Arc<Self>,
        request: ProgramRequest,
        context: RequestContext,
    ) -> Result<(mpsc::Receiver<JobEvent>, Arc<Course>), ApiFailure> {
        if self.stopping.is_cancelled() {
            return Err(ApiFailure::shutting_down());
        }
        let place = self
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| ApiFailure::too_many_requests())?;
        let course = Arc::new(Course::begin(&self.usage, &request, &context));
        let (job, events) = Job::new(self.clone(), request, context, course.clone());
        let work = async move {
            // Apart, since it is large and most of what holds it is not.
            Box::pin(job.run()).await;
            drop(place);
        };
        self.tasks.spawn(work.in_current_span());
        Ok((events, course))
    }

    /// Unix time in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        (self.clock)()
    }

    /// How a provider stands now.
    pub(crate) fn standing(&self, provider: &AccountId) -> Standing {
        lock(&self.records).standing(provider, self.now_ms())
    }

    /// Takes note of what happened with a provider.
    pub(crate) fn note(&self, provider: AccountId, event: RecordEvent) {
        lock(&self.records).note(provider, event, self.now_ms());
    }
}

/// Counts a job at its provider for as long as it lives.
pub(crate) struct RunningJob {
    market: Arc<Market>,
    provider: AccountId,
    /// How it stood right after this job began.
    at_begin: Standing,
}

impl RunningJob {
    pub(crate) fn begin(market: Arc<Market>, provider: AccountId) -> Self {
        market.note(provider, RecordEvent::JobBegan);
        let at_begin = market.standing(&provider);
        Self {
            market,
            provider,
            at_begin,
        }
    }

    /// The market that it is a job of.
    pub(crate) const fn market(&self) -> &Arc<Market> {
        &self.market
    }

    /// Whether any other job ran at the provider at any time since this one began, be it over by now.
    pub(crate) fn has_had_company(&self) -> bool {
        self.at_begin.jobs > 1 || self.market.standing(&self.provider).jobs_begun > self.at_begin.jobs_begun
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        self.market.note(self.provider, RecordEvent::JobEnded);
    }
}
