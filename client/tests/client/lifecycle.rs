//! Starting and ending.

use gristmill_client::{Client, Settings, StartError};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::{Market, client_settings};
use crate::provider::{Script, Setup, Step, text};

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

async fn refused(settings: Settings, directory: &std::path::Path) -> StartError {
    Client::start(settings, directory, CancellationToken::new())
        .await
        .unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_of_a_start_is_told() {
    let market = Market::start().await;
    let other = tempfile::tempdir().unwrap();
    let settings = client_settings(NOWHERE);
    let error = refused(settings.clone(), market.client_directory.path()).await;
    assert!(matches!(error, StartError::AlreadyRunning { .. }), "{error}");
    let taken = Settings {
        listen: market.address(),
        ..settings.clone()
    };
    let error = refused(taken, other.path()).await;
    assert!(matches!(error, StartError::AddressInUse { .. }), "{error}");
    assert!(error.to_string().contains("--listen"));
    let open = Settings {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..settings.clone()
    };
    assert!(matches!(
        refused(open, other.path()).await,
        StartError::Settings(_)
    ));
    let nowhere = Settings {
        coordinator: "ftp://x".into(),
        ..settings.clone()
    };
    assert!(matches!(
        refused(nowhere, other.path()).await,
        StartError::Coordinator(_)
    ));
    let address = Settings {
        mesh_listen: vec!["udp:7410".into()],
        ..settings.clone()
    };
    assert!(matches!(
        refused(address, other.path()).await,
        StartError::MeshAddress { .. }
    ));
    std::fs::write(other.path().join("identity.key"), "no key").unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(
        other.path().join("identity.key"),
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    assert!(matches!(
        refused(settings, other.path()).await,
        StartError::Key(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_port_that_is_taken_is_replaced_unless_it_was_chosen() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!(
        "/ip4/127.0.0.1/udp/{}/quic-v1",
        taken.local_addr().unwrap().port()
    );
    let directory = tempfile::tempdir().unwrap();
    let chosen = Settings {
        mesh_listen: vec![address],
        mesh_port_fallback: false,
        ..client_settings(NOWHERE)
    };
    assert!(matches!(
        refused(chosen.clone(), directory.path()).await,
        StartError::Mesh(_)
    ));
    let usual = Settings {
        mesh_port_fallback: true,
        ..chosen
    };
    let client = Client::start(usual, directory.path(), CancellationToken::new())
        .await
        .unwrap();
    assert!(!client.mesh().listen_addresses().is_empty());
    client.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_cuts_streams_off_with_a_reason_and_pays() {
    let market = Market::start().await;
    let steps = vec![Step::Say(text("Hi"), 1), Step::WaitFor(std::sync::Arc::default())];
    let provider = market.provider(Setup::default(), Script::Run(steps)).await;
    let body = crate::harness::chat_body(json!({"stream": true}));
    let request = market.http.post(market.url("/v1/chat/completions")).json(&body);
    let mut response = request.send().await.unwrap();
    let mut read = response.chunk().await.unwrap().unwrap().to_vec();
    let Market {
        client,
        client_directory,
        coordinator,
        ..
    } = market;
    let (stopped, ()) = tokio::join!(client.shutdown(), async {
        while let Some(bytes) = response.chunk().await.unwrap() {
            read.extend_from_slice(&bytes);
        }
    });
    stopped.unwrap();
    let text = String::from_utf8(read).unwrap();
    let events = crate::harness::events(&text);
    assert!(events[1].contains("\"shutting_down\""), "{text}");
    let jobs = provider.seen(|jobs| jobs[0].end.is_some()).await;
    assert!(jobs[0].was_cancelled);
    assert_eq!(
        jobs[0]
            .highest
            .as_ref()
            .unwrap()
            .content_unchecked()
            .cumulative
            .microcredits(),
        4
    );
    // The directory is free again.
    let settings = client_settings(&coordinator.http_url());
    let again = Client::start(settings, client_directory.path(), CancellationToken::new())
        .await
        .unwrap();
    again.shutdown().await.unwrap();
}
