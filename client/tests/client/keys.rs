//! Keys of programs: made and revoked while the client runs, each with its bounds.

use std::path::Path;

use clap::Parser;
use futures::future::join_all;
use gristmill_client::FileSection;
use gristmill_client::cli::{self, Command};
use serde_json::{Value, json};

use crate::harness::{Answer, Market, chat_body};
use crate::provider::{Setup, words};

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

async fn command(line: &str, data_dir: &Path) -> anyhow::Result<()> {
    let program = Program::parse_from(std::iter::once("client").chain(line.split(' ')));
    cli::run(program.command, FileSection::default(), data_dir, true)
        .await
        .map(|_| ())
}

/// Makes a key as `gristmill client keys create` does. What that prints is the shell's, so the key is put in its place
/// by its digest.
pub async fn create(market: &Market, name: &str, bounds: &str) -> String {
    let data_dir = market.client_directory.path();
    command(&format!("keys create {name}{bounds}"), data_dir)
        .await
        .unwrap();
    let path = data_dir.join("client/keys.json");
    let mut book: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let key = format!("gm-{name}-0123456789");
    let keys = book["keys"].as_array_mut().unwrap();
    let made = keys.last_mut().unwrap();
    assert_eq!(made["name"], name);
    made["digest"] = blake3::hash(key.as_bytes()).to_hex().to_string().into();
    let replacement = path.with_extension("other");
    std::fs::write(&replacement, book.to_string()).unwrap();
    std::fs::rename(replacement, path).unwrap();
    key
}

pub async fn chat(market: &Market, key: &str, fields: Value) -> Answer {
    let request = market
        .http
        .post(market.url("/v1/chat/completions"))
        .bearer_auth(key);
    Answer::read(request.json(&chat_body(fields)).send().await.unwrap()).await
}

pub async fn get(market: &Market, key: &str, path: &str) -> Answer {
    Answer::read(
        market
            .http
            .get(market.url(path))
            .bearer_auth(key)
            .send()
            .await
            .unwrap(),
    )
    .await
}

fn dear() -> Setup {
    Setup {
        price: 100_000_000,
        window: 1_000_000,
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_open_and_close_the_endpoint_while_it_runs() {
    let market = Market::start().await;
    let _provider = market.provider(Setup::default(), words(&["Hi"])).await;
    assert_eq!(market.chat(json!({})).await.status, 200, "nobody needs a key yet");
    let key = create(&market, "ci", "").await;
    assert_eq!(
        market.chat(json!({})).await.error(),
        (401, "invalid_api_key".to_owned())
    );
    assert_eq!(chat(&market, &key, json!({})).await.status, 200);
    let messages =
        json!({"model": "guide", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]});
    let anthropic = market
        .http
        .post(market.url("/v1/messages"))
        .header("x-api-key", &key)
        .json(&messages);
    assert_eq!(anthropic.send().await.unwrap().status().as_u16(), 200);
    for path in ["/v1/models", "/v1/usage", "/v1/usage/requests", "/metrics"] {
        assert_eq!(market.get(path).await.error().0, 401, "{path}");
        assert_eq!(get(&market, &key, path).await.status, 200, "{path}");
    }
    // The client's own commands get in by the file that only its owner can read.
    let place = format!(
        "--listen {} --coordinator {}",
        market.address(),
        market.coordinator.http_url()
    );
    let data_dir = market.client_directory.path();
    command(&format!("models {place}"), data_dir).await.unwrap();
    command(&format!("chat Hi {place}"), data_dir).await.unwrap();
    command("keys revoke ci", data_dir).await.unwrap();
    assert_eq!(chat(&market, &key, json!({})).await.error().0, 401);
    assert_eq!(
        market.chat(json!({})).await.error().0,
        401,
        "a book that had keys never opens to everybody"
    );
    let kept = std::fs::read_to_string(data_dir.join("client/keys.json")).unwrap();
    assert!(!kept.contains(&key), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_hears_of_its_own_requests_alone() {
    let market = Market::start().await;
    let _provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let (one, other) = (
        create(&market, "one", "").await,
        create(&market, "other", "").await,
    );
    for (key, times) in [(&one, 1), (&other, 2)] {
        for _ in 0..times {
            assert_eq!(chat(&market, key, json!({})).await.status, 200);
        }
    }
    for (key, times) in [(&one, 1), (&other, 2)] {
        let report = get(&market, key, "/v1/usage?by=key&key=one").await.json();
        assert_eq!(report["total"]["requests"], times);
        let requests = get(&market, key, "/v1/usage/requests").await.json();
        assert_eq!(requests["data"].as_array().unwrap().len(), times);
    }
    let owner = std::fs::read_to_string(market.client_directory.path().join("client/owner.key")).unwrap();
    let all = get(&market, &owner, "/v1/usage?by=key").await.json();
    assert_eq!(
        (all["rows"].as_array().unwrap().len(), &all["total"]["requests"]),
        (2, &json!(3))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept_and_says_when_to_come_back() {
    let market = Market::start().await;
    let _provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let key = create(&market, "slow", " --requests-per-minute 2").await;
    for _ in 0..2 {
        assert_eq!(chat(&market, &key, json!({})).await.status, 200);
        assert_eq!(
            get(&market, &key, "/v1/models").await.status,
            200,
            "looking is no request"
        );
    }
    let refused = chat(&market, &key, json!({})).await;
    assert_eq!(refused.error(), (429, "rate_limit_exceeded".to_owned()));
    let seconds: u32 = refused.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    let metrics = get(&market, &key, "/metrics").await.text;
    assert!(
        metrics.contains("gristmill_rate_limited_requests_total 1\n"),
        "{metrics}"
    );
}

/// A request of 10 tokens is reserved with its longest prompt and answer, and costs 500 microcredits.
#[tokio::test(flavor = "multi_thread")]
async fn a_cap_is_never_passed_however_many_ask_at_once() {
    const CAP: u64 = 60_000;
    let market = Market::start().await;
    let provider = market.provider(dear(), words(&["a", "b"])).await;
    let key = create(&market, "ci", " --cap 0.06 --per day").await;
    let answers = join_all((0..100).map(|_| chat(&market, &key, json!({"max_tokens": 10})))).await;
    let served = answers.iter().filter(|answer| answer.status == 200).count() as u64;
    assert!((1..100).contains(&served), "{served}");
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(refused.error(), (503, "budget_exhausted".to_owned()));
        assert_eq!(
            refused.header("retry-after"),
            "1",
            "those that run hold what is left"
        );
    }
    // One after the other, until no request fits any more.
    let mut spent = served * 500;
    let last = loop {
        let answer = chat(&market, &key, json!({"max_tokens": 10})).await;
        if answer.status != 200 {
            break answer;
        }
        spent += 500;
        assert!(spent <= CAP);
    };
    assert_eq!(last.error(), (402, "insufficient_credits".to_owned()));
    assert!(
        last.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("spend cap"),
        "{}",
        last.text
    );
    let report = get(&market, &key, "/v1/usage?by=key").await.json();
    assert_eq!(report["total"]["cost"], spent);
    provider
        .seen(|jobs| jobs.iter().all(|job| job.end.is_some()))
        .await;
    let promised: u64 = provider
        .vouchers()
        .iter()
        .map(|voucher| voucher.content_unchecked().cumulative.microcredits())
        .sum();
    assert_eq!(promised, spent);
    let other = create(&market, "other", "").await;
    assert_eq!(
        chat(&market, &other, json!({"max_tokens": 10})).await.status,
        200,
        "another key has its own"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_cap_shortens_an_answer_whose_length_was_left_open() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let key = create(&market, "few", " --cap 0.002 --per day").await;
    let too_long = chat(&market, &key, json!({"max_tokens": 4_000})).await;
    assert_eq!(too_long.error(), (402, "insufficient_credits".to_owned()));
    let answer = chat(&market, &key, json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body: Value = serde_json::from_slice(&provider.jobs.borrow()[0].body).unwrap();
    let limit = body["max_tokens"].as_u64().unwrap();
    assert!((1_000..2_000).contains(&limit), "{limit}");
}
