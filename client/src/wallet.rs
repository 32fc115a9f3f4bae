//! The wallet: which channels are open, and one call to the coordinator where another one is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gristmill_protocol::channel::ConsumerChannel;
use gristmill_protocol::coordinator_api::OpenChannelRequest;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair, Signed};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::jws::TokenError;
use gristmill_protocol::tokens::TicketClaims;
use gristmill_protocol::usage::Price;
use gristmill_protocol::voucher::Voucher;
use gristmill_transport::coordinator_client::verify_by_any;
use gristmill_transport::{Clock, CoordinatorCallError, CoordinatorClient};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::coordinator_link::Terms;
use crate::core::budget::{ChannelState, Holding, Scope, holding, paying_channel, use_until_ms};
use crate::core::failure::ApiFailure;

pub(crate) mod file;
mod opening_error;

use file::{StoredChannel, StoredOpening, WalletContent, WalletFileError};
use opening_error::OpeningError;

/// The longest that opening a channel may take, with all its calls.
const OPENING_TIMEOUT: Duration = Duration::from_secs(8);
/// For so long a failed opening answers for those that waited for it.
const FAILURE_SHARED: Duration = Duration::from_secs(1);
/// How long changes are gathered before the file is written.
const SAVE_DELAY: Duration = Duration::from_millis(300);
/// How long a channel is kept after its end, in milliseconds.
const KEPT_AFTER_END_MS: u64 = 60 * 60 * 1_000;

/// What pays for a job.
#[derive(Clone, Debug)]
pub(crate) struct Funding {
    pub(crate) channel: ChannelId,
    pub(crate) ticket: String,
    pub(crate) account: Arc<Mutex<ConsumerChannel>>,
}

/// Locks a channel. What it holds is numbers that are changed together, so a panic elsewhere spoils nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct OpenChannel {
    stored: StoredChannel,
    account: Arc<Mutex<ConsumerChannel>>,
}

#[derive(Default)]
struct State {
    coordinator: Option<AccountId>,
    channels: BTreeMap<ChannelId, OpenChannel>,
    openings: BTreeMap<ChannelId, StoredOpening>,
}

/// One opening at a time per provider. Those who wait share a failure.
type Gate = Arc<AsyncMutex<Option<(Instant, ApiFailure)>>>;

/// The wallet of an account.
pub(crate) struct Wallet {
    keypair: Keypair,
    client: Arc<CoordinatorClient>,
    clock: Clock,
    path: PathBuf,
    usual_limit: Credits,
    usual_life_ms: u64,
    state: Mutex<State>,
    gates: Mutex<BTreeMap<AccountId, Gate>>,
    saving: AsyncMutex<()>,
    changed: Notify,
}

impl Wallet {
    /// Opens the wallet in a file.
    pub(crate) fn open(
        path: PathBuf,
        keypair: Keypair,
        client: Arc<CoordinatorClient>,
        clock: Clock,
        usual_limit: Credits,
        usual_life_ms: u64,
    ) -> Result<Self, WalletFileError> {
        let content = file::load(&path, clock())?;
        let open = |stored: StoredChannel| {
            let account =
                ConsumerChannel::new(keypair.clone(), stored.channel, stored.limit, stored.promised);
            (
                stored.channel,
                OpenChannel {
                    stored,
                    account: Arc::new(Mutex::new(account)),
                },
            )
        };
        let state = State {
            coordinator: content.coordinator,
            channels: content.channels.into_iter().map(open).collect(),
            openings: content
                .openings
                .into_iter()
                .map(|opening| (opening.request.channel, opening))
                .collect(),
        };
        Ok(Self {
            keypair,
            client,
            clock,
            path,
            usual_limit,
            usual_life_ms,
            state: Mutex::new(state),
            gates: Mutex::new(BTreeMap::new()),
            saving: AsyncMutex::new(()),
            changed: Notify::new(),
        })
    }

    /// The coordinator that answered last, maybe before a restart.
    pub(crate) fn remembered_coordinator(&self) -> Option<AccountId> {
        lock(&self.state).coordinator
    }

    /// Remembers the coordinator.
    pub(crate) fn remember_coordinator(&self, coordinator: AccountId) {
        let previous = lock(&self.state).coordinator.replace(coordinator);
        if previous != Some(coordinator) {
            self.note_change();
        }
    }

    /// Those with a channel that has something left.
    pub(crate) fn funded(&self, coordinator: AccountId) -> BTreeSet<AccountId> {
        let now_ms = (self.clock)();
        let state = lock(&self.state);
        let usable = state.channels.values().filter(|open| {
            let stored = &open.stored;
            stored.coordinator == coordinator && !stored.is_retired && now_ms < stored.use_until_ms
        });
        usable
            .filter(|open| !lock(&open.account).left().is_zero())
            .map(|open| open.stored.provider)
            .collect()
    }

    /// What pays for a job, and the output tokens per choice that it pays for: an open channel with enough left, or
    /// a new one.
    pub(crate) async fn fund(
        &self,
        provider: AccountId,
        scope: &Scope,
        price: &Price,
        terms: &Terms,
    ) -> Result<(Funding, u64), ApiFailure> {
        let tokens = scope.output_tokens();
        let needed = scope.cost_max(price, tokens).unwrap_or(Credits::MAX);
        if let Some(funding) = self.paying(provider, terms.coordinator, needed) {
            return Ok((funding, tokens));
        }
        let gate = lock(&self.gates).entry(provider).or_default().clone();
        let mut failed = gate.lock().await;
        if let Some(funding) = self.paying(provider, terms.coordinator, needed) {
            return Ok((funding, tokens));
        }
        if let Some((at, failure)) = failed.as_ref()
            && at.elapsed() < FAILURE_SHARED
        {
            return Err(failure.clone());
        }
        let opening = self.open_channel(provider, scope, price, terms);
        let opened = timeout(OPENING_TIMEOUT, opening)
            .await
            .unwrap_or(Err(OpeningError::TimedOut));
        opened.or_else(|error| {
            // A shorter answer from what is open already is better than none.
            if let Some(shortened) = self.shortened(provider, scope, price, terms) {
                return Ok(shortened);
            }
            let concerns_all = error.concerns_all();
            let failure = error.into_failure();
            if concerns_all {
                *failed = Some((Instant::now(), failure.clone()));
            }
            Err(failure)
        })
    }

    /// An open channel with enough left.
    fn paying(&self, provider: AccountId, coordinator: AccountId, needed: Credits) -> Option<Funding> {
        let state = lock(&self.state);
        let usable = usable(&state, provider, coordinator).map(channel_state);
        let channel = paying_channel(usable, needed, (self.clock)())?;
        state.channels.get(&channel).map(funding)
    }

    fn shortened(
        &self,
        provider: AccountId,
        scope: &Scope,
        price: &Price,
        terms: &Terms,
    ) -> Option<(Funding, u64)> {
        let now_ms = (self.clock)();
        let state = lock(&self.state);
        let fullest = usable(&state, provider, terms.coordinator)
            .filter(|open| now_ms < open.stored.use_until_ms)
            .max_by_key(|open| lock(&open.account).left())?;
        let tokens = scope.affordable_output_tokens(price, lock(&fullest.account).left())?;
        Some((funding(fullest), tokens))
    }

    async fn open_channel(
        &self,
        provider: AccountId,
        scope: &Scope,
        price: &Price,
        terms: &Terms,
    ) -> Result<(Funding, u64), OpeningError> {
        let tokens = scope.output_tokens();
        let needed = scope.cost_max(price, tokens).unwrap_or(Credits::MAX);
        if let Some(reason) = &terms.distrust {
            return Err(OpeningError::Distrusted(reason.clone()));
        }
        if let Some(request) = self.begun(provider, terms.coordinator, needed) {
            return Ok((self.complete(request, terms).await?, tokens));
        }
        let available = self.available().await?;
        let (limit, tokens) =
            match holding(scope, price, self.usual_limit, terms.channel_limit_max, available) {
                Holding::Whole(limit) => (limit, tokens),
                Holding::Shortened { limit, output_tokens } => (limit, output_tokens),
                Holding::Insufficient { needed, available } => {
                    return Err(OpeningError::Insufficient { needed, available });
                }
            };
        let request = OpenChannelRequest {
            channel: ChannelId::from_bytes(random_bytes()),
            provider,
            limit,
            life_ms: self.usual_life_ms.min(terms.channel_life_max_ms),
        };
        // On disk before it is asked for, so that a ticket that gets lost on the way can be asked for again.
        self.begin(request.clone(), terms.coordinator).await?;
        Ok((self.complete(request, terms).await?, tokens))
    }

    async fn available(&self) -> Result<Credits, OpeningError> {
        match self.client.account_view().await {
            Ok(view) => Ok(view.available),
            Err(CoordinatorCallError::Refused { status: 404, .. }) => Ok(self
                .client
                .open_account()
                .await
                .map_err(OpeningError::Coordinator)?
                .available),
            Err(error) => Err(OpeningError::Coordinator(error)),
        }
    }

    /// An opening that was asked for and never answered.
    fn begun(
        &self,
        provider: AccountId,
        coordinator: AccountId,
        needed: Credits,
    ) -> Option<OpenChannelRequest> {
        let now_ms = (self.clock)();
        let state = lock(&self.state);
        let fits = |opening: &&StoredOpening| {
            let request = &opening.request;
            let use_until_ms = use_until_ms(
                opening.asked_at_ms.saturating_add(request.life_ms),
                request.life_ms,
            );
            opening.coordinator == coordinator
                && request.provider == provider
                && request.limit >= needed
                && now_ms < use_until_ms
        };
        state
            .openings
            .values()
            .find(fits)
            .map(|opening| opening.request.clone())
    }

    async fn begin(&self, request: OpenChannelRequest, coordinator: AccountId) -> Result<(), OpeningError> {
        let opening = StoredOpening {
            coordinator,
            request,
            asked_at_ms: (self.clock)(),
        };
        lock(&self.state)
            .openings
            .insert(opening.request.channel, opening);
        self.save().await.map_err(OpeningError::File)
    }

    async fn complete(&self, request: OpenChannelRequest, terms: &Terms) -> Result<Funding, OpeningError> {
        let answer = match self.client.open_channel(&request).await {
            Ok(answer) => answer,
            Err(error) => {
                if matches!(error, CoordinatorCallError::Refused { .. }) {
                    lock(&self.state).openings.remove(&request.channel);
                    self.note_change();
                }
                return Err(OpeningError::from_call(error, request.limit));
            }
        };
        let claims = self.checked(&answer.ticket, &request).await?;
        let stored = StoredChannel {
            channel: request.channel,
            coordinator: terms.coordinator,
            provider: request.provider,
            ticket: answer.ticket,
            limit: claims.limit,
            redeem_by_ms: claims.redeem_by_ms,
            use_until_ms: use_until_ms(claims.redeem_by_ms, request.life_ms),
            promised: Credits::ZERO,
            is_retired: false,
        };
        let account = ConsumerChannel::new(
            self.keypair.clone(),
            stored.channel,
            stored.limit,
            stored.promised,
        );
        tracing::info!(channel = %stored.channel, provider = %stored.provider, limit = %stored.limit, "channel opened");
        let open = OpenChannel {
            stored,
            account: Arc::new(Mutex::new(account)),
        };
        let funding = funding(&open);
        {
            let mut state = lock(&self.state);
            state.openings.remove(&request.channel);
            state.channels.insert(request.channel, open);
        }
        // The opening is on disk already: should this be lost, the same ticket is asked for again.
        self.note_change();
        Ok(funding)
    }

    /// The ticket's claims, where it is the one that was asked for. Where it is signed by an unknown key, the
    /// coordinator is asked for its keys first.
    async fn checked(
        &self,
        ticket: &str,
        request: &OpenChannelRequest,
    ) -> Result<TicketClaims, OpeningError> {
        let verify = |key: &AccountId| TicketClaims::verify(ticket, key, &request.provider, (self.clock)());
        let keys = self.client.log_keys().await.map_err(OpeningError::Coordinator)?;
        let verified = match verify_by_any(&keys, verify) {
            Err(TokenError::Signature) if self.client.refresh_keys().await => {
                let keys = self.client.log_keys().await.map_err(OpeningError::Coordinator)?;
                verify_by_any(&keys, verify)
            }
            verified => verified,
        };
        let claims = verified.map_err(|error| OpeningError::Ticket(error.to_string()))?;
        let is_ours = claims.sub == self.keypair.account()
            && claims.jti == request.channel
            && claims.limit == request.limit;
        if is_ours {
            Ok(claims)
        } else {
            Err(OpeningError::Ticket("it is not what was asked for".into()))
        }
    }

    /// Uses a channel for no more jobs.
    pub(crate) fn retire(&self, channel: ChannelId) {
        if let Some(open) = lock(&self.state).channels.get_mut(&channel) {
            open.stored.is_retired = true;
        }
        self.note_change();
    }

    /// Hands in a voucher that its provider could not hear any more, on its behalf: a killed provider is paid for what
    /// it delivered. Where the coordinator does not take it, the next job on the channel brings it.
    pub(crate) async fn hand_in(self: Arc<Self>, voucher: Signed<Voucher>) {
        match self.client.settle(&[voucher]).await {
            Ok(answer) => tracing::debug!(results = ?answer.results, "a last voucher was handed in"),
            Err(error) => tracing::debug!(%error, "a last voucher was not handed in"),
        }
    }

    /// Says that something was promised.
    pub(crate) fn note_change(&self) {
        self.changed.notify_one();
    }

    /// Writes the file now.
    pub(crate) async fn save(&self) -> Result<(), WalletFileError> {
        let _saving = self.saving.lock().await;
        let content = self.content();
        let path = self.path.clone();
        let saved = tokio::task::spawn_blocking(move || file::save(&path, &content)).await;
        saved.unwrap_or(Ok(()))
    }

    fn content(&self) -> WalletContent {
        let now_ms = (self.clock)();
        let mut state = lock(&self.state);
        state
            .channels
            .retain(|_, open| now_ms < open.stored.redeem_by_ms.saturating_add(KEPT_AFTER_END_MS));
        state
            .openings
            .retain(|_, opening| now_ms < opening.asked_at_ms.saturating_add(opening.request.life_ms));
        let with_promise = |open: &OpenChannel| StoredChannel {
            promised: lock(&open.account).promised(),
            ..open.stored.clone()
        };
        WalletContent {
            coordinator: state.coordinator,
            channels: state.channels.values().map(with_promise).collect(),
            openings: state.openings.values().cloned().collect(),
            ..WalletContent::default()
        }
    }

    /// Writes the file some time after each change, until told to stop.
    pub(crate) async fn keep_saved(self: Arc<Self>, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.changed.notified() => {}
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(SAVE_DELAY) => {}
            }
            if let Err(error) = self.save().await {
                tracing::error!(%error, "the wallet was not saved");
            }
        }
    }
}

fn usable(state: &State, provider: AccountId, coordinator: AccountId) -> impl Iterator<Item = &OpenChannel> {
    state.channels.values().filter(move |open| {
        let stored = &open.stored;
        stored.provider == provider && stored.coordinator == coordinator && !stored.is_retired
    })
}

fn channel_state(open: &OpenChannel) -> ChannelState {
    ChannelState {
        channel: open.stored.channel,
        left: lock(&open.account).left(),
        use_until_ms: open.stored.use_until_ms,
    }
}

fn funding(open: &OpenChannel) -> Funding {
    Funding {
        channel: open.stored.channel,
        ticket: open.stored.ticket.clone(),
        account: open.account.clone(),
    }
}

/// 16 bytes of the system's randomness.
pub(crate) fn random_bytes() -> [u8; 16] {
    rand::random()
}
