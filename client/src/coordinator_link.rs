//! Keeps in touch with the coordinator: joins the mesh through it, makes the account known, and asks for listings
//! that gossip has not brought yet. The client works on, with what is open, while the coordinator is away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_transport::mesh::Multiaddr;
use gristmill_transport::witness::Witness;
use gristmill_transport::{CoordinatorCallError, CoordinatorClient, Mesh};
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::wallet::Wallet;

/// Between two attempts while the coordinator is away.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// Between two looks at a coordinator that is there.
const REFRESH_PAUSE: Duration = Duration::from_secs(60);
/// How long after joining, and after each look, the directory is read again.
const EARLY_PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(1_000),
    Duration::from_millis(1_250),
    Duration::from_millis(2_500),
];
/// The listings are asked for at most so often, however many requests miss a model.
const LISTINGS_PAUSE: Duration = Duration::from_secs(1);
/// Longest time that a request waits for the listings.
const LISTINGS_TIMEOUT: Duration = Duration::from_secs(3);

/// What the coordinator's word is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Whose tickets pay: the account of the coordinator's first key, which names it whatever key signs now.
    pub(crate) coordinator: AccountId,
    /// Why no channel is opened with it any more, where none is.
    pub(crate) distrust: Option<String>,
    /// The largest limit of a channel.
    pub(crate) channel_limit_max: Credits,
    /// The longest life of a channel, in milliseconds.
    pub(crate) channel_life_max_ms: u64,
}

/// Whether the coordinator is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// Not asked yet.
    Unknown,
    /// It answered last time.
    Joined,
    /// It did not.
    Away(String),
}

/// The connection to the coordinator.
pub(crate) struct CoordinatorLink {
    client: Arc<CoordinatorClient>,
    mesh: Mesh,
    wallet: Arc<Wallet>,
    witness: Witness,
    refuses_liars: bool,
    terms: watch::Sender<Option<Terms>>,
    state: watch::Sender<LinkState>,
    listings_asked: AsyncMutex<Option<Instant>>,
}

impl CoordinatorLink {
    pub(crate) fn new(
        client: Arc<CoordinatorClient>,
        mesh: Mesh,
        wallet: Arc<Wallet>,
        witness: Witness,
        refuses_liars: bool,
    ) -> Self {
        // Before its first word, a coordinator that was there before a restart is taken to be there still, with no
        // limits of its own: what it does not allow it refuses.
        let remembered = wallet.remembered_coordinator().map(|coordinator| Terms {
            coordinator,
            distrust: None,
            channel_limit_max: Credits::MAX,
            channel_life_max_ms: u64::MAX,
        });
        let link = Self {
            client,
            mesh,
            wallet,
            witness,
            refuses_liars,
            terms: watch::Sender::new(remembered),
            state: watch::Sender::new(LinkState::Unknown),
            listings_asked: AsyncMutex::new(None),
        };
        link.trust_certificates();
        link
    }

    /// Believes the certificates of hardware of the coordinator's keys, as far as these are known.
    fn trust_certificates(&self) {
        if let Some(known) = self.client.known_keys().borrow().as_ref() {
            self.mesh.trust_certificates(known.keys());
        }
    }

    /// What is known of the coordinator.
    pub(crate) fn terms(&self) -> Option<Terms> {
        let mut terms = self.terms.borrow().clone()?;
        terms.distrust = self.distrust();
        Some(terms)
    }

    /// Why no channel is opened with the coordinator any more, where none is.
    pub(crate) fn distrust(&self) -> Option<String> {
        self.witness.distrust().filter(|_| self.refuses_liars)
    }

    /// Who watches the coordinator's log.
    pub(crate) const fn witness(&self) -> &Witness {
        &self.witness
    }

    /// Whether it is there.
    pub(crate) fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }

    /// Waits until the coordinator was asked once, whatever it said.
    pub(crate) async fn first_attempt(&self) {
        // The sender lives as long as this.
        let _ = self
            .state
            .subscribe()
            .wait_for(|state| *state != LinkState::Unknown)
            .await;
    }

    /// Joins, and looks after it until told to stop.
    pub(crate) async fn run(self: Arc<Self>, stopping: CancellationToken) {
        let mut known = BTreeSet::new();
        let mut keys = self.client.known_keys();
        loop {
            let joined = tokio::select! {
                () = stopping.cancelled() => return,
                joined = self.join(&mut known) => joined,
            };
            let is_news = joined.is_ok() && self.state() != LinkState::Joined;
            let pause = if joined.is_ok() {
                REFRESH_PAUSE
            } else {
                RETRY_PAUSE
            };
            self.note(joined);
            if is_news {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = self.look_again_early() => {}
                }
            }
            let pause = tokio::time::sleep(pause);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = &mut pause => break,
                    // The wallet asks for the keys too, when it meets an unknown one.
                    Ok(()) = keys.changed() => self.trust_certificates(),
                }
            }
        }
    }

    /// Reads the directory a few times more: gossip does not repeat what was said while this peer was joining.
    async fn look_again_early(&self) {
        for pause in EARLY_PAUSES {
            tokio::time::sleep(pause).await;
            if let Err(error) = self.learn_listings().await {
                tracing::debug!(%error, "no listings from the coordinator");
            }
        }
    }

    fn note(&self, joined: Result<(), CoordinatorCallError>) {
        let state = match joined {
            Ok(()) => LinkState::Joined,
            Err(error) => LinkState::Away(error.to_string()),
        };
        let previous = self.state.send_replace(state.clone());
        match (&previous, &state) {
            (LinkState::Away(_), LinkState::Joined) => tracing::info!("the coordinator is back"),
            (LinkState::Away(_), LinkState::Away(_)) => {}
            (_, LinkState::Away(reason)) => tracing::warn!(%reason, "the coordinator is away; trying again"),
            _ => {}
        }
    }

    async fn join(&self, known: &mut BTreeSet<String>) -> Result<(), CoordinatorCallError> {
        let network = self.client.network().await?;
        self.trust_certificates();
        let terms = Terms {
            coordinator: network.log.account,
            distrust: None,
            channel_limit_max: network.channel_limit_max,
            channel_life_max_ms: network.channel_life_max_ms,
        };
        for address in network.bootstrap {
            if known.insert(address.clone()) {
                self.add_bootstrap(&address).await;
            }
        }
        if *self.state.borrow() != LinkState::Joined {
            let account = self.client.open_account().await?;
            tracing::info!(account = %account.account, available = %account.available, "account known to the coordinator");
        }
        // Not before there is an account: until then every request would be told that it has no credits.
        self.terms.send_replace(Some(terms));
        self.wallet.remember_coordinator(network.log.account);
        self.learn_listings().await
    }

    async fn add_bootstrap(&self, address: &str) {
        let added = match address.parse::<Multiaddr>() {
            Ok(parsed) => self
                .mesh
                .add_bootstrap(parsed)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = added {
            tracing::warn!(
                address,
                error,
                "the coordinator named a bootstrap peer that can't be used"
            );
        }
    }

    async fn learn_listings(&self) -> Result<(), CoordinatorCallError> {
        for sealed in self.client.listings().await? {
            if let Err(error) = self.mesh.learn_listing(&sealed) {
                tracing::debug!(%error, "a listing of the coordinator's directory is invalid");
            }
        }
        Ok(())
    }

    /// Asks for listings because a request found nobody. Those that miss one at the same time share the call.
    pub(crate) async fn refresh_listings(&self) {
        let mut asked = self.listings_asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < LISTINGS_PAUSE) {
            return;
        }
        match timeout(LISTINGS_TIMEOUT, self.learn_listings()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "no listings from the coordinator"),
            Err(_) => tracing::debug!("no listings from the coordinator in time"),
        }
        *asked = Some(Instant::now());
    }
}
