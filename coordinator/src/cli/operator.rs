//! What only an operator asks a coordinator, and no other role's client does.

use std::time::Duration;

use anyhow::{Context as _, bail};
use gristmill_protocol::coordinator_api::{AccountView, ErrorBody};
use gristmill_protocol::identity::{AccountId, Keypair};
use gristmill_protocol::tokens::Call;

use crate::clock::Clock;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for any account's balances, with the operator's key.
pub(super) async fn account_view(
    url: &str,
    keypair: &Keypair,
    account: AccountId,
) -> anyhow::Result<AccountView> {
    let path = format!("/v1/account?account={account}");
    let call = Call {
        method: "GET",
        path: &path,
        body: &[],
    };
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).context("the system gives no randomness")?;
    let token = call.sign(keypair, keypair.account(), nonce, Clock::system().now_ms());
    let client = reqwest::Client::builder()
        .timeout(CALL_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .context("the HTTP client can't be set up")?;
    let response = client
        .get(format!("{}{path}", url.trim_end_matches('/')))
        .bearer_auth(token)
        .send()
        .await
        .with_context(|| {
            format!("the coordinator at {url} cannot be reached; is 'gristmill coordinator serve' running?")
        })?;
    let status = response.status();
    let body = response
        .bytes()
        .await
        .with_context(|| format!("the answer of {url} broke off"))?;
    if !status.is_success() {
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(ErrorBody { error }) => bail!(
                "the coordinator at {url} refused: {} ({})",
                error.message,
                error.code
            ),
            Err(_) => bail!("{url} answered with status {status}; is it a coordinator?"),
        }
    }
    serde_json::from_slice(&body).with_context(|| format!("the answer of {url} is not a coordinator's"))
}
