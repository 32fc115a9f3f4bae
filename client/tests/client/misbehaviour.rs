//! Providers that lie, and programs that go away.

use std::time::Duration;

use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::{Delivery, RequestId};
use gristmill_protocol::session::provider::ProviderEnd;
use gristmill_protocol::usage::Usage;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::harness::{Market, chat_body};
use crate::provider::{Script, Setup, Step, finish, piece, text, words};

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_meter_costs_at_most_what_was_honest() {
    let market = Market::start().await;
    let liar = market
        .provider(
            Setup {
                price: 1_000,
                ..Setup::default()
            },
            Script::Send(vec![
                piece(text("Hi").as_bytes(), true, 1),
                piece(text("!").as_bytes(), true, 10_000),
            ]),
        )
        .await;
    let answer = market.chat(json!({"stream": true})).await;
    let events = answer.events();
    assert!(
        events[0].contains("\"Hi\"") && events[1].contains("misbehaved"),
        "{events:?}"
    );
    let jobs = liar.seen(|jobs| jobs[0].end.is_some()).await;
    let promised = jobs[0]
        .highest
        .as_ref()
        .map_or(0, |it| it.content_unchecked().cumulative.microcredits());
    // Three tokens read and one written, at a thousandth each, rounded up.
    assert_eq!(promised, 1);
    assert!(jobs[0].was_cancelled);
    let honest = market.provider(Setup::default(), words(&["Hi"])).await;
    let next = market.chat(json!({})).await.json();
    assert_eq!(
        next["gristmill"]["provider"],
        honest.account.to_string(),
        "the liar is not asked again"
    );
}

/// What a provider says that is not so.
type Lie = fn(&mut Delivery);

/// Each lie is told by a provider of its own; none of them is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_did_not_arrive_is_no_answer() {
    let market = Market::start().await;
    let lies: [(&str, Lie); 5] = [
        ("another text", |delivery| delivery.transcript = [9; 32]),
        ("another request", |delivery| {
            delivery.request_id = RequestId::from_random([9; 16]);
        }),
        ("more tokens than there is text", |delivery| {
            delivery.usage = Usage::tokens(3, 10_000);
        }),
        ("another cost", |delivery| delivery.cost = Credits::micro(5)),
        ("another channel", |delivery| {
            delivery.channel = ChannelId::from_bytes([9; 16]);
        }),
    ];
    for (name, lie) in lies {
        let liar = market
            .provider(Setup::default(), Script::LieAboutDelivery(lie))
            .await;
        let answer = market.chat(json!({})).await;
        assert_eq!(answer.error(), (502, "provider_failed".to_owned()), "{name}");
        let jobs = liar
            .seen(|jobs| !jobs.is_empty() && jobs.iter().all(|job| job.end.is_some()))
            .await;
        assert_eq!(jobs.len(), 1, "{name}");
        assert!(jobs[0].was_cancelled, "{name}");
        let promised = jobs[0].highest.as_ref().unwrap().content_unchecked().cumulative;
        assert_eq!(
            promised.microcredits(),
            4,
            "{name}: what arrived is paid, one chunk"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_goes_away_ends_the_job_and_pays_for_what_was_made() {
    let market = Market::start().await;
    let script = Script::Run(vec![Step::SayForever(text("word "))]);
    let provider = market.provider(Setup::default(), script).await;
    let body = chat_body(json!({"stream": true, "max_tokens": 100_000}));
    let request = market.http.post(market.url("/v1/chat/completions")).json(&body);
    let mut response = request.send().await.unwrap();
    response.chunk().await.unwrap().unwrap();
    let left = Instant::now();
    drop(response);
    let jobs = provider.seen(|jobs| jobs[0].end.is_some()).await;
    eprintln!(
        "the job ended {} ms after the program had gone",
        left.elapsed().as_millis()
    );
    let outcome = jobs[0].end.clone().unwrap();
    assert_eq!(outcome.reason, ProviderEnd::ConsumerLeft);
    assert!(jobs[0].was_cancelled && jobs[0].highest.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_waits_for_the_whole_can_go_away_too() {
    let market = Market::start().await;
    let never = std::sync::Arc::new(tokio::sync::Notify::new());
    let provider = market
        .provider(Setup::default(), Script::Run(vec![Step::WaitFor(never)]))
        .await;
    let request = market
        .http
        .post(market.url("/v1/chat/completions"))
        .json(&chat_body(json!({})));
    let waiting = tokio::spawn(request.send());
    provider
        .seen(|jobs| !jobs.is_empty() && !jobs[0].body.is_empty())
        .await;
    waiting.abort();
    let jobs = provider.seen(|jobs| jobs[0].end.is_some()).await;
    assert!(jobs[0].was_cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_read_stops_the_provider() {
    let market = Market::start().await;
    let script = Script::Run(vec![Step::SayForever(text(&"word ".repeat(2_000)))]);
    let provider = market
        .provider(
            Setup {
                price: 1,
                ..Setup::default()
            },
            script,
        )
        .await;
    let body = chat_body(json!({"stream": true, "max_tokens": 8_000}));
    let request = market.http.post(market.url("/v1/chat/completions")).json(&body);
    let mut response = request.send().await.unwrap();
    // Until nothing moves any more: buffers of sockets, streams and the queue are full.
    let mut seen = 0;
    let mut still = 0;
    while still < 10 {
        sleep(Duration::from_millis(50)).await;
        let now = provider.jobs.borrow()[0].chunks;
        still = if now == seen && now > 0 { still + 1 } else { 0 };
        seen = now;
    }
    assert!(seen < 5_000, "{seen} chunks of 10 kB were made for nobody");
    // The program reads on, and so the provider goes on.
    for _ in 0..200 {
        response.chunk().await.unwrap().unwrap();
    }
    provider.seen(|jobs| jobs[0].chunks > seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_never_too_long_for_clients() {
    let market = Market::start().await;
    let long = "é".repeat(300_000);
    let steps = vec![Step::Say(text(&long), 1_000), Step::Say(finish(), 1_000)];
    let setup = Setup {
        price: 10,
        ..Setup::default()
    };
    let _provider = market.provider(setup, Script::Run(steps)).await;
    let events = market.chat(json!({"stream": true})).await.events();
    assert!(
        events
            .iter()
            .all(|event| event.len() + "data: ".len() < 128 * 1024)
    );
    let joined: String = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str::<serde_json::Value>(event).unwrap())
        .map(|chunk| {
            chunk["choices"][0]["delta"]["content"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(joined, long);
}
