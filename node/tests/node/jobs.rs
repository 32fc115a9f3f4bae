//! Jobs that go well, and jobs that don't.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::{ConsumerFrame, JobKind, ProviderFrame};
use gristmill_protocol::session::consumer::ConsumerFailure;
use gristmill_protocol::usage::Usage;
use serde_json::json;

use crate::consumer::{Ask, PATIENCE};
use crate::market::{Market, STARTER, within_a_minute};
use crate::server::EMBEDDINGS_MODEL;

const LIMIT: Credits = Credits::micro(10_000_000);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_and_pays() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let answer = consumer.ask(&node, &mut paid, &Ask::script("say 40")).await;

        let delivery = answer
            .outcome
            .result
            .as_ref()
            .unwrap()
            .verify_from(&node.account())
            .unwrap();
        assert_eq!(delivery.usage, Usage::tokens(5, 40));
        assert_eq!(
            answer.text(),
            (1..=40).map(|place| format!("word{place} ")).collect::<String>()
        );
        let expected = Credits::micro(5 + 40_000);
        assert_eq!(
            (answer.outcome.cost, paid.channel.promised()),
            (expected, expected)
        );
        for message in &answer.messages {
            assert_eq!(
                (message["model"].as_str(), message["object"].as_str()),
                (Some("scripted"), Some("chat.completion.chunk"))
            );
            assert!(message.get("error").is_none());
        }
        let last = answer.messages.last().unwrap();
        assert_eq!(
            (&last["choices"], &last["usage"]["completion_tokens"]),
            (&json!([]), &json!(40))
        );

        let sent = market.server.seen.bodies.lock().unwrap()[0].clone();
        assert_eq!(
            (&sent["model"], &sent["seed"], &sent["stream"]),
            (&json!("scripted"), &json!(7), &json!(true))
        );

        let redeemed = node.redeem_now().await.unwrap();
        assert_eq!(
            (redeemed.vouchers, redeemed.paid, redeemed.refused),
            (1, expected, 0)
        );
        let earned = expected.checked_sub(redeemed.fee).unwrap();
        let earnings = node.earnings();
        assert_eq!(
            (earnings.total.earned, earnings.total.receipts, earnings.pending),
            (earned, 1, Credits::ZERO)
        );
        assert_eq!(node.redeem_now().await.unwrap().vouchers, 0);
        let view = consumer.client.account_view().await.unwrap();
        assert_eq!(
            view.available.checked_add(view.held).unwrap(),
            STARTER.checked_sub(expected).unwrap()
        );
        node.shutdown().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_share_a_channel_at_once() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let mut streams = Vec::new();
        for _ in 0..4 {
            let (mut stream, _) = consumer.begin(&node, &paid.ticket, &Ask::script("hang 1")).await;
            assert!(matches!(
                stream.receive(PATIENCE).await.unwrap(),
                ProviderFrame::Accepted(_)
            ));
            streams.push(stream);
        }
        market.server.until_asked(4).await;
        // A fifth waits, and runs when one of them makes room.
        let fifth = Ask::script("say 5");
        let waits = consumer.ask(&node, &mut paid, &fifth);
        tokio::pin!(waits);
        drop(streams.pop());
        let answer = waits.await;
        assert!(answer.accepted.unwrap().position <= 1);
        assert!(answer.outcome.result.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_passed_through() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let ask = Ask {
            kind: JobKind::Embeddings,
            model: EMBEDDINGS_MODEL.into(),
            body: json!({"input": "hello"}).to_string().into_bytes(),
            ..Ask::script("")
        };
        let answer = consumer.ask(&node, &mut paid, &ask).await;
        assert_eq!(
            answer.outcome.result.unwrap().content_unchecked().usage,
            Usage::tokens(3, 0)
        );
        assert_eq!(answer.messages.len(), 1);
        assert_eq!(answer.messages[0]["data"][0]["embedding"], json!([0.5, -0.5]));
        assert_eq!(answer.messages[0]["model"], EMBEDDINGS_MODEL);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_upstream_reach_the_program_and_what_came_before_is_paid() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        for (script, status, code, says, tokens) in [
            ("break 3", 502, "provider_failed", "broke off", 3),
            ("unfinished 4", 502, "provider_failed", "finish_reason", 4),
            ("error 2", 500, "provider_failed", "out of memory", 2),
            ("refuse 422", 422, "invalid_request_error", "too hot", 0),
            ("refuse 401", 502, "provider_failed", "401", 0),
            ("redirect", 502, "provider_failed", "307", 0),
            ("html", 502, "provider_failed", "without an answer", 0),
        ] {
            let before = paid.channel.promised();
            let answer = consumer.ask(&node, &mut paid, &Ask::script(script)).await;
            let failed = answer.failed();
            assert_eq!((failed.status, failed.code.as_str()), (status, code), "{script}");
            assert!(failed.reason.contains(says), "{script}: {}", failed.reason);
            let paid_for = paid.channel.promised().checked_sub(before).unwrap();
            let expected = if tokens == 0 { 0 } else { 5 + 1_000 * tokens };
            assert_eq!(paid_for, Credits::micro(expected), "{script}");
        }
        let answer = consumer.ask(&node, &mut paid, &Ask::script("undone 3")).await;
        assert!(
            answer.outcome.result.is_ok(),
            "a missing [DONE] after a finish_reason is no failure"
        );
        let answer = consumer
            .ask(
                &node,
                &mut paid,
                &Ask {
                    body: b"{".to_vec(),
                    ..Ask::script("")
                },
            )
            .await;
        assert_eq!(
            (answer.failed().status, answer.failed().code.as_str()),
            (400, "invalid_request_error")
        );
        let promised = paid.channel.promised();
        assert_eq!(node.redeem_now().await.unwrap().paid, promised);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_gone_is_said_so() {
    within_a_minute(async {
        let mut market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        market.server = crate::server::Server::start().await;
        let answer = consumer.ask(&node, &mut paid, &Ask::script("say 1")).await;
        assert_eq!(
            (answer.failed().status, answer.failed().code.as_str()),
            (503, "provider_failed")
        );
    })
    .await;
}

/// The upstream says nothing any more, so it can only notice because the node closes the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_stops_the_upstream_and_frees_the_slot() {
    within_a_minute(async {
        let market = Market::start().await;
        let one_slot =
            |settings: &mut gristmill_node::Settings| (settings.slots, settings.queue_length) = (1, 0);
        let (node, consumer) = (market.node(one_slot).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let answer = consumer
            .ask_until(&node, &mut paid, &Ask::script("hang 2"), 2)
            .await;
        assert_eq!(answer.outcome.result, Err(ConsumerFailure::Cancelled));
        market.server.until_left("hang 2").await;
        // Leaving without a word does the same.
        let (mut stream, _) = consumer
            .begin(&node, &paid.ticket, &Ask::script("endless 1"))
            .await;
        while !matches!(stream.receive(PATIENCE).await.unwrap(), ProviderFrame::Chunk(_)) {}
        drop(stream);
        market.server.until_left("endless 1").await;
        let answer = ask_when_free(&market, &node, &consumer, &mut paid).await;
        assert!(answer.outcome.result.is_ok());
    })
    .await;
}

/// The slot is free a moment after the upstream noticed.
async fn ask_when_free(
    _market: &Market,
    node: &gristmill_node::RunningNode,
    consumer: &crate::consumer::Consumer,
    paid: &mut crate::consumer::Paid,
) -> crate::consumer::Answer {
    loop {
        let answer = consumer.ask(node, paid, &Ask::script("say 1")).await;
        if !matches!(answer.outcome.result, Err(ConsumerFailure::Refused(_))) {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_protocol_harm_nobody() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        for frame in [ConsumerFrame::Cancel, ConsumerFrame::BodyPart(vec![1; 10])] {
            let mut stream = consumer.open(&node).await;
            stream.send(&frame, PATIENCE).await.unwrap();
            assert!(stream.receive(PATIENCE).await.is_err());
        }
        // More body than was announced, and a second beginning on one stream.
        let (mut stream, _) = consumer.begin(&node, &paid.ticket, &Ask::script("hang 1")).await;
        stream
            .send(&ConsumerFrame::BodyPart(vec![1; 10]), PATIENCE)
            .await
            .unwrap();
        let failed = loop {
            match stream.receive(PATIENCE).await.unwrap() {
                ProviderFrame::Failed(failed) => break failed,
                ProviderFrame::Accepted(_) | ProviderFrame::Chunk(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(failed.code, "invalid_request");
        drop(stream);
        let answer = consumer.ask(&node, &mut paid, &Ask::script("say 2")).await;
        assert!(answer.outcome.result.is_ok());
    })
    .await;
}
