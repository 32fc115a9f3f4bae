//! The coordinator's HTTP API, seen from an account.
//!
//! Every call of the API may be repeated: what it creates is named by the caller, and what it hands in counts once.
//! So a call is tried up to four times where the coordinator cannot be reached or says 503, each time with a
//! caller token of its own, since a coordinator accepts each token once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::coordinator_api::{
    AccountView, ChannelView, CosignatureAnswer, CosignatureRequest, GrantRequest, JwkSet, ListingsAnswer,
    NetworkInfo, OpenChannelAnswer, OpenChannelRequest, ReceiptView, ReceiptsPage, SettleAnswer,
    SettleRequest, listing_from_text, voucher_text,
};
use gristmill_protocol::identity::{AccountId, Keypair, Signed};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_protocol::log::note::{NOTE_MAX_BYTES, SignedNote};
use gristmill_protocol::log::tile::Tile;
use gristmill_protocol::voucher::Voucher;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::Instant;

use crate::mesh::Clock;

mod call;
mod error;
mod hardware;
mod known_keys;

use call::{Caller, Request};
pub use error::{CoordinatorCallError, CoordinatorUrlError};
use known_keys::KnownKeysFile;
pub use known_keys::{HANDOVERS_MAX, KnownKeys, KnownKeysError, all_known_keys, verify_by_any};

/// How often a coordinator is asked for its keys at most because something was signed by an unknown one.
const KEYS_EVERY: Duration = Duration::from_secs(5);
/// The status of a call that the coordinator does not take for one of this account's.
const UNAUTHORIZED: u16 = 401;
/// Most bytes of the directory of listings.
const LISTINGS_ANSWER_MAX_BYTES: usize = 64 << 20;

/// A client of one coordinator, for one account.
pub struct CoordinatorClient {
    caller: Caller,
    expected: Option<AccountId>,
    known: watch::Sender<Option<Arc<KnownKeys>>>,
    file: Option<KnownKeysFile>,
    /// One at a time follows what the coordinator says of its keys.
    following: AsyncMutex<()>,
    /// When the keys were last asked for because of an unknown one.
    keys_asked: AsyncMutex<Option<Instant>>,
}

impl std::fmt::Debug for CoordinatorClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "CoordinatorClient({} for {})",
            self.caller.url(),
            self.account()
        )
    }
}

impl CoordinatorClient {
    /// A client of the coordinator at `url`. Where `coordinator` is given, none is accepted there that does not sign,
    /// or has not signed, with this account's key; otherwise the first one that answers is.
    ///
    /// # Errors
    /// [`CoordinatorUrlError`] where the address is not `http` or `https` with nothing but host and port.
    pub fn new(
        url: &str,
        coordinator: Option<AccountId>,
        keypair: Keypair,
        clock: Clock,
    ) -> Result<Self, CoordinatorUrlError> {
        let caller = Caller::new(url, keypair, clock)?;
        Ok(Self {
            caller,
            expected: coordinator,
            known: watch::Sender::new(None),
            file: None,
            following: AsyncMutex::new(()),
            keys_asked: AsyncMutex::new(None),
        })
    }

    /// The same, with the coordinator's keys kept in `data_dir`: from its first answer on, no other coordinator is
    /// accepted at this address, also after a restart.
    ///
    /// # Errors
    /// [`KnownKeysError`] where the file with the keys can't be read or makes no sense.
    pub fn with_known_keys_in(mut self, data_dir: &Path) -> Result<Self, KnownKeysError> {
        let file = KnownKeysFile::new(data_dir, self.caller.url());
        self.known.send_replace(file.load()?.map(Arc::new));
        self.file = Some(file);
        Ok(self)
    }

    /// The account that calls.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.caller.account()
    }

    /// Where the coordinator is.
    #[must_use]
    pub fn url(&self) -> String {
        self.caller.url().to_string()
    }

    /// Follows the keys that the coordinator signs with: those kept before, and what it says whenever it is asked.
    /// `None` until it was met.
    #[must_use]
    pub fn known_keys(&self) -> watch::Receiver<Option<Arc<KnownKeys>>> {
        self.known.subscribe()
    }

    /// The keys that the coordinator signs with, without asking it where it was met before.
    ///
    /// # Errors
    /// As [`CoordinatorClient::network`], which is asked otherwise.
    pub async fn log_keys(&self) -> Result<LogKeys, CoordinatorCallError> {
        if self.known.borrow().is_none() {
            self.network().await?;
        }
        let known = self.known.borrow().clone();
        known
            .map(|known| known.keys().clone())
            .ok_or_else(|| self.caller.invalid("it names no keys"))
    }

    /// The coordinator's account, whose key signs now as far as is known: the one it named last, or the configured one.
    ///
    /// # Errors
    /// As [`CoordinatorClient::network`], which is asked where it is not known yet.
    pub async fn coordinator(&self) -> Result<AccountId, CoordinatorCallError> {
        let known = self.known.borrow().as_ref().map(|known| *known.keys().newest());
        match known.or(self.expected) {
            Some(known) => Ok(known),
            None => Ok(self.network().await?.coordinator),
        }
    }

    /// What the coordinator says about itself and the network. Hand-overs of its key are followed.
    ///
    /// # Errors
    /// [`CoordinatorCallError`]; [`CoordinatorCallError::WrongCoordinator`] where it is another one than configured,
    /// [`CoordinatorCallError::KeyChanged`] where it is another one than before.
    pub async fn network(&self) -> Result<NetworkInfo, CoordinatorCallError> {
        let info: NetworkInfo = self.call(Request::public("/v1/network")).await?;
        let claimed = KnownKeys::claimed(&info).map_err(|reason| self.caller.invalid(&reason))?;
        self.follow(claimed).await?;
        Ok(info)
    }

    /// Asks the coordinator for its keys, since something was signed by one that is not known: at most once in a few
    /// seconds, however often this is called. Tells whether there are others now.
    pub async fn refresh_keys(&self) -> bool {
        let before = self.known.borrow().clone();
        let mut asked = self.keys_asked.lock().await;
        if asked.is_none_or(|at| at.elapsed() >= KEYS_EVERY) {
            *asked = Some(Instant::now());
            if let Err(error) = self.network().await {
                tracing::debug!(%error, "the coordinator does not tell its keys");
            }
        }
        *self.known.borrow() != before
    }

    /// Takes the keys that the coordinator names, if they go on from those that are known.
    async fn follow(&self, claimed: KnownKeys) -> Result<(), CoordinatorCallError> {
        let _one_at_a_time = self.following.lock().await;
        let (url, actual) = (self.url(), *claimed.keys().newest());
        let known = self.known.borrow().clone();
        if let Some(known) = &known
            && !claimed.goes_on_from(known)
        {
            return Err(CoordinatorCallError::KeyChanged {
                url,
                known: *known.keys().newest(),
                actual,
                remedy: self.remedy(),
            });
        }
        if let Some(expected) = self.expected
            && !claimed.keys().contains(&expected)
        {
            return Err(CoordinatorCallError::WrongCoordinator {
                url,
                expected,
                actual,
            });
        }
        if known.as_deref() != Some(&claimed) {
            self.keep(&claimed).await?;
            if let Some(known) = known {
                let old = known.keys().newest();
                tracing::info!(%old, new = %actual, "the coordinator handed its key over to a new one");
            }
            self.known.send_replace(Some(Arc::new(claimed)));
        }
        Ok(())
    }

    async fn keep(&self, claimed: &KnownKeys) -> Result<(), CoordinatorCallError> {
        let Some(file) = self.file.clone() else {
            return Ok(());
        };
        let claimed = claimed.clone();
        let kept = tokio::task::spawn_blocking(move || file.save(&claimed)).await;
        let failed = |error: String| CoordinatorCallError::KnownKeys(error);
        kept.map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(error.to_string()))
    }

    fn remedy(&self) -> String {
        let known_in: Option<PathBuf> = self.file.as_ref().map(|file| file.path().to_owned());
        match known_in {
            Some(path) => format!("stop this program, remove {} and start it again", path.display()),
            None => "start this program again".to_owned(),
        }
    }

    /// The newest checkpoint of the log, as the coordinator shows it, with cosignatures. It is not checked here.
    ///
    /// # Errors
    /// [`CoordinatorCallError`]; code `not_found` where there is none yet.
    pub async fn checkpoint(&self) -> Result<SignedNote, CoordinatorCallError> {
        let request = Request::public("/log/checkpoint").with_answer_of(NOTE_MAX_BYTES);
        let answer = self.caller.call(&request, None).await?;
        let text = String::from_utf8(answer).map_err(|error| self.caller.invalid(&error.to_string()))?;
        text.parse()
            .map_err(|error: gristmill_protocol::log::note::NoteError| {
                self.caller.invalid(&error.to_string())
            })
    }

    /// The hashes of a tile of the log. Where a partial tile has filled up and is gone, the full one. They are not
    /// checked here.
    ///
    /// # Errors
    /// [`CoordinatorCallError`] where it can't be had, or is of another length.
    pub async fn tile(&self, tile: Tile) -> Result<Vec<u8>, CoordinatorCallError> {
        match self.one_tile(tile).await {
            Err(error) if tile.is_partial() && !matches!(error, CoordinatorCallError::Unreachable { .. }) => {
                self.one_tile(tile.full()).await
            }
            read => read,
        }
    }

    async fn one_tile(&self, tile: Tile) -> Result<Vec<u8>, CoordinatorCallError> {
        let request = Request::public(&format!("/log/{}", tile.path())).with_answer_of(tile.bytes());
        let hashes = self.caller.call(&request, None).await?;
        match hashes.len() == tile.bytes() {
            true => Ok(hashes),
            false => Err(self.caller.invalid(&format!(
                "{tile} has {} bytes instead of {}",
                hashes.len(),
                tile.bytes()
            ))),
        }
    }

    /// Offers a cosignature of this account for a checkpoint of the last seconds.
    ///
    /// # Errors
    /// [`CoordinatorCallError`]; a refusal says why the coordinator does not want it.
    pub async fn cosign(
        &self,
        request: &CosignatureRequest,
    ) -> Result<CosignatureAnswer, CoordinatorCallError> {
        self.post("/v1/cosignatures", request).await
    }

    /// One receipt of the account, with all that proves it.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn receipt(&self, sequence: u64) -> Result<ReceiptView, CoordinatorCallError> {
        self.call(Request::get(format!("/v1/receipts/{sequence}"))).await
    }

    /// The sealed listings that the coordinator has heard, to be verified by [`crate::Mesh::learn_listing`].
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn listings(&self) -> Result<Vec<Vec<u8>>, CoordinatorCallError> {
        let request = Request::public("/v1/listings").with_answer_of(LISTINGS_ANSWER_MAX_BYTES);
        let answer: ListingsAnswer = self.call(request).await?;
        answer
            .listings
            .iter()
            .map(|text| listing_from_text(text).map_err(|error| self.caller.invalid(&error.to_string())))
            .collect()
    }

    /// The keys that sign the coordinator's tickets and receipts.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn jwks(&self) -> Result<JwkSet, CoordinatorCallError> {
        self.call(Request::public("/.well-known/jwks.json")).await
    }

    /// Makes the account known, and gives its balances.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn open_account(&self) -> Result<AccountView, CoordinatorCallError> {
        self.call(Request::post("/v1/accounts", Vec::new())).await
    }

    /// The account's balances.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn account_view(&self) -> Result<AccountView, CoordinatorCallError> {
        self.call(Request::get("/v1/account")).await
    }

    /// Holds credits for a provider and brings the ticket.
    ///
    /// # Errors
    /// [`CoordinatorCallError`]; code `insufficient_credits` where the account has too little.
    pub async fn open_channel(
        &self,
        request: &OpenChannelRequest,
    ) -> Result<OpenChannelAnswer, CoordinatorCallError> {
        let answer: OpenChannelAnswer = self.post("/v1/channels", request).await?;
        if answer.channel.channel != request.channel {
            return Err(self.caller.invalid("it is about another channel"));
        }
        Ok(answer)
    }

    /// A channel of which the account is a party.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn channel(&self, channel: ChannelId) -> Result<ChannelView, CoordinatorCallError> {
        self.call(Request::get(format!("/v1/channels/{channel}"))).await
    }

    /// Closes a channel early, as its provider.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn close_channel(&self, channel: ChannelId) -> Result<ChannelView, CoordinatorCallError> {
        self.call(Request::post(format!("/v1/channels/{channel}/close"), Vec::new()))
            .await
    }

    /// Hands in vouchers, at most [`gristmill_protocol::coordinator_api::VOUCHERS_PER_CALL_MAX`]; one result comes
    /// back for each, in order.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn settle(&self, vouchers: &[Signed<Voucher>]) -> Result<SettleAnswer, CoordinatorCallError> {
        let request = SettleRequest {
            vouchers: vouchers.iter().map(voucher_text).collect(),
        };
        let answer: SettleAnswer = self.post("/v1/settlements", &request).await?;
        if answer.results.len() != vouchers.len() {
            return Err(self.caller.invalid("it has not one result for each voucher"));
        }
        Ok(answer)
    }

    /// The account's receipts, newest first: a page of at most `limit`, those before `before` where given.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn receipts(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<ReceiptsPage, CoordinatorCallError> {
        let before = before
            .map(|before| format!("before={before}&"))
            .unwrap_or_default();
        self.call(Request::get(format!("/v1/receipts?{before}limit={limit}")))
            .await
    }

    /// Issues credits, as the operator. Gives the balances of the account that was given.
    ///
    /// # Errors
    /// [`CoordinatorCallError`].
    pub async fn grant(&self, request: &GrantRequest) -> Result<AccountView, CoordinatorCallError> {
        self.post("/v1/grants", request).await
    }

    async fn post<Answer: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<Answer, CoordinatorCallError> {
        let body = serde_json::to_vec(body).map_err(|error| self.caller.invalid(&error.to_string()))?;
        self.call(Request::post(path, body)).await
    }

    /// Boxed, since asking for the coordinator's account is a call itself.
    async fn call<Answer: DeserializeOwned>(&self, request: Request) -> Result<Answer, CoordinatorCallError> {
        let answer = if request.signed {
            let coordinator = Box::pin(self.coordinator()).await?;
            match self.caller.call(&request, Some(coordinator)).await {
                Err(CoordinatorCallError::Refused {
                    status: UNAUTHORIZED,
                    code,
                    message,
                }) => {
                    // It may have been handed over to a new key, for which calls are to be signed since.
                    let refused = CoordinatorCallError::Refused {
                        status: UNAUTHORIZED,
                        code,
                        message,
                    };
                    let now = Box::pin(self.network())
                        .await
                        .map_or(coordinator, |info| info.coordinator);
                    if now == coordinator {
                        return Err(refused);
                    }
                    self.caller.call(&request, Some(now)).await?
                }
                answer => answer?,
            }
        } else {
            self.caller.call(&request, None).await?
        };
        serde_json::from_slice(&answer).map_err(|error| self.caller.invalid(&error.to_string()))
    }
}
