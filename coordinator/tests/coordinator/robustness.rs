//! Malformed, oversize and misdirected calls: each has a typed answer in JSON, with a request id.

use std::time::Duration;

use gristmill_protocol::coordinator_api::{CALL_BODY_MAX_BYTES, NetworkInfo};
use gristmill_protocol::tokens::Call;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Account, Network, Reply, channel_request, credits, send};

#[tokio::test]
async fn bodies_are_read_up_to_the_limit_and_not_beyond() {
    let network = Network::start().await;
    let account = Account::new();
    let at = vec![b' '; CALL_BODY_MAX_BYTES];
    account
        .call(&network, "POST", "/v1/settlements", at)
        .await
        .assert_refused(400, "invalid_request");
    for over in [CALL_BODY_MAX_BYTES + 1, 3 * CALL_BODY_MAX_BYTES] {
        let reply = account
            .call(&network, "POST", "/v1/settlements", vec![b' '; over])
            .await;
        reply.assert_refused(413, "request_too_large");
    }
    let body = b"{\"vouchers\":[]}".to_vec();
    assert_eq!(
        account.call(&network, "POST", "/v1/settlements", body).await.text,
        "{\"results\":[]}"
    );
}

/// Writes a request by hand and gives the whole answer.
async fn raw(network: &Network, request: &str) -> String {
    let mut stream = TcpStream::connect(network.running().http_address())
        .await
        .unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_that_announces_gigabytes_is_refused_before_it_is_read() {
    let network = Network::start().await;
    let call = Call {
        method: "POST",
        path: "/v1/settlements",
        body: b"",
    };
    let token = Account::new().token(&network, call);
    let answer = raw(
        &network,
        &format!(
            "POST /v1/settlements HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
             content-length: 4000000000\r\nconnection: close\r\n\r\n"
        ),
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 413") && answer.contains("request_too_large"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_is_not_http_does_not_hurt() {
    let network = Network::start().await;
    for garbage in [
        "\0\0\0\0\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET \r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
    ] {
        let answer = raw(&network, garbage).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
    let _: NetworkInfo = network.get("/v1/network").await;
}

#[tokio::test]
async fn malformed_json_is_refused() {
    let network = Network::start().await;
    let account = network.account_with(1).await;
    let request = channel_request(Account::new().id(), credits(1));
    let good = serde_json::to_string(&request).unwrap();
    for body in [
        String::new(),
        "{".into(),
        "[]".into(),
        "null".into(),
        good[..good.len() - 1].into(),
        format!("{good}x"),
        good.replace("\"limit\"", "\"limits\""),
        good.replace("1000000", "1.5"),
        good.replace("1000000", "-1"),
        good.replace("1000000", "9007199254740992"),
        good.replace("12D3Koo", "12D3Kox"),
        good.replace("\"limit\"", "\"surprise\":1,\"limit\""),
    ] {
        let reply = account
            .call(&network, "POST", "/v1/channels", body.clone().into_bytes())
            .await;
        assert_eq!(reply.refusal(), (400, "invalid_request".to_owned()), "{body}");
    }
    account
        .call(&network, "POST", "/v1/channels", vec![0xff, 0xfe])
        .await
        .assert_refused(400, "invalid_request");
    assert_eq!(account.view(&network).await.held, credits(0));
}

#[tokio::test]
async fn paths_methods_and_parameters_that_do_not_exist_are_answered_in_json() {
    let network = Network::start().await;
    let account = Account::new();
    send(&network, "GET", "/nowhere", Vec::new(), None)
        .await
        .assert_refused(404, "not_found");
    send(&network, "GET", "/v1/network/", Vec::new(), None)
        .await
        .assert_refused(404, "not_found");
    send(&network, "DELETE", "/v1/network", Vec::new(), None)
        .await
        .assert_refused(405, "method_not_allowed");
    send(&network, "GET", "/v1/grants", Vec::new(), None)
        .await
        .assert_refused(405, "method_not_allowed");
    account
        .get(&network, "/v1/channels/xyz")
        .await
        .assert_refused(400, "invalid_request");
    account
        .get(&network, "/v1/account?account=xyz")
        .await
        .assert_refused(400, "invalid_request");
    account
        .get(&network, "/v1/account?acount=1")
        .await
        .assert_refused(400, "invalid_request");
}

#[tokio::test]
async fn a_request_id_travels_in_and_out() {
    let network = Network::start().await;
    let get = |path: &str| network.http().get(network.url(path));
    let reply = Reply::read(
        get("/healthz")
            .header("x-request-id", "req-7")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(reply.request_id, "req-7");
    let reply = Reply::read(
        get("/nowhere")
            .header("x-request-id", "bad id")
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert!(reply.request_id.starts_with("req_"), "{}", reply.request_id);
}

#[tokio::test]
async fn the_network_and_the_description_are_open_to_all() {
    let network = Network::start().await;
    let info: NetworkInfo = network.get("/v1/network").await;
    assert_eq!(
        (info.coordinator, info.fee_basis_points),
        (network.coordinator(), 200)
    );
    assert_eq!(info.channel_limit_max, credits(100));
    let peer = format!("/p2p/{}", network.coordinator());
    assert!(!info.bootstrap.is_empty() && info.bootstrap.iter().all(|address| address.ends_with(&peer)));
    let document: Value = network.get("/openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert!(document["paths"]["/v1/channels/{channel}/close"]["post"].is_object());
    let health: Value = network.get("/healthz").await;
    assert_eq!(health, network.get::<Value>("/readyz").await);
}

#[tokio::test]
async fn silent_connections_keep_nobody_from_calling() {
    let network = Network::start().await;
    let address = network.running().http_address();
    let mut silent = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"POST /v1/accounts HTTP/1.1\r\nhost: x\r\n")
            .await
            .unwrap();
        silent.push(stream);
    }
    let answer =
        tokio::time::timeout(Duration::from_secs(30), network.get::<NetworkInfo>("/v1/network")).await;
    assert!(answer.is_ok());
}
