//! One call to the coordinator: signed, bounded, tried again.

use std::time::Duration;

use gristmill_protocol::coordinator_api::ErrorBody;
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::tokens::Call;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Method, StatusCode, Url};

use super::{CoordinatorCallError, CoordinatorUrlError};
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
/// Most bytes of a refusal's texts that are kept.
const REFUSAL_TEXT_MAX_BYTES: usize = 2_048;

/// What is asked of the coordinator.
pub(super) struct Request {
    method: Method,
    path: String,
    body: Vec<u8>,
    /// Whether the account signs it.
    pub(super) signed: bool,
    answer_max_bytes: usize,
    content_type: &'static str,
    attempt_timeout: Duration,
}

impl Request {
    pub(super) fn public(path: &str) -> Self {
        Self {
            signed: false,
            ..Self::get(path)
        }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        let answer_max_bytes = ANSWER_MAX_BYTES;
        Self {
            method: Method::GET,
            path: path.into(),
            body: Vec::new(),
            signed: true,
            answer_max_bytes,
            content_type: "application/json",
            attempt_timeout: ATTEMPT_TIMEOUT,
        }
    }

    /// The same with an answer of at most so many bytes.
    pub(super) fn with_answer_of(self, answer_max_bytes: usize) -> Self {
        Self {
            answer_max_bytes,
            ..self
        }
    }

    pub(super) fn post(path: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            method: Method::POST,
            body,
            ..Self::get(path)
        }
    }

    /// A call whose body is not JSON, and may take its time on the way.
    pub(super) fn upload(path: impl Into<String>, body: Vec<u8>, attempt_timeout: Duration) -> Self {
        Self {
            content_type: "application/octet-stream",
            attempt_timeout,
            ..Self::post(path, body)
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

/// Makes the calls of one account to one coordinator.
pub(super) struct Caller {
    http: reqwest::Client,
    url: Url,
    keypair: Keypair,
    clock: Clock,
}

impl Caller {
    pub(super) fn new(url: &str, keypair: Keypair, clock: Clock) -> Result<Self, CoordinatorUrlError> {
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
        Ok(Self {
            http,
            url: parsed,
            keypair,
            clock,
        })
    }

    pub(super) fn account(&self) -> AccountId {
        self.keypair.account()
    }

    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// The body of the answer. Signed for `coordinator` where given.
    pub(super) async fn call(
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
        let mut builder = self
            .http
            .request(request.method.clone(), url)
            .timeout(request.attempt_timeout);
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
                .header(CONTENT_TYPE, request.content_type)
                .body(request.body.clone());
        }
        let response = match builder.send().await {
            Ok(response) => response,
            Err(error) => return self.lost(&error),
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
                Err(error) => return Err(self.lost(&error)),
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

    /// No answer. A coordinator that is there and does not answer in time is not asked again: whoever waits has
    /// waited long enough.
    fn lost(&self, error: &reqwest::Error) -> Attempt {
        let unreachable = CoordinatorCallError::Unreachable {
            url: self.url.to_string(),
            reason: describe(error),
        };
        if error.is_timeout() && !error.is_connect() {
            Attempt::Failed(unreachable)
        } else {
            Attempt::Retry(unreachable, Duration::ZERO)
        }
    }

    pub(super) fn invalid(&self, reason: &str) -> CoordinatorCallError {
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
