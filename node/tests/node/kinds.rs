//! Every kind of job through a whole node: plain completions, and what is passed through as it is.

use gristmill_node::Settings;
use gristmill_protocol::credits::Credits;
use gristmill_protocol::job::{AnswerHead, JobKind};
use gristmill_protocol::session::consumer::ConsumerFailure;
use gristmill_protocol::trace::TraceParent;
use gristmill_protocol::usage::{Price, Unit, Usage};
use serde_json::{Value, json};

use crate::consumer::{Answer, Ask};
use crate::market::{Market, within_a_minute};
use crate::server::{IMAGE_MODEL, MODEL, RERANK_MODEL, SOUND, SPEECH_MODEL, TRANSCRIPTION_MODEL};

const LIMIT: Credits = Credits::micro(10_000_000);
const FORM: &str = "multipart/form-data; boundary=b";

/// A price in everything that is counted: seven microcredits a job, one a byte that comes, two a byte that goes.
fn whole_price() -> Price {
    let mut price = crate::market::price();
    price.constant = Credits::micro(7);
    price.per_million.insert(Unit::ByteIn, Credits::micro(1_000_000));
    price.per_million.insert(Unit::ByteOut, Credits::micro(2_000_000));
    price
}

fn with_whole_price(settings: &mut Settings) {
    settings.prices.default = whole_price();
}

fn ask(kind: JobKind, model: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Ask {
    Ask {
        kind,
        model: model.into(),
        content_type: content_type.into(),
        body: body.into(),
        price_cap: whole_price(),
        ..Ask::script("")
    }
}

fn speech(input: &str) -> Ask {
    let body = format!("{{ \"model\": \"{SPEECH_MODEL}\", \"input\": \"{input}\", \"speed\": 1.50 }}");
    ask(JobKind::AudioSpeech, SPEECH_MODEL, "", body)
}

fn form(model: &str) -> Vec<u8> {
    let head = format!("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n");
    let file = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\0\xff\r\n--b--\r\n";
    [head.as_bytes(), file].concat()
}

/// The media type and the bytes of an answer that was passed through.
fn passed(answer: &Answer) -> (String, Vec<u8>) {
    let head: AnswerHead = serde_json::from_slice(&answer.raw[0]).unwrap();
    (head.content_type, answer.raw[1..].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_completions_stream_and_pay_by_the_token() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let body = json!({"model": "another", "prompt": "4", "max_tokens": 4, "logprobs": null});
        let asked = ask(JobKind::Completions, MODEL, "", body.to_string());
        let answer = consumer.ask(&node, &mut paid, &asked).await;
        let delivery = answer.outcome.result.as_ref().unwrap().content_unchecked();
        assert_eq!(delivery.usage, Usage::tokens(2, 4));
        assert_eq!(answer.text(), "word1 word2 word3 word4 ");
        assert_eq!(answer.outcome.cost, Credits::micro(2 + 4_000));
        for message in &answer.messages {
            assert_eq!(
                (&message["object"], &message["model"]),
                (&json!("text_completion"), &json!(MODEL))
            );
        }
        let sent = market.server.seen.bodies.lock().unwrap()[0].clone();
        assert_eq!((&sent["model"], &sent["prompt"]), (&json!(MODEL), &json!("4")));
        assert_eq!(sent["stream_options"]["include_usage"], true);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_through_arrives_byte_for_byte_and_pays_by_bytes() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(with_whole_price).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let rerank = format!("{{\"model\":\"{RERANK_MODEL}\",\"query\":\"q\",\"documents\":[\"a\"]}}");
        let image = format!("{{\"model\":\"{IMAGE_MODEL}\",\"prompt\":\"a mill\"}}");
        let cases = [
            (speech("Grüße"), "application/json", "audio/mpeg"),
            (
                ask(
                    JobKind::AudioTranscriptions,
                    TRANSCRIPTION_MODEL,
                    FORM,
                    form(TRANSCRIPTION_MODEL),
                ),
                FORM,
                "application/json",
            ),
            (
                ask(JobKind::Rerank, RERANK_MODEL, "", rerank),
                "application/json",
                "application/json",
            ),
            (
                ask(JobKind::ImageGenerations, IMAGE_MODEL, "application/json", image),
                "application/json",
                "application/json",
            ),
        ];
        for (asked, sent_type, answer_type) in cases {
            let answer = consumer.ask(&node, &mut paid, &asked).await;
            let delivery = answer.outcome.result.as_ref().unwrap().content_unchecked();
            let (content_type, bytes) = passed(&answer);
            assert_eq!(content_type, answer_type, "{}", asked.kind);
            let (bytes_in, bytes_out) = (asked.body.len() as u64, bytes.len() as u64);
            let counted = [Unit::ByteIn, Unit::ByteOut].map(|unit| delivery.usage.count(unit));
            assert_eq!(counted, [bytes_in, bytes_out], "{}", asked.kind);
            assert_eq!(delivery.usage.count(Unit::InputToken), 0);
            assert_eq!(answer.outcome.cost.microcredits(), 7 + bytes_in + 2 * bytes_out);
            if asked.kind == JobKind::AudioSpeech {
                assert_eq!(bytes, SOUND.concat());
            } else {
                assert!(serde_json::from_slice::<Value>(&bytes).unwrap().is_object());
            }
            let seen = market.server.seen.passed.lock().unwrap().pop().unwrap();
            assert_eq!(seen.path, format!("/v1{}", asked.kind.path()));
            assert_eq!(
                (seen.content_type.as_str(), &seen.body[..]),
                (sent_type, &asked.body[..])
            );
        }
    })
    .await;
}

/// Ten seconds of sound are more bytes than anybody would pay tokens for.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_no_long_prompt() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let sound = vec![b'x'; 200_000];
        let body =
            String::from_utf8(form(TRANSCRIPTION_MODEL).iter().map(|byte| byte & 0x7f).collect()).unwrap();
        let body = body.replace("RIFF", std::str::from_utf8(&sound).unwrap());
        let asked = ask(JobKind::AudioTranscriptions, TRANSCRIPTION_MODEL, FORM, body);
        let answer = consumer.ask(&node, &mut paid, &asked).await;
        assert!(answer.outcome.result.is_ok(), "{:?}", answer.outcome.result);
        assert_eq!(
            market.server.seen.passed.lock().unwrap()[0].body.len(),
            asked.body.len()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_gets_another_model_than_the_one_that_is_paid_for() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(with_whole_price).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let dearer = ask(
            JobKind::AudioSpeech,
            SPEECH_MODEL,
            "",
            "{\"model\":\"dearer\",\"Model\":\"dearest\",\"input\":\"a\"}",
        );
        consumer.ask(&node, &mut paid, &dearer).await;
        let seen = market.server.seen.passed.lock().unwrap().pop().unwrap();
        let seen: Value = serde_json::from_slice(&seen.body).unwrap();
        assert_eq!(seen, json!({"model": SPEECH_MODEL, "input": "a"}));
        let dearer = ask(
            JobKind::AudioTranscriptions,
            TRANSCRIPTION_MODEL,
            FORM,
            form("dearer"),
        );
        consumer.ask(&node, &mut paid, &dearer).await;
        let seen = market.server.seen.passed.lock().unwrap().pop().unwrap();
        assert_eq!(&seen.body[..], form(TRANSCRIPTION_MODEL));
        let twice = ask(
            JobKind::AudioSpeech,
            SPEECH_MODEL,
            "",
            format!("{{\"model\":\"{SPEECH_MODEL}\",\"model\":\"dearer\"}}"),
        );
        let answer = consumer.ask(&node, &mut paid, &twice).await;
        assert_eq!(
            (answer.failed().status, answer.failed().param.as_deref()),
            (400, Some("model"))
        );
        let asked = ask(
            JobKind::AudioTranscriptions,
            TRANSCRIPTION_MODEL,
            "",
            form(TRANSCRIPTION_MODEL),
        );
        let answer = consumer.ask(&node, &mut paid, &asked).await;
        assert_eq!(answer.failed().status, 400);
        assert!(market.server.seen.passed.lock().unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_what_is_passed_through_have_a_reason_and_what_came_is_paid() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(with_whole_price).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let answer = consumer.ask(&node, &mut paid, &speech("refuse")).await;
        let failed = answer.failed();
        assert_eq!(
            (failed.status, failed.code.as_str(), failed.param.as_deref()),
            (400, "BadRequestError", Some("voice"))
        );
        assert_eq!(failed.reason, "no such voice");
        let answer = consumer.ask(&node, &mut paid, &speech("silence")).await;
        assert_eq!(answer.failed().status, 502);
        assert!(
            answer.failed().reason.contains("empty"),
            "{}",
            answer.failed().reason
        );
        let asked = speech("break");
        let answer = consumer.ask(&node, &mut paid, &asked).await;
        assert_eq!(
            (answer.failed().status, answer.failed().code.as_str()),
            (502, "provider_failed")
        );
        let delivered: usize = answer.raw.iter().skip(1).map(Vec::len).sum();
        let due = 7 + asked.body.len() as u64 + 2 * delivered as u64;
        assert_eq!(answer.outcome.cost.microcredits(), due);
        // A consumer that has heard enough stops the upstream.
        let answer = consumer.ask_until(&node, &mut paid, &speech("hang"), 2).await;
        assert_eq!(answer.outcome.result, Err(ConsumerFailure::Cancelled));
        market.server.until_left("hang").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_and_the_id_of_a_request_reach_the_upstream() {
    within_a_minute(async {
        let market = Market::start().await;
        let (node, consumer) = (market.node(|_| {}).await, market.consumer(2).await);
        let mut paid = consumer.channel(node.account(), LIMIT).await;
        let caller: TraceParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            .parse()
            .unwrap();
        let traced = Ask {
            trace_parent: Some(caller),
            ..Ask::script("say 1")
        };
        let answer = consumer.ask(&node, &mut paid, &traced).await;
        let request_id = answer
            .outcome
            .result
            .unwrap()
            .content_unchecked()
            .request_id
            .clone();
        consumer.ask(&node, &mut paid, &Ask::script("say 1")).await;
        let seen = market.server.seen.headers.lock().unwrap();
        assert_eq!(seen[0]["x-request-id"], request_id.as_str());
        let position: TraceParent = seen[0]["traceparent"].to_str().unwrap().parse().unwrap();
        assert_eq!((position.trace, position.is_sampled), (caller.trace, true));
        assert_ne!(position.parent, caller.parent, "the node is a span of its own");
        assert!(seen[1].get("traceparent").is_none(), "no trace is made up");
    })
    .await;
}
