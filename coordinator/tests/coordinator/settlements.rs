//! Vouchers in every order and quality, and receipts that anyone can check.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gristmill_protocol::codec;
use gristmill_protocol::coordinator_api::{
    JwkSet, SettleAnswer, SettleRequest, SettlementResult, voucher_text,
};
use gristmill_protocol::credits::Credits;
use gristmill_protocol::identity::{AccountId, Signature};
use gristmill_protocol::tokens::ReceiptClaims;

use crate::harness::{Account, Network, credits};

/// What became of each voucher, in short.
fn outcomes(answer: &SettleAnswer) -> Vec<String> {
    let outcome = |result: &SettlementResult| match result {
        SettlementResult::Settled { settled, .. } => format!("settled {}", settled.microcredits()),
        SettlementResult::Unchanged { settled, .. } => format!("unchanged {}", settled.microcredits()),
        SettlementResult::Refused { code, .. } => code.clone(),
    };
    answer.results.iter().map(outcome).collect()
}

#[tokio::test]
async fn vouchers_settle_in_any_order_and_repeated() {
    let mut network = Network::start().await;
    let (consumer, provider) = (network.account_with(10).await, Account::new());
    let channel = consumer.open_to(&network, &provider, 4).await;
    let vouchers: Vec<_> = [100, 300, 200]
        .map(|amount| consumer.voucher(channel, amount))
        .into();
    let answer = provider.settle(&network, &vouchers).await;
    assert_eq!(outcomes(&answer), ["settled 100", "settled 300", "unchanged 300"]);
    // Anyone may hand in vouchers, as late and as often as they like.
    let answer = Account::new().settle(&network, &vouchers).await;
    assert_eq!(outcomes(&answer), ["unchanged 300"; 3]);
    let answer = Account::new()
        .settle(&network, &[consumer.voucher(channel, 4_000_000)])
        .await;
    assert_eq!(outcomes(&answer), ["settled 4000000"]);
    assert_eq!(consumer.view(&network).await.held, Credits::ZERO);
    let totals = network.totals_at_the_end().await;
    assert_eq!(
        (totals.settled, totals.fees),
        (credits(4), Credits::micro(80_000))
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_voucher_is_told_for_each_and_hurts_no_other() {
    let network = Network::start().await;
    let (consumer, provider, forger) = (network.account_with(10).await, Account::new(), Account::new());
    let channel = consumer.open_to(&network, &provider, 1).await;
    let unknown = gristmill_protocol::ids::ChannelId::from_bytes([9; 16]);
    let mut forged = codec::encode(&consumer.voucher(channel, 500));
    *forged.last_mut().unwrap() ^= 1;
    let text = |voucher| voucher_text(&voucher);
    let vouchers = vec![
        text(consumer.voucher(channel, 1_000_001)),
        text(forger.voucher(channel, 10)),
        text(consumer.voucher(unknown, 10)),
        URL_SAFE_NO_PAD.encode(forged),
        "not a voucher!".to_owned(),
        String::new(),
        "A".repeat(10_000),
        text(consumer.voucher(channel, 0)),
        text(consumer.voucher(channel, 1_000_000)),
    ];
    let answer: SettleAnswer = provider
        .post(&network, "/v1/settlements", &SettleRequest { vouchers })
        .await
        .ok();
    let expected = [
        "above_limit",
        "wrong_signer",
        "unknown_channel",
        "invalid_signature",
        "invalid_voucher",
        "invalid_voucher",
        "invalid_voucher",
        "zero_amount",
        "settled 1000000",
    ];
    assert_eq!(outcomes(&answer), expected);
}

#[tokio::test]
async fn a_thousand_vouchers_are_one_call_and_one_more_is_too_many() {
    let mut network = Network::start().await;
    let (consumer, provider) = (network.account_with(100).await, Account::new());
    let mut vouchers = Vec::new();
    for _ in 0..10 {
        let channel = consumer.open_to(&network, &provider, 1).await;
        vouchers.extend((1..=100).map(|step| consumer.voucher(channel, step * 1_000)));
    }
    vouchers.push(vouchers[0].clone());
    let texts = |vouchers: &[_]| SettleRequest {
        vouchers: vouchers.iter().map(voucher_text).collect(),
    };
    let too_many = provider
        .post(&network, "/v1/settlements", &texts(&vouchers))
        .await;
    too_many.assert_refused(400, "invalid_request");
    let answer = provider.settle(&network, &vouchers[..1_000]).await;
    assert!(
        outcomes(&answer)
            .iter()
            .all(|outcome| outcome.starts_with("settled "))
    );
    assert_eq!(network.totals_at_the_end().await.settled, credits(1));
}

#[tokio::test]
async fn receipts_come_in_pages_and_with_the_same_bytes_for_ever() {
    let mut network = Network::start().await;
    let (consumer, provider) = (network.account_with(10).await, Account::new());
    let channel = consumer.open_to(&network, &provider, 4).await;
    let vouchers: Vec<_> = (1..=5)
        .map(|step| consumer.voucher(channel, step * 1_000))
        .collect();
    let answer = provider.settle(&network, &vouchers).await;
    let mut given: Vec<String> = answer
        .results
        .into_iter()
        .map(|result| match result {
            SettlementResult::Settled { receipt, .. } => receipt,
            other => panic!("{other:?}"),
        })
        .collect();
    given.reverse();
    for account in [&consumer, &provider] {
        let all = account.receipts(&network, "").await;
        assert_eq!((&all.receipts, all.next), (&given, None));
        let (mut pages, mut query) = (Vec::new(), "?limit=2".to_owned());
        loop {
            let page = account.receipts(&network, &query).await;
            pages.extend(page.receipts);
            match page.next {
                Some(next) => query = format!("?before={next}&limit=2"),
                None => break,
            }
        }
        assert_eq!(pages, given);
        let exact = account.receipts(&network, "?limit=5").await;
        assert_eq!((exact.receipts.len(), exact.next), (5, None));
    }
    assert!(Account::new().receipts(&network, "").await.receipts.is_empty());
    for query in ["?limit=0", "?limit=1001", "?limit=x", "?befor=1", "?before=-1"] {
        let reply = provider.get(&network, &format!("/v1/receipts{query}")).await;
        reply.assert_refused(400, "invalid_request");
    }
    assert!(provider.receipts(&network, "?limit=1000").await.next.is_none());
    network.clock.advance(1_000_000);
    network.stop().await;
    network.start_again().await;
    assert_eq!(provider.receipts(&network, "").await.receipts, given);
}

/// Checks a JWS as any JOSE library does, with the key of the JWKS and nothing of ours but Ed25519.
fn verify_with_jwks(token: &str, keys: &JwkSet) -> serde_json::Value {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let part = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&part(header)).unwrap();
    assert_eq!(
        (&header["alg"], &header["typ"]),
        (&"EdDSA".into(), &"gristmill-receipt+jwt".into())
    );
    let key = keys
        .keys
        .iter()
        .find(|key| header["kid"] == key.kid.as_str())
        .unwrap();
    assert_eq!(
        (key.kty.as_str(), key.crv.as_str(), key.key_use.as_str()),
        ("OKP", "Ed25519", "sig")
    );
    let public = AccountId::from_public_key(part(&key.x).try_into().unwrap());
    let signature = Signature::from_bytes(part(signature).try_into().unwrap());
    public.verify_bytes(signed.as_bytes(), &signature).unwrap();
    serde_json::from_slice(&part(payload)).unwrap()
}

#[tokio::test]
async fn a_receipt_proves_the_payment_to_both_parties() {
    let network = Network::start().await;
    let (consumer, provider) = (network.account_with(10).await, Account::new());
    let channel = consumer.open_to(&network, &provider, 4).await;
    let vouchers = [
        consumer.voucher(channel, 1_000_000),
        consumer.voucher(channel, 1_500_000),
    ];
    provider.settle(&network, &vouchers).await;
    let receipts = consumer.receipts(&network, "").await.receipts;
    let keys: JwkSet = network.get("/.well-known/jwks.json").await;
    let payload = verify_with_jwks(&receipts[0], &keys);
    assert_eq!(
        (&payload["paid"], &payload["settled"], &payload["fee"]),
        (&500_000.into(), &1_500_000.into(), &10_000.into())
    );
    let mut names = BTreeSet::new();
    for party in [consumer.id(), provider.id()] {
        for receipt in &receipts {
            let claims =
                ReceiptClaims::verify(receipt, &network.coordinator(), &party, network.clock.now_ms())
                    .unwrap();
            assert_eq!(
                (claims.consumer, claims.sub, claims.channel),
                (consumer.id(), provider.id(), channel)
            );
            assert_eq!(claims.request_id, vouchers[0].content_unchecked().request_id);
            assert_eq!(claims.record_hash.len(), 64);
            names.insert(claims.jti);
        }
    }
    assert_eq!(names.len(), 2);
}
