//! What requests came to: in headers and answers, over HTTP, on disk, with the provider and at the coordinator.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use futures::future::join_all;
use gristmill_client::FileSection;
use gristmill_client::cli::{self, Command};
use gristmill_protocol::coordinator_api::SettlementResult;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::{JobFailed, JobKind};
use gristmill_transport::CoordinatorClient;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::harness::{Answer, Market, PATIENCE, STARTER, chat_body, client_settings, start_client, unix_ms};
use crate::provider::{Script, Setup, Step, TestProvider, finish, text, words};

const SECRET: &str = "What is Gristmill?";

/// A hundred credits per million tokens: a microcredit for a hundredth of a token.
fn dear() -> Setup {
    Setup {
        price: 100_000_000,
        window: 1_000_000,
        ..Setup::default()
    }
}

async fn requests(market: &Market) -> Vec<Value> {
    market.get("/v1/usage/requests").await.json()["data"]
        .as_array()
        .unwrap()
        .clone()
}

/// The finished requests, once there are so many.
async fn finished(market: &Market, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let requests = requests(market).await;
        if requests.len() >= count {
            return requests;
        }
        assert!(Instant::now() < deadline, "{requests:?}");
        sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// What the coordinator settles for a provider, in microcredits.
async fn settled(market: &Market, provider: &TestProvider) -> u64 {
    let url = market.coordinator.http_url();
    let till = CoordinatorClient::new(&url, None, provider.keypair.clone(), Arc::new(unix_ms)).unwrap();
    till.open_account().await.unwrap();
    let results = till.settle(&provider.vouchers()).await.unwrap().results;
    let settled = results.iter().map(|result| match result {
        SettlementResult::Settled { settled, .. } => settled.microcredits(),
        refused => panic!("{refused:?}"),
    });
    settled.sum()
}

fn promised(provider: &TestProvider) -> u64 {
    let vouchers = provider.vouchers();
    vouchers
        .iter()
        .map(|voucher| voucher.content_unchecked().cumulative.microcredits())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_says_in_headers_what_it_cost_and_who_gave_it() {
    let market = Market::start().await;
    let provider = market.provider(dear(), words(&["a", "b"])).await;
    let account = provider.account.to_string();
    for (path, body) in [
        ("/v1/chat/completions", chat_body(json!({"max_tokens": 10}))),
        (
            "/v1/responses",
            json!({"model": "guide", "input": SECRET, "max_output_tokens": 10}),
        ),
        (
            "/v1/messages",
            json!({"model": "guide", "max_tokens": 10, "messages": [{"role": "user", "content": SECRET}]}),
        ),
    ] {
        let answer = market.post(path, &body).await;
        assert_eq!(
            (answer.status, answer.header("x-gristmill-cost")),
            (200, "500"),
            "{path}: {}",
            answer.text
        );
        assert_eq!(answer.header("x-gristmill-provider"), account, "{path}");
    }
    let streamed = market.chat(json!({"max_tokens": 10, "stream": true})).await;
    assert!(
        streamed.header("x-gristmill-cost").is_empty(),
        "its cost is not known when the headers are sent"
    );
    let events = streamed.events();
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!(
        (&last["gristmill"]["cost"], &last["gristmill"]["provider"]),
        (&json!(500), &json!(account))
    );
    let unknown = market.chat(json!({"model": "nobody's"})).await;
    assert_eq!((unknown.status, unknown.header("x-gristmill-cost")), (404, "0"));
    assert!(unknown.header("x-gristmill-provider").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_endpoints_say_so_too() {
    for (kind, path, body, message) in [
        (
            JobKind::Embeddings,
            "/v1/embeddings",
            json!({"model": "guide", "input": "x"}),
            json!({"object": "list", "model": "guide", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}),
        ),
        (
            JobKind::Completions,
            "/v1/completions",
            json!({"model": "guide", "prompt": "x", "max_tokens": 5}),
            json!({"choices": [{"index": 0, "text": "y", "finish_reason": "stop"}]}),
        ),
    ] {
        let market = Market::start().await;
        let tokens = u64::from(kind == JobKind::Completions);
        let steps = vec![Step::Say(message.to_string(), tokens)];
        let setup = Setup { kind, ..dear() };
        let provider = market.provider(setup, Script::Run(steps)).await;
        let answer = market.post(path, &body).await;
        let cost = (300 + 100 * tokens).to_string();
        assert_eq!(
            (answer.status, answer.header("x-gristmill-cost")),
            (200, cost.as_str()),
            "{}",
            answer.text
        );
        assert_eq!(
            answer.header("x-gristmill-provider"),
            provider.account.to_string()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_listed_once_and_summed_up() {
    let market = Market::start().await;
    let provider = market.provider(dear(), words(&["a", "b"])).await;
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    assert_eq!(
        market
            .chat(json!({"max_tokens": 10, "stream": true}))
            .await
            .status,
        200
    );
    assert_eq!(market.chat(json!({"model": "nobody's"})).await.status, 404);
    let requests = finished(&market, 3).await;
    assert_eq!(requests.len(), 3);
    let (unknown, streamed, whole) = (&requests[0], &requests[1], &requests[2]);
    assert_eq!(
        (&unknown["status"], &unknown["code"]),
        (&json!(404), &json!("model_not_found"))
    );
    assert_eq!((&unknown["cost"], &unknown["providers"]), (&json!(0), &json!([])));
    for (request, is_stream) in [(streamed, true), (whole, false)] {
        assert_eq!(
            (&request["is_stream"], &request["status"]),
            (&json!(is_stream), &json!(200))
        );
        assert_eq!(
            (&request["cost"], &request["kind"]),
            (&json!(500), &json!("chat_completions"))
        );
        assert_eq!(request["usage"], json!({"input_token": 3, "output_token": 2}));
        assert_eq!(request["providers"][0]["provider"], provider.account.to_string());
        assert!(
            request["first_token_ms"].is_u64() && request["key"].is_null(),
            "{request}"
        );
    }
    let report = market.get("/v1/usage").await.json();
    assert_eq!(
        (&report["by"], &report["total"]["requests"]),
        (&json!("day"), &json!(3))
    );
    assert_eq!(
        (&report["total"]["cost"], &report["total"]["failed"]),
        (&json!(1_000), &json!(1))
    );
    let models = market.get("/v1/usage?by=model").await.json();
    assert_eq!(
        (&models["rows"][0]["group"], &models["rows"][0]["cost"]),
        (&json!("guide"), &json!(1_000))
    );
    let csv = market.get("/v1/usage?by=provider&format=csv").await;
    assert!(csv.header("content-type").starts_with("text/csv"));
    assert_eq!(
        csv.text.lines().nth(1).unwrap(),
        format!("{},2,0,6,4,1000", provider.account)
    );
    for wrong in ["?by=moon", "?since=yesterday", "?bye=day", "/requests?limit=-1"] {
        assert_eq!(
            market.get(&format!("/v1/usage{wrong}")).await.error().0,
            400,
            "{wrong}"
        );
    }
    assert_eq!(
        market.get("/v1/usage/requests?limit=1").await.json()["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_outlives_the_client_and_holds_no_words() {
    let market = Market::start().await;
    let _provider = market.provider(dear(), words(&["Grain", " in."])).await;
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    let Market {
        coordinator,
        client,
        client_directory,
        coordinator_directory,
        http,
    } = market;
    client.shutdown().await.unwrap();
    let folder = client_directory.path().join("client/usage");
    let mut kept = String::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        kept += &std::fs::read_to_string(&path).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
    }
    assert_eq!(kept.lines().count(), 1);
    assert!(!kept.contains("Grain") && !kept.contains(SECRET), "{kept}");
    let program = Program::parse_from(["client", "usage", "--by", "key"]);
    let code = cli::run(
        program.command,
        FileSection::default(),
        client_directory.path(),
        true,
    )
    .await
    .unwrap();
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
    let client = start_client(client_settings(&coordinator.http_url()), client_directory.path()).await;
    let market = Market {
        coordinator_directory,
        client_directory,
        coordinator,
        client,
        http,
    };
    assert_eq!(requests(&market).await.len(), 1);
    assert_eq!(market.get("/v1/usage").await.json()["total"]["cost"], 500);
}

/// However requests go, what is shown, what is promised and what is settled are the same to the microcredit.
#[tokio::test(flavor = "multi_thread")]
async fn usage_vouchers_and_ledger_agree_and_nothing_is_paid_twice() {
    let market = Market::start().await;
    let provider = market.provider(dear(), words(&["a", "b"])).await;
    let url = market.url("/v1/chat/completions");
    let keyed = |stream: bool| {
        let body = chat_body(json!({"max_tokens": 10, "stream": stream}));
        let request = market
            .http
            .post(&url)
            .header("idempotency-key", format!("once-{stream}"))
            .json(&body);
        async move { Answer::read(request.send().await.unwrap()).await }
    };
    // The same request again and again, beside itself and afterwards.
    for stream in [false, true] {
        let answers = join_all((0..8).map(|_| keyed(stream))).await;
        assert!(
            answers.iter().all(|answer| matches!(answer.status, 200 | 409)),
            "{answers:?}"
        );
        let again = keyed(stream).await;
        assert_eq!(
            (again.status, again.header("idempotency-replayed")),
            (200, "true")
        );
        assert_eq!(again.header("x-gristmill-cost"), "0", "it is paid already");
    }
    // An SDK asks again after a failure that came before anything was delivered, and one after half an answer.
    provider.set_script(Script::Run(vec![Step::Fail(JobFailed::new(
        502,
        "oom",
        "no memory",
        None,
    ))]));
    // In so short a time nobody is asked twice: five failures would open the provider's circuit breaker.
    let short = market.http.post(&url).header("x-gristmill-timeout-ms", "700");
    let failed = short
        .json(&chat_body(json!({"max_tokens": 10})))
        .send()
        .await
        .unwrap();
    let failed = Answer::read(failed).await;
    assert!(
        failed.status >= 500 && failed.header("x-gristmill-cost") == "0",
        "{failed:?}"
    );
    // It was asked again and again; one more failure would keep it out for a minute.
    provider.set_script(words(&["a", "b"]));
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    let broken = vec![
        Step::Say(text("a"), 1),
        Step::Fail(JobFailed::new(502, "oom", "no memory", None)),
    ];
    provider.set_script(Script::Run(broken));
    let half = market.chat(json!({"max_tokens": 10, "stream": true})).await;
    assert!(half.text.contains("\"error\""), "{}", half.text);
    provider.set_script(words(&["a", "b"]));
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    // A program that goes away pays for what was made.
    let goes_on = Arc::new(Notify::new());
    provider.set_script(Script::Run(vec![
        Step::Say(text("a"), 1),
        Step::WaitFor(goes_on.clone()),
        Step::Say(finish(), 1),
    ]));
    let jobs = provider.jobs.borrow().len();
    let mut left = market
        .http
        .post(&url)
        .json(&chat_body(json!({"max_tokens": 10, "stream": true})))
        .send()
        .await
        .unwrap();
    left.chunk().await.unwrap();
    drop(left);
    provider
        .seen(|seen| seen.len() > jobs && seen[jobs].end.is_some())
        .await;
    let requests = finished(&market, 7).await;
    assert_eq!(requests.len(), 7, "{requests:?}");
    assert_eq!(
        (&requests[0]["status"], &requests[0]["code"]),
        (&json!(499), &json!("client_closed_request"))
    );
    provider
        .seen(|seen| seen.iter().all(|job| job.end.is_some()))
        .await;
    let shown: u64 = requests
        .iter()
        .map(|request| request["cost"].as_u64().unwrap())
        .sum();
    let report = market.get("/v1/usage?by=provider").await.json();
    assert_eq!(report["rows"][0]["cost"], shown);
    assert_eq!(promised(&provider), shown, "{requests:?}");
    assert_eq!(settled(&market, &provider).await, shown);
    let (available, held) = market.balance().await;
    assert_eq!(available + held, STARTER.microcredits() - shown);
}

/// The first provider says nothing, the second one answers; who lost is not paid, whichever it was.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_providers_the_one_that_delivered_is_paid() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.job_timeouts.answer_ms = 500;
        settings
    })
    .await;
    let silent = market
        .provider(
            Setup {
                price: 50_000_000,
                ..dear()
            },
            Script::Ignore,
        )
        .await;
    let speaking = market.provider(dear(), words(&["a", "b"])).await;
    let answer = market.chat(json!({"max_tokens": 10})).await;
    assert_eq!(
        (answer.status, answer.header("x-gristmill-cost")),
        (200, "500"),
        "{}",
        answer.text
    );
    assert_eq!(
        answer.header("x-gristmill-provider"),
        speaking.account.to_string()
    );
    let requests = finished(&market, 1).await;
    assert_eq!((requests.len(), &requests[0]["cost"]), (1, &json!(500)));
    assert_eq!((promised(&silent), settled(&market, &speaking).await), (0, 500));
    assert_eq!(market.get("/v1/usage").await.json()["total"]["requests"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_warns_and_stops_all_programs_together() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.budget_alarm = Some(Credits::micro(600));
        // A request reserves its longest answer, far more than it costs.
        settings.budget_stop = Some(Credits::micro(50_000));
        settings
    })
    .await;
    let _provider = market.provider(dear(), words(&["a", "b"])).await;
    let first = market.chat(json!({"max_tokens": 10})).await;
    assert_eq!(
        (first.status, first.header("x-gristmill-budget-alarm")),
        (200, "")
    );
    let second = market.chat(json!({"max_tokens": 10})).await;
    assert_eq!(
        (second.status, second.header("x-gristmill-budget-alarm")),
        (200, "1000")
    );
    let dear = market.chat(json!({"max_tokens": 1_000})).await;
    assert_eq!(dear.error(), (402, "insufficient_credits".to_owned()));
    assert!(
        dear.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("budget_stop"),
        "{}",
        dear.text
    );
    assert_eq!(dear.header("x-gristmill-budget-alarm"), "1000");
}
