//! What a provider can lose to consumers that stop paying, and what it keeps over restarts.

use futures::future::join_all;
use gristmill_protocol::channel::ConsumerChannel;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::{ConsumerFrame, ProviderFrame, RefusalCode, RequestId};
use gristmill_protocol::usage::Usage;
use std::time::Duration;

use crate::consumer::{Ask, Consumer, PATIENCE, Paid};
use crate::market::{Market, price, start_coordinator, within_a_minute};

const LIMIT: Credits = Credits::micro(1_000_000);
/// Room for about six chunks of a thousand microcredits.
const WINDOW: Credits = Credits::micro(6_000);
const CHUNKS: usize = 20;

/// A consumer that pays for the first chunks and then no more. Gives what it got at most without paying.
async fn stop_paying_after(
    consumer: &Consumer,
    node: &gristmill_node::RunningNode,
    paid: Paid,
    chunks: usize,
) -> (Credits, Credits) {
    let (mut stream, request_id) = consumer
        .begin(node, &paid.ticket, &Ask::script(&format!("say {CHUNKS}")))
        .await;
    let (mut channel, mut owed, mut unpaid_max) = (paid.channel, Credits::ZERO, Credits::ZERO);
    let mut received = 0;
    loop {
        match stream.receive(PATIENCE).await {
            Ok(ProviderFrame::Accepted(_)) => {}
            Ok(ProviderFrame::Chunk(chunk)) => {
                received += 1;
                owed = owe(&mut channel, owed, &chunk.meter);
                unpaid_max = unpaid_max.max(owed.checked_sub(channel.promised()).unwrap());
                if received <= chunks {
                    pay(&mut stream, &mut channel, &request_id).await;
                }
            }
            Ok(ProviderFrame::Failed(failed)) => assert_eq!(failed.code, "voucher_timeout"),
            Ok(ProviderFrame::Done(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(_) => return (owed.checked_sub(channel.promised()).unwrap(), unpaid_max),
        }
    }
}

fn owe(channel: &mut ConsumerChannel, owed: Credits, meter: &Usage) -> Credits {
    let now = price().cost(meter).unwrap();
    channel.receive(now.checked_sub(owed).unwrap()).unwrap();
    now
}

async fn pay(
    stream: &mut gristmill_transport::ConsumerJobStream,
    channel: &mut ConsumerChannel,
    request_id: &RequestId,
) {
    if let Some(voucher) = channel.promise(request_id, [0; 32]) {
        stream
            .send(&ConsumerFrame::Voucher(voucher), PATIENCE)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_stops_paying_at_any_chunk_owes_at_most_the_window() {
    within_a_minute(async {
        let market = Market::start().await;
        let node = market
            .node(|settings| {
                settings.credit_window = WINDOW;
                settings.voucher_timeout = Duration::from_millis(300);
                settings.slots = 32;
            })
            .await;
        let consumer = market.consumer(2).await;
        let jobs = (0..=CHUNKS).map(|chunks| {
            let (consumer, node) = (&consumer, &node);
            async move {
                let paid = consumer.channel(node.account(), LIMIT).await;
                (chunks, stop_paying_after(consumer, node, paid, chunks).await)
            }
        });
        let mut paid_in_all = Credits::ZERO;
        for (chunks, (left_unpaid, unpaid_max)) in join_all(jobs).await {
            assert!(
                unpaid_max <= WINDOW,
                "after {chunks} chunks: {unpaid_max} were out"
            );
            assert!(
                left_unpaid <= WINDOW,
                "after {chunks} chunks: {left_unpaid} are lost"
            );
            // Far from the end the provider does extend the window: less a chunk, and what input may still cost.
            if chunks < 10 {
                assert!(
                    left_unpaid >= Credits::micro(4_000),
                    "after {chunks} chunks: only {left_unpaid} extended"
                );
            }
            paid_in_all = paid_in_all
                .checked_add(Credits::micro(5 + 1_000 * CHUNKS as u32).min(Credits::micro(u32::MAX)))
                .unwrap();
        }
        let redeemed = node.redeem_now().await.unwrap();
        assert!(redeemed.paid > Credits::ZERO && redeemed.paid <= paid_in_all);
        node.shutdown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_killed_at_any_chunk_owes_at_most_the_window() {
    within_a_minute(async {
        let market = Market::start().await;
        let node = market.node(|settings| settings.credit_window = WINDOW).await;
        let consumer = market.consumer(2).await;
        for killed_at in 1..=CHUNKS {
            let Paid { ticket, mut channel } = consumer.channel(node.account(), LIMIT).await;
            let script = format!("say {CHUNKS}");
            let (mut stream, request_id) = consumer.begin(&node, &ticket, &Ask::script(&script)).await;
            let (mut received, mut owed) = (0, Credits::ZERO);
            while received < killed_at {
                match stream.receive(PATIENCE).await.unwrap() {
                    ProviderFrame::Chunk(chunk) => {
                        received += 1;
                        owed = owe(&mut channel, owed, &chunk.meter);
                        // Pays every third chunk, as a consumer that waits for a part of the window does.
                        if received % 3 == 0 {
                            pay(&mut stream, &mut channel, &request_id).await;
                        }
                    }
                    ProviderFrame::Accepted(_) => {}
                    other => panic!("{other:?}"),
                }
            }
            drop(stream);
            let lost = owed.checked_sub(channel.promised()).unwrap();
            assert!(lost <= WINDOW, "killed at chunk {killed_at}: {lost}");
        }
        node.shutdown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_owes_the_window_gets_no_further_job() {
    within_a_minute(async {
        let market = Market::start().await;
        let node = market
            .node(|settings| {
                settings.credit_window = WINDOW;
                settings.voucher_timeout = Duration::from_millis(100);
            })
            .await;
        let consumer = market.consumer(2).await;
        let paid = consumer.channel(node.account(), LIMIT).await;
        let ticket = paid.ticket.clone();
        stop_paying_after(&consumer, &node, paid, 0).await;
        let refused = consumer.refusal(&node, &ticket, &Ask::script("say 1")).await;
        assert_eq!(refused.code, RefusalCode::ChannelExhausted);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vouchers_outlive_a_coordinator_that_is_away_and_a_restart_of_the_node() {
    within_a_minute(async {
        let mut market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let answer = consumer.ask(&node, &mut paid, &Ask::script("say 10")).await;
        assert!(answer.outcome.result.is_ok());

        let port = market
            .coordinator
            .http_url()
            .rsplit(':')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let mut settings = market.settings();
        market.coordinator.shutdown().await.unwrap();
        assert!(node.redeem_now().await.is_err());
        assert_eq!(node.earnings().pending, paid.channel.promised());
        node.shutdown().await.unwrap();

        market.coordinator = start_coordinator(market.folder.path(), port).await;
        settings.coordinator = market.coordinator.http_url();
        let node = market.start_node(settings).await.unwrap();
        node.joined().await.unwrap();
        assert_eq!(node.earnings().pending, paid.channel.promised());
        // The channel goes on where it was: the node shows the voucher that it had kept.
        let answer = consumer.ask(&node, &mut paid, &Ask::script("say 10")).await;
        let shown = answer.accepted.unwrap().highest_voucher.unwrap();
        assert_eq!(shown.content_unchecked().cumulative, Credits::micro(10_005));
        assert_eq!(paid.channel.promised(), Credits::micro(20_010));
        assert_eq!(node.redeem_now().await.unwrap().paid, Credits::micro(20_010));
        node.shutdown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_whose_answer_was_lost_is_fetched() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        consumer.ask(&node, &mut paid, &Ask::script("say 10")).await;
        // Anyone may hand in a voucher; the node hears only that there is nothing left to do.
        let request_id = RequestId::from_random([1; 16]);
        let voucher = paid.channel.reconcile(None, &request_id).unwrap().unwrap();
        consumer.client.settle(&[voucher]).await.unwrap();
        let redeemed = node.redeem_now().await.unwrap();
        assert_eq!((redeemed.vouchers, redeemed.paid), (1, Credits::ZERO));
        let earnings = node.earnings();
        assert_eq!((earnings.total.receipts, earnings.pending), (1, Credits::ZERO));
        assert_eq!(
            earnings.total.earned.checked_add(earnings.total.fee).unwrap(),
            paid.channel.promised()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_refused_for_good_is_written_off_and_the_others_are_paid() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let node_key = gristmill_transport::key_file::load(&market.folder.path().join("node/identity.key"));
        let node_client = gristmill_transport::CoordinatorClient::new(
            &market.coordinator.http_url(),
            None,
            node_key.unwrap().unwrap(),
            crate::market::clock(),
        );
        let mut lost = consumer.channel(node.account(), LIMIT).await;
        let mut good = consumer.channel(node.account(), LIMIT).await;
        consumer.ask(&node, &mut lost, &Ask::script("say 3")).await;
        consumer.ask(&node, &mut good, &Ask::script("say 4")).await;
        node_client
            .unwrap()
            .close_channel(lost.channel.id())
            .await
            .unwrap();
        let redeemed = node.redeem_now().await.unwrap();
        assert_eq!((redeemed.refused, redeemed.paid), (1, good.channel.promised()));
        let earnings = node.earnings();
        assert_eq!(
            (earnings.lost, earnings.pending),
            (lost.channel.promised(), Credits::ZERO)
        );
        assert_eq!(
            node.redeem_now().await.unwrap().vouchers,
            0,
            "it is not handed in again"
        );
    })
    .await;
}
