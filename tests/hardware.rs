//! From a challenge to a request that only verified hardware may answer: coordinator, nodes and client of one process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use gristmill_client::server::Client;
use gristmill_coordinator::{Coordinator, RunningCoordinator};
use gristmill_node::daemon::{Node, RunningNode};
use gristmill_node::settings::{
    HardwareSettings, LocalApi, MeshListen, ModelChoice, ModelSetting, Settings, Upstreams,
};
use gristmill_protocol::credits::Credits;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const FREE_MESH_PORT: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// This only bounds a failure: a processor that does other things too may take some minutes.
const PATIENCE: Duration = Duration::from_secs(900);

async fn start_coordinator(folder: &Path) -> RunningCoordinator {
    let settings = gristmill_coordinator::Settings {
        http_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        mesh_listen: vec![FREE_MESH_PORT.into()],
        starter_grant: Credits::micro(5_000_000),
        ..Default::default()
    };
    Coordinator::start(settings, folder, CancellationToken::new())
        .await
        .unwrap()
}

async fn start_node(folder: &Path, coordinator: &RunningCoordinator, shows_hardware: bool) -> RunningNode {
    let settings = Settings {
        coordinator: coordinator.http_url(),
        mesh_listen: MeshListen::At(vec![FREE_MESH_PORT.parse().unwrap()]),
        upstreams: Upstreams {
            discover: false,
            ..Settings::default().upstreams
        },
        models: Some(vec![ModelSetting {
            source: ModelChoice::Guide,
            name: None,
            price: None,
        }]),
        local_api: LocalApi::At(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
        hardware: HardwareSettings {
            enabled: shows_hardware,
            memory_max_bytes: Some(512 << 20),
            power_max_watts: None,
            // Two nodes, a client and this test share the processor: it may become four times as slow.
            claim_percent: 25,
        },
        ..Settings::default()
    };
    Box::pin(Node::start(
        settings,
        folder,
        Vec::new(),
        CancellationToken::new(),
    ))
    .await
    .unwrap()
}

async fn get(url: String) -> Value {
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

/// Whether a provider's hardware is verified, as the client sees it.
async fn standing(base: &str, node: &RunningNode) -> Option<String> {
    let list = get(format!("{base}/providers")).await;
    let id = json!(node.account());
    let mut data = list["data"].as_array().unwrap().iter();
    let provider = data.find(|provider| provider["id"] == id)?;
    Some(provider["hardware"].as_str().unwrap().to_owned())
}

async fn ask(base: &str, only_verified: bool) -> (u16, Value) {
    let body = json!({
        "model": "gristmill-guide", "messages": [{"role": "user", "content": "What is Gristmill?"}],
        "max_tokens": 8, "gristmill": {"only_verified": only_verified},
    });
    let request = reqwest::Client::new()
        .post(format!("{base}/chat/completions"))
        .json(&body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_shows_its_hardware_and_a_request_finds_it_verified() {
    let test = async {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        let coordinator = start_coordinator(&of("coordinator")).await;
        let unshown = start_node(&of("unshown"), &coordinator, false).await;
        let settings = gristmill_client::settings::Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            coordinator: coordinator.http_url(),
            mesh_listen: vec![FREE_MESH_PORT.into()],
            ..Default::default()
        };
        let client = Box::pin(Client::start(settings, &of("client"), CancellationToken::new()))
            .await
            .unwrap();
        let base = client.base_url();
        while standing(&base, &unshown).await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(standing(&base, &unshown).await.unwrap(), "unverified");
        let (status, refused) = ask(&base, true).await;
        assert_eq!(
            (status, &refused["error"]["param"]),
            (503, &json!("gristmill.only_verified"))
        );

        let shown = start_node(&of("shown"), &coordinator, true).await;
        // A job in the middle of the challenge is served at once; the challenge is done afterwards.
        let local_api = shown.local_api_address().unwrap();
        loop {
            let hardware = get(format!("http://{local_api}/v1/status")).await["hardware"].clone();
            if hardware["activity"] == "showing" || hardware["verified"] == true {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (status, answer) = ask(&base, false).await;
        assert_eq!(status, 200, "{answer}");
        assert!(shown.verified().await);
        while standing(&base, &shown).await.as_deref() != Some("verified") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for _ in 0..3 {
            let (status, answer) = ask(&base, true).await;
            assert_eq!(status, 200, "{answer}");
            assert_eq!(answer["gristmill"]["provider"], json!(shown.account()));
        }
        assert_eq!(standing(&base, &unshown).await.unwrap(), "unverified");
        client.shutdown().await.unwrap();
        shown.shutdown().await.unwrap();
        unshown.shutdown().await.unwrap();
        coordinator.shutdown().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, test)
        .await
        .expect("it ends in time");
}
