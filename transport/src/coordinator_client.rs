//! The coordinator's HTTP API, seen from an account.
//!
//! Every call of the API may be repeated: what it creates is named by the caller, and what it hands in counts once.
//! So a call is tried up to four times where the coordinator cannot be reached or says 503, each time with a
//! caller token of its own, since a coordinator accepts each token once.

use gristmill_protocol::coordinator_api::{
    AccountView, ChannelView, GrantRequest, JwkSet, ListingsAnswer, NetworkInfo, OpenChannelAnswer,
    OpenChannelRequest, ReceiptsPage, SettleAnswer, SettleRequest, listing_from_text, voucher_text,
};
use gristmill_protocol::identity::{AccountId, Keypair, Signed};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::voucher::Voucher;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::OnceCell;

use crate::mesh::Clock;

mod call;

use call::{Caller, Request};

/// Most bytes of the directory of listings.
const LISTINGS_ANSWER_MAX_BYTES: usize = 64 << 20;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CoordinatorCallError {
    /// The coordinator cannot be reached, also after retries; what was asked may or may not have happened.
    #[error("the coordinator at {url} cannot be reached: {reason}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// The coordinator said no.
    #[error("the coordinator refused: {message} ({code}, status {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// For programs, such as `insufficient_credits`.
        code: String,
        /// For people.
        message: String,
    },
    /// What answered is no coordinator, or one of another version.
    #[error("the answer of {url} is not a coordinator's: {reason}")]
    InvalidAnswer {
        /// Who answered.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Another coordinator answers than the one expected.
    #[error(
        "the coordinator at {url} is {actual}, not {expected}; check the address and the account configured"
    )]
    WrongCoordinator {
        /// Where it is.
        url: String,
        /// Whom the configuration names.
        expected: AccountId,
        /// Who is there.
        actual: AccountId,
    },
}

impl CoordinatorCallError {
    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// An address that can't be a coordinator's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{url}' is no coordinator's address: {reason}; they look like http://127.0.0.1:7400")]
pub struct CoordinatorUrlError {
    url: String,
    reason: String,
}

/// A client of one coordinator, for one account.
pub struct CoordinatorClient {
    caller: Caller,
    expected: Option<AccountId>,
    coordinator: OnceCell<AccountId>,
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
    /// A client of the coordinator at `url`. Where `coordinator` is given, no other one is accepted there; otherwise
    /// the first one that answers is.
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
            coordinator: OnceCell::new(),
        })
    }

    /// The account that calls.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.caller.account()
    }

    /// The coordinator's account: the configured one, or the one that answered first.
    ///
    /// # Errors
    /// As [`CoordinatorClient::network`], which is asked where it is not known yet.
    pub async fn coordinator(&self) -> Result<AccountId, CoordinatorCallError> {
        if let Some(expected) = self.expected {
            return Ok(expected);
        }
        if let Some(known) = self.coordinator.get() {
            return Ok(*known);
        }
        Ok(self.network().await?.coordinator)
    }

    /// What the coordinator says about itself and the network.
    ///
    /// # Errors
    /// [`CoordinatorCallError`]; [`CoordinatorCallError::WrongCoordinator`] where it is another one than configured,
    /// or than before.
    pub async fn network(&self) -> Result<NetworkInfo, CoordinatorCallError> {
        let info: NetworkInfo = self.call(Request::public("/v1/network")).await?;
        let actual = info.coordinator;
        let expected = match self.expected {
            Some(expected) => expected,
            None => *self.coordinator.get_or_init(|| async { actual }).await,
        };
        if actual != expected {
            return Err(CoordinatorCallError::WrongCoordinator {
                url: self.caller.url().to_string(),
                expected,
                actual,
            });
        }
        Ok(info)
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
        let coordinator = if request.signed {
            Some(Box::pin(self.coordinator()).await?)
        } else {
            None
        };
        let answer = self.caller.call(&request, coordinator).await?;
        serde_json::from_slice(&answer).map_err(|error| self.caller.invalid(&error.to_string()))
    }
}
