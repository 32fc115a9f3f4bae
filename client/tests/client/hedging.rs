//! Whom a request goes to, and what happens where the first one is late, fails again and again, or is ruled out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gristmill_protocol::job::JobFailed;
use gristmill_protocol::listing::{Capability, PrivacyTier};
use gristmill_protocol::routing::hedge::HedgeBounds;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::harness::{Answer, Market, STARTER, chat_body};
use crate::keys;
use crate::provider::{Script, Setup, Step, TestProvider, finish, text, words};

/// A market where a first output is late after 300 ms.
async fn market() -> Market {
    Market::start_with(STARTER, |mut settings| {
        settings.hedging = Some(HedgeBounds {
            min_ms: 300,
            max_ms: 300,
            unknown_ms: 300,
        });
        settings
    })
    .await
}

/// An offer at so many microcredits a token.
fn offer(price: u32) -> Setup {
    Setup {
        price: price * 1_000_000,
        window: 1_000_000,
        ..Setup::default()
    }
}

/// Takes the job and makes nothing.
fn silent() -> Script {
    Script::Run(vec![Step::WaitFor(Arc::default())])
}

fn short() -> Value {
    json!({"max_tokens": 10})
}

fn content(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn with_header(market: &Market, name: &str, value: &str, fields: Value) -> Answer {
    let request = market
        .http
        .post(market.url("/v1/chat/completions"))
        .header(name, value)
        .json(&chat_body(fields));
    Answer::read(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_a_late_provider_another_one_is_asked_and_the_late_one_is_cancelled_unpaid() {
    let market = market().await;
    let late = market.provider(offer(20), silent()).await;
    let other = market.provider(offer(50), words(&["in", " time"])).await;
    for stream in [false, true] {
        let answer = market.chat(json!({"max_tokens": 10, "stream": stream})).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.text.contains(" time"), "{}", answer.text);
        assert!(answer.text.contains(&other.account.to_string()));
        assert!(
            !answer.text.contains(&late.account.to_string()),
            "nobody else was paid"
        );
        let jobs = late.seen(|jobs| jobs.iter().all(|job| job.end.is_some())).await;
        assert!(jobs.iter().all(|job| job.was_cancelled && job.chunks == 0));
    }
    assert_eq!(late.promised(), 0);
    other.seen(|jobs| jobs.iter().all(|job| job.end.is_some())).await;
    assert_eq!(other.promised(), 2 * 5 * 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_one_may_still_win() {
    let market = market().await;
    let goes_on = Arc::new(Notify::new());
    let steps = vec![
        Step::WaitFor(goes_on.clone()),
        Step::Say(text("after all"), 1),
        Step::Say(finish(), 1),
    ];
    let first = market.provider(offer(20), Script::Run(steps)).await;
    let second = market.provider(offer(50), silent()).await;
    let asked = async {
        second
            .seen(|jobs| jobs.len() == 1 && !jobs[0].body.is_empty())
            .await;
        goes_on.notify_one();
    };
    let (answer, ()) = tokio::join!(market.chat(short()), asked);
    assert_eq!(content(&answer), "after all");
    assert_eq!(answer.json()["gristmill"]["provider"], first.account.to_string());
    let jobs = second.seen(|jobs| jobs[0].end.is_some()).await;
    assert!(jobs[0].was_cancelled);
    assert_eq!((second.promised(), jobs.len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slower_one_is_paid_for_the_prompt_that_it_metered_and_nothing_else() {
    let market = market().await;
    // A message without text is no first token, but three tokens were read.
    let role = json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}).to_string();
    let steps = vec![Step::Say(role, 0), Step::WaitFor(Arc::default())];
    let late = market.provider(offer(20), Script::Run(steps)).await;
    let other = market.provider(offer(50), words(&["Hi"])).await;
    let answer = market.chat(short()).await;
    assert_eq!(content(&answer), "Hi");
    let gristmill = &answer.json()["gristmill"];
    late.seen(|jobs| jobs[0].end.is_some()).await;
    other.seen(|jobs| jobs[0].end.is_some()).await;
    assert_eq!((late.promised(), other.promised()), (3 * 20, 4 * 50));
    assert_eq!(gristmill["cost"], 3 * 20 + 4 * 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_far_dearer_is_asked_beside_a_late_one() {
    let market = market().await;
    let goes_on = Arc::new(Notify::new());
    let steps = vec![
        Step::WaitFor(goes_on.clone()),
        Step::Say(text("late"), 1),
        Step::Say(finish(), 1),
    ];
    let first = market.provider(offer(10), Script::Run(steps)).await;
    let dear = market.provider(offer(100), words(&["dear"])).await;
    let later = async {
        first.seen(|jobs| jobs.len() == 1).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        goes_on.notify_one();
    };
    let (answer, ()) = tokio::join!(market.chat(short()), later);
    assert_eq!((content(&answer).as_str(), dear.jobs.borrow().len()), ("late", 0));
}

/// Both together may cost a tenth of what the key has left.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_little_left_pays_for_no_second_provider() {
    let market = market().await;
    let key = keys::create(&market, "poor", " --cap 1 --per day").await;
    let goes_on = Arc::new(Notify::new());
    let steps = vec![
        Step::WaitFor(goes_on.clone()),
        Step::Say(text("late"), 1),
        Step::Say(finish(), 1),
    ];
    let offer = |price| Setup {
        window: 10_000_000,
        ..offer(price)
    };
    let first = market.provider(offer(20), Script::Run(steps)).await;
    let other = market.provider(offer(50), words(&["other"])).await;
    let long = json!({
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "grind ".repeat(1_300)}],
    });
    let later = async {
        first.seen(|jobs| jobs.len() == 1).await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        goes_on.notify_one();
    };
    let (answer, ()) = tokio::join!(keys::chat(&market, &key, long.clone()), later);
    assert_eq!(
        (content(&answer).as_str(), other.jobs.borrow().len()),
        ("late", 0)
    );
    // A key without a cap pays for one.
    let rich = keys::create(&market, "rich", "").await;
    first.set_script(silent());
    assert_eq!(content(&keys::chat(&market, &rich, long).await), "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_recovers_is_asked_again_and_paid_once() {
    let market = Market::start().await;
    let fails = Arc::new(Notify::new());
    let loading = JobFailed::new(503, "unavailable", "the model is being loaded", None);
    let broken = Script::Run(vec![Step::WaitFor(fails.clone()), Step::Fail(loading)]);
    let provider = market.provider(offer(20), broken).await;
    let recovers = async {
        provider.seen(|jobs| jobs.len() == 1).await;
        provider.set_script(words(&["Hi"]));
        fails.notify_one();
    };
    let (answer, ()) = tokio::join!(market.chat(short()), recovers);
    assert_eq!(content(&answer), "Hi");
    provider.seen(|jobs| jobs.last().unwrap().end.is_some()).await;
    assert_eq!((provider.jobs.borrow().len(), provider.promised()), (2, 4 * 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_own_deadline_ends_a_request_and_its_job() {
    let market = Market::start().await;
    let provider = market.provider(offer(20), silent()).await;
    let answer = with_header(&market, "x-gristmill-timeout-ms", "1500", short()).await;
    assert_eq!(answer.error(), (504, "timeout_exceeded".to_owned()));
    assert_eq!(answer.header("x-should-retry"), "false");
    provider.set_script(Script::Run(vec![
        Step::Say(text("Hi"), 1),
        Step::WaitFor(Arc::default()),
    ]));
    let body = json!({"max_tokens": 10, "stream": true, "gristmill": {"timeout_ms": 1_500}});
    let events = market.chat(body).await.events();
    assert!(
        events[0].contains("Hi") && events[1].contains("timeout_exceeded"),
        "{events:?}"
    );
    let jobs = provider
        .seen(|jobs| jobs.iter().all(|job| job.end.is_some()))
        .await;
    assert!(jobs.iter().all(|job| job.was_cancelled));
    assert_eq!(provider.promised(), 4 * 20, "what was delivered is paid");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_five_failures_in_a_row_a_provider_is_left_alone() {
    let market = Market::start().await;
    let broken = Script::Run(vec![Step::Say(text("Hi"), 1), Step::Die]);
    let provider = market.provider(offer(20), broken).await;
    for asked in 1..=5 {
        assert_eq!(
            market.chat(short()).await.error(),
            (502, "provider_failed".to_owned())
        );
        assert_eq!(
            provider.jobs.borrow().len(),
            asked,
            "what was delivered is not bought again"
        );
    }
    let answer = market.chat(short()).await;
    assert_eq!(answer.error(), (503, "no_provider_available".to_owned()));
    assert!(answer.text.contains("again and again"), "{}", answer.text);
    assert!((1..=60).contains(&answer.header("retry-after").parse::<u32>().unwrap()));
    assert_eq!(provider.jobs.borrow().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_answer_that_nobody_can_continue_is_not_bought_again() {
    let market = Market::start().await;
    let setup = Setup {
        capabilities: vec![Capability::ManyChoices],
        ..offer(20)
    };
    let broken = Script::Run(vec![Step::Say(text("Hi"), 1), Step::Die]);
    let provider = market.provider(setup, broken).await;
    let answer = market.chat(json!({"max_tokens": 10, "n": 2})).await;
    assert_eq!(answer.error(), (502, "provider_failed".to_owned()));
    assert_eq!(provider.jobs.borrow().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_stays_where_its_beginning_was_read() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.hedging = None;
        settings
    })
    .await;
    let mut providers = Vec::new();
    for _ in 0..4 {
        providers.push(market.provider(offer(1), words(&["Hi"])).await);
    }
    let system = json!({"role": "system", "content": "You are a miller. ".repeat(300)});
    let mut messages = vec![system, json!({"role": "user", "content": "Hello"})];
    let mut served = BTreeSet::new();
    for turn in 0..12 {
        let answer = market.chat(json!({"messages": messages, "max_tokens": 10})).await;
        assert_eq!(content(&answer), "Hi");
        served.insert(answer.json()["gristmill"]["provider"].to_string());
        messages.push(json!({"role": "assistant", "content": "Hi"}));
        messages.push(json!({"role": "user", "content": format!("And {turn}?")}));
    }
    assert_eq!(served.len(), 1, "{served:?}");
}

/// A cheap provider in Switzerland, and a dearer one in Germany that keeps nothing.
async fn swiss_and_german() -> (Market, TestProvider, TestProvider) {
    let market = Market::start().await;
    let swiss = Setup {
        region: "CH",
        ..offer(10)
    };
    let german = Setup {
        region: "DE-BY",
        privacy: PrivacyTier::NothingKept,
        ..offer(50)
    };
    let swiss = market.provider(swiss, words(&["Grüezi"])).await;
    let german = market.provider(german, words(&["Servus"])).await;
    (market, swiss, german)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_says_itself_whom_it_may_go_to() {
    let (market, swiss, german) = swiss_and_german().await;
    assert_eq!(content(&market.chat(short()).await), "Grüezi");
    let named = german.account.to_string();
    for (field, value, body_value, served) in [
        ("region", "DE", json!("DE"), "Servus"),
        ("region", "AT,CH", json!("AT,CH"), "Grüezi"),
        ("privacy", "nothing_kept", json!("nothing_kept"), "Servus"),
        ("provider", named.as_str(), json!(named), "Servus"),
        ("max-price", "10", json!(10), "Grüezi"),
        ("only-verified", "false", json!(false), "Grüezi"),
    ] {
        let answer = with_header(&market, &format!("x-gristmill-{field}"), value, short()).await;
        assert_eq!(content(&answer), served, "header {field}");
        let answer = market
            .chat(json!({"max_tokens": 10, "gristmill": {field.replace('-', "_"): body_value}}))
            .await;
        assert_eq!(content(&answer), served, "body {field}");
    }
    for provider in [&swiss, &german] {
        let bodies: Vec<Vec<u8>> = provider
            .jobs
            .borrow()
            .iter()
            .map(|job| job.body.clone())
            .collect();
        assert!(
            bodies
                .iter()
                .all(|body| !String::from_utf8_lossy(body).contains("gristmill\""))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_everybody_out_is_named() {
    let (market, swiss, german) = swiss_and_german().await;
    let somebody = market.client.account().to_string();
    for (field, value, status, code, word) in [
        ("region", "FR", 503, "no_provider_available", "region"),
        ("privacy", "dedicated", 503, "no_provider_available", "privacy"),
        (
            "provider",
            somebody.as_str(),
            503,
            "no_provider_available",
            "provider",
        ),
        (
            "only-verified",
            "true",
            503,
            "no_provider_available",
            "only_verified",
        ),
        ("max-price", "0.5", 503, "budget_exhausted", "max_price"),
        ("region", "Switzerland", 400, "invalid_request", "ISO 3166"),
        ("privacy", "much", 400, "invalid_request", "nothing_kept"),
        ("provider", "me", 400, "invalid_request", "12D3Koo"),
        ("only-verified", "1", 400, "invalid_request", "true or false"),
        ("max-price", "-1", 400, "invalid_request", "credits per million"),
        ("timeout-ms", "1", 400, "invalid_request", "3600000"),
    ] {
        let by_header = with_header(&market, &format!("x-gristmill-{field}"), value, short()).await;
        let by_body = market
            .chat(json!({"max_tokens": 10, "gristmill": {field.replace('-', "_"): value}}))
            .await;
        assert_eq!(
            by_header.error(),
            (status, code.to_owned()),
            "header {field}: {value}"
        );
        assert!(by_header.text.contains(word), "{}", by_header.text);
        // Truth values and times are no strings in JSON.
        let is_text = !matches!(field, "only-verified" | "timeout-ms");
        if is_text {
            assert_eq!(
                by_body.error(),
                (status, code.to_owned()),
                "body {field}: {value}"
            );
            assert!(by_body.text.contains(word), "{}", by_body.text);
        } else {
            assert_eq!(by_body.error().0, 400, "{}", by_body.text);
        }
    }
    let unknown = with_header(&market, "x-gristmill-regio", "CH", short()).await;
    assert_eq!(unknown.error().0, 400);
    let unknown = market.chat(json!({"gristmill": {"regio": "CH"}})).await;
    assert_eq!(
        (unknown.error().0, unknown.json()["error"]["param"].as_str()),
        (400, Some("gristmill"))
    );
    let both = market
        .http
        .post(market.url("/v1/chat/completions"))
        .header("x-gristmill-region", "CH")
        .json(&chat_body(json!({"gristmill": {"region": "DE"}})));
    assert_eq!(
        Answer::read(both.send().await.unwrap()).await.error().0,
        400,
        "nobody is in both"
    );
    assert_eq!((swiss.jobs.borrow().len(), german.jobs.borrow().len()), (0, 0));
}
