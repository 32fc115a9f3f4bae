//! The coordinator's HTTP API, seen from an account.
//!
//! Every call of the API may be repeated: what it creates is named by the caller, and what it hands in counts once.
//! So a call is tried up to four times where the coordinator cannot be reached or says 503, each time with a
//! caller token of its own, since a coordinator accepts each token once.

use std::time::Duration;

use gristmill_protocol::coordinator_api::{
    AccountView, ChannelView, ErrorBody, GrantRequest, JwkSet, ListingsAnswer, NetworkInfo,
    OpenChannelAnswer, OpenChannelRequest, ReceiptsPage, SettleAnswer, SettleRequest, listing_from_text,
    voucher_text,
};
use gristmill_protocol::identity::{AccountId, Keypair, Signed};
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::tokens::Call;
use gristmill_protocol::voucher::Voucher;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::OnceCell;

use crate::mesh::Clock;

/// Longest time of one attempt, its answer included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Attempts after the first.
const RETRIES: u32 = 3;
/// Wait before the first retry; doubles with each.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Longest wait that a coordinator may ask for before a retry.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const ANSWER_MAX_BYTES: usize = 4 << 20;
/// Most bytes of the directory of listings.
const LISTINGS_ANSWER_MAX_BYTES: usize = 64 << 20;
/// Most bytes of a refusal's texts that are kept.
const REFUSAL_TEXT_MAX_BYTES: usize = 2_048;

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
    http: reqwest::Client,
    url: Url,
    keypair: Keypair,
    clock: Clock,
    expected: Option<AccountId>,
    coordinator: OnceCell<AccountId>,
}

impl std::fmt::Debug for CoordinatorClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "CoordinatorClient({} for {})",
            self.url,
            self.keypair.account()
        )
    }
}

/// What is asked of the coordinator.
struct Request {
    method: Method,
    path: String,
    body: Vec<u8>,
    signed: bool,
    answer_max_bytes: usize,
}

impl Request {
    fn public(path: &str) -> Self {
        Self {
            signed: false,
            ..Self::get(path)
        }
    }

    fn get(path: impl Into<String>) -> Self {
        let answer_max_bytes = ANSWER_MAX_BYTES;
        Self {
            method: Method::GET,
            path: path.into(),
            body: Vec::new(),
            signed: true,
            answer_max_bytes,
        }
    }

    fn post(path: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            method: Method::POST,
            body,
            ..Self::get(path)
        }
    }
}

/// What became of one attempt.
enum Attempt {
    Answered(Vec<u8>),
    Failed(CoordinatorCallError),
    /// Worth another one, after at least so long.
    Retry(CoordinatorCallError, Duration),
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
        let wrong = |reason: &str| CoordinatorUrlError {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(wrong("neither http nor https"));
        }
        let bare = parsed.path() == "/" && parsed.query().is_none() && parsed.fragment().is_none();
        if !bare || !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong("more than host and port"));
        }
        let http = reqwest::Client::builder()
            .timeout(ATTEMPT_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("gristmill/", env!("CARGO_PKG_VERSION")));
        // A proxy for the internet has no business between two programs of one machine.
        let http = if is_loopback(&parsed) {
            http.no_proxy()
        } else {
            http
        };
        let http = http.build().map_err(|error| wrong(&describe(&error)))?;
        let coordinator_cell = OnceCell::new();
        Ok(Self {
            http,
            url: parsed,
            keypair,
            clock,
            expected: coordinator,
            coordinator: coordinator_cell,
        })
    }

    /// The account that calls.
    #[must_use]
    pub fn account(&self) -> AccountId {
        self.keypair.account()
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
                url: self.url.to_string(),
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
        let request = Request {
            answer_max_bytes: LISTINGS_ANSWER_MAX_BYTES,
            ..Request::public("/v1/listings")
        };
        let answer: ListingsAnswer = self.call(request).await?;
        answer
            .listings
            .iter()
            .map(|text| listing_from_text(text).map_err(|error| self.invalid(&error.to_string())))
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
            return Err(self.invalid("it is about another channel"));
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
            return Err(self.invalid("it has not one result for each voucher"));
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
        let body = serde_json::to_vec(body).map_err(|error| self.invalid(&error.to_string()))?;
        self.call(Request::post(path, body)).await
    }

    /// Boxed, since asking for the coordinator's account is a call itself.
    async fn call<Answer: DeserializeOwned>(&self, request: Request) -> Result<Answer, CoordinatorCallError> {
        let coordinator = if request.signed {
            Some(Box::pin(self.coordinator()).await?)
        } else {
            None
        };
        let answer = self.attempts(&request, coordinator).await?;
        serde_json::from_slice(&answer).map_err(|error| self.invalid(&error.to_string()))
    }

    async fn attempts(
        &self,
        request: &Request,
        coordinator: Option<AccountId>,
    ) -> Result<Vec<u8>, CoordinatorCallError> {
        let mut retries = 0;
        loop {
            match self.attempt(request, coordinator).await {
                Attempt::Answered(answer) => return Ok(answer),
                Attempt::Failed(error) => return Err(error),
                Attempt::Retry(error, _) if retries == RETRIES => return Err(error),
                Attempt::Retry(error, asked) => {
                    let back_off = BACK_OFF * 2_u32.pow(retries);
                    tracing::debug!(%error, "calling the coordinator again");
                    // Up to as much again, so that all who lost it together do not come back at once.
                    let jitter = back_off.mul_f64(rand::random::<f64>());
                    tokio::time::sleep(asked.min(RETRY_AFTER_MAX).max(back_off) + jitter).await;
                    retries += 1;
                }
            }
        }
    }

    async fn attempt(&self, request: &Request, coordinator: Option<AccountId>) -> Attempt {
        let url = match self.url.join(&request.path) {
            Ok(url) => url,
            Err(error) => return Attempt::Failed(self.invalid(&error.to_string())),
        };
        let mut builder = self.http.request(request.method.clone(), url);
        if let Some(coordinator) = coordinator {
            let call = Call {
                method: request.method.as_str(),
                path: &request.path,
                body: &request.body,
            };
            let token = call.sign(&self.keypair, coordinator, rand::random(), (self.clock)());
            builder = builder.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if !request.body.is_empty() {
            builder = builder
                .header(CONTENT_TYPE, "application/json")
                .body(request.body.clone());
        }
        let response = match builder.send().await {
            Ok(response) => response,
            Err(error) => return Attempt::Retry(self.unreachable(&error), Duration::ZERO),
        };
        let (status, wait) = (response.status(), retry_after(&response));
        let body = match self.read(response, request.answer_max_bytes).await {
            Ok(body) => body,
            Err(attempt) => return attempt,
        };
        if status.is_success() {
            return Attempt::Answered(body);
        }
        let refusal = self.refusal(status, &body);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            Attempt::Retry(refusal, wait)
        } else {
            Attempt::Failed(refusal)
        }
    }

    /// Reads at most `most` bytes, however many there are.
    async fn read(&self, mut response: reqwest::Response, most: usize) -> Result<Vec<u8>, Attempt> {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > most => {
                    return Err(Attempt::Failed(
                        self.invalid(&format!("it has more than {most} bytes")),
                    ));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body),
                Err(error) => return Err(Attempt::Retry(self.unreachable(&error), Duration::ZERO)),
            }
        }
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> CoordinatorCallError {
        match serde_json::from_slice::<ErrorBody>(body) {
            Ok(ErrorBody { error }) => CoordinatorCallError::Refused {
                status: status.as_u16(),
                code: cut(error.code),
                message: cut(error.message),
            },
            Err(_) => self.invalid(&format!("status {status} without a coordinator's error")),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CoordinatorCallError {
        CoordinatorCallError::Unreachable {
            url: self.url.to_string(),
            reason: describe(error),
        }
    }

    fn invalid(&self, reason: &str) -> CoordinatorCallError {
        CoordinatorCallError::InvalidAnswer {
            url: self.url.to_string(),
            reason: reason.to_owned(),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn retry_after(response: &reqwest::Response) -> Duration {
    let seconds = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// The innermost cause, which says more than reqwest's own "error sending request".
fn describe(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(REFUSAL_TEXT_MAX_BYTES));
    text
}
