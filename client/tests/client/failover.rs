//! Another provider serves where one does not, and the program notices nothing.

use gristmill_protocol::job::{JobFailed, RefusalCode};
use serde_json::json;

use crate::harness::{Market, STARTER};
use crate::provider::{Script, Setup, Step, TestProvider, text, words};

/// A market with a cheap provider that does as told, and a dearer one that serves.
async fn two(script: Script) -> (Market, TestProvider, TestProvider) {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.job_timeouts.answer_ms = 4_000;
        settings.job_timeouts.first_chunk_ms = 4_000;
        // A second provider beside a late one is another story.
        settings.hedging = None;
        settings
    })
    .await;
    let cheap = market
        .provider(
            Setup {
                price: 1_000,
                ..Setup::default()
            },
            script,
        )
        .await;
    let dear = market.provider(Setup::default(), words(&["Hi"])).await;
    (market, cheap, dear)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_first_does_before_the_first_byte_the_second_serves() {
    let broken = JobFailed::new(500, "server_error", "out of memory", None);
    let never = std::sync::Arc::new(tokio::sync::Notify::new());
    let scripts = [
        ("dies after accepting", Script::Run(vec![Step::Die])),
        ("breaks", Script::Run(vec![Step::Fail(broken)])),
        ("says nothing", Script::Ignore),
        (
            "accepts and makes nothing",
            Script::Run(vec![Step::WaitFor(never)]),
        ),
        ("is busy", Script::Refuse(RefusalCode::Busy, 60_000)),
        ("is stopping", Script::Refuse(RefusalCode::ShuttingDown, 0)),
        (
            "has lost the model",
            Script::Refuse(RefusalCode::ModelNotFound, 0),
        ),
        (
            "finds the body too large",
            Script::Refuse(RefusalCode::BodyTooLarge, 0),
        ),
        (
            "sends nonsense",
            Script::Run(vec![Step::Say("nonsense".into(), 0)]),
        ),
        ("babbles", Script::Babble),
    ];
    for (what, script) in scripts {
        let (market, cheap, dear) = two(script).await;
        let answer = market.chat(json!({"stream": true})).await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text);
        let events = answer.events();
        assert_eq!(events.len(), 3, "{what}: {events:?}");
        assert!(events[1].contains(&dear.account.to_string()), "{what}");
        assert_eq!(cheap.jobs.borrow().len(), 1, "{what}: it was asked first");
        // The next request goes to whom the last one went well with.
        let again = market.chat(json!({})).await;
        assert_eq!(again.status, 200, "{what}");
        if what != "finds the body too large" {
            assert_eq!(
                again.json()["gristmill"]["provider"],
                dear.account.to_string(),
                "{what}"
            );
            assert_eq!(cheap.jobs.borrow().len(), 1, "{what}: it was not asked again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_provider_is_replaced_without_the_program_noticing() {
    let (market, cheap, dear) = two(words(&["cheap"])).await;
    let first = market.chat(json!({})).await.json();
    assert_eq!(first["gristmill"]["provider"], cheap.account.to_string());
    cheap.kill().await;
    for _ in 0..3 {
        let next = market.chat(json!({"stream": true})).await;
        assert!(next.events()[1].contains(&dear.account.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_whole_is_made_anew_where_it_broke_off() {
    let script = Script::Run(vec![Step::Say(text("lost"), 1), Step::Die]);
    let (market, cheap, dear) = two(script).await;
    let body = market.chat(json!({})).await.json();
    assert_eq!(body["choices"][0]["message"]["content"], "Hi");
    assert_eq!(body["gristmill"]["provider"], dear.account.to_string());
    assert_eq!(cheap.jobs.borrow().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_and_rounds_are_bounded() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.attempts_max = 2;
        settings
    })
    .await;
    let mut providers = Vec::new();
    for _ in 0..4 {
        providers.push(market.provider(Setup::default(), failing(503)).await);
    }
    assert_eq!(market.chat(json!({})).await.error(), (503, "broken".to_owned()));
    assert_eq!(
        asked(&providers),
        2 * 4,
        "two at once, and again after 1, 2 and 4 seconds"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waiting_does_not_mend_is_told_when_everybody_was_asked_once() {
    let shutting_down = Script::Refuse(RefusalCode::ShuttingDown, 0);
    for (script, told) in [(failing(500), 500), (shutting_down, 503)] {
        let market = Market::start_with(STARTER, |mut settings| {
            settings.attempts_max = 2;
            settings
        })
        .await;
        let mut providers = Vec::new();
        for _ in 0..3 {
            providers.push(market.provider(Setup::default(), script.clone()).await);
        }
        assert_eq!(market.chat(json!({})).await.error().0, told);
        assert_eq!(
            asked(&providers),
            3,
            "two at once, and the third one a second later"
        );
    }
}

/// A program that has its own retries hears at once what it can't change, and a second later what may have passed.
#[tokio::test(flavor = "multi_thread")]
async fn the_only_provider_is_asked_once_more_where_that_may_help() {
    for (status, times) in [(500, 1), (503, 2)] {
        let market = Market::start().await;
        let provider = market.provider(Setup::default(), failing(status)).await;
        assert_eq!(
            market.chat(json!({})).await.error(),
            (status, "broken".to_owned())
        );
        assert_eq!(provider.jobs.borrow().len(), times, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_counts_once_for_the_breaker_however_often_it_asks() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), failing(503)).await;
    for request in 1..=5 {
        assert_eq!(market.chat(json!({})).await.error().0, 503);
        let jobs = provider.jobs.borrow().len();
        // The fifth failure in a row closes it out before it is asked again.
        assert_eq!(jobs, (request * 2).min(9), "request {request}");
    }
    let told = market.chat(json!({})).await;
    assert!(told.text.contains("again and again"), "{}", told.text);
    assert_eq!(provider.jobs.borrow().len(), 9);
}

/// An engine that answers with a status.
fn failing(status: u16) -> Script {
    let failed = JobFailed::new(status, "broken", "so it is", None);
    Script::Run(vec![Step::Fail(failed)])
}

fn asked(providers: &[TestProvider]) -> usize {
    let jobs = providers.iter().map(|provider| provider.jobs.borrow().len());
    jobs.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_provider_is_asked_again_when_it_said_to() {
    let market = Market::start().await;
    let provider = market
        .provider(Setup::default(), Script::Refuse(RefusalCode::Busy, 200))
        .await;
    let request = market.chat(json!({}));
    let free = async {
        provider.seen(|jobs| jobs.len() >= 2).await;
        provider.set_script(words(&["Hi"]));
    };
    let (answer, ()) = tokio::join!(request, free);
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_stays_busy_is_a_503_that_says_when() {
    let market = Market::start().await;
    let _provider = market
        .provider(Setup::default(), Script::Refuse(RefusalCode::Busy, 60_000))
        .await;
    let answer = market.chat(json!({})).await;
    assert_eq!(answer.error(), (503, "no_provider_available".to_owned()));
    assert_eq!(answer.header("retry-after"), "60");
}
