//! Starting, losing and leaving.

use std::time::Duration;

use gristmill_transport::mesh::Multiaddr;
use gristmill_transport::{Mesh, MeshConfig, MeshError, OpenJobError, PublishError};

use crate::support::{
    account, clock, connected, job_pair, keypair, knowing, quic_only, sealed, soon, start, steady_port, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listen_addresses_are_concrete_at_once() {
    let (mesh, _) = start(1, MeshConfig::default()).await;
    let addresses = mesh.listen_addresses();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    assert!(
        addresses
            .iter()
            .all(|address| !address.to_string().contains("/0")),
        "{addresses:?}"
    );
    assert_eq!(mesh.account(), account(1));
}

async fn start_error(config: MeshConfig) -> MeshError {
    soon(Mesh::start(&keypair(9), config, clock()))
        .await
        .map(|_| ())
        .unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_a_typed_error_that_names_it() {
    let (mesh, _) = start(1, MeshConfig::default()).await;
    let taken = mesh.listen_addresses();
    for address in &taken {
        let config = MeshConfig {
            listen: vec![address.clone()],
            ..MeshConfig::default()
        };
        let error = start_error(config).await;
        assert!(
            matches!(&error, MeshError::AddressInUse { address: named } if named == address),
            "{error}"
        );
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
    // After a shutdown, also one that closes connections, the ports are free again.
    let (neighbour, _) = start(2, knowing(mesh.bootstrap_addresses())).await;
    connected(&neighbour, account(1)).await;
    mesh.shutdown().await;
    start(
        1,
        MeshConfig {
            listen: taken,
            ..MeshConfig::default()
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusable_addresses_are_typed_errors() {
    for text in ["/ip4/127.0.0.1/udp/0", "/dns4/localhost/tcp/0", "/unix/x"] {
        let config = MeshConfig {
            listen: vec![text.parse().unwrap()],
            ..MeshConfig::default()
        };
        assert!(
            matches!(start_error(config).await, MeshError::Address { .. }),
            "{text}"
        );
    }
    // An address of another machine.
    let elsewhere = MeshConfig {
        listen: vec!["/ip4/192.0.2.1/tcp/0".parse().unwrap()],
        ..MeshConfig::default()
    };
    assert!(matches!(start_error(elsewhere).await, MeshError::Listen { .. }));
    let without_peer = knowing(vec!["/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap()]);
    assert!(matches!(
        start_error(without_peer).await,
        MeshError::Address { .. }
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_peer_that_comes_late_or_comes_back_is_found() {
    // The bootstrap peer takes it only later.
    let port = steady_port();
    let address: Multiaddr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse().unwrap();
    let bootstrap: Multiaddr = format!("{address}/p2p/{}", account(2)).parse().unwrap();
    let fixed = MeshConfig {
        listen: vec![address],
        ..MeshConfig::default()
    };
    let (early, _) = start(1, knowing(vec![bootstrap])).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(early.connected_peers().is_empty());
    let (late, _) = start(2, fixed.clone()).await;
    connected(&early, account(2)).await;
    late.shutdown().await;
    until(async || early.connected_peers().is_empty()).await;
    let (_again, _) = start(2, fixed).await;
    connected(&early, account(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bootstrap_peers_can_be_added_later() {
    let (known, _) = start(2, quic_only()).await;
    let (mesh, _) = start(1, quic_only()).await;
    mesh.add_bootstrap(known.bootstrap_addresses()[0].clone())
        .await
        .unwrap();
    connected(&mesh, account(2)).await;
    assert!(matches!(
        mesh.add_bootstrap(known.listen_addresses()[0].clone()).await,
        Err(MeshError::Address { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_are_found_through_kademlia() {
    let server = |bootstrap| MeshConfig {
        kademlia_server: Some(true),
        ..knowing(bootstrap)
    };
    let (middle, _) = start(2, server(vec![])).await;
    let (left, _) = start(1, server(middle.bootstrap_addresses())).await;
    connected(&left, account(2)).await;
    let (right, _) = start(3, server(middle.bootstrap_addresses())).await;
    // Nobody told the right peer about the left one but Kademlia.
    connected(&right, account(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_limited() {
    let (hub, _) = start(
        100,
        MeshConfig {
            connections_max: 4,
            ..quic_only()
        },
    )
    .await;
    let mut others = Vec::new();
    for byte in 1..=6 {
        others.push(start(byte, knowing(hub.bootstrap_addresses())).await);
    }
    // A quarter of the places is kept for those whom the hub dials itself.
    until(async || hub.connected_peers().len() == 3).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(hub.connected_peers().len() <= 3);
}

#[test]
fn a_shutdown_ends_every_task() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let pair = job_pair(MeshConfig::default()).await;
        assert!(runtime.metrics().num_alive_tasks() > 0);
        let (mesh, mut incoming) = (pair.provider_mesh.clone(), pair.incoming);
        pair.provider_mesh.shutdown().await;
        pair.consumer_mesh.shutdown().await;
        assert!(soon(incoming.next()).await.is_none());
        assert_eq!(
            mesh.publish_listing(sealed(2, 1)).await,
            Err(PublishError::Stopped)
        );
        let opened = mesh.open_job(account(1), &[]).await.map(|_| ());
        assert_eq!(opened, Err(OpenJobError::Stopped));
        assert!(mesh.listen_addresses().is_empty());
        mesh.shutdown().await;
        drop((pair.consumer, pair.provider));
        until(async || runtime.metrics().num_alive_tasks() == 0).await;
    });
}

#[test]
fn dropping_every_handle_ends_the_mesh() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        drop(start(1, MeshConfig::default()).await);
        until(async || runtime.metrics().num_alive_tasks() == 0).await;
    });
}
