//! Requests that carry an idempotency key run once and are paid once, however often they are sent.

use std::sync::Arc;

use gristmill_protocol::job::{JobFailed, JobKind};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::{Answer, Market, STARTER, chat_body};
use crate::provider::{Script, Setup, Step, TestProvider, finish, text, words};

const REPLAYED: &str = "idempotency-replayed";
const CHAT: &str = "/v1/chat/completions";

fn request(market: &Market, path: &str, key: &str, body: &Value) -> reqwest::RequestBuilder {
    let request = market.http.post(market.url(path));
    request.header("idempotency-key", key).json(body)
}

async fn post(market: &Market, path: &str, key: &str, body: &Value) -> Answer {
    Answer::read(request(market, path, key, body).send().await.unwrap()).await
}

async fn chat(market: &Market, key: &str, fields: Value) -> Answer {
    post(market, CHAT, key, &chat_body(fields)).await
}

/// What was promised to a provider after so many jobs, in microcredits.
async fn promised(provider: &TestProvider, jobs: usize) -> u64 {
    let seen = provider
        .seen(|seen| seen.iter().filter(|job| job.end.is_some()).count() == jobs)
        .await;
    assert_eq!(seen.len(), jobs);
    let vouchers = provider.vouchers();
    vouchers[0].content_unchecked().cumulative.microcredits()
}

/// The second answer is the first one again, and was made under the same id.
fn assert_replayed(first: &Answer, second: &Answer) {
    assert_eq!((first.header(REPLAYED), second.header(REPLAYED)), ("", "true"));
    assert_eq!((first.status, &first.text), (second.status, &second.text));
    for name in ["content-type", "x-request-id", "cache-control"] {
        assert_eq!(first.header(name), second.header(name), "{name}");
    }
    assert!(!second.header("openai-processing-ms").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_the_same_bytes_and_pays_nothing() {
    for stream in [false, true] {
        let market = Market::start().await;
        let provider = market.provider(Setup::default(), words(&["Grist", "mill"])).await;
        let first = chat(&market, "key-1", json!({"stream": stream})).await;
        assert_eq!(first.status, 200, "{}", first.text);
        assert!(first.text.contains("Grist"));
        let second = chat(&market, "key-1", json!({"stream": stream})).await;
        assert_replayed(&first, &second);
        assert_eq!(promised(&provider, 1).await, 5, "one payment");
        let third = chat(&market, "key-2", json!({"stream": stream})).await;
        assert_eq!((third.status, third.header(REPLAYED)), (200, ""));
        assert_eq!(promised(&provider, 2).await, 10, "another key is another request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_given_again() {
    let market = Market::start().await;
    let vectors =
        json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.25]}]});
    let setup = Setup {
        kind: JobKind::Embeddings,
        model: "mini",
        ..Setup::default()
    };
    let script = Script::Run(vec![Step::Say(vectors.to_string(), 0)]);
    let provider = market.provider(setup, script).await;
    let body = json!({"model": "mini", "input": ["a"]});
    let first = post(&market, "/v1/embeddings", "key", &body).await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert_replayed(&first, &post(&market, "/v1/embeddings", "key", &body).await);
    assert_eq!(promised(&provider, 1).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_large_to_remember_is_not_paid_twice() {
    let market = Market::start().await;
    let vector = "A".repeat(5 << 20);
    let vectors =
        json!({"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": vector}]});
    let setup = Setup {
        kind: JobKind::Embeddings,
        model: "mini",
        ..Setup::default()
    };
    let script = Script::Run(vec![Step::Say(vectors.to_string(), 0)]);
    let provider = market.provider(setup, script).await;
    let body = json!({"model": "mini", "input": ["a"], "encoding_format": "base64"});
    let first = post(&market, "/v1/embeddings", "key", &body).await;
    assert_eq!(first.status, 200, "{:.200}", first.text);
    let second = post(&market, "/v1/embeddings", "key", &body).await;
    assert_eq!(second.error(), (409, "idempotency_key_used".to_owned()));
    assert_eq!(promised(&provider, 1).await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_still_runs_is_not_run_beside_itself() {
    let market = Market::start().await;
    let go_on = Arc::new(Notify::new());
    let steps = vec![
        Step::Say(text("Hi"), 1),
        Step::WaitFor(go_on.clone()),
        Step::Say(finish(), 1),
    ];
    let provider = market.provider(Setup::default(), Script::Run(steps)).await;
    let repeated = async {
        provider.seen(|jobs| !jobs.is_empty()).await;
        for _ in 0..3 {
            let answer = chat(&market, "key", json!({})).await;
            assert_eq!(answer.error(), (409, "request_in_progress".to_owned()));
            assert_eq!(answer.header("retry-after"), "1");
        }
        go_on.notify_one();
    };
    let (first, ()) = tokio::join!(chat(&market, "key", json!({})), repeated);
    assert_eq!(first.status, 200, "{}", first.text);
    assert_replayed(&first, &chat(&market, "key", json!({})).await);
    assert_eq!(promised(&provider, 1).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_belongs_to_one_body_and_makes_sense() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    assert_eq!(chat(&market, "key", json!({})).await.status, 200);
    let other = chat(&market, "key", json!({"temperature": 1})).await;
    assert_eq!(other.error(), (400, "idempotency_key_reused".to_owned()));
    for key in ["", "two words", &"x".repeat(256)] {
        let answer = chat(&market, key, json!({})).await;
        assert_eq!(answer.error(), (400, "invalid_idempotency_key".to_owned()));
        assert!(answer.text.contains("Idempotency-Key"));
    }
    let twice = request(&market, CHAT, "a", &chat_body(json!({}))).header("idempotency-key", "b");
    let answer = Answer::read(twice.send().await.unwrap()).await;
    assert_eq!(answer.error(), (400, "invalid_idempotency_key".to_owned()));
    assert_eq!(provider.jobs.borrow().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_can_be_repeated() {
    let broken = JobFailed::new(500, "server_error", "out of memory", None);
    let overloaded = JobFailed::new(503, "unavailable", "too much to do", None);
    // Who has too much to do is asked twice for the first request, who breaks or is paid for a part of it once.
    for (steps, jobs) in [
        (vec![Step::Fail(overloaded)], 2 + 1),
        (vec![Step::Fail(broken)], 1 + 1),
        (vec![Step::Say(text("lost"), 1), Step::Die], 1 + 1),
    ] {
        for stream in [false, true] {
            let market = Market::start().await;
            let provider = market
                .provider(Setup::default(), Script::Run(steps.clone()))
                .await;
            let first = chat(&market, "key", json!({"stream": stream})).await;
            assert!(first.text.contains("\"error\""), "{}", first.text);
            provider.set_script(words(&["Hi"]));
            let second = chat(&market, "key", json!({"stream": stream})).await;
            assert_eq!((second.status, second.header(REPLAYED)), (200, ""));
            assert!(second.text.contains("Hi"), "{}", second.text);
            assert_replayed(&second, &chat(&market, "key", json!({"stream": stream})).await);
            assert_eq!(provider.jobs.borrow().len(), jobs);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_finds_wrong_is_said_again() {
    let market = Market::start().await;
    let wrong = JobFailed::new(422, "invalid_value", "no such voice", Some("voice"));
    let provider = market
        .provider(Setup::default(), Script::Run(vec![Step::Fail(wrong)]))
        .await;
    let first = chat(&market, "key", json!({"stream": true})).await;
    assert_eq!(first.error(), (422, "invalid_value".to_owned()));
    assert_replayed(&first, &chat(&market, "key", json!({"stream": true})).await);
    assert_eq!(provider.jobs.borrow().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_goes_away_frees_its_key() {
    let market = Market::start().await;
    let steps = vec![Step::Say(text("Hi"), 1), Step::WaitFor(Arc::default())];
    let provider = market.provider(Setup::default(), Script::Run(steps)).await;
    let body = chat_body(json!({"stream": true}));
    let mut response = request(&market, CHAT, "key", &body).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    provider.seen(|jobs| jobs[0].was_cancelled).await;
    provider.set_script(words(&["again"]));
    let second = post(&market, CHAT, "key", &body).await;
    assert_eq!((second.status, second.header(REPLAYED)), (200, ""));
    assert!(second.text.contains("again"), "{}", second.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_with_their_own_keys_share_no_answers() {
    let (one, other) = ("sk-0123456789abcdef", "sk-fedcba9876543210");
    let market = Market::start_with(STARTER, |mut settings| {
        settings.api_keys = vec![one.parse().unwrap(), other.parse().unwrap()];
        settings
    })
    .await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let body = chat_body(json!({}));
    for (program, replayed) in [(one, ""), (other, ""), (one, "true"), (other, "true")] {
        let request = request(&market, CHAT, "key", &body).bearer_auth(program);
        let answer = Answer::read(request.send().await.unwrap()).await;
        assert_eq!((answer.status, answer.header(REPLAYED)), (200, replayed));
    }
    assert_eq!(provider.jobs.borrow().len(), 2);
}
