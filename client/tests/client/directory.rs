//! What is answered from memory.

use gristmill_protocol::job::JobKind;
use serde_json::json;

use crate::harness::{Market, PATIENCE};
use crate::provider::{Setup, TestProvider, words};
use tokio::time::{Instant, sleep};

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_with_price_and_context() {
    let market = Market::start().await;
    assert_eq!(
        market.get("/v1/models").await.json(),
        json!({"object": "list", "data": []})
    );
    let chat = Setup {
        model: "Org/guide-1",
        price: 250_000,
        ..Setup::default()
    };
    let embeddings = Setup {
        kind: JobKind::Embeddings,
        model: "mini",
        context_length: 256,
        ..Setup::default()
    };
    let _first = market.provider(chat.clone(), words(&[])).await;
    let _second = market
        .provider(
            Setup {
                price: 200_000,
                ..chat
            },
            words(&[]),
        )
        .await;
    let _third = market.provider(embeddings, words(&[])).await;
    let list = market.get("/v1/models").await.json();
    let names: Vec<_> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["id"].clone())
        .collect();
    assert_eq!(names, ["Org/guide-1", "mini"]);
    let one = market.get("/v1/models/Org/guide-1").await;
    assert_eq!((one.status, one.json()), (200, list["data"][0].clone()));
    assert_eq!(market.get("/v1/models/Org%2Fguide-1").await.json(), one.json());
    let one = one.json();
    assert_eq!(
        (&one["object"], &one["owned_by"]),
        (&json!("model"), &json!("gristmill"))
    );
    assert!(one["created"].is_u64());
    assert_eq!(
        (&one["context_length"], &one["providers"]),
        (&json!(8_192), &json!(2))
    );
    assert_eq!(one["price"]["per_million"]["output_token"], 200_000);
    let missing = market.get("/v1/models/Org/guide-2").await;
    assert_eq!(missing.error(), (404, "model_not_found".to_owned()));
    assert!(missing.text.contains("Org/guide-1"), "{}", missing.text);
    assert_eq!(market.get("/v1/models/%ff").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_readiness_tell_apart_the_process_and_its_chances() {
    let market = Market::start().await;
    let health = market.get("/healthz").await;
    assert_eq!(
        (health.status, health.json()["status"].clone()),
        (200, json!("ok"))
    );
    assert_eq!(
        market.get("/readyz").await.error(),
        (503, "no_provider_available".to_owned())
    );
    let _provider = market.provider(Setup::default(), words(&[])).await;
    let ready = market.get("/readyz").await;
    assert_eq!(
        (ready.status, ready.json()["coordinator"].clone()),
        (200, json!("joined"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_only_the_coordinator_has_heard_of_is_found() {
    let market = Market::start().await;
    let bootstrap = market.coordinator.bootstrap_addresses();
    let account = market.coordinator.account();
    let provider = TestProvider::start(Setup::default(), account, &bootstrap, words(&["Hi"])).await;
    // Gossip takes its time; until then the answer says when to ask again.
    let deadline = Instant::now() + PATIENCE;
    let answer = loop {
        let answer = market.chat(json!({})).await;
        if answer.status == 200 {
            break answer;
        }
        assert_eq!(answer.error(), (503, "no_provider_available".to_owned()));
        assert!((1..=120).contains(&answer.header("retry-after").parse::<u32>().unwrap()));
        assert!(Instant::now() < deadline, "never found");
        sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(
        answer.json()["gristmill"]["provider"],
        provider.account.to_string()
    );
}
