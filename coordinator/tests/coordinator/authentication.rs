//! Caller tokens: each stands for one call by one account, once.

use gristmill_protocol::coordinator_api::AccountView;
use gristmill_protocol::tokens::Call;

use crate::harness::{Account, Network, channel_request, credits, grant, random, send};

const ACCOUNT: Call<'_> = Call {
    method: "GET",
    path: "/v1/account",
    body: b"",
};

async fn get_account(network: &Network, token: Option<&str>) -> crate::harness::Reply {
    send(network, "GET", "/v1/account", Vec::new(), token).await
}

#[tokio::test]
async fn a_token_is_accepted_once() {
    let network = Network::start().await;
    let account = Account::new();
    let token = account.token(&network, ACCOUNT);
    let view: AccountView = get_account(&network, Some(&token)).await.ok();
    assert_eq!(view.account, account.id());
    for later_ms in [0, 30_000, 59_000, 89_000, 3_600_000] {
        let elapsed = network.clock.now_ms() - crate::harness::BEGIN_MS;
        network.clock.advance(later_ms - elapsed);
        get_account(&network, Some(&token))
            .await
            .assert_refused(401, "unauthorized");
    }
}

#[tokio::test]
async fn a_token_races_itself_and_is_accepted_once() {
    let network = Network::start().await;
    let token = Account::new().token(&network, ACCOUNT);
    let replies = futures::future::join_all((0..50).map(|_| get_account(&network, Some(&token)))).await;
    assert_eq!(
        replies.iter().filter(|reply| reply.status.is_success()).count(),
        1
    );
}

#[tokio::test]
async fn a_token_for_another_call_is_refused_and_the_call_does_nothing() {
    let network = Network::start().await;
    let (operator, account) = (network.operator(), Account::new());
    let (body, other_body) = (
        serde_json::to_vec(&grant(account.id(), credits(1))).unwrap(),
        serde_json::to_vec(&grant(account.id(), credits(9))).unwrap(),
    );
    let right = Call {
        method: "POST",
        path: "/v1/grants",
        body: &body,
    };
    for wrong in [
        Call {
            method: "GET",
            ..right
        },
        Call {
            path: "/v1/settlements",
            ..right
        },
        Call {
            path: "/v1/grants?x=1",
            ..right
        },
        Call {
            body: &other_body,
            ..right
        },
        Call { body: b"", ..right },
    ] {
        let token = operator.token(&network, wrong);
        let reply = send(&network, "POST", "/v1/grants", body.clone(), Some(&token)).await;
        reply.assert_refused(401, "unauthorized");
    }
    assert!(account.view(&network).await.available.is_zero());
    let token = operator.token(&network, right);
    let _: AccountView = send(&network, "POST", "/v1/grants", body.clone(), Some(&token))
        .await
        .ok();
    assert_eq!(account.view(&network).await.available, credits(1));
}

#[tokio::test]
async fn tokens_of_another_time_or_for_another_coordinator_are_refused() {
    let network = Network::start().await;
    let (account, now_ms) = (Account::new(), network.clock.now_ms());
    let sign = |coordinator, at_ms| ACCOUNT.sign(&account.keypair, coordinator, random(), at_ms);
    let here = network.coordinator();
    for (at_ms, accepted) in [
        (now_ms, true),
        (now_ms - 80_000, true),
        (now_ms - 95_000, false),
        (now_ms + 29_000, true),
        (now_ms + 40_000, false),
    ] {
        let reply = get_account(&network, Some(&sign(here, at_ms))).await;
        assert_eq!(reply.status.is_success(), accepted, "{at_ms} {}", reply.text);
    }
    let elsewhere = sign(Account::new().id(), now_ms);
    get_account(&network, Some(&elsewhere))
        .await
        .assert_refused(401, "unauthorized");
}

#[tokio::test]
async fn callers_without_a_token_are_refused_everywhere_that_wants_one() {
    let network = Network::start().await;
    let channel = channel_request(Account::new().id(), credits(1)).channel;
    for (method, path) in [
        ("POST", "/v1/accounts".to_owned()),
        ("GET", "/v1/account".to_owned()),
        ("POST", "/v1/channels".to_owned()),
        ("GET", format!("/v1/channels/{channel}")),
        ("POST", format!("/v1/channels/{channel}/close")),
        ("POST", "/v1/settlements".to_owned()),
        ("GET", "/v1/receipts".to_owned()),
        ("POST", "/v1/grants".to_owned()),
    ] {
        for token in [
            None,
            Some(""),
            Some("x"),
            Some("a.b.c"),
            Some("eyJhbGciOiJub25lIn0.e30."),
        ] {
            let reply = send(&network, method, &path, b"{}".to_vec(), token).await;
            reply.assert_refused(401, "unauthorized");
        }
    }
}
