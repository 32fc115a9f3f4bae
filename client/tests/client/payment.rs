//! What is held, promised and settled.

use std::sync::Arc;

use futures::future::join_all;
use gristmill_protocol::coordinator_api::{OpenChannelRequest, SettlementResult};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::ids::ChannelId;
use gristmill_protocol::job::RefusalCode;
use gristmill_transport::{CoordinatorClient, key_file};
use serde_json::json;
use tokio::sync::Notify;

use crate::harness::{Market, STARTER, client_settings, start_client, unix_ms};
use crate::provider::{Script, Setup, Step, finish, text, words};

#[tokio::test(flavor = "multi_thread")]
async fn what_an_answer_costs_is_what_is_settled() {
    let market = Market::start().await;
    let provider = market
        .provider(
            Setup {
                price: 100_000_000,
                window: 1_000_000,
                ..Setup::default()
            },
            words(&["a", "b"]),
        )
        .await;
    let body = market.chat(json!({"max_tokens": 10})).await.json();
    let cost = body["gristmill"]["cost"].as_u64().unwrap();
    assert_eq!(
        cost, 500,
        "three tokens read and two written at a hundred credits per million"
    );
    provider.seen(|jobs| jobs[0].end.is_some()).await;
    let till = CoordinatorClient::new(
        &market.coordinator.http_url(),
        None,
        provider.keypair.clone(),
        Arc::new(unix_ms),
    )
    .unwrap();
    till.open_account().await.unwrap();
    let settled = till.settle(&provider.vouchers()).await.unwrap();
    assert!(
        matches!(&settled.results[0], SettlementResult::Settled { settled, .. } if settled.microcredits() == cost)
    );
    let (available, held) = market.balance().await;
    assert_eq!(available + held, STARTER.microcredits() - cost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_first_requests_at_once_open_one_channel() {
    const REQUESTS: usize = 100;
    let market = Market::start().await;
    let provider = market
        .provider(
            Setup {
                window: 10_000_000,
                ..Setup::default()
            },
            words(&["Hi"]),
        )
        .await;
    let answers = join_all((0..REQUESTS).map(|_| market.chat(json!({"max_tokens": 10})))).await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, vec![200; REQUESTS]);
    let (_, held) = market.balance().await;
    assert_eq!(held, 1_000_000, "one channel of one credit");
    let jobs = provider
        .seen(|jobs| jobs.iter().filter(|job| job.end.is_some()).count() == REQUESTS)
        .await;
    let tickets: std::collections::BTreeSet<_> = jobs.iter().map(|job| &job.open.ticket).collect();
    assert_eq!(tickets.len(), 1);
    let promised = provider.vouchers()[0]
        .content_unchecked()
        .cumulative
        .microcredits();
    assert_eq!(promised, REQUESTS as u64 * 4, "every answer is paid once");
}

/// Peers drop a stream that is one too many. By the time that is known here the others may be over.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_dropped_beside_another_is_opened_again_when_the_other_is_over() {
    let market = Market::start().await;
    let (goes_on, drops) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let steps = vec![
        Step::Say(text("Hi"), 1),
        Step::WaitFor(goes_on.clone()),
        Step::Say(finish(), 1),
    ];
    let provider = market.provider(Setup::default(), Script::Run(steps)).await;
    let (first, second, ()) = tokio::join!(
        market.chat(json!({"max_tokens": 10})),
        async {
            provider.seen(|jobs| jobs.len() == 1).await;
            provider.set_script(Script::Drop(drops.clone()));
            market.chat(json!({"max_tokens": 10})).await
        },
        async {
            provider.seen(|jobs| jobs.len() == 2).await;
            goes_on.notify_one();
            provider.seen(|jobs| jobs[0].end.is_some()).await;
            provider.set_script(words(&["Hi"]));
            drops.notify_one();
        },
    );
    assert_eq!((first.status, second.status), (200, 200));
}

/// Seen on a loaded machine: a stream that was dropped over its provider's limit handed in what other jobs of the
/// channel owed, though their own streams were whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_stream_hands_in_nothing_of_what_other_jobs_owe() {
    let market = Market::start().await;
    let (goes_on, drops) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let steps = vec![
        Step::Say(text("Hi"), 1),
        Step::WaitFor(goes_on.clone()),
        Step::Say(finish(), 1),
    ];
    let provider = market.provider(Setup::default(), Script::Run(steps)).await;
    let body = crate::harness::chat_body(json!({"max_tokens": 10, "stream": true}));
    let request = market.http.post(market.url("/v1/chat/completions")).json(&body);
    let mut owing = request.send().await.unwrap();
    owing.chunk().await.unwrap().unwrap();
    provider.set_script(Script::Drop(drops.clone()));
    let dropped = async {
        provider.seen(|jobs| jobs.len() == 2).await;
        provider.set_script(words(&["Hi"]));
        drops.notify_one();
    };
    let (answer, ()) = tokio::join!(market.chat(json!({"max_tokens": 10})), dropped);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(market.balance().await.1, 1_000_000, "nothing was settled");
    goes_on.notify_one();
    assert!(owing.text().await.unwrap().contains("[DONE]"));
    assert_eq!(market.balance().await.1, 1_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_used_up_is_replaced_once() {
    let market = Market::start().await;
    let refusing = Script::Refuse(RefusalCode::ChannelExhausted, 0);
    let provider = market.provider(Setup::default(), refusing).await;
    let answer = market.chat(json!({"max_tokens": 10})).await;
    assert_eq!(answer.error(), (502, "provider_failed".to_owned()));
    let jobs = provider.jobs.borrow().clone();
    assert_eq!(jobs.len(), 2, "once more, with another channel");
    assert_ne!(jobs[0].open.ticket, jobs[1].open.ticket);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_request_gets_a_larger_channel() {
    let market = Market::start_with(STARTER, |mut settings| {
        settings.channel_limit = Credits::micro(1_000);
        settings
    })
    .await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    assert_eq!(market.chat(json!({"max_tokens": 10})).await.status, 200);
    assert_eq!(market.balance().await.1, 1_000);
    assert_eq!(market.chat(json!({"max_tokens": 5_000})).await.status, 200);
    assert!(market.balance().await.1 > 6_000);
    provider
        .seen(|jobs| jobs.iter().all(|job| job.end.is_some()))
        .await;
    assert_eq!(provider.vouchers().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_got_lost_is_asked_for_again() {
    let market = Market::start().await;
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    let Market {
        client_directory,
        coordinator,
        client,
        http,
        ..
    } = market;
    client.shutdown().await.unwrap();
    // The client asked for a channel and was killed before the ticket came.
    let keypair = key_file::load(&client_directory.path().join("identity.key"))
        .unwrap()
        .unwrap();
    let account = CoordinatorClient::new(&coordinator.http_url(), None, keypair, Arc::new(unix_ms)).unwrap();
    let request = OpenChannelRequest {
        channel: ChannelId::from_bytes([7; 16]),
        provider: provider.account,
        limit: Credits::micro(700_000),
        life_ms: 600_000,
    };
    let lost = account.open_channel(&request).await.unwrap();
    let opening = json!({"coordinator": coordinator.account(), "request": request, "asked_at_ms": unix_ms()});
    let wallet = json!({"version": 1, "coordinator": null, "channels": [], "openings": [opening]});
    std::fs::write(
        client_directory.path().join("client/wallet.json"),
        wallet.to_string(),
    )
    .unwrap();
    let client = start_client(client_settings(&coordinator.http_url()), client_directory.path()).await;
    client.mesh().learn_listing(&provider.sealed).unwrap();
    let endpoint = format!("{}/chat/completions", client.base_url());
    let answer = http
        .post(endpoint)
        .json(&crate::harness::chat_body(json!({})))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    assert_eq!(provider.jobs.borrow()[0].open.ticket, lost.ticket);
    assert_eq!(
        client.balance().await.unwrap().held,
        request.limit,
        "nothing is held twice"
    );
    client.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_the_coordinator_spends_what_is_open() {
    let Market {
        coordinator_directory,
        client_directory,
        coordinator,
        client,
        http,
    } = Market::start().await;
    let market = Market {
        coordinator_directory,
        client_directory,
        coordinator,
        client,
        http,
    };
    let provider = market.provider(Setup::default(), words(&["Hi"])).await;
    assert_eq!(market.chat(json!({})).await.status, 200);
    let Market {
        client_directory,
        coordinator,
        client,
        http,
        ..
    } = market;
    let url = coordinator.http_url();
    client.shutdown().await.unwrap();
    coordinator.shutdown().await.unwrap();
    let client = start_client(client_settings(&url), client_directory.path()).await;
    assert!(!client.is_joined());
    client.mesh().learn_listing(&provider.sealed).unwrap();
    let endpoint = format!("{}/chat/completions", client.base_url());
    let body = crate::harness::chat_body(json!({}));
    let answer = http.post(endpoint).json(&body).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    let jobs = provider
        .seen(|jobs| jobs.len() == 2 && jobs[1].end.is_some())
        .await;
    assert_eq!(jobs[0].open.ticket, jobs[1].open.ticket);
    let promised = provider.vouchers()[0]
        .content_unchecked()
        .cumulative
        .microcredits();
    assert_eq!(promised, 8, "vouchers go on where they were");
    client.shutdown().await.unwrap();
}
