//! The HTTP client against a server that checks every token as a coordinator does.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use gristmill_protocol::coordinator_api::{
    AccountView, ChannelView, GrantRequest, Jwk, JwkSet, ListingsAnswer, LogInfo, NetworkInfo,
    OpenChannelAnswer, OpenChannelRequest, ReceiptsPage, SettleAnswer, SettleRequest, SettlementResult,
    handover_text, listing_text, voucher_from_text,
};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::AccountId;
use gristmill_protocol::ids::{ChannelId, GrantId};
use gristmill_protocol::log::checkpoint::origin_of;
use gristmill_protocol::log::note::{KeyKind, NOTE_MAX_BYTES, SignedNote, VerifierKey};
use gristmill_protocol::log::tile::Tile;
use gristmill_protocol::tokens::Call;
use gristmill_protocol::voucher::Voucher;
use gristmill_transport::{CoordinatorCallError, CoordinatorClient};
use serde::Serialize;

use crate::support::{account, clock, handover, keypair, now_ms, sealed, soon, steady_port};

mod server;

use server::*;

const COORDINATOR: u8 = 100;
const CALLER: u8 = 1;
const CHANNEL: ChannelId = ChannelId::from_bytes([7; 16]);

fn client_at(address: SocketAddr, coordinator: Option<AccountId>) -> CoordinatorClient {
    CoordinatorClient::new(
        &format!("http://{address}"),
        coordinator,
        keypair(CALLER),
        clock(),
    )
    .unwrap()
}

async fn serve() -> (Server, CoordinatorClient) {
    let server = Server::default();
    let client = client_at(server.start().await, None);
    (server, client)
}

#[tokio::test]
async fn every_call_arrives_signed_and_its_answer_comes_back() {
    let (server, client) = serve().await;
    assert_eq!(client.network().await.unwrap(), network());
    assert_eq!(client.listings().await.unwrap().len(), 1);
    assert_eq!(
        client.jwks().await.unwrap().keys,
        [Jwk::of(&account(COORDINATOR))]
    );
    assert_eq!(client.open_account().await.unwrap(), balances());
    assert_eq!(client.account_view().await.unwrap(), balances());
    let request = OpenChannelRequest {
        channel: ChannelId::from_bytes([3; 16]),
        provider: account(2),
        limit: Credits::micro(77),
        life_ms: 1000,
    };
    assert_eq!(
        client.open_channel(&request).await.unwrap().channel.limit,
        Credits::micro(77)
    );
    assert_eq!(client.channel(CHANNEL).await.unwrap().channel, CHANNEL);
    assert_eq!(client.close_channel(CHANNEL).await.unwrap().channel, CHANNEL);
    let voucher = |amount| {
        keypair(CALLER).sign(Voucher {
            channel: CHANNEL,
            cumulative: Credits::micro(amount),
            request_id: "r".parse().unwrap(),
            transcript: [0; 32],
        })
    };
    let vouchers: Vec<_> = (0..1000).map(voucher).collect();
    let settled = client.settle(&vouchers).await.unwrap();
    let last = SettlementResult::Unchanged {
        channel: CHANNEL,
        settled: Credits::micro(999),
    };
    assert_eq!(settled.results.last(), Some(&last));
    assert_eq!(client.receipts(Some(9), 2).await.unwrap().next, Some(8));
    assert_eq!(
        client.receipts(None, 10).await.unwrap().receipts,
        Vec::<String>::new()
    );
    let grant = GrantRequest {
        grant: GrantId::from_bytes([1; 16]),
        account: account(CALLER),
        amount: Credits::micro(1),
        reason: "test".into(),
    };
    assert_eq!(client.grant(&grant).await.unwrap(), balances());
    assert_eq!(
        server.seen().len(),
        12,
        "each call once, and the coordinator's account is asked once"
    );
}

#[tokio::test]
async fn refusals_keep_status_code_and_message_and_are_not_repeated() {
    let (server, client) = serve().await;
    client.network().await.unwrap();
    server.seen();
    for (status, code) in [
        (402, "insufficient_credits"),
        (409, "conflict"),
        (429, "rate_limited"),
        (500, "internal"),
    ] {
        server
            .instead
            .lock()
            .unwrap()
            .push(refusal(StatusCode::from_u16(status).unwrap(), code));
        let error = client.open_account().await.unwrap_err();
        let message = format!("because of {code}");
        assert_eq!(
            error,
            CoordinatorCallError::Refused {
                status,
                code: code.into(),
                message
            }
        );
        assert_eq!(error.code(), Some(code));
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_coordinator_that_is_busy_is_asked_again_with_fresh_tokens() {
    let (server, client) = serve().await;
    client.network().await.unwrap();
    server.seen();
    let busy = || refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    server.instead.lock().unwrap().extend([busy(), busy(), busy()]);
    assert_eq!(soon(client.account_view()).await.unwrap(), balances());
    assert_eq!(server.seen().len(), 4);
    server
        .instead
        .lock()
        .unwrap()
        .extend([busy(), busy(), busy(), busy()]);
    let error = soon(client.account_view()).await.unwrap_err();
    assert!(
        matches!(error, CoordinatorCallError::Refused { status: 503, .. }),
        "{error}"
    );
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_coordinator_that_starts_late_is_found() {
    let address = SocketAddr::from(([127, 0, 0, 1], steady_port()));
    let client = client_at(address, None);
    let error = soon(client.network()).await.unwrap_err();
    assert!(
        matches!(&error, CoordinatorCallError::Unreachable { url, .. } if url.contains(&address.to_string()))
    );
    let asking = tokio::spawn(async move { client.network().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let router = Router::new().fallback(handle).with_state(Server::default());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    assert_eq!(soon(asking).await.unwrap().unwrap(), network());
}

#[tokio::test]
async fn another_coordinator_than_the_configured_one_is_refused() {
    let server = Server::default();
    let address = server.start().await;
    let client = client_at(address, Some(account(99)));
    let error = client.network().await.unwrap_err();
    let (expected, actual) = (account(99), account(COORDINATOR));
    assert!(
        matches!(error, CoordinatorCallError::WrongCoordinator { expected: e, actual: a, .. } if (e, a) == (expected, actual))
    );
    // One that changes its account later is refused as well.
    let client = client_at(address, None);
    client.network().await.unwrap();
    server.instead.lock().unwrap().push(json(&network_of(&[99])));
    assert!(matches!(
        client.network().await,
        Err(CoordinatorCallError::KeyChanged { .. })
    ));
}

/// A client that keeps the keys of the coordinator in a folder.
fn client_with_memory(address: SocketAddr, folder: &Path) -> CoordinatorClient {
    client_at(address, None).with_known_keys_in(folder).unwrap()
}

#[tokio::test]
async fn hand_overs_are_followed_from_the_key_known_first_also_after_a_restart() {
    let (server, folder) = (Server::default(), tempfile::tempdir().unwrap());
    let address = server.start().await;
    let says = |keys: &[u8]| server.instead.lock().unwrap().push(json(&network_of(keys)));
    let client = client_with_memory(address, folder.path());
    let mut known = client.known_keys();
    assert!(known.borrow_and_update().is_none());
    says(&[100, 101]);
    client.network().await.unwrap();
    assert_eq!(client.coordinator().await.unwrap(), account(101));
    says(&[100, 101, 102]);
    client.network().await.unwrap();
    assert!(known.has_changed().unwrap());
    drop(client);

    let client = client_with_memory(address, folder.path());
    let keys = client.log_keys().await.unwrap();
    assert!([100, 101, 102].map(account).iter().all(|key| keys.contains(key)));
    assert!(server.seen().len() <= 2, "what is known is not asked for");
    assert_eq!(client.coordinator().await.unwrap(), account(102));
    // Nobody takes its place: not another coordinator, not a fork of its keys, not a key that it has retired, and
    // not somebody who took over its keys without being handed them.
    let mut taken_over = network_of(&[100, 101, 102]);
    taken_over.coordinator = account(99);
    let mut forged = network_of(&[100, 101, 102]);
    let mut by_others = handover(100, 102, 99);
    by_others.by_old = keypair(99).sign(*by_others.by_new.content_unchecked());
    forged.log.keys.push(handover_text(&by_others));
    forged.coordinator = account(99);
    let origin = forged.log.origin.clone();
    forged.log.verifier_key = VerifierKey::new(&origin, KeyKind::Ed25519, account(99)).unwrap();
    for info in [
        network_of(&[99]),
        network_of(&[100, 99]),
        network_of(&[100, 101]),
        network_of(&[100]),
        network_of(&[99, 100, 101, 102]),
        taken_over,
        forged,
    ] {
        server.instead.lock().unwrap().push(json(&info));
        let error = client.network().await.unwrap_err();
        if let CoordinatorCallError::KeyChanged { remedy, .. } = &error {
            assert!(remedy.contains("coordinators/127.0.0.1_"), "{error}");
        } else {
            assert!(
                matches!(error, CoordinatorCallError::InvalidAnswer { .. }),
                "{error}"
            );
        }
        assert_eq!(client.coordinator().await.unwrap(), account(102), "{info:?}");
    }
    says(&[100, 101, 102]);
    client.network().await.unwrap();
}

#[tokio::test]
async fn a_configured_account_may_be_any_that_ever_signed() {
    let server = Server::default();
    let address = server.start().await;
    for (configured, good) in [(100, true), (101, true), (102, false)] {
        let client = client_at(address, Some(account(configured)));
        assert_eq!(
            client.coordinator().await.unwrap(),
            account(configured),
            "asks nobody"
        );
        server
            .instead
            .lock()
            .unwrap()
            .push(json(&network_of(&[100, 101])));
        let asked = client.network().await;
        assert_eq!(asked.is_ok(), good, "{configured}: {asked:?}");
        if good {
            assert_eq!(client.coordinator().await.unwrap(), account(101));
        }
    }
}

#[tokio::test]
async fn calls_are_signed_for_the_new_key_as_soon_as_the_old_one_is_refused() {
    let (server, client) = serve().await;
    client.network().await.unwrap();
    // Answers are taken from the end.
    server.instead.lock().unwrap().extend([
        json(&network_of(&[COORDINATOR, 101])),
        refusal(StatusCode::UNAUTHORIZED, "unauthorized"),
    ]);
    server.seen();
    // This server goes on expecting the old key, so the second call is refused as well, but it was made.
    assert!(client.account_view().await.is_err());
    assert_eq!(
        server.seen(),
        ["GET /v1/account", "GET /v1/network", "GET /v1/account",]
    );
    assert_eq!(client.coordinator().await.unwrap(), account(101));
}

#[tokio::test]
async fn the_log_is_read_within_bounds() {
    let (server, client) = serve().await;
    let answers = |response: Response| server.instead.lock().unwrap().push(response);
    let tile = |width| Tile::new(0, 3, width).unwrap();
    answers(vec![7; 32 * 5].into_response());
    assert_eq!(client.tile(tile(5)).await.unwrap(), [7; 160]);
    // One that has filled up is answered with the full one.
    answers(vec![8; 32 * 256].into_response());
    answers(refusal(StatusCode::NOT_FOUND, "not_found"));
    server.seen();
    assert_eq!(client.tile(tile(5)).await.unwrap(), [8; 32 * 256]);
    assert_eq!(server.seen(), ["GET /log/tile/0/003.p/5", "GET /log/tile/0/003"]);
    for bytes in [0, 32 * 256 - 1, 32 * 256 + 1] {
        answers(vec![0; bytes].into_response());
        let read = client.tile(tile(256)).await;
        assert!(
            matches!(read, Err(CoordinatorCallError::InvalidAnswer { .. })),
            "{bytes}"
        );
    }
    let note = SignedNote::sign("text\n", "name", &keypair(5)).unwrap();
    answers(note.to_string().into_response());
    assert_eq!(client.checkpoint().await.unwrap(), note);
    for text in ["".to_owned(), "no note\n".into(), "x".repeat(NOTE_MAX_BYTES + 1)] {
        answers(text.into_response());
        assert!(matches!(
            client.checkpoint().await,
            Err(CoordinatorCallError::InvalidAnswer { .. })
        ));
    }
}

#[tokio::test]
async fn answers_that_are_none_are_typed_errors() {
    let (server, client) = serve().await;
    client.network().await.unwrap();
    let html = || (StatusCode::OK, "<html>").into_response();
    let elsewhere = (StatusCode::FOUND, [(header::LOCATION, "http://127.0.0.1:1/")]).into_response();
    let endless = (StatusCode::OK, vec![b' '; (4 << 20) + 1]).into_response();
    let plain_error = (StatusCode::BAD_GATEWAY, "proxy says no").into_response();
    for response in [html(), elsewhere, endless, plain_error] {
        server.instead.lock().unwrap().push(response);
        let error = client.account_view().await.unwrap_err();
        assert!(
            matches!(error, CoordinatorCallError::InvalidAnswer { .. }),
            "{error}"
        );
    }
    // Just as many bytes as may come.
    let mut full = serde_json::to_vec(&balances()).unwrap();
    full.resize(4 << 20, b' ');
    server
        .instead
        .lock()
        .unwrap()
        .push((StatusCode::OK, full).into_response());
    assert_eq!(client.account_view().await.unwrap(), balances());
}

#[test]
fn only_bare_http_addresses_are_coordinators() {
    let new = |url: &str| CoordinatorClient::new(url, None, keypair(1), clock()).map(|_| ());
    for url in [
        "http://127.0.0.1:7400",
        "http://127.0.0.1:7400/",
        "https://coordinator.example",
        "http://[::1]:7400",
    ] {
        new(url).unwrap();
    }
    for url in [
        "",
        "127.0.0.1:7400",
        "ftp://x",
        "http://x/path",
        "http://x/?q",
        "http://user:pw@x",
        "file:///etc",
    ] {
        let error = new(url).unwrap_err();
        assert!(error.to_string().contains("http://127.0.0.1:7400"), "{error}");
    }
}
