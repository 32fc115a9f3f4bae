//! Jobs that are not taken, each with its reason.

use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::Keypair;
use gristmill_protocol::job::{ProviderFrame, RefusalCode};
use gristmill_protocol::jws::{self, Audience};
use gristmill_protocol::tokens::TicketClaims;
use gristmill_protocol::usage::Price;

use crate::consumer::{Ask, PATIENCE};
use crate::market::{Market, OUTPUT_PRICE, clock, within_a_minute};

const LIMIT: Credits = Credits::micro(1_000_000);

#[tokio::test(flavor = "multi_thread")]
async fn tickets_that_do_not_hold_are_refused_with_the_reason() {
    within_a_minute(async {
        let market = Market::start().await;
        let node = market.node(|_| {}).await;
        let (consumer, thief) = (market.consumer(2).await, market.consumer(3).await);
        let paid = consumer.channel(node.account(), LIMIT).await;
        let (honest, coordinator) = (Ask::script("say 1"), market.coordinator_key());
        let now_ms = clock()();
        let claims =
            TicketClaims::verify(&paid.ticket, &coordinator.account(), &node.account(), now_ms).unwrap();

        let refused = thief.refusal(&node, &paid.ticket, &honest).await;
        assert_eq!(refused.code, RefusalCode::NotTicketHolder);

        let short = consumer.channel_for(node.account(), LIMIT, 5_000).await;
        let elsewhere = consumer.channel(thief.account(), LIMIT).await;
        let expired = TicketClaims {
            exp: now_ms / 1_000 - 60,
            redeem_by_ms: now_ms - 60_000,
            ..claims.clone()
        };
        let stranger = Keypair::from_secret(&[99; 32]);
        let foreign = TicketClaims {
            iss: stranger.account(),
            ..claims.clone()
        };
        let forged = TicketClaims {
            aud: Audience::One(node.account()),
            limit: Credits::MAX,
            ..claims
        };
        for (ticket, says) in [
            (short.ticket, "another channel"),
            (elsewhere.ticket, "for"),
            (jws::sign(&expired, &coordinator), "expired"),
            (jws::sign(&foreign, &stranger), "not signed by"),
            (jws::sign(&forged, &stranger), "not signed by"),
            ("nonsense".to_owned(), "malformed"),
        ] {
            let refused = consumer.refusal(&node, &ticket, &honest).await;
            assert_eq!(refused.code, RefusalCode::InvalidTicket, "{says}");
            assert!(
                refused.reason.contains(says),
                "'{}' does not say '{says}'",
                refused.reason
            );
        }
        assert!(
            market.server.seen.bodies.lock().unwrap().is_empty(),
            "nothing reached the upstream"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_on_offer_is_refused() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let paid = consumer.channel(node.account(), LIMIT).await;
        let honest = Ask::script("say 1");
        let dear = Price::per_million_tokens(
            Credits::micro(1_000_000),
            OUTPUT_PRICE.checked_sub(Credits::micro(1)).unwrap(),
        );
        for (ask, code, says) in [
            (
                Ask {
                    model: "unknown".into(),
                    ..honest.clone()
                },
                RefusalCode::ModelNotFound,
                "scripted",
            ),
            (
                Ask {
                    price_cap: dear,
                    ..honest.clone()
                },
                RefusalCode::PriceAboveCap,
                "cap",
            ),
            // A quarter of the window of 0.2 credits buys 50,000 input tokens.
            (
                Ask {
                    body: vec![b' '; 50_000],
                    ..honest.clone()
                },
                RefusalCode::BodyTooLarge,
                "prompt",
            ),
        ] {
            let refused = consumer.refusal(&node, &paid.ticket, &ask).await;
            assert_eq!(refused.code, code, "{}", refused.reason);
            assert!(refused.reason.contains(says), "{}", refused.reason);
        }
        let tiny = consumer.channel(node.account(), Credits::micro(10)).await;
        let refused = consumer.refusal(&node, &tiny.ticket, &honest).await;
        assert_eq!(refused.code, RefusalCode::ChannelExhausted);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_when_to_come_back() {
    within_a_minute(async {
        let market = Market::start().await;
        let full = |settings: &mut gristmill_node::Settings| (settings.slots, settings.queue_length) = (1, 1);
        let (node, consumer) = (market.node(full).await, market.consumer(2).await);
        let paid = consumer.channel(node.account(), LIMIT).await;
        let mut positions = Vec::new();
        let mut streams = Vec::new();
        for script in ["hang 1", "hang 2"] {
            let (mut stream, _) = consumer.begin(&node, &paid.ticket, &Ask::script(script)).await;
            match stream.receive(PATIENCE).await.unwrap() {
                ProviderFrame::Accepted(accepted) => positions.push(accepted.position),
                other => panic!("{other:?}"),
            }
            streams.push(stream);
        }
        assert_eq!(positions, [0, 1]);
        let refused = consumer.refusal(&node, &paid.ticket, &Ask::script("say 1")).await;
        assert_eq!(refused.code, RefusalCode::Busy);
        assert!(refused.retry_after_ms > 0);
        // The one that waits runs when the first one leaves.
        drop(streams.remove(0));
        while !matches!(
            streams[0].receive(PATIENCE).await.unwrap(),
            ProviderFrame::Chunk(_)
        ) {}
        drop(streams);
    })
    .await;
}
