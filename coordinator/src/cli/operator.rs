//! Calls that only an operator makes, signed with the operator's key, which only the machine of the coordinator has.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use gristmill_protocol::coordinator_api::{AccountView, ErrorBody};
use gristmill_protocol::hardware::{CERTIFICATES_PER_PAGE_MAX, CertificatesPage};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::ids::ChallengeId;
use gristmill_protocol::operator_api::{FreezeRequest, StatementPage};
use gristmill_protocol::tokens::Call;
use reqwest::Method;
use serde::de::DeserializeOwned;

use super::{CoordinatorPlace, operator_key, random_bytes};
use crate::clock::Clock;
use crate::settings::FileSection;

const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A running coordinator, as its operator calls it.
pub(super) struct OperatorCalls {
    http: reqwest::Client,
    url: String,
    keypair: Keypair,
}

impl OperatorCalls {
    pub(super) fn new(place: &CoordinatorPlace, file: &FileSection, data_dir: &Path) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("the HTTP client can't be set up")?;
        Ok(Self {
            http,
            url: place.url(file).trim_end_matches('/').to_owned(),
            keypair: operator_key(data_dir)?,
        })
    }

    pub(super) fn account(&self) -> AccountId {
        self.keypair.account()
    }

    /// Asks for any account's balances.
    pub(super) async fn account_view(&self, account: AccountId) -> anyhow::Result<AccountView> {
        let path = format!("/v1/account?account={account}");
        self.call(Method::GET, &path, Vec::new()).await
    }

    pub(super) async fn freeze(&self, request: &FreezeRequest) -> anyhow::Result<AccountView> {
        let body = serde_json::to_vec(request)?;
        self.call(Method::POST, "/v1/freezes", body).await
    }

    /// A page of the certificates of hardware that hold.
    pub(super) async fn certificates(
        &self,
        account: Option<AccountId>,
        after: Option<ChallengeId>,
    ) -> anyhow::Result<CertificatesPage> {
        let account = account
            .map(|account| format!("&account={account}"))
            .unwrap_or_default();
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let path = format!("/v1/hardware/certificates?limit={CERTIFICATES_PER_PAGE_MAX}{account}{after}");
        self.call(Method::GET, &path, Vec::new()).await
    }

    /// A page of what concerned an account, newest first.
    pub(super) async fn statement(
        &self,
        account: AccountId,
        before: Option<u64>,
        limit: usize,
    ) -> anyhow::Result<StatementPage> {
        let before = before
            .map(|before| format!("&before={before}"))
            .unwrap_or_default();
        let path = format!("/v1/statement?account={account}{before}&limit={limit}");
        self.call(Method::GET, &path, Vec::new()).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<T> {
        let url = &self.url;
        let call = Call {
            method: method.as_str(),
            path,
            body: &body,
        };
        let now_ms = Clock::system().now_ms();
        let token = call.sign(&self.keypair, self.keypair.account(), random_bytes()?, now_ms);
        let response = self
            .http
            .request(method, format!("{url}{path}"))
            .bearer_auth(token)
            .body(body)
            .send()
            .await
            .with_context(|| {
                format!(
                    "the coordinator at {url} cannot be reached; is 'gristmill coordinator serve' running?"
                )
            })?;
        let status = response.status();
        let answer = response
            .bytes()
            .await
            .with_context(|| format!("the answer of {url} broke off"))?;
        if !status.is_success() {
            match serde_json::from_slice::<ErrorBody>(&answer) {
                Ok(ErrorBody { error }) => bail!(
                    "the coordinator at {url} refused: {} ({})",
                    error.message,
                    error.code
                ),
                Err(_) => bail!("{url} answered with status {status}; is it a coordinator?"),
            }
        }
        serde_json::from_slice(&answer).with_context(|| format!("the answer of {url} is not a coordinator's"))
    }
}
