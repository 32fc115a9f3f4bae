//! Listings on the mesh.

use gristmill_protocol::board::Insertion;
use gristmill_protocol::hardware::{
    CERTIFICATE_LIFE_SECONDS, CertifiedDevice, HardwareCertificate, HardwareDigest, HardwareKind, METHOD,
    Precision, Throughput,
};
use gristmill_protocol::ids::ChallengeId;
use gristmill_protocol::jws::Audience;
use gristmill_protocol::listing::ListingError;
use gristmill_protocol::log::checkpoint::LogKeys;
use gristmill_transport::{Mesh, MeshConfig, PublishError, Published};

use crate::hostile::HostilePeer;
use crate::support::{
    account, forged, heard_by, hears, keypair, knowing, listing, now_ms, quic_only, sealed, sequence_on,
    soon, start, tcp_only, until,
};

/// Three peers in a row: the outer ones know the middle one only.
async fn row() -> [Mesh; 3] {
    let (middle, _) = start(2, quic_only()).await;
    let (left, _) = start(1, knowing(middle.bootstrap_addresses())).await;
    let (right, _) = start(3, knowing(middle.bootstrap_addresses())).await;
    for outer in [&left, &right] {
        heard_by(outer, account(2)).await;
        heard_by(&middle, outer.account()).await;
    }
    [left, middle, right]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_reaches_a_third_peer_through_the_middle_one() {
    let [left, middle, right] = row().await;
    left.publish_listing(sealed(1, 1)).await.unwrap();
    for mesh in [&left, &middle, &right] {
        hears(mesh, 1, 1).await;
    }
    // A farewell takes it off every board.
    let mut leaving = listing(1, 2);
    leaving.ttl_ms = 0;
    left.publish_listing(leaving.seal(&keypair(1)).unwrap())
        .await
        .unwrap();
    for mesh in [&left, &middle, &right] {
        until(async || sequence_on(mesh, 1).is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_travels_over_tcp_too() {
    let (first, _) = start(1, tcp_only()).await;
    let config = MeshConfig {
        bootstrap: first.bootstrap_addresses(),
        ..tcp_only()
    };
    let (second, _) = start(2, config).await;
    second.publish_listing(sealed(2, 7)).await.unwrap();
    hears(&first, 2, 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_published_alone_is_sent_when_somebody_comes() {
    let (provider, _) = start(1, quic_only()).await;
    assert_eq!(
        provider.publish_listing(sealed(1, 1)).await,
        Ok(Published::Waiting)
    );
    assert_eq!(sequence_on(&provider, 1), Some(1), "the own board has it at once");
    let (consumer, _) = start(2, knowing(provider.bootstrap_addresses())).await;
    hears(&consumer, 1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_listings_that_peers_would_refuse_are_refused_here() {
    let (mesh, _) = start(1, quic_only()).await;
    assert!(matches!(
        mesh.publish_listing(forged(1, 1)).await,
        Err(PublishError::Invalid(_))
    ));
    mesh.publish_listing(sealed(1, 5)).await.unwrap();
    let again = mesh.publish_listing(sealed(1, 5)).await;
    assert_eq!(again, Err(PublishError::NotNews(Insertion::Stale)));
    assert_eq!(
        mesh.publish_listing(sealed(1, 6)).await,
        Err(PublishError::NotNews(Insertion::TooSoon))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_of_a_directory_are_verified_and_posted() {
    let (mesh, _) = start(1, quic_only()).await;
    let changes = mesh.changes();
    assert_eq!(mesh.learn_listing(&sealed(7, 1)), Ok(Insertion::New));
    assert!(changes.has_changed().unwrap());
    assert_eq!(sequence_on(&mesh, 7), Some(1));
    assert_eq!(mesh.learn_listing(&sealed(7, 1)), Ok(Insertion::Stale));
    assert!(matches!(
        mesh.learn_listing(&forged(8, 1)),
        Err(ListingError::Signature { .. })
    ));
    assert_eq!(sequence_on(&mesh, 8), None);
}

/// A coordinator's certificate for some hardware of a provider.
fn certificate(coordinator: u8, provider: u8) -> String {
    let iat = now_ms() / 1_000;
    HardwareCertificate {
        iss: account(coordinator),
        sub: account(provider),
        aud: Audience::One(account(coordinator)),
        jti: ChallengeId::from_bytes([provider; 16]),
        iat,
        exp: iat + CERTIFICATE_LIFE_SECONDS,
        shown_at: iat,
        method: METHOD.into(),
        device: CertifiedDevice {
            kind: HardwareKind::Cpu,
            index: 0,
            name: "device".into(),
            vendor: "maker".into(),
            uuid: None,
        },
        memory_bytes: 1 << 30,
        throughput: vec![Throughput {
            precision: Precision::F32,
            multiply_adds_per_second: 1 << 30,
        }],
        score: 10,
        fingerprint: HardwareDigest::from_bytes([9; 32]),
        fingerprint_changed: false,
    }
    .sign(&keypair(coordinator))
}

/// More listings than are looked at under one lock: the task goes on by itself until all are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_of_listings_that_came_before_the_coordinator_are_looked_at() {
    let (mesh, _) = start(1, quic_only()).await;
    let providers: Vec<u8> = (10..40).collect();
    for provider in &providers {
        let mut listing = listing(*provider, 1);
        listing.certificates = vec![certificate(200, *provider)];
        let sealed = listing.seal(&keypair(*provider)).unwrap();
        assert_eq!(mesh.learn_listing(&sealed), Ok(Insertion::New));
    }
    let verified = || {
        let holds = |provider: &&u8| {
            mesh.with_board(|board| board.certificates(&account(**provider), now_ms()).count() == 1)
        };
        providers.iter().filter(holds).count()
    };
    assert_eq!(verified(), 0, "nobody's word counts yet");
    let mut changes = mesh.changes();
    mesh.trust_certificates(&LogKeys::new(account(200)));
    soon(async {
        // Whoever waits for changes hears of the end.
        while verified() < providers.len() {
            changes.changed().await.unwrap();
        }
    })
    .await;
    mesh.trust_certificates(&LogKeys::new(account(201)));
    assert_eq!(verified(), 0, "another's word does not count for one moment");
}

/// A hostile peer at one end of the row, an honest listener at the other.
async fn row_with_hostile_end() -> (HostilePeer, Mesh, Mesh) {
    let (middle, _) = start(2, quic_only()).await;
    let (right, _) = start(3, knowing(middle.bootstrap_addresses())).await;
    heard_by(&middle, account(3)).await;
    let hostile = soon(HostilePeer::join(66, middle.bootstrap_addresses()[0].clone())).await;
    heard_by(&middle, account(66)).await;
    (hostile, middle, right)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_listings_cost_score_and_are_not_forwarded() {
    let (hostile, middle, right) = row_with_hostile_end().await;
    hostile.send(sealed(10, 1)).await;
    hears(&right, 10, 1).await;
    assert!(middle.gossip_score(account(66)).await.unwrap() >= 0.0);

    hostile.send(forged(11, 1)).await;
    until(async || middle.gossip_score(account(66)).await.unwrap() < 0.0).await;
    let after_one = middle.gossip_score(account(66)).await.unwrap();
    hostile.send(b"no listing at all".to_vec()).await;
    until(async || middle.gossip_score(account(66)).await.unwrap() < after_one - 20.0).await;
    hostile.send(forged(12, 1)).await;
    until(async || middle.gossip_score(account(66)).await.unwrap() < -60.0).await;

    // From here on even its valid listings are not heard.
    hostile.send(sealed(13, 1)).await;
    // A valid one by another way shows that everything before it had its chance.
    middle.publish_listing(sealed(2, 1)).await.unwrap();
    hears(&right, 2, 1).await;
    for provider in [11, 12, 13] {
        assert_eq!(sequence_on(&middle, provider), None);
        assert_eq!(sequence_on(&right, provider), None);
    }
    assert!(
        right.gossip_score(account(2)).await.unwrap() >= 0.0,
        "the middle peer forwarded nothing invalid"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_and_hasty_listings_and_those_from_the_future_are_ignored_without_blame() {
    let (hostile, middle, right) = row_with_hostile_end().await;
    hostile.send(sealed(10, 5)).await;
    hears(&right, 10, 5).await;
    hostile.send(sealed(10, 4)).await;
    hostile.send(sealed(10, 6)).await;
    let mut early = listing(11, 1);
    early.issued_at_ms = now_ms() + 600_000;
    hostile.send(early.seal(&keypair(11)).unwrap()).await;
    hostile.send(sealed(12, 1)).await;
    hears(&right, 12, 1).await;
    for mesh in [&middle, &right] {
        assert_eq!(sequence_on(mesh, 10), Some(5));
        assert_eq!(sequence_on(mesh, 11), None);
    }
    assert!(middle.gossip_score(account(66)).await.unwrap() >= 0.0);
}
