//! Talks to a client that serves, as any program would.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;

use crate::core::models::ModelList;
use crate::core::providers::ProviderList;
use crate::keys::owner_key;
use crate::settings::Settings;

/// How long a client on this machine may take to say that it is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A client that serves.
pub(super) struct RunningProxy {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

#[derive(Deserialize)]
struct Health {
    program: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorFields,
}

#[derive(Deserialize)]
struct ErrorFields {
    message: String,
}

impl RunningProxy {
    /// The client at the address where one with these settings listens, if there is one. Whoever can read its data
    /// directory may call it.
    pub(super) async fn find(settings: &Settings, data_dir: &Path) -> anyhow::Result<Option<Self>> {
        let of_settings = settings.api_keys.first().map(|key| key.reveal().to_owned());
        let key = of_settings.or_else(|| owner_key(data_dir));
        let proxy = Self::at(reachable(settings.listen), key)?;
        let answer = proxy
            .http
            .get(format!("{}/healthz", proxy.base))
            .timeout(PROBE_TIMEOUT)
            .send()
            .await;
        let health = match answer {
            Ok(answer) => answer.json::<Health>().await.ok(),
            Err(_) => None,
        };
        Ok(health
            .filter(|health| health.program == "gristmill-client")
            .map(|_| proxy))
    }

    /// A client at an address.
    pub(super) fn at(address: SocketAddr, key: Option<String>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("no HTTP client")?;
        Ok(Self {
            http,
            base: format!("http://{address}"),
            key,
        })
    }

    fn keyed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.header(AUTHORIZATION, format!("Bearer {key}")),
            None => request,
        }
    }

    /// What is on offer.
    pub(super) async fn models(&self) -> anyhow::Result<ModelList> {
        let request = self.keyed(self.http.get(format!("{}/v1/models", self.base)));
        let answer = checked(request.send().await.context("the client does not answer")?).await?;
        answer
            .json()
            .await
            .context("the client's answer is no list of models")
    }

    /// Who offers something.
    pub(super) async fn providers(&self) -> anyhow::Result<ProviderList> {
        let request = self.keyed(self.http.get(format!("{}/v1/providers", self.base)));
        let answer = checked(request.send().await.context("the client does not answer")?).await?;
        answer
            .json()
            .await
            .context("the client's answer is no list of providers")
    }

    /// Asks for a chat completion.
    pub(super) async fn chat(&self, body: &serde_json::Value) -> anyhow::Result<reqwest::Response> {
        let request = self.keyed(
            self.http
                .post(format!("{}/v1/chat/completions", self.base))
                .json(body),
        );
        checked(request.send().await.context("the client does not answer")?).await
    }
}

/// The answer, or what its error says.
async fn checked(answer: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    match answer.json::<ErrorBody>().await {
        Ok(body) => bail!("{}", body.error.message),
        Err(_) => bail!("the client answers with status {status}"),
    }
}

/// Where an address that is listened on is reached from this machine.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    listen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_listened_on_are_reached_on_loopback() {
        for (listen, expected) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("192.0.2.1:1", "192.0.2.1:1"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        }
    }
}
