//! Whose hardware is verified, and that `only_verified` asks nobody else.

use gristmill_protocol::identity::Keypair;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::harness::{Answer, Market, PATIENCE, unix_ms};
use crate::provider::{Setup, TestProvider, words};
use crate::setup::Certificate;

/// The key that the market's coordinator signs with.
fn coordinator_key(market: &Market) -> Keypair {
    let path = gristmill_coordinator::server::signing_key_path(market.coordinator_directory.path());
    let key = gristmill_transport::key_file::load_or_create(&path).unwrap();
    assert_eq!(key.account(), market.coordinator.account());
    key
}

fn certificate(issuer: Keypair) -> Certificate {
    Certificate {
        issuer,
        about: None,
        expires_at: unix_ms() / 1_000 + 3_600,
    }
}

fn certified(certificate: Certificate) -> Setup {
    Setup {
        certificate: Some(certificate),
        // Nobody would choose it for its price.
        price: 3_000_000,
        ..Setup::default()
    }
}

async fn ask_verified(market: &Market) -> Answer {
    market.chat(json!({"gristmill": {"only_verified": true}})).await
}

async fn shown(market: &Market, provider: &TestProvider) -> Value {
    let list = market.get("/v1/providers").await.json();
    let id = json!(provider.account);
    let mut data = list["data"].as_array().unwrap().iter();
    data.find(|shown| shown["id"] == id).unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_verified_asks_nobody_else() {
    let market = Market::start().await;
    let cheap = market.provider(Setup::default(), words(&["cheap"])).await;
    let setup = certified(certificate(coordinator_key(&market)));
    let verified = market.provider(setup, words(&["verified"])).await;
    for _ in 0..3 {
        let answer = ask_verified(&market).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.text.contains("verified"), "{}", answer.text);
    }
    let by_header = market
        .http
        .post(market.url("/v1/chat/completions"))
        .header("x-gristmill-only-verified", "true")
        .json(&crate::harness::chat_body(json!({})))
        .send()
        .await
        .unwrap();
    assert!(Answer::read(by_header).await.text.contains("verified"));
    assert_eq!(cheap.jobs.borrow().len(), 0);
    assert_eq!(verified.jobs.borrow().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_do_not_hold_count_as_none() {
    let market = Market::start().await;
    let key = coordinator_key(&market);
    let good = certificate(key.clone());
    let mut providers = Vec::new();
    for wrong in [
        None,
        Some(certificate(Keypair::from_secret(&[5; 32]))),
        Some(Certificate {
            about: Some(Keypair::from_secret(&[6; 32]).account()),
            ..good.clone()
        }),
        Some(Certificate {
            expires_at: unix_ms() / 1_000 - 1,
            ..good
        }),
    ] {
        let setup = Setup {
            certificate: wrong,
            ..Setup::default()
        };
        // The listing itself is taken.
        let provider = market.provider(setup, words(&["Hi"])).await;
        assert_eq!(shown(&market, &provider).await["hardware"], "unverified");
        providers.push(provider);
    }
    let refused = ask_verified(&market).await;
    assert_eq!(refused.error(), (503, "no_provider_available".to_owned()));
    assert_eq!(
        refused.json()["error"]["param"],
        "gristmill.only_verified",
        "{}",
        refused.text
    );
    assert_eq!(
        market.chat(json!({})).await.status,
        200,
        "everybody else is served"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_verified_until_its_certificate_expires() {
    let market = Market::start().await;
    let setup = certified(Certificate {
        expires_at: unix_ms() / 1_000 + 5,
        ..certificate(coordinator_key(&market))
    });
    let expires_at_ms = setup.certificate.as_ref().unwrap().expires_at * 1_000;
    let provider = market.provider(setup, words(&["Hi"])).await;
    let before = shown(&market, &provider).await;
    // A machine that was away for five seconds proves nothing here; the board's own tests have a clock.
    assert!(
        before["hardware"] == "verified" || unix_ms() >= expires_at_ms,
        "{before}"
    );
    let deadline = Instant::now() + PATIENCE;
    while shown(&market, &provider).await["hardware"] == "verified" {
        assert!(Instant::now() < deadline, "it is verified for ever");
        sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(unix_ms() >= expires_at_ms);
    assert_eq!(ask_verified(&market).await.error().0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_the_page_and_monitoring_are_shown_what_was_shown() {
    let market = Market::start().await;
    let plain = market.provider(Setup::default(), words(&["Hi"])).await;
    let setup = certified(certificate(coordinator_key(&market)));
    let expires_at = setup.certificate.as_ref().unwrap().expires_at;
    let verified = market.provider(setup, words(&["Hi"])).await;
    let list = market.get("/v1/providers").await.json();
    assert_eq!((&list["object"], &list["total"]), (&json!("list"), &json!(2)));
    let [first, second] = [0, 1].map(|at| list["data"][at].clone());
    assert_eq!(
        (&first["id"], &first["hardware"]),
        (&json!(verified.account), &json!("verified"))
    );
    assert_eq!(
        (&second["id"], &second["hardware"], &second["devices"]),
        (&json!(plain.account), &json!("unverified"), &json!([]))
    );
    let device = &first["devices"][0];
    assert_eq!(
        (&device["name"], &device["memory_bytes"], &device["expires_at"]),
        (&json!("NVIDIA H200"), &json!(24_u64 << 30), &json!(expires_at))
    );
    assert_eq!(device["multiply_adds_per_second"]["f32"], 25_000_000_000_000_u64);
    assert!(device["shown_at"].is_u64());
    let model = &market.get("/v1/models").await.json()["data"][0];
    assert_eq!(
        (&model["providers"], &model["verified_providers"]),
        (&json!(2), &json!(1))
    );
    let state = market.get("/v1/page/state").await.json();
    assert_eq!(state["hardware"], list["data"]);
    assert_eq!(state["models"][0]["verified_providers"], 1);
    let metrics = market.get("/metrics").await.text;
    for line in [
        "gristmill_providers_on_offer{hardware=\"verified\"} 1",
        "gristmill_providers_on_offer{hardware=\"unverified\"} 1",
        "gristmill_verified_devices 1",
        &format!("gristmill_verified_memory_bytes {}", 24_u64 << 30),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
}
