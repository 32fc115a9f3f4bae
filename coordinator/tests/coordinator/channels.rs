//! Channels: tickets, conflicts, bounds, closing, expiry, and one balance that many providers want.

use futures::future::join_all;
use gristmill_coordinator::Settings;
use gristmill_protocol::coordinator_api::{ChannelView, OpenChannelAnswer, SettlementResult};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::jws::TokenError;
use gristmill_protocol::tokens::TicketClaims;

use crate::harness::{Account, LIFE_MS, Network, channel_request, credits, settings};

fn refused_code(result: &SettlementResult) -> &str {
    match result {
        SettlementResult::Refused { code, .. } => code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_channel_from_grant_to_close() {
    let mut network = Network::start().await;
    let (consumer, provider) = (network.account_with(10).await, Account::new());
    let request = channel_request(provider.id(), credits(4));
    let first = consumer.open(&network, &request).await;
    let answer: OpenChannelAnswer = serde_json::from_str(&first.text).unwrap();
    let now_ms = network.clock.now_ms();
    let ticket =
        TicketClaims::verify(&answer.ticket, &network.coordinator(), &provider.id(), now_ms).unwrap();
    assert_eq!(
        (ticket.sub, ticket.limit, ticket.jti),
        (consumer.id(), credits(4), request.channel)
    );
    assert_eq!(
        (ticket.fee_basis_points, ticket.redeem_by_ms),
        (200, now_ms + LIFE_MS)
    );
    let other = TicketClaims::verify(&answer.ticket, &network.coordinator(), &consumer.id(), now_ms);
    assert!(matches!(other, Err(TokenError::Audience { .. })));
    let view = consumer.view(&network).await;
    assert_eq!((view.available, view.held), (credits(6), credits(4)));

    // The same request at a later time: the same bytes.
    network.clock.advance(5_000);
    assert_eq!(consumer.open(&network, &request).await.text, first.text);
    // The same name with other content, or by somebody else: a conflict.
    let mut other = request.clone();
    other.limit = credits(1);
    consumer
        .open(&network, &other)
        .await
        .assert_refused(409, "conflict");
    network
        .account_with(10)
        .await
        .open(&network, &request)
        .await
        .assert_refused(409, "conflict");

    let results = consumer
        .settle(&network, &[consumer.voucher(request.channel, 1_000_000)])
        .await
        .results;
    assert!(matches!(&results[0], SettlementResult::Settled { settled, .. } if *settled == credits(1)));
    assert_eq!(provider.view(&network).await.available, Credits::micro(980_000));

    let closed: ChannelView = provider.close(&network, request.channel).await.ok();
    assert!(!closed.open);
    assert_eq!(
        provider
            .close(&network, request.channel)
            .await
            .ok::<ChannelView>(),
        closed
    );
    let view = consumer.view(&network).await;
    assert_eq!((view.available, view.held), (credits(9), Credits::ZERO));
    let late = provider
        .settle(&network, &[consumer.voucher(request.channel, 2_000_000)])
        .await
        .results;
    assert_eq!(refused_code(&late[0]), "channel_closed");
    let repeated = provider
        .settle(&network, &[consumer.voucher(request.channel, 1_000_000)])
        .await
        .results;
    assert!(matches!(repeated[0], SettlementResult::Unchanged { .. }));
    assert_eq!(network.totals_at_the_end().await.fees, Credits::micro(20_000));
}

#[tokio::test]
async fn only_the_parties_see_a_channel_and_only_its_provider_closes_it() {
    let network = Network::start().await;
    let (consumer, provider, stranger) = (network.account_with(10).await, Account::new(), Account::new());
    let channel = consumer.open_to(&network, &provider, 2).await;
    let view = consumer.channel(&network, channel).await;
    assert_eq!(
        (view.limit, view.settled, view.open),
        (credits(2), Credits::ZERO, true)
    );
    assert_eq!(provider.channel(&network, channel).await, view);
    assert_eq!(network.operator().channel(&network, channel).await, view);
    stranger
        .get(&network, &format!("/v1/channels/{channel}"))
        .await
        .assert_refused(404, "not_found");
    stranger
        .close(&network, channel)
        .await
        .assert_refused(404, "not_found");
    consumer
        .close(&network, channel)
        .await
        .assert_refused(403, "forbidden");
    network
        .operator()
        .close(&network, channel)
        .await
        .assert_refused(403, "forbidden");
    let unknown = channel_request(provider.id(), credits(1)).channel;
    consumer
        .get(&network, &format!("/v1/channels/{unknown}"))
        .await
        .assert_refused(404, "not_found");
    assert!(consumer.channel(&network, channel).await.open);
}

#[tokio::test]
async fn channels_outside_of_the_bounds_are_refused() {
    let bounded = Settings {
        channel_limit_max: credits(5),
        channel_life_max_ms: LIFE_MS,
        ..settings()
    };
    let network = Network::start_with(bounded).await;
    let (consumer, provider) = (network.account_with(20).await, Account::new());
    let good = channel_request(provider.id(), credits(5));
    let bad = |change: &dyn Fn(&mut gristmill_protocol::coordinator_api::OpenChannelRequest)| {
        let mut request = channel_request(provider.id(), credits(5));
        change(&mut request);
        request
    };
    for request in [
        bad(&|request| request.limit = Credits::micro(5_000_001)),
        bad(&|request| request.limit = Credits::ZERO),
        bad(&|request| request.life_ms = LIFE_MS + 1),
        bad(&|request| request.life_ms = 999),
        bad(&|request| request.provider = consumer.id()),
    ] {
        consumer
            .open(&network, &request)
            .await
            .assert_refused(400, "invalid_request");
    }
    let _: OpenChannelAnswer = consumer.open(&network, &good).await.ok();
    assert_eq!(consumer.view(&network).await.held, credits(5));
}

#[tokio::test]
async fn a_ticket_comes_back_also_when_the_policy_would_not_give_it_any_more() {
    let mut network = Network::start().await;
    let consumer = network.account_with(10).await;
    let request = channel_request(Account::new().id(), credits(4));
    let ticket = consumer
        .open(&network, &request)
        .await
        .ok::<OpenChannelAnswer>()
        .ticket;
    network.stop().await;
    network.settings.channel_limit_max = credits(1);
    network.settings.fee_basis_points = 999;
    network.start_again().await;
    assert_eq!(
        consumer
            .open(&network, &request)
            .await
            .ok::<OpenChannelAnswer>()
            .ticket,
        ticket
    );
}

#[tokio::test]
async fn who_has_too_little_is_told_so() {
    let network = Network::start().await;
    let (poor, provider) = (network.account_with(1).await, Account::new());
    let request = channel_request(provider.id(), Credits::micro(1_000_001));
    poor.open(&network, &request)
        .await
        .assert_refused(402, "insufficient_credits");
    Account::new()
        .open(&network, &request)
        .await
        .assert_refused(402, "insufficient_credits");
    // A refused request leaves its name free.
    let enough = gristmill_protocol::coordinator_api::OpenChannelRequest {
        limit: credits(1),
        ..request
    };
    let _: OpenChannelAnswer = poor.open(&network, &enough).await.ok();
}

#[tokio::test]
async fn an_expired_channel_gives_back_what_it_holds() {
    let mut network = Network::start().await;
    let (consumer, provider) = (network.account_with(10).await, Account::new());
    let channel = consumer.open_to(&network, &provider, 4).await;
    consumer
        .settle(&network, &[consumer.voucher(channel, 500_000)])
        .await;
    network.clock.advance(LIFE_MS + 1);
    network
        .eventually(|| async { (!consumer.channel(&network, channel).await.open).then_some(()) })
        .await;
    let view = consumer.view(&network).await;
    assert_eq!(
        (view.available, view.held),
        (Credits::micro(9_500_000), Credits::ZERO)
    );
    let results = provider
        .settle(&network, &[consumer.voucher(channel, 600_000)])
        .await
        .results;
    assert_eq!(refused_code(&results[0]), "channel_closed");
    let totals = network.totals_at_the_end().await;
    assert_eq!((totals.channels_open, totals.channels_closed), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_providers_race_one_balance_and_none_is_overspent() {
    let mut network = Network::start().await;
    let consumer = network.account_with(10).await;
    let requests: Vec<_> = (0..1_000)
        .map(|_| channel_request(Account::new().id(), Credits::micro(100_000)))
        .collect();
    let replies = join_all(requests.iter().map(|request| consumer.open(&network, request))).await;
    let opened = replies.iter().filter(|reply| reply.status.is_success()).count();
    assert_eq!(opened, 100);
    for reply in replies.into_iter().filter(|reply| !reply.status.is_success()) {
        reply.assert_refused(402, "insufficient_credits");
    }
    let view = consumer.view(&network).await;
    assert_eq!((view.available, view.held), (Credits::ZERO, credits(10)));
    let totals = network.totals_at_the_end().await;
    assert_eq!(
        (totals.issued, totals.held, totals.channels_open),
        (credits(10), credits(10), 100)
    );
}
