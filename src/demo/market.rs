//! The roles of the demo: each started by the same call as its own subcommand, over real sockets on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use gristmill_client::server::{Client, RunningClient};
use gristmill_coordinator::{Coordinator, RunningCoordinator};
use gristmill_ledger::audit::{AuditReport, audit};
use gristmill_node::daemon::{Node, RunningNode};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::job::JobKind;
use gristmill_protocol::tokens::ReceiptClaims;
use gristmill_protocol::usage::Price;
use gristmill_service::clock::{system_clock, unix_ms};
use gristmill_service::installation::identity_path;
use gristmill_transport::{CoordinatorClient, key_file};
use tokio_util::sync::CancellationToken;

/// The model that everybody has.
pub(super) const MODEL: &str = "gristmill-guide";
/// What the demo's coordinator gives a new account.
const STARTER_GRANT: Credits = Credits::micro(5_000_000);
/// Any free port, on loopback.
const FREE_MESH_PORT: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const READY_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// A provider of the demo.
pub(super) struct Provider {
    pub(super) name: &'static str,
    pub(super) price: Price,
    pub(super) node: RunningNode,
    purse: CoordinatorClient,
}

/// The running roles.
pub(super) struct Market {
    pub(super) coordinator: RunningCoordinator,
    pub(super) providers: Vec<Provider>,
    client: RunningClient,
    purse: CoordinatorClient,
    endpoint: String,
    shutdown: CancellationToken,
}

impl Market {
    /// Starts everything with state below `state` and waits until both providers are on offer.
    pub(super) async fn start(state: &Path, well_known_port: bool) -> anyhow::Result<Self> {
        let shutdown = CancellationToken::new();
        let coordinator = start_coordinator(&state.join("coordinator"), shutdown.clone()).await?;
        let url = coordinator.http_url();
        let mut providers = Vec::new();
        for (name, input, output) in [
            ("Brookside Mill", 2_000_000, 8_000_000),
            ("Hilltop Mill", 2_400_000, 10_000_000),
        ] {
            let price = Price::per_million_tokens(Credits::micro(input), Credits::micro(output));
            let folder = state.join(name.replace(' ', "-").to_lowercase());
            providers.push(start_provider(name, price, &folder, &url, shutdown.clone()).await?);
        }
        let folder = state.join("consumer");
        let client = start_client(&folder, &url, well_known_port, shutdown.clone()).await?;
        let market = Self {
            purse: purse(&folder, &url)?,
            endpoint: format!("http://{}/v1", client.http_address()),
            coordinator,
            providers,
            client,
            shutdown,
        };
        market.until_both_are_on_offer().await?;
        Ok(market)
    }

    /// Where the OpenAI API is, up to and with `/v1`.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The consumer's account.
    pub(super) const fn consumer(&self) -> &CoordinatorClient {
        &self.purse
    }

    async fn until_both_are_on_offer(&self) -> anyhow::Result<()> {
        let mesh = self.client.mesh();
        let coordinator = self.coordinator.account();
        let ready = async {
            let mut changes = mesh.changes();
            loop {
                let now_ms = unix_ms();
                let heard = mesh.with_board(|board| {
                    board
                        .candidates(JobKind::ChatCompletions, MODEL, coordinator, now_ms)
                        .count()
                });
                if heard >= self.providers.len() || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(READY_WITHIN, ready)
            .await
            .context("the providers' listings did not arrive in a minute")
    }

    /// Hands in a provider's vouchers until what was promised is settled, and gives the receipt.
    pub(super) async fn settle(
        &self,
        account: &AccountId,
        promised: Credits,
    ) -> anyhow::Result<ReceiptClaims> {
        let Some(provider) = self.provider(account) else {
            bail!("the answer came from {account}, which is none of the demo's providers");
        };
        let settled = async {
            loop {
                // The answer's end and the last voucher travel in opposite directions: it may still be on its way.
                provider.node.redeem_now().await?;
                let receipts = provider.purse.receipts(None, 1).await?.receipts;
                if let Some(receipt) = receipts.first() {
                    let receipt =
                        ReceiptClaims::verify(receipt, &self.coordinator.account(), account, unix_ms())?;
                    if receipt.settled >= promised {
                        return anyhow::Ok(receipt);
                    }
                }
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
        };
        tokio::time::timeout(READY_WITHIN, settled)
            .await
            .context("the settlement brought no receipt in a minute")?
    }

    /// One of the demo's providers.
    pub(super) fn provider(&self, account: &AccountId) -> Option<&Provider> {
        self.providers
            .iter()
            .find(|provider| provider.node.account() == *account)
    }

    /// Replays the coordinator's journal and compares.
    pub(super) async fn audit(&self) -> anyhow::Result<AuditReport> {
        let directory: PathBuf = self.coordinator.ledger_directory().to_owned();
        Ok(tokio::task::spawn_blocking(move || audit(&directory)).await??)
    }

    /// Stops everything, consumers first.
    pub(super) async fn stop(self) {
        let said = |role: &str, result: Result<(), String>| {
            if let Err(error) = result {
                tracing::warn!(role, error, "did not stop in order");
            }
        };
        said(
            "client",
            self.client.shutdown().await.map_err(|error| error.to_string()),
        );
        for provider in self.providers {
            said(
                provider.name,
                provider.node.shutdown().await.map_err(|error| error.to_string()),
            );
        }
        said(
            "coordinator",
            self.coordinator
                .shutdown()
                .await
                .map_err(|error| error.to_string()),
        );
        self.shutdown.cancel();
    }
}

impl Provider {
    /// What the provider has: available and held.
    pub(super) async fn worth(&self) -> anyhow::Result<Credits> {
        worth(&self.purse).await
    }
}

/// What an account has: available and held.
pub(super) async fn worth(purse: &CoordinatorClient) -> anyhow::Result<Credits> {
    let view = purse.account_view().await?;
    Ok(view.available.checked_add(view.held)?)
}

async fn start_coordinator(folder: &Path, shutdown: CancellationToken) -> anyhow::Result<RunningCoordinator> {
    let settings = gristmill_coordinator::Settings {
        name: "demo".into(),
        http_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        mesh_listen: vec![FREE_MESH_PORT.into()],
        starter_grant: STARTER_GRANT,
        ..Default::default()
    };
    Ok(Coordinator::start(settings, folder, shutdown).await?)
}

async fn start_provider(
    name: &'static str,
    price: Price,
    folder: &Path,
    coordinator: &str,
    shutdown: CancellationToken,
) -> anyhow::Result<Provider> {
    use gristmill_node::settings::{
        HardwareSettings, LocalApi, MeshListen, ModelChoice, ModelSetting, Settings, Upstreams,
    };
    let defaults = Settings::default();
    let settings = Settings {
        coordinator: coordinator.to_owned(),
        mesh_listen: MeshListen::At(vec![FREE_MESH_PORT.parse()?]),
        upstreams: Upstreams {
            discover: false,
            ..defaults.upstreams.clone()
        },
        models: Some(vec![ModelSetting {
            source: ModelChoice::Guide,
            name: None,
            price: Some(price.clone()),
        }]),
        local_api: LocalApi::Off,
        // The three nodes share one processor, and showing it takes longer than the whole demonstration.
        hardware: HardwareSettings {
            enabled: false,
            ..HardwareSettings::default()
        },
        ..defaults
    };
    let node = Node::start(settings, folder, Vec::new(), shutdown).await?;
    Ok(Provider {
        name,
        price,
        node,
        purse: purse(folder, coordinator)?,
    })
}

async fn start_client(
    folder: &Path,
    coordinator: &str,
    well_known_port: bool,
    shutdown: CancellationToken,
) -> anyhow::Result<RunningClient> {
    use gristmill_client::settings::Settings;
    let defaults = Settings::default();
    let well_known = defaults.listen;
    let settings = Settings {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        coordinator: coordinator.to_owned(),
        mesh_listen: vec![FREE_MESH_PORT.into()],
        ..defaults
    };
    if well_known_port {
        let settings = Settings {
            listen: well_known,
            ..settings.clone()
        };
        match Client::start(settings, folder, shutdown.clone()).await {
            Ok(client) => return Ok(client),
            Err(error) => eprintln!("{error}\nThe demo takes another port."),
        }
    }
    Ok(Client::start(settings, folder, shutdown).await?)
}

fn purse(folder: &Path, coordinator: &str) -> anyhow::Result<CoordinatorClient> {
    let keypair = key_file::load_or_create(&identity_path(folder))?;
    Ok(CoordinatorClient::new(
        coordinator,
        None,
        keypair,
        system_clock(),
    )?)
}
