//! The coordinator without its sockets: what each call does, between the pure [`core`](crate::core) and the ledger.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gristmill_ledger::Ledger;
use gristmill_ledger::entry::Entry;
use gristmill_ledger::log::Log;
use gristmill_ledger::outcome::Posted;
use gristmill_ledger::store::{PostError, ReadError};
use gristmill_protocol::coordinator_api::NetworkInfo;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::tokens::Call;
use gristmill_transport::Mesh;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::core::authentication::{AuthenticationError, verify_call};
use crate::core::channel_policy::ChannelPolicy;
use crate::core::rejection::Rejection;
use crate::core::replay_guard::ReplayGuard;
use crate::hardware::Hardware;
use crate::settings::Settings;
use crate::signers::Signers;

mod accounts;
mod channels;
mod hardware;
mod listings;
mod log;
mod operator;
mod settlement;

use listings::SharedAnswer;

/// Everything that calls need.
pub(crate) struct Service {
    keypair: Keypair,
    signers: Signers,
    settings: Settings,
    policy: ChannelPolicy,
    pub(crate) ledger: Ledger,
    log: Log,
    mesh: Mesh,
    clock: Clock,
    used_tokens: Mutex<ReplayGuard>,
    listings: Mutex<Option<SharedAnswer>>,
    hardware: Option<Hardware>,
    stopping: CancellationToken,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Service")
            .field("account", &self.operator())
            .finish_non_exhaustive()
    }
}

impl Service {
    pub(crate) fn new(
        signers: Signers,
        settings: Settings,
        ledger: Ledger,
        log: Log,
        mesh: Mesh,
        clock: Clock,
        stopping: CancellationToken,
    ) -> Self {
        let policy = ChannelPolicy {
            limit_max: settings.channel_limit_max,
            life_max_ms: settings.channel_life_max_ms,
        };
        Self {
            keypair: log.signer().keypair().clone(),
            signers,
            settings,
            policy,
            ledger,
            log,
            mesh,
            clock,
            used_tokens: Mutex::default(),
            listings: Mutex::default(),
            hardware: None,
            stopping,
        }
    }

    /// The same, issuing certificates of hardware where there is what issues them.
    pub(crate) fn with_hardware(self, hardware: Option<Hardware>) -> Self {
        Self { hardware, ..self }
    }

    /// Who makes a call; admits its token once.
    pub(crate) fn authenticate(
        &self,
        call: Call<'_>,
        authorization: Option<&[u8]>,
    ) -> Result<AccountId, Rejection> {
        let now_ms = self.clock.now_ms();
        let claims = verify_call(call, authorization, &self.operator(), now_ms)?;
        lock(&self.used_tokens)
            .admit(&claims, now_ms)
            .map_err(AuthenticationError::from)?;
        Ok(claims.iss)
    }

    /// Whether calls are taken.
    pub(crate) fn ready(&self) -> Result<(), Rejection> {
        if self.stopping.is_cancelled() {
            return Err(PostError::Stopped.into());
        }
        self.ledger
            .read_only_reason()
            .or_else(|| self.log.halted().map(str::to_owned))
            .map_or(Ok(()), |reason| Err(PostError::ReadOnly { reason }.into()))
    }

    /// The Unix time in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Posts an entry, now. What is not the caller's fault stands in the logs from here on.
    pub(crate) async fn post(&self, entry: Entry) -> Result<Posted, PostError> {
        // What can't be proved any more is not taken.
        if let Some(reason) = self.log.halted() {
            let reason = format!("the Merkle log has halted: {reason}");
            return Err(PostError::ReadOnly { reason });
        }
        let posted = self.ledger.post(entry, self.clock.now_ms()).await;
        if let Err(error @ (PostError::ReadOnly { .. } | PostError::Read(_))) = &posted {
            tracing::error!(%error, "the ledger failed");
        }
        posted
    }

    /// Open channels whose time is over, at most `limit`.
    pub(crate) async fn expired_channels(&self, limit: usize) -> Result<Vec<ChannelId>, ReadError> {
        self.ledger.expired_channels(self.clock.now_ms(), limit).await
    }

    /// The account that signs tickets and receipts, and is the operator.
    pub(crate) fn operator(&self) -> AccountId {
        self.keypair.account()
    }

    /// The ledger contradicts itself: an error of this program.
    fn contradiction(expected: &str, sequence: u64) -> Rejection {
        tracing::error!(sequence, expected, "the ledger's record is something else");
        Rejection::internal()
    }

    pub(crate) fn network(&self) -> NetworkInfo {
        NetworkInfo {
            name: self.settings.name.clone(),
            coordinator: self.operator(),
            version: env!("CARGO_PKG_VERSION").into(),
            bootstrap: self.bootstrap_addresses(),
            fee_basis_points: self.settings.fee_basis_points,
            starter_grant: self.settings.starter_grant,
            channel_limit_max: self.settings.channel_limit_max,
            channel_life_max_ms: self.settings.channel_life_max_ms,
            log: self.log_info(),
        }
    }

    /// The addresses by which others join the mesh: the public ones that are configured, or those listened on.
    pub(crate) fn bootstrap_addresses(&self) -> Vec<String> {
        if self.settings.public_addresses.is_empty() {
            return self
                .mesh
                .bootstrap_addresses()
                .iter()
                .map(ToString::to_string)
                .collect();
        }
        let peer = format!("/p2p/{}", self.operator());
        let with_peer = |address: &String| match address.contains("/p2p/") {
            true => address.clone(),
            false => format!("{address}{peer}"),
        };
        self.settings.public_addresses.iter().map(with_peer).collect()
    }

    fn is_operator(&self, account: &AccountId) -> bool {
        *account == self.operator()
    }
}

/// Locks what only short, panic-free sections lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
