//! A real coordinator on a free port, with a clock that the test sets, and accounts that call it over HTTP.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gristmill_coordinator::clock::Clock;
use gristmill_coordinator::server::signing_key_path;
use gristmill_coordinator::{Coordinator, RunningCoordinator, Settings, StartError};
use gristmill_ledger::book::Totals;
use gristmill_ledger::{EmbeddedOptions, Ledger};
use gristmill_protocol::coordinator_api::{
    AccountView, ChannelView, GrantRequest, OpenChannelAnswer, OpenChannelRequest, ReceiptsPage,
    SettleAnswer, SettleRequest, voucher_text,
};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Keypair, Signed};
use gristmill_protocol::ids::{ChannelId, GrantId};
use gristmill_protocol::job::RequestId;
use gristmill_protocol::tokens::Call;
use gristmill_protocol::voucher::Voucher;
use gristmill_transport::key_file;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// When every test begins.
pub const BEGIN_MS: u64 = 1_800_000_000_000;
/// The life of a channel in most tests.
pub const LIFE_MS: u64 = 600_000;

pub fn credits(whole: u32) -> Credits {
    Credits::micro(whole * 1_000_000)
}

/// Settings for tests: free ports, everything else as for operators.
pub fn settings() -> Settings {
    Settings {
        http_listen: "127.0.0.1:0".parse().unwrap(),
        mesh_listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()],
        ..Settings::default()
    }
}

/// A clock that stands still until told otherwise.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(BEGIN_MS)))
    }

    pub fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub fn advance(&self, by_ms: u64) {
        self.0.fetch_add(by_ms, Ordering::SeqCst);
    }

    pub fn clock(&self) -> Clock {
        let now = self.0.clone();
        Clock::new(move || now.load(Ordering::SeqCst))
    }
}

/// A coordinator and its place, which outlives it.
pub struct Network {
    pub settings: Settings,
    pub clock: TestClock,
    pub directory: TempDir,
    running: Option<RunningCoordinator>,
    http: reqwest::Client,
}

impl Network {
    pub async fn start() -> Self {
        Self::start_with(settings()).await
    }

    pub async fn start_with(settings: Settings) -> Self {
        let mut network = Self {
            settings,
            clock: TestClock::new(),
            directory: tempfile::tempdir().unwrap(),
            running: None,
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(60))
                .build()
                .unwrap(),
        };
        network.start_again().await;
        network
    }

    pub async fn try_start(&self) -> Result<RunningCoordinator, StartError> {
        let (settings, clock) = (self.settings.clone(), self.clock.clock());
        Coordinator::start_with_clock(settings, self.path(), CancellationToken::new(), clock).await
    }

    pub async fn start_again(&mut self) {
        self.running = Some(self.try_start().await.unwrap());
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().shutdown().await.unwrap();
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn running(&self) -> &RunningCoordinator {
        self.running.as_ref().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running().http_url())
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub fn coordinator(&self) -> AccountId {
        self.running().account()
    }

    /// The operator, who has the coordinator's key.
    pub fn operator(&self) -> Account {
        Account {
            keypair: key_file::load(&signing_key_path(self.path())).unwrap().unwrap(),
        }
    }

    /// An account that the operator has given so much.
    pub async fn account_with(&self, whole: u32) -> Account {
        let account = Account::new();
        if whole > 0 {
            let request = grant(account.id(), credits(whole));
            let _: AccountView = self.operator().post(self, "/v1/grants", &request).await.ok();
        }
        account
    }

    /// What a caller without a token gets.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let response = self.http.get(self.url(path)).send().await.unwrap();
        Reply::read(response).await.ok()
    }

    /// Ends the coordinator and adds up its ledger.
    pub async fn totals_at_the_end(&mut self) -> Totals {
        let directory = self.running().ledger_directory().to_owned();
        self.stop().await;
        let ledger = Ledger::open(&directory, &EmbeddedOptions::default()).unwrap();
        let totals = ledger.head().await.unwrap().totals;
        ledger.shutdown().await.unwrap();
        let sum = totals.fees.microcredits() + totals.available.microcredits() + totals.held.microcredits();
        assert_eq!(
            totals.issued.microcredits(),
            sum,
            "credits are neither made nor lost"
        );
        totals
    }

    /// Waits for what the coordinator does by itself.
    pub async fn eventually<T, F: Future<Output = Option<T>>>(&self, mut attempt: impl FnMut() -> F) -> T {
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// An answer, read.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub request_id: String,
    pub text: String,
}

impl Reply {
    pub async fn read(response: reqwest::Response) -> Self {
        let header = response
            .headers()
            .get("x-request-id")
            .expect("every answer has a request id");
        let request_id = header.to_str().unwrap().to_owned();
        let kind = response
            .headers()
            .get("content-type")
            .expect("every answer has a type");
        assert_eq!(kind, "application/json");
        Self {
            status: response.status(),
            request_id,
            text: response.text().await.unwrap(),
        }
    }

    pub fn ok<T: DeserializeOwned>(self) -> T {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }

    /// Status and code of a refusal.
    pub fn refusal(self) -> (u16, String) {
        let body: gristmill_protocol::coordinator_api::ErrorBody =
            serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} {}", self.status, self.text));
        assert!(!body.error.message.is_empty());
        (self.status.as_u16(), body.error.code)
    }

    #[track_caller]
    pub fn assert_refused(self, status: u16, code: &str) {
        assert_eq!(self.refusal(), (status, code.to_owned()));
    }
}

/// Somebody with a key.
#[derive(Clone)]
pub struct Account {
    pub keypair: Keypair,
}

impl Account {
    pub fn new() -> Self {
        Self {
            keypair: Keypair::from_secret(&random()),
        }
    }

    pub fn id(&self) -> AccountId {
        self.keypair.account()
    }

    pub fn token(&self, network: &Network, call: Call<'_>) -> String {
        call.sign(
            &self.keypair,
            network.coordinator(),
            random(),
            network.clock.now_ms(),
        )
    }

    pub async fn call(&self, network: &Network, method: &str, path: &str, body: Vec<u8>) -> Reply {
        let token = self.token(
            network,
            Call {
                method,
                path,
                body: &body,
            },
        );
        send(network, method, path, body, Some(&token)).await
    }

    pub async fn get(&self, network: &Network, path: &str) -> Reply {
        self.call(network, "GET", path, Vec::new()).await
    }

    pub async fn post(&self, network: &Network, path: &str, body: &impl Serialize) -> Reply {
        self.call(network, "POST", path, serde_json::to_vec(body).unwrap())
            .await
    }

    pub async fn view(&self, network: &Network) -> AccountView {
        self.get(network, "/v1/account").await.ok()
    }

    pub async fn open(&self, network: &Network, request: &OpenChannelRequest) -> Reply {
        self.post(network, "/v1/channels", request).await
    }

    /// Opens a channel to a provider and says its name.
    pub async fn open_to(&self, network: &Network, provider: &Self, whole: u32) -> ChannelId {
        let request = channel_request(provider.id(), credits(whole));
        let answer: OpenChannelAnswer = self.open(network, &request).await.ok();
        assert!(answer.channel.open);
        request.channel
    }

    pub async fn channel(&self, network: &Network, channel: ChannelId) -> ChannelView {
        self.get(network, &format!("/v1/channels/{channel}")).await.ok()
    }

    pub async fn close(&self, network: &Network, channel: ChannelId) -> Reply {
        self.call(
            network,
            "POST",
            &format!("/v1/channels/{channel}/close"),
            Vec::new(),
        )
        .await
    }

    pub async fn settle(&self, network: &Network, vouchers: &[Signed<Voucher>]) -> SettleAnswer {
        let vouchers = vouchers.iter().map(voucher_text).collect();
        self.post(network, "/v1/settlements", &SettleRequest { vouchers })
            .await
            .ok()
    }

    pub async fn receipts(&self, network: &Network, query: &str) -> ReceiptsPage {
        self.get(network, &format!("/v1/receipts{query}")).await.ok()
    }

    /// A promise of so many microcredits on a channel.
    pub fn voucher(&self, channel: ChannelId, cumulative: u32) -> Signed<Voucher> {
        self.keypair.sign(Voucher {
            channel,
            cumulative: Credits::micro(cumulative),
            request_id: RequestId::from_random([7; 16]),
            transcript: [8; 32],
        })
    }
}

pub async fn send(network: &Network, method: &str, path: &str, body: Vec<u8>, token: Option<&str>) -> Reply {
    let mut request = network
        .http
        .request(method.parse().unwrap(), network.url(path))
        .body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    Reply::read(request.send().await.unwrap()).await
}

pub fn channel_request(provider: AccountId, limit: Credits) -> OpenChannelRequest {
    OpenChannelRequest {
        channel: ChannelId::from_bytes(random()),
        provider,
        limit,
        life_ms: LIFE_MS,
    }
}

pub fn grant(account: AccountId, amount: Credits) -> GrantRequest {
    GrantRequest {
        grant: GrantId::from_bytes(random()),
        account,
        amount,
        reason: "test".into(),
    }
}

/// Bytes that no other call of this process gives. Tests need distinct ones, not secret ones.
pub fn random<const N: usize>() -> [u8; N] {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0x5a; N];
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    bytes
}
